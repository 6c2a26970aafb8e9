"""Thirty consecutive nightly runs: each has the expected verdict, changes and notifications, and writes nothing else.

``pytest -s tests_meta/rehearsal/test_thirty_nights.py`` prints a line for each night. Every night is an unattended run
of the same command against the world's site file. Events between the nights are made with git, HTTP, docker and the
boot loader.
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
from tests_meta.health.world import World
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
ADDED_RECIPE = '  { name = "mumble", enroll = true },\n]'
BROKEN_N8N, BROKEN_HEDGEDOC = "red-build:n8n", "red-build:hedgedoc"


@dataclass
class Scenario:
    """The world of the test, and values that events keep from one night to a later one."""

    parallel_world: ParallelWorld
    folder: Path
    reports: Path
    kept: dict[str, str] = field(default_factory=dict)

    @property
    def acts(self) -> World:
        """What people and servers do in this world."""
        return World(self.folder / "acts", self.parallel_world)

    @property
    def world_view(self) -> WorldView:
        return WorldView(self.parallel_world.settings)


Event = Callable[[Scenario], object]


@dataclass(frozen=True)
class Night:
    """An event before one night, and the expected result of that night.

    `issues` are the expected updates of issues: ``opened``, ``said`` (a comment), ``closed`` or ``reopened``, each with
    the finding's name. `changes` are the kinds of change of the run, without scratch changes, and `triggered` the
    repositories on which it posted ``!testme``.
    """

    event: Event | None = None
    exit: int = 0
    verdict: str = "unchanged"
    changes: frozenset[str] = frozenset()
    issues: frozenset[str] = frozenset()
    triggered: frozenset[str] = frozenset()
    killed_at: str = ""
    hours_since: int = 24


def upstream_moves(scenario: Scenario) -> None:
    """Commit to hedgedoc's upstream."""
    bare = scenario.world_view.bare("hedgedoc", upstream=True)
    commit_file(bare, "notes.txt", git(bare, "rev-parse", "main"))


def mirror_is_overwritten(scenario: Scenario) -> None:
    """Force-push an unrelated history to hedgedoc's mirror."""
    scenario.kept["hedgedoc"] = scenario.world_view.refs("hedgedoc")["refs/heads/main"]
    (folder := scenario.folder / "overwrites").mkdir()
    person = Person(scenario.parallel_world, "hedgedoc", folder)
    git(person.folder, "checkout", "--quiet", "--orphan", "elsewhere")
    person.push()


def mirror_is_restored(scenario: Scenario) -> None:
    """Force-push the previous head to hedgedoc's mirror."""
    (folder := scenario.folder / "back").mkdir()
    person = Person(scenario.parallel_world, "hedgedoc", folder)
    git(
        person.folder,
        "fetch",
        "--quiet",
        str(scenario.world_view.bare("hedgedoc", upstream=True)),
        scenario.kept["hedgedoc"],
    )
    git(person.folder, "push", "--quiet", "--force", "origin", f"{scenario.kept['hedgedoc']}:main")


def hedgedoc_turns_red(scenario: Scenario) -> None:
    """Break hedgedoc's app and trigger a build."""
    scenario.parallel_world.start(BROKEN_N8N, BROKEN_HEDGEDOC)
    assert people.trigger_build(scenario.parallel_world.settings, "hedgedoc") == "failure"


def hedgedoc_is_fixed(scenario: Scenario) -> None:
    scenario.parallel_world.start(BROKEN_N8N)
    assert people.trigger_build(scenario.parallel_world.settings, "hedgedoc") == "success"


def known_failure_is_fixed(scenario: Scenario) -> None:
    """Fix n8n, a known failure in the roster, and trigger a build."""
    scenario.parallel_world.start()
    assert people.trigger_build(scenario.parallel_world.settings, "n8n") == "success"


def known_failure_is_removed(scenario: Scenario) -> None:
    text = re.sub(
        r'(name = "n8n", enroll = false), known_red = \{.*?\}', r"\1", scenario.parallel_world.roster.read_text()
    )
    scenario.parallel_world.roster.write_text(text)


def recipe_is_added(scenario: Scenario) -> None:
    """Add a recipe to the roster; its suite is in cc-ci already."""
    scenario.parallel_world.roster.write_text(with_added_recipe(scenario.parallel_world.roster.read_text()))


def with_added_recipe(roster: str) -> str:
    return roster.replace("\n]\n", f"\n{ADDED_RECIPE}\n", 1)


def host_boots_an_old_generation(scenario: Scenario) -> None:
    scenario.kept["system"] = scenario.world_view.host()["running"]
    scenario.parallel_world.end()
    people.boot_an_older_generation(scenario.parallel_world.settings)
    scenario.parallel_world.start()
    assert scenario.world_view.host()["running"] != scenario.kept["system"]


def bridge_loses_a_repository(scenario: Scenario) -> None:
    people.deploy_bridge_without(scenario.parallel_world, "mumble")


def bridge_is_restarted(scenario: Scenario) -> None:
    """Deploy another bridge by hand, and then the one of its unit again."""
    world = scenario.acts
    world.deploy_bridge({"cc-ci-bridge:": "cc-ci-bridge:x"})
    world.redeploy_bridge()


def job_runs(scenario: Scenario) -> None:
    scenario.acts.on_host("systemd-run --unit=nightly-job true")


def alert_comes_and_goes(scenario: Scenario) -> None:
    """Write an alert, and take it back, as a service does that recovers."""
    alert = scenario.acts.host_folder / "var/lib/ci-warm/alerts/20260603T031500Z-backups-late.json"
    alert.write_text("{}")
    alert.unlink()


def pull_request_is_opened(scenario: Scenario) -> None:
    """Open a pull request on hedgedoc's mirror, as somebody who works on it."""
    world = scenario.acts
    world.set_ref("hedgedoc", "refs/heads/feature", world.commit("hedgedoc", {"feature.txt": "x"}))
    body = {"head": "feature", "base": "main", "title": "A feature"}
    world.api("POST", f"/repos/{world.org}/hedgedoc/pulls", body)


def host_is_rebooted(scenario: Scenario) -> None:
    """Shut the host down and start it again, with the same system."""
    scenario.parallel_world.end()
    scenario.parallel_world.start()


def build_is_in_progress(scenario: Scenario) -> None:
    """Leave a build of hedgedoc that does not end."""
    scenario.acts.build("hedgedoc", status="running", finished=0).__enter__()


def uneventful(verdict: str = "unchanged") -> Night:
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
        triggered=frozenset({"cc-ci", "immich"}),
        # cc-ci has suites of recipes that are not on this roster.
        issues=frozenset({"opened covered-but-unpolled"}),
    ),
    Night(bridge_is_restarted),
    Night(job_runs),
    Night(upstream_moves, verdict="converged", changes=frozenset({"sync-main"})),
    Night(pull_request_is_opened),
    Night(mirror_is_overwritten, exit=1, verdict="failed", issues=frozenset({"opened mirror-hedgedoc"})),
    Night(exit=1, verdict="failed"),
    Night(mirror_is_restored, issues=frozenset({"said mirror-hedgedoc", "closed mirror-hedgedoc"})),
    uneventful(),
    Night(hedgedoc_turns_red, exit=1, verdict="failed", issues=frozenset({"opened new-red-hedgedoc"})),
    Night(exit=1, verdict="failed"),
    Night(hedgedoc_is_fixed, issues=frozenset({"said new-red-hedgedoc", "closed new-red-hedgedoc"})),
    Night(known_failure_is_fixed, exit=1, verdict="failed", issues=frozenset({"opened fixed-n8n"})),
    Night(known_failure_is_removed, issues=frozenset({"said fixed-n8n", "closed fixed-n8n"})),
    uneventful(),
    Night(
        recipe_is_added,
        verdict="converged",
        changes=ENROLLED,
        triggered=frozenset({"immich"}),
        issues=frozenset({"said covered-but-unpolled"}),
    ),
    uneventful(),
    Night(host_boots_an_old_generation, verdict="converged", changes=frozenset({"switch"})),
    Night(host_is_rebooted),
    Night(bridge_loses_a_repository, verdict="converged", changes=frozenset({"restart-bridge"})),
    uneventful(),
    Night(upstream_moves, killed_at="acted sync-main"),
    Night(verdict="converged", changes=frozenset({"sync-main"})),
    uneventful(),
    Night(hours_since=48, issues=frozenset({"opened nights-missed"})),
    Night(issues=frozenset({"said nights-missed", "closed nights-missed"})),
    Night(alert_comes_and_goes),
    Night(build_is_in_progress),
    uneventful(),
    uneventful(),
)


@pytest.fixture(scope="module")
def scenario(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scenario]:
    folder = tmp_path_factory.mktemp("nights")
    parallel_world = ParallelWorld(folder / "world", with_added_recipe(ROSTER))
    parallel_world.roster.write_text(ROSTER)
    parallel_world.begin(SEEDED)
    parallel_world.start(BROKEN_N8N)
    assert people.trigger_build(parallel_world.settings, "n8n") == "failure"
    with parallel_world.site.open("a") as site:
        site.write(f'\n[tell]\nissues_repository = "{parallel_world.settings.org}/cc-ci"\nseverity = "warning"\n')
        site.write(f"\n[record]\nmax_age_h = 26\nkeep_runs = {KEPT}\nkeep_days = 1\n")
    yield Scenario(parallel_world, folder, folder / "reports")
    parallel_world.clear()


@dataclass(frozen=True)
class Issue:
    """One issue of muster as the forge has it."""

    finding: str
    closed: bool
    comments: int


def read_issues(scenario: Scenario) -> dict[int, Issue]:
    """The issues with muster's marker, by their number."""
    query = (
        "SELECT number, body, closed, (SELECT count(*) FROM comments WHERE issue_id = issues.id AND kind = 'comment')"
        " FROM issues WHERE body LIKE '<!-- muster:finding:%'"
    )
    with contextlib.closing(sqlite3.connect(scenario.parallel_world.settings.forge_dir / "forge.db")) as db:
        rows = db.execute(query).fetchall()
    return {
        int(number): Issue(body.split(":", 2)[2].split(" ", 1)[0], bool(closed), int(comments))
        for number, body, closed, comments in rows
    }


def issue_updates(before: dict[int, Issue], after: dict[int, Issue]) -> list[str]:
    """The notifications that a subscriber of these issues got in between."""
    updates = []
    for number, now in after.items():
        was = before.get(number)
        if was is None:
            updates.append(f"opened {now.finding}")
            continue
        updates += [f"said {now.finding}"] * (now.comments - was.comments)
        if now.closed != was.closed:
            updates.append(f"{'closed' if now.closed else 'reopened'} {now.finding}")
    return updates


def run_night(scenario: Scenario, number: int, night: Night) -> list[str]:
    """Run one night; returns its differences from the expected result."""
    if night.event:
        night.event(scenario)
    before, earlier = scenario.world_view.everything(), read_issues(scenario)
    tonight = FIRST + timedelta(days=number)
    environment = {"MUSTER_NIGHT": tonight.isoformat(), "MUSTER_HOURS_SINCE": str(night.hours_since)}
    plugins = ["-p", "tests_meta.rehearsal.night_plugin"]
    if night.killed_at:
        plugins += ["-p", "tests_meta.rollback.crash_plugin"]
        environment["MUSTER_STOP_AT"] = night.killed_at
    ran = scenario.parallel_world.visit(*plugins, env=environment, reports=scenario.reports)
    if night.killed_at:
        return [] if ran.exit == -9 else [f"it was not killed: exit {ran.exit}"]
    return differences(scenario, night, ran, before, issue_updates(earlier, read_issues(scenario)))


def differences(
    scenario: Scenario, night: Night, ran: Ran, before: dict[str, object], updates: list[str]
) -> list[str]:
    made = frozenset(line["kind"] for line in ran.of("intent")) - {"scratch-pull", "testme-comment"}
    triggered = frozenset(
        re.split(r"[/#]", line["target"])[1] for line in ran.of("intent") if line["kind"] == "testme-comment"
    )
    seen = {
        "exit": (night.exit, ran.exit),
        "verdict": (night.verdict, ran.summary["verdict"]),
        "changes": (sorted(night.changes), sorted(made)),
        "issues": (sorted(night.issues), sorted(updates)),
        "triggered": (sorted(night.triggered), sorted(triggered)),
    }
    wrong = [f"{what}: expected {wanted}, saw {got}" for what, (wanted, got) in seen.items() if wanted != got]
    if not night.changes and not night.issues and not updates and not triggered:
        now = scenario.world_view.everything()
        if not differ_in_counts_only(before, now):
            wrong.append("something was written on a night without a change")
    settings = scenario.parallel_world.settings
    wrong += [
        f"left behind: {one}" for one in leftovers(settings, scenario.world_view, scenario.world_view.database())
    ]
    if wrong:
        wrong.append(ran.output[-3000:])
    return wrong


def differ_in_counts_only(before: dict[str, object], after: dict[str, object]) -> bool:
    """Whether only the count of nights in muster's own issues differs."""
    return _without_counts(before) == _without_counts(after)


def _without_counts(world: dict[str, object]) -> str:
    return re.sub(r"<!-- muster:finding:.*?muster:state:.*?-->", "", repr(world))


def test_thirty_nights_have_the_expected_results(scenario: Scenario) -> None:
    """Every night has its expected verdict, changes and notifications: upstream moves, a mirror is overwritten, a
    recipe fails, a known failure is fixed, a recipe is added, the host boots an old system, the bridge loses a
    repository, a run is killed, a night is missed. On the other nights the bridge is restarted, a job runs, somebody
    opens a pull request, the host is rebooted, an alert comes and goes, and a build is in progress: nothing is found.
    Old reports are pruned."""
    assert len(NIGHTS) == 30
    wrong: dict[str, list[str]] = {}
    for number, night in enumerate(NIGHTS):
        name = f"night {number + 1}: {night.event.__name__ if night.event else 'no event'}"
        found = run_night(scenario, number, night)
        print(f"{name}: {'; '.join(found[:-1]) or 'as expected'}", flush=True)
        if found:
            wrong[name] = found
    assert wrong == {}, "\n".join(f"{name}\n" + "\n".join(found) for name, found in wrong.items())
    kept = [run for run in (scenario.reports / "runs").iterdir() if run.is_dir()]
    assert KEPT <= len(kept) < len(NIGHTS), len(kept)
