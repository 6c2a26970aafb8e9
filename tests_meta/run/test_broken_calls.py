"""Every request and every command of a run fails once: reset, time-out, 500, lost connection.

The calls are enumerated from a run (`tests_meta.run.broken_calls_plugin`). muster retries reads, so one run in which
all reads fail once must converge. Writes are never retried blindly: each write fails in a separate run, which must
converge or report the failure, and must not leave a partial change. The run after a reported failure must converge,
and the one after that change nothing: a passing failure never becomes a lasting one.

By default the mirrors and suites exist before the run; one kind of read failure and a sample of the writes are tested,
chosen by ``MUSTER_SEED`` (default: the date). ``MUSTER_ALL_CALLS=1`` tests all writes of a whole run and every read
that never gets an answer; ``MUSTER_ALL_CALLS=writes`` omits those reads; ``MUSTER_ALL_CALLS=kinds`` tests each kind of
write once, with one of the failures.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import date

import pytest

from tests_meta.muster_runs import Ran
from tests_meta.parallel_worlds import (
    MIRRORED,
    SEEDED,
    FaultRun,
    ParallelWorld,
    differences_from_end_state,
    live_differences,
)
from tests_meta.rollback.crash_checks import RECIPES, ROSTER, orphans

WHICH = os.environ.get("MUSTER_ALL_CALLS", "")
ALL = WHICH in ("1", "writes", "kinds")
SEED = int(os.environ.get("MUSTER_SEED", date.today().toordinal()))
FAILURES = ("reset", "lost", "time-out", "500")
SAMPLE = 2
PLUGIN = ("-p", "tests_meta.run.broken_calls_plugin")
# Writes whose effect muster checks after a lost answer: enrollment commit, checkout sync, disarming of the revert.
LOOKED_UP = ("/recipe-maintainers/cc-ci/contents", "fetch --quiet", "systemctl stop muster-revert")
# Exit codes that report a failure. 12 is not allowed: a single failure must not prevent the rollback.
WITHHELD = 13
REPORTED = (1, 11, WITHHELD)


@dataclass(frozen=True)
class Call:
    """One call of a run, and the state of the world in which that run begins."""

    name: str
    writes: bool
    state: str


def enumerate_calls(parallel_world: ParallelWorld, state: str) -> list[Call]:
    """Every call of a run that begins in `state`, in order."""
    names = parallel_world.folder / f"calls-{state}"
    parallel_world.begin(state)
    try:
        parallel_world.visit(*PLUGIN, env={"MUSTER_CALLS": str(names)}).demand(0)
    finally:
        parallel_world.end()
    rows = [line.split("\t", 1) for line in names.read_text().splitlines()]
    return [Call(name, kind == "write", state) for kind, name in rows]


def run_with_broken_calls(parallel_world: ParallelWorld, state: str, failure: str, *calls: str) -> FaultRun:
    """Run muster while these calls fail, or every read fails once."""
    parallel_world.begin(state)
    try:
        return _break(parallel_world, failure, *calls)
    finally:
        parallel_world.end()


def _break(parallel_world: ParallelWorld, failure: str, *calls: str) -> FaultRun:
    before = parallel_world.world_state()
    env = {"MUSTER_BREAK": failure, "MUSTER_BREAK_AT": "\n".join(calls)}
    ran = parallel_world.visit(*PLUGIN, env=env)
    return FaultRun(before, ran, parallel_world.world_state())


def run_until_unchanged(parallel_world: ParallelWorld, first: Ran) -> list[str]:
    """How the runs after `first` differ from what they should be: one that converges, and one that changes nothing."""
    wrong = []
    if first.exit != 0:
        second = parallel_world.visit(reports=first.reports)
        wrong += [] if second.exit == 0 else [f"the next run: exit {second.exit}: {sorted(second.failed)[:3]}"]
    last = parallel_world.visit(reports=first.reports)
    if (last.exit, last.summary["verdict"]) != (0, "unchanged"):
        kinds = [change["kind"] for change in last.summary["changes"]]
        wrong.append(f"the last run: exit {last.exit}, changes {kinds}, failed {sorted(last.failed)[:3]}")
    return wrong


def partial_changes(fault_run: FaultRun) -> list[str]:
    """The defects after a run in which a call failed: a partial change, an unreported failure or a traceback."""
    ran, before, after = fault_run.ran, fault_run.before, fault_run.after
    wrong = [word for word in ("Traceback (most recent call last)", "INTERNALERROR") if word in ran.output]
    if ran.exit == 0:
        return wrong + differences_from_end_state(after, RECIPES) + orphans(after)
    if ran.exit not in REPORTED:
        wrong.append(f"exit {ran.exit}")
    if ran.folder is None or not (ran.folder / "summary.json").exists():
        return [*wrong, f"no record: {ran.output[-800:]}"]
    actions = [finding["do"] for finding in ran.summary["findings"] if finding["do"]]
    failed = [line for line in ran.of("assertion") if line["outcome"] == "failed" and line["message"]]
    wrong += [] if actions or failed else ["the failure is not reported"]
    wrong += [f"left behind: {one}" for one in after.left]
    for name in RECIPES:
        mirror, upstream = after.forge.get(name), after.upstream[name]
        whole = mirror and all(mirror.get(r) == s for r, s in upstream.items() if "/pull" not in r)
        if mirror != before.forge.get(name) and not whole:
            wrong.append(f"half a mirror: {name}")
    if ran.exit == WITHHELD:  # the enrollment is kept until the next deploy
        before = replace(before, poll_set=after.poll_set)
    # The host did not change, or it runs, boots and serves the poll set at cc-ci's head.
    deployed = after.served == after.poll_set and after.host["running"] == after.host["boots"]
    return wrong + ([] if deployed else live_differences(before, after))


@pytest.fixture(scope="module")
def parallel_world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ParallelWorld]:
    made = ParallelWorld(tmp_path_factory.mktemp("sweep") / "world", ROSTER)
    yield made
    made.clear()


@pytest.fixture(scope="module")
def late_calls(parallel_world: ParallelWorld) -> list[Call]:
    """The calls of a run that begins with mirrors and suites in place."""
    return enumerate_calls(parallel_world, MIRRORED)


@pytest.fixture(scope="module")
def calls(parallel_world: ParallelWorld, late_calls: list[Call]) -> list[Call]:
    """The calls to test: the late calls, or those of a whole run if all are tested."""
    if not ALL:
        return late_calls
    whole = enumerate_calls(parallel_world, SEEDED)
    often, seldom = (Counter(what(call) for call in each) for each in (whole, late_calls))
    known = {call.name: call for call in late_calls if often[what(call)] == seldom[what(call)]}
    return [known.get(call.name, call) for call in whole]


def what(call: Call) -> str:
    """The call's name without its repetition number."""
    return call.name.partition(" ")[2]


def kind(call: Call) -> str:
    """The call's name with the recipes and numbers in it replaced."""
    names = "|".join(map(re.escape, sorted(RECIPES, key=len, reverse=True)))
    return re.sub(rf"\b({names})\b|\b[0-9a-f]{{8,}}\b|\d+", "X", what(call))


@pytest.fixture(scope="module")
def chosen(calls: list[Call]) -> list[tuple[Call, str]]:
    """The calls to break and the failure of each: all, or a sample spread evenly over the writes."""
    everything = [
        (call, failure)
        for call in calls
        for failure in (FAILURES if call.writes else ("reset",))
        if call.writes or WHICH == "1"
    ]
    if WHICH == "kinds":
        first = {kind(call): call for call in reversed(calls) if call.writes}
        return [(call, FAILURES[(number + SEED) % len(FAILURES)]) for number, call in enumerate(first.values())]
    step = 1 if ALL else max(1, len(everything) // SAMPLE)
    return everything[SEED % step :: step]


@pytest.mark.parametrize("failure", ("reset", "time-out", "500") if ALL else (("reset", "500")[SEED % 2],))
def test_run_converges_when_every_read_fails_once(parallel_world: ParallelWorld, failure: str) -> None:
    """After a reset, a time-out or a 500, each read is retried and the run converges."""
    fault_run = run_with_broken_calls(parallel_world, MIRRORED, failure)
    fault_run.ran.demand(0)
    assert partial_changes(fault_run) == []


def test_lost_answer_of_a_write_is_checked_not_repeated(
    parallel_world: ParallelWorld, late_calls: list[Call]
) -> None:
    """Commit, checkout sync and disarming took effect; the run checks that, does not repeat them, and converges."""
    names = [call.name for call in late_calls if call.writes and any(words in call.name for words in LOOKED_UP)]
    assert len(names) == len(LOOKED_UP)
    fault_run = run_with_broken_calls(parallel_world, MIRRORED, "lost", *names)
    fault_run.ran.demand(0)
    assert partial_changes(fault_run) == []
    # Positive control: the checks fail if the same run had left the world unchanged.
    assert partial_changes(replace(fault_run, after=fault_run.before)) != []


def test_failed_call_leaves_no_partial_change(
    parallel_world: ParallelWorld,
    calls: list[Call],
    chosen: list[tuple[Call, str]],
    record_property: Callable[[str, object], None],
) -> None:
    """Each run converges or reports the failure, and leaves a consistent world; the next runs make up for it."""
    wrong: dict[str, list[str]] = {}
    for call, failure in chosen:
        parallel_world.begin(call.state)
        try:
            fault_run = _break(parallel_world, failure, call.name)
            point, found = f"{failure}: {call.name}", partial_changes(fault_run)
            found += run_until_unchanged(parallel_world, fault_run.ran)
        finally:
            parallel_world.end()
        print(f"{point}: exit {fault_run.ran.exit} {found or 'correct'}", flush=True)
        wrong |= {point: found} if found else {}
    writes = sum(1 for call in calls if call.writes)
    record_property(
        "count",
        f"calls of a run: {len(calls)}, {writes} of them write; {len(chosen)} broken (MUSTER_SEED={SEED})",
    )
    assert wrong == {}


def test_upstream_that_lacks_its_repository_for_one_night_leaves_no_lasting_failure(
    parallel_world: ParallelWorld,
) -> None:
    """The others are enrolled; the next run appends the recipe and converges, and the one after it changes nothing."""
    parallel_world.begin(SEEDED)
    try:
        with parallel_world.breaking({"listener": "upstream", "path": "/mumble\\.git/", "action": "status:404"}):
            ran = parallel_world.visit()
        assert ran.exit == 1
        assert all(title.endswith(": mumble") for title in ran.failed), ran.failed
        enrolled = parallel_world.world_state().polled(RECIPES)
        assert "mumble" not in enrolled
        assert enrolled != []
        assert run_until_unchanged(parallel_world, ran) == []
        assert parallel_world.world_state().polled(RECIPES) == [*enrolled, "mumble"]
    finally:
        parallel_world.end()
