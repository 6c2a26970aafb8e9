"""Thirty nights in a row, and what happened in them: each night's verdict, changes and messages are what the story
expects, and nothing else was written anywhere.

One command tells the story: ``pytest -s tests_meta/rehearsal/test_thirty_nights.py``, a line for each night.
Every night is an ordinary, unattended run of the same command against the world's site file. What people, upstream and
the machine do between the nights is done by git, HTTP, docker and the boot loader.
"""

from __future__ import annotations

import contextlib
import re
import sqlite3
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import date, timedelta
from pathlib import Path

import pytest

from tests_meta import people
from tests_meta.bare_commits import commit_file
from tests_meta.muster_runs import Ran
from tests_meta.parallel_worlds import SEEDED, ParallelWorld, leftovers
from tests_meta.people import Person, git
from tests_meta.world_view import WorldView

FIRST = date(2026, 6, 2)
KEPT = 8
ROSTER = """\
recipes = [
  { name = "n8n", enroll = false, known_red = { reason = "its app answers 502", until = 9999-12-31 } },
  { name = "hedgedoc", enroll = false },
  { name = "immich", enroll = true, known_red = { reason = "restore", until = 9999-12-31 } },
]
canaries = ["immich"]
deferred = []
"""
THE_TWENTIETH = '  { name = "mumble", enroll = true },\n]'
SICK_N8N, SICK_HEDGEDOC = "red-build:n8n", "red-build:hedgedoc"


@dataclass
class Town:
    """The world of the story, and what its people remember from one night to the next."""

    parallel_world: ParallelWorld
    folder: Path
    reports: Path
    kept: dict[str, str] = field(default_factory=dict)

    @property
    def world_view(self) -> WorldView:
        return WorldView(self.parallel_world.settings)


Event = Callable[[Town], object]


@dataclass(frozen=True)
class Night:
    """What happened since the last night, and what this one makes of it.

    `told` is what the forge's issues say anew: ``opened``, ``said`` (a comment), ``closed`` or ``reopened``, each with
    the finding's name. `changes` are the kinds of change that this night made, scratch things left out, and `asked` the
    repositories on which it posted ``!testme``.
    """

    happened: Event | None = None
    exit: int = 0
    verdict: str = "unchanged"
    changes: frozenset[str] = frozenset()
    told: frozenset[str] = frozenset()
    asked: frozenset[str] = frozenset()
    killed_at: str = ""
    hours_since: int = 24


def upstream_moves(town: Town) -> None:
    """Upstream's hedgedoc gets a commit."""
    bare = town.world_view.bare("hedgedoc", upstream=True)
    commit_file(bare, "notes.txt", git(bare, "rev-parse", "main"))


def somebody_overwrites_a_mirror(town: Town) -> None:
    """hedgedoc's mirror is force-pushed with something else."""
    town.kept["hedgedoc"] = town.world_view.refs("hedgedoc")["refs/heads/main"]
    (folder := town.folder / "overwrites").mkdir()
    person = Person(town.parallel_world, "hedgedoc", folder)
    git(person.folder, "checkout", "--quiet", "--orphan", "elsewhere")
    person.push()


def somebody_puts_it_back(town: Town) -> None:
    """Somebody who has a clone pushes what was there."""
    (folder := town.folder / "back").mkdir()
    person = Person(town.parallel_world, "hedgedoc", folder)
    git(
        person.folder,
        "fetch",
        "--quiet",
        str(town.world_view.bare("hedgedoc", upstream=True)),
        town.kept["hedgedoc"],
    )
    git(person.folder, "push", "--quiet", "--force", "origin", f"{town.kept['hedgedoc']}:main")


def hedgedoc_turns_red(town: Town) -> None:
    """Its app breaks, and somebody asks for a build."""
    town.parallel_world.start(SICK_N8N, SICK_HEDGEDOC)
    assert people.trigger_build(town.parallel_world.settings, "hedgedoc") == "failure"


def hedgedoc_is_mended(town: Town) -> None:
    town.parallel_world.start(SICK_N8N)
    assert people.trigger_build(town.parallel_world.settings, "hedgedoc") == "success"


def the_known_red_heals(town: Town) -> None:
    """n8n, which the roster excuses, works again."""
    town.parallel_world.start()
    assert people.trigger_build(town.parallel_world.settings, "n8n") == "success"


def somebody_takes_the_excuse_out(town: Town) -> None:
    text = re.sub(
        r'(name = "n8n", enroll = false), known_red = \{.*?\}', r"\1", town.parallel_world.roster.read_text()
    )
    town.parallel_world.roster.write_text(text)


def another_recipe_appears(town: Town) -> None:
    """One more line in the roster; its suite is in cc-ci already."""
    town.parallel_world.roster.write_text(with_the_twentieth(town.parallel_world.roster.read_text()))


def with_the_twentieth(roster: str) -> str:
    return roster.replace("\n]\n", f"\n{THE_TWENTIETH}\n", 1)


def the_host_reboots_into_an_old_generation(town: Town) -> None:
    town.kept["system"] = town.world_view.host()["running"]
    town.parallel_world.end()
    people.boot_an_older_generation(town.parallel_world.settings)
    town.parallel_world.start()
    assert town.world_view.host()["running"] != town.kept["system"]


def the_bridge_loses_one(town: Town) -> None:
    people.deploy_bridge_without(town.parallel_world, "mumble")


def quiet(verdict: str = "unchanged") -> Night:
    return Night(verdict=verdict)


FIRST_NIGHT = frozenset(
    {
        "sync-main",
        "sync-tags",
        "propose-suite",
        "describe-suite",
        "merge-suite",
        "enroll",
        "sync-checkout",
        "switch",
    }
)
ENROLLED = frozenset({"create-mirror", "sync-main", "sync-tags", "enroll", "sync-checkout", "switch"})
NIGHTS: tuple[Night, ...] = (
    Night(
        verdict="converged",
        changes=FIRST_NIGHT,
        asked=frozenset({"cc-ci", "immich"}),
        # The other suites that cc-ci holds are on no roster of these three.
        told=frozenset({"opened covered-but-unpolled"}),
    ),
    quiet(),
    quiet(),
    Night(upstream_moves, verdict="converged", changes=frozenset({"sync-main"})),
    quiet(),
    Night(somebody_overwrites_a_mirror, exit=1, verdict="failed", told=frozenset({"opened mirror-hedgedoc"})),
    Night(exit=1, verdict="failed"),
    Night(somebody_puts_it_back, told=frozenset({"said mirror-hedgedoc", "closed mirror-hedgedoc"})),
    quiet(),
    Night(hedgedoc_turns_red, exit=1, verdict="failed", told=frozenset({"opened new-red-hedgedoc"})),
    Night(exit=1, verdict="failed"),
    Night(hedgedoc_is_mended, told=frozenset({"said new-red-hedgedoc", "closed new-red-hedgedoc"})),
    Night(the_known_red_heals, exit=1, verdict="failed", told=frozenset({"opened fixed-n8n"})),
    Night(somebody_takes_the_excuse_out, told=frozenset({"said fixed-n8n", "closed fixed-n8n"})),
    quiet(),
    Night(
        another_recipe_appears,
        verdict="converged",
        changes=ENROLLED,
        asked=frozenset({"immich"}),
        told=frozenset({"said covered-but-unpolled"}),
    ),
    quiet(),
    Night(the_host_reboots_into_an_old_generation, verdict="converged", changes=frozenset({"switch"})),
    quiet(),
    Night(the_bridge_loses_one, verdict="converged", changes=frozenset({"restart-bridge"})),
    quiet(),
    Night(upstream_moves, killed_at="acted sync-main"),
    Night(verdict="converged", changes=frozenset({"sync-main"})),
    quiet(),
    Night(hours_since=48, told=frozenset({"opened nights-missed"})),
    Night(told=frozenset({"said nights-missed", "closed nights-missed"})),
    quiet(),
    quiet(),
    quiet(),
    quiet(),
)


@pytest.fixture(scope="module")
def town(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Town]:
    folder = tmp_path_factory.mktemp("nights")
    parallel_world = ParallelWorld(folder / "world", with_the_twentieth(ROSTER))
    parallel_world.roster.write_text(ROSTER)
    parallel_world.begin(SEEDED)
    parallel_world.start(SICK_N8N)
    assert people.trigger_build(parallel_world.settings, "n8n") == "failure"
    with parallel_world.site.open("a") as site:
        site.write(f'\n[tell]\nissues_repository = "{parallel_world.settings.org}/cc-ci"\nseverity = "warning"\n')
        site.write(f"\n[record]\nmax_age_h = 26\nkeep_runs = {KEPT}\nkeep_days = 1\n")
    yield Town(parallel_world, folder, folder / "reports")
    parallel_world.clear()


@dataclass(frozen=True)
class Issue:
    """One issue that muster keeps: what a person who reads the forge sees of it."""

    finding: str
    closed: bool
    comments: int


def issues(town: Town) -> dict[int, Issue]:
    """The issues with muster's marker, by their number."""
    query = (
        "SELECT number, body, closed, (SELECT count(*) FROM comments WHERE issue_id = issues.id AND kind = 'comment')"
        " FROM issues WHERE body LIKE '<!-- muster:finding:%'"
    )
    with contextlib.closing(sqlite3.connect(town.parallel_world.settings.forge_dir / "forge.db")) as db:
        rows = db.execute(query).fetchall()
    return {
        int(number): Issue(body.split(":", 2)[2].split(" ", 1)[0], bool(closed), int(comments))
        for number, body, closed, comments in rows
    }


def news(before: dict[int, Issue], after: dict[int, Issue]) -> list[str]:
    """What a subscriber of these issues heard in between."""
    heard = []
    for number, now in after.items():
        was = before.get(number)
        if was is None:
            heard.append(f"opened {now.finding}")
            continue
        heard += [f"said {now.finding}"] * (now.comments - was.comments)
        if now.closed != was.closed:
            heard.append(f"{'closed' if now.closed else 'reopened'} {now.finding}")
    return heard


def spend(town: Town, number: int, night: Night) -> list[str]:
    """One night; returns what was otherwise than the story has it."""
    if night.happened:
        night.happened(town)
    before, heard = town.world_view.everything(), issues(town)
    tonight = FIRST + timedelta(days=number)
    environment = {"MUSTER_NIGHT": tonight.isoformat(), "MUSTER_HOURS_SINCE": str(night.hours_since)}
    plugins = ["-p", "tests_meta.rehearsal.night_plugin"]
    if night.killed_at:
        plugins += ["-p", "tests_meta.rollback.crash_plugin"]
        environment["MUSTER_STOP_AT"] = night.killed_at
    ran = town.parallel_world.visit(*plugins, env=environment, reports=town.reports)
    if night.killed_at:
        return [] if ran.exit == -9 else [f"it was not killed: exit {ran.exit}"]
    return differences(town, night, ran, before, news(heard, issues(town)))


def differences(town: Town, night: Night, ran: Ran, before: dict[str, object], heard: list[str]) -> list[str]:
    made = frozenset(line["kind"] for line in ran.of("intent")) - {"scratch-pull", "testme-comment"}
    asked = frozenset(
        re.split(r"[/#]", line["target"])[1] for line in ran.of("intent") if line["kind"] == "testme-comment"
    )
    seen = {
        "exit": (night.exit, ran.exit),
        "verdict": (night.verdict, ran.summary["verdict"]),
        "changes": (sorted(night.changes), sorted(made)),
        "told": (sorted(night.told), sorted(heard)),
        "asked": (sorted(night.asked), sorted(asked)),
    }
    wrong = [f"{what}: expected {wanted}, saw {got}" for what, (wanted, got) in seen.items() if wanted != got]
    if not night.changes and not night.told and not heard and not asked:
        now = town.world_view.everything()
        if not quiet_talk(before, now):
            wrong.append("something was written on a night without a change")
    settings = town.parallel_world.settings
    wrong += [f"left behind: {one}" for one in leftovers(settings, town.world_view, town.world_view.database())]
    if wrong:
        wrong.append(ran.output[-3000:])
    return wrong


def quiet_talk(before: dict[str, object], after: dict[str, object]) -> bool:
    """Whether nothing differs but the count of nights in the text of muster's own issues."""
    return _without_counts(before) == _without_counts(after)


def _without_counts(world: dict[str, object]) -> str:
    return re.sub(r"<!-- muster:finding:.*?muster:state:.*?-->", "", repr(world))


def test_thirty_nights_go_as_the_story_has_them(town: Town) -> None:
    """Upstream moves, a mirror is overwritten, a recipe turns red, an excuse outlives its reason, a recipe is added,
    the host boots an old system, the bridge loses a repository, a night is killed, a night is missed: thirty verdicts,
    every heal and every message; and the folder of reports does not grow for ever."""
    assert len(NIGHTS) == 30
    wrong: dict[str, list[str]] = {}
    for number, night in enumerate(NIGHTS):
        name = f"night {number + 1}: {night.happened.__name__ if night.happened else 'nothing happened'}"
        found = spend(town, number, night)
        print(f"{name}: {'; '.join(found[:-1]) or 'as expected'}", flush=True)
        if found:
            wrong[name] = found
    assert wrong == {}, "\n".join(f"{name}\n" + "\n".join(found) for name, found in wrong.items())
    kept = [run for run in (town.reports / "runs").iterdir() if run.is_dir()]
    assert KEPT <= len(kept) < len(NIGHTS), len(kept)
