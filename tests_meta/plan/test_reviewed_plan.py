"""A plan is reviewed, and what is applied is that plan or nothing.

The worlds hold a small roster. What they are before and after a run is read by git, SQLite and symlinks.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from fixtures.config.roster import load_roster
from fixtures.config.site import load_site
from fixtures.errors import BadSetting
from fixtures.plan.file import LARGEST, Plan, demand_own_plan, load_plan
from tests_meta.bare_commits import commit_file, git
from tests_meta.muster_runs import Ran, muster
from tests_meta.parallel_worlds import RECIPES, ParallelWorld, differences_from_end_state
from tests_meta.world_view import WorldView

PLANNED = "planned"


@dataclass(frozen=True)
class Reviewed:
    """A world in which nothing is done, kept, and the plan that was drawn of it."""

    parallel_world: ParallelWorld
    file: Path
    ran: Ran
    spoilt: list[str] = field(default_factory=list)

    @property
    def plan(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.file.read_text())
        return found

    def apply(self, *arguments: str, **options: Any) -> Ran:
        return self.parallel_world.visit("--apply", str(self.file), *arguments, **options)

    def fresh(self) -> ParallelWorld:
        """The world as it was planned for."""
        if self.spoilt:
            self.parallel_world.lay(PLANNED)
            self.parallel_world.start()
            self.spoilt.clear()
        return self.parallel_world

    def spoil(self) -> ParallelWorld:
        """The same, for one test to change as it likes."""
        parallel_world = self.fresh()
        self.spoilt.append("by a test")
        return parallel_world

    @contextmanager
    def pushed(self, name: str, *, upstream: bool = False) -> Iterator[str]:
        """A commit by somebody else on main of one repository, taken away again after the block."""
        bare = WorldView(self.fresh().settings).bare(name, upstream=upstream)
        old = git(bare, "rev-parse", "main")
        yield commit_file(bare, "more.md", "more\n")
        git(bare, "update-ref", "refs/heads/main", old)


@pytest.fixture(scope="module")
def reviewed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Reviewed]:
    folder = tmp_path_factory.mktemp("reviewed")
    parallel_world = ParallelWorld(folder / "world")
    parallel_world.begin("")
    ran = parallel_world.visit("--plan", "--out", str(folder / "plan.json"))
    parallel_world.keep(PLANNED)
    parallel_world.start()
    yield Reviewed(parallel_world, folder / "plan.json", ran)
    parallel_world.clear()


# -- the plan ----------------------------------------------------------------------------------------------


def test_a_plan_is_a_file_that_can_be_reviewed(reviewed: Reviewed) -> None:
    """Exit 10; each step says what it is, how sure it is, and which facts of the file it rests on; what is left
    alone is named, the diff of bridge.nix is in it, and its hash is what the console said."""
    output = reviewed.ran.demand(10).output
    plan = reviewed.plan
    kinds = [step["kind"] for step in plan["steps"]]
    assert kinds.count("create") == 2
    assert {"propose-suite", "enroll", "sync-checkout", "switch", "trigger"} < set(kinds)
    assert [step["phase"] for step in plan["steps"]] == sorted(step["phase"] for step in plan["steps"])
    for step in plan["steps"]:
        assert step["certainty"] in ("change", "unknown until applied")
        assert step["rests_on"]
        assert set(step["rests_on"]) <= set(plan["seen"])
    assert [s["certainty"] for s in plan["steps"] if s["kind"] == "switch"] == ["unknown until applied"]
    assert "keycloak" in plan["unchanged"]["suites"]
    assert "  no change: suites: keycloak" in output
    assert '+        "POLL_REPOS=' in plan["diff"]
    assert plan["hash"] in output


def test_a_plan_holds_no_secret(reviewed: Reviewed) -> None:
    """Neither a token nor the machine's id is in it; the same search finds them where they belong."""
    settings = reviewed.parallel_world.settings
    machine_id = (settings.host_dir / "etc/machine-id").read_text().strip()
    secrets = [settings.operator_token, settings.drone_token, machine_id]
    where_they_belong = reviewed.parallel_world.site.read_text() + "".join(
        path.read_text() for path in settings.secrets_dir.glob("*-token")
    )
    text = reviewed.file.read_text()
    assert all(secret in where_they_belong for secret in secrets)
    assert not [secret for secret in secrets if secret in text]


def test_a_plan_has_one_text(reviewed: Reviewed, tmp_path: Path) -> None:
    """Drawn twice of one world, only the moment, the run and the hash differ; a plan that is there is replaced."""
    again = tmp_path / "again.json"
    again.write_text(reviewed.file.read_text())
    reviewed.parallel_world.visit("--plan", "--out", str(again)).demand(10)
    now = json.loads(again.read_text())
    assert now["made"] > reviewed.plan["made"]
    for name in ("made", "run", "hash"):
        del now[name]
    assert now == {name: value for name, value in reviewed.plan.items() if name in now}


def test_half_a_plan_is_none(reviewed: Reviewed, tmp_path: Path) -> None:
    """Where a phase could not be planned, nothing is there to be reviewed, not even an older plan; exit 1."""
    out = tmp_path / "plan.json"
    out.write_text(reviewed.file.read_text())
    with reviewed.fresh().breaking({"listener": "forge", "path": "/api/v1/version", "action": "status:403"}):
        ran = reviewed.parallel_world.visit("--plan", "--out", str(out)).demand(1)
    assert "was not written: not every phase could be planned" in ran.output
    assert not out.exists()


# -- files that are no plan --------------------------------------------------------------------------------


def refusal(path: Path) -> str:
    with pytest.raises(BadSetting) as caught:
        load_plan(path)
    said = str(caught.value)
    assert said.startswith(f"--apply {path}: ")
    assert said.endswith(".")
    assert "\n" not in said
    return said


def test_every_edited_byte_is_noticed(reviewed: Reviewed, tmp_path: Path) -> None:
    """Whichever byte of a plan is another one, missing, or there twice: it is no plan any more."""
    raw, path = reviewed.file.read_bytes(), tmp_path / "plan.json"
    path.write_bytes(raw)
    assert load_plan(path).text.encode() == raw
    for at in range(0, len(raw), max(1, len(raw) // 150)):
        other = b"7" if raw[at : at + 1] != b"7" else b"8"
        for edited in (raw[:at] + other + raw[at + 1 :], raw[:at] + raw[at + 1 :], raw[: at + 1] + raw[at:]):
            if edited != raw:
                path.write_bytes(edited)
                refusal(path)


def test_what_is_no_plan_is_named(reviewed: Reviewed, tmp_path: Path) -> None:
    """A missing file, a folder, a truncated or empty file, other JSON, another version's plan: one sentence each."""
    path, whole = tmp_path / "plan.json", reviewed.file.read_bytes()
    assert "No such file" in refusal(path)
    assert "a folder" in refusal(tmp_path)
    for content, words in (
        (b"", "an empty file"),
        (whole[: len(whole) // 2], "breaks off"),
        (b"not a plan", "no JSON"),
        (b'{"schema": 1}\n', "JSON that is none"),
        (b"[1]", "JSON that is none"),
        (b"[" * 100_000, "no JSON"),
        (b"\xff\xfe", "no JSON"),
        (json.dumps(reviewed.plan).encode(), "changed since"),
        (json.dumps({**reviewed.plan, "muster_plan": 2}).encode(), "format 2"),
        (b" " * (LARGEST + 1), "more than 8 MB"),
    ):
        path.write_bytes(content)
        assert words in refusal(path)


def test_a_text_with_a_right_hash_is_not_yet_a_plan(tmp_path: Path) -> None:
    """The hash says that a file is whole, not that muster wrote it: parts of another shape are refused too."""
    path = tmp_path / "plan.json"
    for fields in ({}, {"steps": 3}, {"steps": [{"phase": "x"}], "seen": {}}):
        path.write_text(Plan({"muster_plan": 1, **fields}).text)
        assert "changed since" in refusal(path)


def test_a_plan_of_something_else_is_refused(reviewed: Reviewed, tmp_path: Path) -> None:
    """Another system, another setting of the host, another roster, another version of muster; what is the
    operator's own (where secrets lie, how long to wait, whom to tell) may differ."""
    plan = load_plan(reviewed.file)
    text, roster = reviewed.parallel_world.site.read_text(), load_roster(reviewed.parallel_world.roster)

    def said(site: str = text, lines: Any = roster, version: str = str(plan.fields["version"])) -> str:
        file = reviewed.parallel_world.world / "other.toml"
        file.write_text(site)
        try:
            demand_own_plan(plan, tmp_path, load_site(file), lines, version=version)
        except BadSetting as refused:
            return str(refused)
        finally:
            file.unlink()
        return ""

    machine = re.search(r'machine_id = "(\w+)"', text)
    assert machine is not None
    assert said() == ""
    assert said(text.replace("http_s = 10.0", "http_s = 11.0")) == ""
    assert said(text + '\n[record]\ntextfile = "x.prom"\n') == ""
    assert "another system" in said(text.replace(machine[1], "0" * 32))
    assert "[host]" in said(text.replace("[host]\n", '[host]\nattribute = "other"\n'))
    fewer = reviewed.parallel_world.roster.read_text().replace('  { name = "mailu", enroll = true },\n', "")
    other = tmp_path / "roster.toml"
    other.write_text(fewer)
    assert "mailu is gone" in said(lines=load_roster(other))
    other.write_text(
        reviewed.parallel_world.roster.read_text().replace('canaries = ["ghost"]', 'canaries = ["mailu"]')
    )
    assert "the roster is not the one" in said(lines=load_roster(other))
    assert "0.0.1" in said(version="0.0.1")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--health", "--apply", "PLAN"), "--apply and --health exclude each other"),
        (("--out", "PLAN"), "--out belongs to --plan"),
        (("--plan", "--out", "FOLDER"), "is a folder"),
        (("--plan", "--out", "NOTES"), "not a plan of muster"),
        (("--apply", "NOTES"), "expected a plan"),
        (("--apply", "PLAN", "phases/test_1_mirrors.py"), "about all of phases/"),
    ],
)
def test_what_does_not_go_together_is_refused(
    reviewed: Reviewed, tmp_path: Path, arguments: tuple[str, ...], words: str
) -> None:
    """Exit 4 with one sentence, before anything is contacted; no file is written over."""
    notes = tmp_path / "notes"
    notes.write_text("mine")
    known = {"PLAN": str(reviewed.file), "FOLDER": str(tmp_path), "NOTES": str(notes)}
    given = [re.sub("PLAN|FOLDER|NOTES", lambda found: known[found[0]], word) for word in arguments]
    phases = tuple(word for word in given if word.startswith("phases/")) or ("phases/",)
    world_view = WorldView(reviewed.parallel_world.settings)
    asked = len(world_view.requests())
    ran = reviewed.parallel_world.visit(*(word for word in given if word not in phases), phases=phases)
    assert words in ran.refused()
    assert not [one for one in world_view.requests()[asked:] if one["user_agent"].startswith("muster")]
    assert notes.read_text() == "mine"


def test_a_rehearsal_without_a_kept_world_has_no_plan_to_apply(reviewed: Reviewed, tmp_path: Path) -> None:
    """Its world is gone with the run that made the plan."""
    assert "--world DIR" in muster("--apply", str(reviewed.file), reports=tmp_path).refused()


# -- a world that is not as planned any more ---------------------------------------------------------------


def refused_untouched(reviewed: Reviewed, **options: Any) -> Ran:
    """Apply; it must refuse with 13, and the world must be as it was."""
    before = reviewed.parallel_world.world_state()
    ran = reviewed.apply(**options).demand(13)
    assert reviewed.parallel_world.world_state() == before
    assert ran.of("intent") == []
    assert ran.summary["verdict"] == "withheld"
    assert "nothing was written" in ran.output
    return ran


def test_an_upstream_that_moved_by_one_commit(reviewed: Reviewed) -> None:
    """The mirror of keycloak would go to another commit: refused, with the step and the fact in words."""
    old = reviewed.plan["seen"]["upstream keycloak: main"]
    with reviewed.pushed("keycloak", upstream=True) as new:
        output = refused_untouched(reviewed).output
    assert "different step: sync recipe-maintainers/keycloak: expected" in output
    assert f"upstream keycloak: main: expected {old}, seen {new}" in output
    assert "(2 differences" in output


def test_somebody_merged_into_ccci(reviewed: Reviewed) -> None:
    """A commit that changes nothing muster looks at would be deployed with the rest: refused."""
    with reviewed.pushed("cc-ci") as new:
        output = refused_untouched(reviewed).output
    assert f"cc-ci: main: expected {reviewed.plan['seen']['cc-ci: main']}, seen {new}" in output


def test_a_force_that_nobody_reviewed(reviewed: Reviewed) -> None:
    """--force-sync makes another step of the same mirror, so it is another plan."""
    before = reviewed.parallel_world.world_state()
    ran = reviewed.apply("--force-sync", "keycloak").demand(13)
    assert "different step: sync recipe-maintainers/keycloak" in ran.output
    assert "by force" in ran.output
    assert reviewed.parallel_world.world_state() == before


def test_a_commit_that_comes_during_the_apply_is_not_deployed(reviewed: Reviewed) -> None:
    """Somebody pushes to cc-ci after the plan was compared: all else is as reviewed and stands, and the host is
    left alone, because its checkout would get a file that nobody reviewed."""
    parallel_world = reviewed.spoil()
    before = parallel_world.world_state()
    meddling = {
        "MUSTER_MEDDLE_AT": "acted enroll",
        "MUSTER_MEDDLE_IN": str(WorldView(parallel_world.settings).bare("cc-ci")),
    }
    ran = reviewed.apply("-p", "tests_meta.plan.commit_during_run", env=meddling).demand(13)
    after = parallel_world.world_state()
    assert after.host == before.host
    assert after.served == before.served
    assert "nix/unreviewed.nix, which nobody reviewed" in ran.output
    assert "enroll" in [line["kind"] for line in ran.of("intent")]
    assert not {"sync-checkout", "switch"} & {line["kind"] for line in ran.of("intent")}


def test_a_killed_run_must_be_recovered_before_a_plan_is_applied(reviewed: Reviewed, tmp_path: Path) -> None:
    """Neither the killed run's changes nor their undo are part of the plan."""
    parallel_world = reviewed.spoil()
    stop = {"MUSTER_STOP_AT": "act create-mirror"}
    assert parallel_world.visit("-p", "tests_meta.rollback.crash_plugin", env=stop, reports=tmp_path).exit == -9
    world_view = WorldView(parallel_world.settings)
    asked = len(world_view.requests())
    ran = reviewed.apply(reports=tmp_path).demand(13)
    assert "must be recovered" in ran.output
    assert "--recover" in ran.output
    assert ran.of("intent") == []
    assert world_view.writes_by("muster", since=asked) == []


# -- and one that is ---------------------------------------------------------------------------------------


def told(parallel_world: ParallelWorld) -> dict[str, str]:
    """The issues that tell people: open or closed, by the finding that they are about."""
    bodies = {row[3]: row[4] for row in WorldView(parallel_world.settings).database()["issues"]}
    marked = {body: re.match(r"<!-- muster:finding:(\S+) -->", body) for body in bodies}
    return {mark[1]: "closed" if bodies[body] else "open" for body, mark in marked.items() if mark}


def test_exactly_the_plan_is_applied(reviewed: Reviewed, tmp_path: Path) -> None:
    """It converges; each change belongs to a step. A plan after it is empty and ends with 0; the old plan is
    refused, the empty one applies and changes nothing. People are told of the drift by the health check before it,
    and that it is healed; a plan tells nobody, and who is told is no part of a plan."""
    parallel_world = reviewed.spoil()
    parallel_world.site.write_text(
        f'{parallel_world.site.read_text()}\n[tell]\nissues_repository = "recipe-maintainers/cc-ci"\n'
    )
    parallel_world.start()
    assert "[tell]" in parallel_world.site.read_text(), "a kept world keeps whom to tell"
    parallel_world.visit("--plan").demand(10)
    assert told(parallel_world) == {}
    parallel_world.visit("--health").demand(1)
    issues = told(parallel_world)
    assert set(issues.values()) == {"open"}
    assert issues.keys() >= {"suite", "deploy", "polled-but-uncovered"}
    ran = reviewed.apply().demand(0)
    # Of cc-ci as it was seeded some things stay to be told: old verdicts, suites that are on no roster.
    found = {line["id"] for line in ran.of("finding")}
    assert told(parallel_world) == {name: "open" if name in found else "closed" for name in issues}
    assert found.isdisjoint({"suite-hedgedoc", "deploy", "polled-but-uncovered"})
    assert differences_from_end_state(parallel_world.world_state(), RECIPES) == []
    assert reviewed.plan["hash"] in json.dumps(ran.of("note"))
    targets = {step["target"] for step in reviewed.plan["steps"]}
    for line in ran.of("intent"):
        repository = line["target"].removeprefix("the text of ").partition(": ")[0].partition("#")[0]
        assert {repository, line["target"]} & targets, line["target"]
    empty = tmp_path / "empty.json"
    parallel_world.visit("--plan", "--out", str(empty)).demand(0)
    assert json.loads(empty.read_text())["steps"] == []
    output = refused_untouched(reviewed).output
    assert "gone step: create recipe-maintainers/mumble" in output
    assert "seen nothing to do" in output
    done = parallel_world.world_state()
    assert parallel_world.visit("--apply", str(empty)).demand(0).of("intent") == []
    assert parallel_world.world_state() == done
