"""During an apply, a change that is not in the reviewed plan is refused before it begins, in every phase."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from fixtures.clients.git import Refs
from fixtures.journal.writer import Intended, Journal
from fixtures.plan.apply_guard import NotInThePlan, make_guard
from fixtures.plan.facts import describe_tags
from fixtures.plan.file import Plan

ORG = "recipe-maintainers"
CCCI, GHOST, POLL = f"{ORG}/cc-ci", f"{ORG}/ghost", f"{ORG}/cc-ci: nix/modules/bridge.nix"
UPSTREAM = Refs("main", {"main": "a" * 40}, {"1.0": "b" * 40}, {}, {"1.0": "c" * 40})
STEPS = [
    (1, "sync", GHOST, "ghost"),
    (2, "propose-suite", CCCI, "hedgedoc"),
    (3, "enroll", POLL, None),
    (4, "switch", "host", None),
    (5, "trigger", GHOST, "ghost"),
]


def plan() -> Plan:
    steps = [
        {"phase": phase, "kind": kind, "target": target, "recipe": recipe, "detail": "", "certainty": "change"}
        for phase, kind, target, recipe in STEPS
    ]
    seen = {
        "upstream ghost: main": "a" * 40,
        "upstream ghost: tags": describe_tags(UPSTREAM),
        "host: running system": "/nix/store/old",
    }
    poll_file = {"path": "nix/modules/bridge.nix", "before": "1", "after": "2", "entries": [CCCI, GHOST]}
    return Plan({"steps": steps, "seen": seen, "poll_file": poll_file})


def run(*, upstream: Refs = UPSTREAM, running: str = "/nix/store/old") -> Any:
    """The parts of a run that the guard reads."""
    host = SimpleNamespace(system=SimpleNamespace(running=running))
    now = SimpleNamespace(upstreams={"ghost": upstream}, demand_host=lambda: host)
    world = SimpleNamespace(mirror=lambda name: f"{ORG}/{name}", ccci=CCCI)
    findings: list[Any] = []
    return SimpleNamespace(
        context=SimpleNamespace(world=world),
        surveys=SimpleNamespace(now=now, baseline=now),
        record=SimpleNamespace(findings=findings, find=findings.append),
    )


def change(
    kind: str, target: str, *, of: tuple[str, str | None] = ("", None), after: Any = None, **undo: Any
) -> Intended:
    """A change to `target`; `of` is its repository and recipe."""
    return Intended(kind, target, None, after, undo, *of)


OF_GHOST, OF_MUMBLE = (GHOST, "ghost"), (f"{ORG}/mumble", "mumble")
OF_SUITE, OF_HEDGEDOC = (CCCI, "hedgedoc"), (f"{ORG}/hedgedoc", "hedgedoc")
ENROLL = change("enroll", POLL, of=(CCCI, None), after=[CCCI, GHOST], left="2")
IN_PLAN = [
    change("sync-main", GHOST, of=OF_GHOST),
    change("sync-tags", GHOST, of=OF_GHOST),
    change("propose-suite", f"{CCCI}: tests/hedgedoc/", of=OF_SUITE),
    change("describe-suite", f"the text of {CCCI}#1", of=OF_SUITE, pull=1),
    change("testme-comment", f"{CCCI}#1", of=OF_SUITE),
    change("testme-comment", f"{ORG}/hedgedoc#4", of=OF_HEDGEDOC),
    ENROLL,
    change("switch", "host"),
    change("scratch-pull", GHOST, of=OF_GHOST),
    change("testme-comment", f"{GHOST}#2", of=OF_GHOST),
]
NOT_IN_PLAN = [
    (change("create-mirror", GHOST, of=OF_GHOST), {}, "no step"),
    (change("sync-main", f"{ORG}/mumble", of=OF_MUMBLE), {}, "no step"),
    (change("sync-main", GHOST, of=OF_GHOST), {"upstream": Refs("main", {"main": "d" * 40})}, "upstream's main"),
    (change("sync-main", GHOST, of=OF_GHOST), {"upstream": Refs("main", {"main": "a" * 40})}, "upstream's tags"),
    (change("propose-suite", f"{CCCI}: tests/n8n/", of=(CCCI, "n8n")), {}, "no step"),
    (change("propose-suite", f"{CCCI}: tests/hedgedoc/", of=OF_HEDGEDOC), {}, "no step"),
    (change("sync-main", GHOST, of=(CCCI, "ghost")), {}, "no step"),
    (change("sync-main", GHOST), {}, "no step"),
    (change("withdraw-suite", f"{CCCI}#1", of=OF_SUITE), {}, "no step"),
    (change("enroll", POLL, after=[CCCI, GHOST], left="3"), {}, "poll file"),
    (change("enroll", POLL, after=[CCCI], left="2"), {}, "poll file"),
    (change("sync-checkout", "host:/root/cc-ci"), {}, "no step"),
    (change("switch", "another"), {}, "no step"),
    (change("switch", "host"), {"running": "/nix/store/new"}, "/nix/store/new"),
    (change("testme-comment", f"{ORG}/mumble#1", of=OF_MUMBLE), {}, "no step"),
    (change("a-kind-of-tomorrow", GHOST, of=OF_GHOST), {}, "no step"),
]


@pytest.mark.parametrize("wanted", IN_PLAN, ids=lambda change: f"{change.kind} {change.target}")
def test_change_in_the_plan_is_allowed(wanted: Intended) -> None:
    """Each kind of change that belongs to a step is allowed on the step's target."""
    make_guard(run(), plan())(wanted)


@pytest.mark.parametrize(("wanted", "world", "why"), NOT_IN_PLAN)
def test_change_outside_the_plan_is_refused(wanted: Intended, world: dict[str, Any], why: str) -> None:
    """Another target, kind or content is refused with the reason, and a finding requests action."""
    guarded_run = run(**world)
    with pytest.raises(NotInThePlan, match=why):
        make_guard(guarded_run, plan())(wanted)
    assert [finding.severity for finding in guarded_run.record.findings] == ["action"]


def test_refused_change_is_not_journalled(tmp_path: Path) -> None:
    """The journal calls the guard before it writes the intent, so nothing is recorded and the block does not run."""
    journal, entered = Journal(tmp_path / "journal.jsonl"), []
    journal.guards.append(make_guard(run(), plan()))

    def write(kind: str) -> None:
        with journal.change(
            kind, GHOST, repository=GHOST, recipe="ghost", before=None, after=None, undo={}, by_hand="nothing"
        ):
            entered.append(kind)

    write("sync-main")
    with pytest.raises(NotInThePlan):
        write("create-mirror")
    assert entered == ["sync-main"]
    assert [change.kind for change in journal.changes()] == ["sync-main"]
    journal.close()
