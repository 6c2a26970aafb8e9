"""A reviewed plan is applied exactly or not at all.

The worlds have a small roster. Their state before and after a run is read with git, SQLite and symlinks.
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
    """A kept initial world and the plan that was made for it."""

    parallel_world: ParallelWorld
    file: Path
    ran: Ran
    changed_by: list[str] = field(default_factory=list)

    @property
    def plan(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.file.read_text())
        return found

    def apply(self, *arguments: str, **options: Any) -> Ran:
        return self.parallel_world.visit("--apply", str(self.file), *arguments, **options)

    def fresh(self) -> ParallelWorld:
        """The world in the state that was planned for."""
        if self.changed_by:
            self.parallel_world.lay(PLANNED)
            self.parallel_world.start()
            self.changed_by.clear()
        return self.parallel_world

    def for_changes(self) -> ParallelWorld:
        """The world in the planned state, which the test may change; `fresh` restores it."""
        parallel_world = self.fresh()
        self.changed_by.append("a test")
        return parallel_world

    @contextmanager
    def pushed(self, name: str, *, upstream: bool = False) -> Iterator[str]:
        """Push another person's commit to main of one repository, and remove it at the end of the block."""
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


def test_plan_lists_every_step_with_its_certainty_and_facts(reviewed: Reviewed) -> None:
    """Exit 10; each step has a kind, a certainty and the facts it rests on; the plan lists unchanged items, the
    diff of bridge.nix and the hash that the console printed."""
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


def test_plan_contains_no_secret(reviewed: Reviewed) -> None:
    """It has no token and no machine id. Positive control: the same search finds them in their own files."""
    settings = reviewed.parallel_world.settings
    machine_id = (settings.host_dir / "etc/machine-id").read_text().strip()
    secrets = [settings.operator_token, settings.drone_token, machine_id]
    secret_files = reviewed.parallel_world.site.read_text() + "".join(
        path.read_text() for path in settings.secrets_dir.glob("*-token")
    )
    text = reviewed.file.read_text()
    assert all(secret in secret_files for secret in secrets)
    assert not [secret for secret in secrets if secret in text]


def test_plan_of_an_unchanged_world_is_reproducible(reviewed: Reviewed, tmp_path: Path) -> None:
    """Two plans of one world differ only in time, run and hash; an existing plan file is replaced."""
    again = tmp_path / "again.json"
    again.write_text(reviewed.file.read_text())
    reviewed.parallel_world.visit("--plan", "--out", str(again)).demand(10)
    now = json.loads(again.read_text())
    assert now["made"] > reviewed.plan["made"]
    for name in ("made", "run", "hash"):
        del now[name]
    assert now == {name: value for name, value in reviewed.plan.items() if name in now}


def test_incomplete_plan_is_not_written(reviewed: Reviewed, tmp_path: Path) -> None:
    """When a phase cannot be planned, no plan file exists, and an older one is deleted; exit 1."""
    out = tmp_path / "plan.json"
    out.write_text(reviewed.file.read_text())
    with reviewed.fresh().breaking({"listener": "forge", "path": "/api/v1/version", "action": "status:403"}):
        ran = reviewed.parallel_world.visit("--plan", "--out", str(out)).demand(1)
    assert "was not written: not every phase could be planned" in ran.output
    assert not out.exists()


# -- files that are not a valid plan --------------------------------------------------------------------------------


def refusal(path: Path) -> str:
    with pytest.raises(BadSetting) as caught:
        load_plan(path)
    message = str(caught.value)
    assert message.startswith(f"--apply {path}: ")
    assert message.endswith(".")
    assert "\n" not in message
    return message


def test_plan_with_any_edited_byte_is_refused(reviewed: Reviewed, tmp_path: Path) -> None:
    """A plan with a changed, missing or duplicated byte at any position is refused."""
    raw, path = reviewed.file.read_bytes(), tmp_path / "plan.json"
    path.write_bytes(raw)
    assert load_plan(path).text.encode() == raw
    for at in range(0, len(raw), max(1, len(raw) // 150)):
        other = b"7" if raw[at : at + 1] != b"7" else b"8"
        for edited in (raw[:at] + other + raw[at + 1 :], raw[:at] + raw[at + 1 :], raw[: at + 1] + raw[at:]):
            if edited != raw:
                path.write_bytes(edited)
                refusal(path)


def test_invalid_plan_file_is_refused_with_the_reason(reviewed: Reviewed, tmp_path: Path) -> None:
    """A missing file, a folder, a truncated or empty file, other JSON and another version each get one sentence."""
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


def test_malformed_plan_with_a_valid_hash_is_refused(tmp_path: Path) -> None:
    """The hash proves only integrity; a plan whose fields have the wrong shape is refused too."""
    path = tmp_path / "plan.json"
    for fields in ({}, {"steps": 3}, {"steps": [{"phase": "x"}], "seen": {}}):
        path.write_text(Plan({"muster_plan": 1, **fields}).text)
        assert "changed since" in refusal(path)


def test_plan_for_another_site_roster_or_version_is_refused(reviewed: Reviewed, tmp_path: Path) -> None:
    """Another system, host setting, roster or version of muster is refused; the operator's own settings (secret
    files, time limits, notifications) may differ."""
    plan = load_plan(reviewed.file)
    text, roster = reviewed.parallel_world.site.read_text(), load_roster(reviewed.parallel_world.roster)

    def refusal_for(site: str = text, lines: Any = roster, version: str = str(plan.fields["version"])) -> str:
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
    assert refusal_for() == ""
    assert refusal_for(text.replace("http_s = 10.0", "http_s = 11.0")) == ""
    assert refusal_for(text + '\n[record]\ntextfile = "x.prom"\n') == ""
    assert "another system" in refusal_for(text.replace(machine[1], "0" * 32))
    assert "[host]" in refusal_for(text.replace("[host]\n", '[host]\nattribute = "other"\n'))
    fewer = reviewed.parallel_world.roster.read_text().replace('  { name = "mailu", enroll = true },\n', "")
    other = tmp_path / "roster.toml"
    other.write_text(fewer)
    assert "mailu is gone" in refusal_for(lines=load_roster(other))
    other.write_text(
        reviewed.parallel_world.roster.read_text().replace('canaries = ["ghost"]', 'canaries = ["mailu"]')
    )
    assert "the roster is not the one" in refusal_for(lines=load_roster(other))
    assert "0.0.1" in refusal_for(version="0.0.1")


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
def test_incompatible_plan_options_are_refused(
    reviewed: Reviewed, tmp_path: Path, arguments: tuple[str, ...], words: str
) -> None:
    """Exit 4 with one sentence, before any request is sent; no file is overwritten."""
    notes = tmp_path / "notes"
    notes.write_text("mine")
    known = {"PLAN": str(reviewed.file), "FOLDER": str(tmp_path), "NOTES": str(notes)}
    given = [re.sub("PLAN|FOLDER|NOTES", lambda found: known[found[0]], word) for word in arguments]
    phases = tuple(word for word in given if word.startswith("phases/")) or ("phases/",)
    world_view = WorldView(reviewed.parallel_world.settings)
    sent_before = len(world_view.requests())
    ran = reviewed.parallel_world.visit(*(word for word in given if word not in phases), phases=phases)
    assert words in ran.refused()
    assert not [
        request for request in world_view.requests()[sent_before:] if request["user_agent"].startswith("muster")
    ]
    assert notes.read_text() == "mine"


def test_apply_in_a_rehearsal_requires_a_kept_world(reviewed: Reviewed, tmp_path: Path) -> None:
    """A temporary world is deleted after the run that made the plan, so --apply is refused."""
    assert "--world DIR" in muster("--apply", str(reviewed.file), reports=tmp_path).refused()


# -- a world that changed after planning ------------------------------------------------------------------


def demand_refusal(reviewed: Reviewed, **options: Any) -> Ran:
    """Apply the plan; assert that the run exits with 13 and does not change the world."""
    before = reviewed.parallel_world.world_state()
    ran = reviewed.apply(**options).demand(13)
    assert reviewed.parallel_world.world_state() == before
    assert ran.of("intent") == []
    assert ran.summary["verdict"] == "withheld"
    assert "nothing was written" in ran.output
    return ran


def test_plan_is_refused_after_an_upstream_commit(reviewed: Reviewed) -> None:
    """The mirror of keycloak would be synced to another commit; the message names the step and the fact."""
    old = reviewed.plan["seen"]["upstream keycloak: main"]
    with reviewed.pushed("keycloak", upstream=True) as new:
        output = demand_refusal(reviewed).output
    assert "different step: sync recipe-maintainers/keycloak: expected" in output
    assert f"upstream keycloak: main: expected {old}, seen {new}" in output
    assert "(2 differences" in output


def test_plan_is_refused_after_a_commit_to_ccci(reviewed: Reviewed) -> None:
    """Any commit to cc-ci would be deployed, even one that changes no file that muster reads."""
    with reviewed.pushed("cc-ci") as new:
        output = demand_refusal(reviewed).output
    assert f"cc-ci: main: expected {reviewed.plan['seen']['cc-ci: main']}, seen {new}" in output


def test_force_sync_that_is_not_in_the_plan_is_refused(reviewed: Reviewed) -> None:
    """--force-sync changes the step of the mirror, so the reviewed plan no longer applies."""
    before = reviewed.parallel_world.world_state()
    ran = reviewed.apply("--force-sync", "keycloak").demand(13)
    assert "different step: sync recipe-maintainers/keycloak" in ran.output
    assert "by force" in ran.output
    assert reviewed.parallel_world.world_state() == before


def test_commit_pushed_during_the_apply_is_not_deployed(reviewed: Reviewed) -> None:
    """After a push to cc-ci during the apply, the reviewed changes are kept and the host is not changed, because
    its checkout would get an unreviewed file."""
    parallel_world = reviewed.for_changes()
    before = parallel_world.world_state()
    commit_env = {
        "MUSTER_COMMIT_AT": "acted enroll",
        "MUSTER_COMMIT_IN": str(WorldView(parallel_world.settings).bare("cc-ci")),
    }
    ran = reviewed.apply("-p", "tests_meta.plan.commit_during_run", env=commit_env).demand(13)
    after = parallel_world.world_state()
    assert after.host == before.host
    assert after.served == before.served
    assert "nix/unreviewed.nix, which nobody reviewed" in ran.output
    assert "enroll" in [line["kind"] for line in ran.of("intent")]
    assert not {"sync-checkout", "switch"} & {line["kind"] for line in ran.of("intent")}


def test_plan_is_refused_until_a_killed_run_is_recovered(reviewed: Reviewed, tmp_path: Path) -> None:
    """Neither the killed run's changes nor their undo are part of the plan."""
    parallel_world = reviewed.for_changes()
    stop = {"MUSTER_STOP_AT": "act create-mirror"}
    assert parallel_world.visit("-p", "tests_meta.rollback.crash_plugin", env=stop, reports=tmp_path).exit == -9
    world_view = WorldView(parallel_world.settings)
    sent_before = len(world_view.requests())
    ran = reviewed.apply(reports=tmp_path).demand(13)
    assert "must be recovered" in ran.output
    assert "--recover" in ran.output
    assert ran.of("intent") == []
    assert world_view.writes_by("muster", since=sent_before) == []


# -- a world that is as planned ----------------------------------------------------------------------------


def notifications(parallel_world: ParallelWorld) -> dict[str, str]:
    """The state of each notification issue, open or closed, by the id of its finding."""
    bodies = {row[3]: row[4] for row in WorldView(parallel_world.settings).database()["issues"]}
    marked = {body: re.match(r"<!-- muster:finding:(\S+) -->", body) for body in bodies}
    return {mark[1]: "closed" if bodies[body] else "open" for body, mark in marked.items() if mark}


def test_apply_makes_exactly_the_planned_changes(reviewed: Reviewed, tmp_path: Path) -> None:
    """The run converges, and each change belongs to a step. The next plan is empty (exit 0) and can be applied without
    effect; the old plan is refused. The health check opens issues for the drift and the apply closes them; planning
    does not notify, and notification settings are not part of a plan."""
    parallel_world = reviewed.for_changes()
    parallel_world.site.write_text(
        f'{parallel_world.site.read_text()}\n[tell]\nissues_repository = "recipe-maintainers/cc-ci"\n'
    )
    parallel_world.start()
    assert "[tell]" in parallel_world.site.read_text(), "a kept world keeps its notification settings"
    parallel_world.visit("--plan").demand(10)
    assert notifications(parallel_world) == {}
    parallel_world.visit("--health").demand(1)
    issues = notifications(parallel_world)
    assert set(issues.values()) == {"open"}
    assert issues.keys() >= {"suite", "deploy", "polled-but-uncovered"}
    ran = reviewed.apply().demand(0)
    # Findings about the seeded cc-ci remain open: old verdicts, and suites that are on no roster.
    found = {line["id"] for line in ran.of("finding")}
    assert notifications(parallel_world) == {name: "open" if name in found else "closed" for name in issues}
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
    output = demand_refusal(reviewed).output
    assert "gone step: create recipe-maintainers/mumble" in output
    assert "seen nothing to do" in output
    done = parallel_world.world_state()
    assert parallel_world.visit("--apply", str(empty)).demand(0).of("intent") == []
    assert parallel_world.world_state() == done
