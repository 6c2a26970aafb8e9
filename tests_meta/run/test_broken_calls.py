"""Every request and every command of a run goes wrong once: reset, time-out, 500, lost connection.

The calls are enumerated from a run itself (`tests_meta.run.broken_calls_plugin`). Reads are made again by
muster: so in one run all of them fail once, and it converges all the same. Writes are never repeated blindly:
each is broken in a run of its own, which has to converge or to say what happened, and must not leave anything
half done. By itself that is a run in which the mirrors and suites are there already, with one kind of failure
of its reads and a sample of its writes, which move on every day (``MUSTER_SEED`` chooses).
``MUSTER_ALL_CALLS=1`` tries all writes of a whole run, and in addition every single read that never gets an
answer; ``MUSTER_ALL_CALLS=writes`` leaves those out.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import date

import pytest

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
ALL = WHICH in ("1", "writes")
SEED = int(os.environ.get("MUSTER_SEED", date.today().toordinal()))
FAILURES = ("reset", "lost", "time-out", "500")
SAMPLE = 2
PLUGIN = ("-p", "tests_meta.run.broken_calls_plugin")
# Writes whose answer is looked up: the enrollment's commit, the checkout's sync, the revert's disarming.
LOOKED_UP = ("/recipe-maintainers/cc-ci/contents", "fetch --quiet", "systemctl stop muster-revert")
# Exit codes that say what happened; 12 would be a rollback that one single failure made impossible.
WITHHELD = 13
SAID = (1, 11, WITHHELD)


@dataclass(frozen=True)
class Call:
    """One call of a run, and the state of the world in which that run begins."""

    name: str
    writes: bool
    state: str


def enumerated(parallel_world: ParallelWorld, state: str) -> list[Call]:
    """Every call of a run that begins in `state`, in order."""
    names = parallel_world.folder / f"calls-{state}"
    parallel_world.begin(state)
    try:
        parallel_world.visit(*PLUGIN, env={"MUSTER_CALLS": str(names)}).demand(0)
    finally:
        parallel_world.end()
    rows = [line.split("\t", 1) for line in names.read_text().splitlines()]
    return [Call(name, kind == "write", state) for kind, name in rows]


def broken(parallel_world: ParallelWorld, state: str, failure: str, *calls: str) -> FaultRun:
    """A run in which these calls, or every read once, go wrong."""
    parallel_world.begin(state)
    try:
        before = parallel_world.world_state()
        env = {"MUSTER_BREAK": failure, "MUSTER_BREAK_AT": "\n".join(calls)}
        ran = parallel_world.visit(*PLUGIN, env=env)
        return FaultRun(before, ran, parallel_world.world_state())
    finally:
        parallel_world.end()


def half_done(seen: FaultRun) -> list[str]:
    """What is wrong with the end of a run in which one call failed; empty when it is an end to be proud of."""
    ran, before, after = seen.ran, seen.before, seen.after
    wrong = [word for word in ("Traceback (most recent call last)", "INTERNALERROR") if word in ran.output]
    if ran.exit == 0:
        return wrong + differences_from_end_state(after, RECIPES) + orphans(after)
    if ran.exit not in SAID:
        wrong.append(f"exit {ran.exit}")
    if ran.folder is None or not (ran.folder / "summary.json").exists():
        return [*wrong, f"no record: {ran.output[-800:]}"]
    told = [finding["do"] for finding in ran.summary["findings"] if finding["do"]]
    failed = [line for line in ran.of("assertion") if line["outcome"] == "failed" and line["message"]]
    wrong += [] if told or failed else ["nobody is told what happened"]
    wrong += [f"left behind: {one}" for one in after.left]
    for name in RECIPES:
        mirror, upstream = after.forge.get(name), after.upstream[name]
        whole = mirror and all(mirror.get(r) == s for r, s in upstream.items() if "/pull" not in r)
        if mirror != before.forge.get(name) and not whole:
            wrong.append(f"half a mirror: {name}")
    if ran.exit == WITHHELD:  # what was enrolled stands, and waits for a deploy
        before = replace(before, poll_set=after.poll_set)
    # The host is what it was, or it runs, boots and serves the poll set that cc-ci's head holds.
    deployed = after.served == after.poll_set and after.host["running"] == after.host["boots"]
    return wrong + ([] if deployed else live_differences(before, after))


@pytest.fixture(scope="module")
def parallel_world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ParallelWorld]:
    made = ParallelWorld(tmp_path_factory.mktemp("sweep") / "world", ROSTER)
    yield made
    made.clear()


@pytest.fixture(scope="module")
def late(parallel_world: ParallelWorld) -> list[Call]:
    """The calls of a run in which the mirrors and suites are there."""
    return enumerated(parallel_world, MIRRORED)


@pytest.fixture(scope="module")
def calls(parallel_world: ParallelWorld, late: list[Call]) -> list[Call]:
    """Those; before them, if all are tried, those from the night."""
    if not ALL:
        return late
    whole = enumerated(parallel_world, SEEDED)
    often, seldom = (Counter(what(call) for call in each) for each in (whole, late))
    known = {call.name: call for call in late if often[what(call)] == seldom[what(call)]}
    return [known.get(call.name, call) for call in whole]


def what(call: Call) -> str:
    """What is asked for, without how often it was asked for before."""
    return call.name.partition(" ")[2]


@pytest.fixture(scope="module")
def chosen(calls: list[Call]) -> list[tuple[Call, str]]:
    """What is broken, and how: everything, or a sample that is spread evenly over the writes."""
    everything = [
        (call, failure)
        for call in calls
        for failure in (FAILURES if call.writes else ("reset",))
        if call.writes or WHICH == "1"
    ]
    step = 1 if ALL else max(1, len(everything) // SAMPLE)
    return everything[SEED % step :: step]


@pytest.mark.parametrize("failure", ("reset", "time-out", "500") if ALL else (("reset", "500")[SEED % 2],))
def test_every_read_may_fail_once(parallel_world: ParallelWorld, failure: str) -> None:
    """Reset, without an answer in time, answered with 500: each read is made again, and the run converges."""
    seen = broken(parallel_world, MIRRORED, failure)
    seen.ran.demand(0)
    assert half_done(seen) == []


def test_an_answer_that_was_lost_is_looked_up(parallel_world: ParallelWorld, late: list[Call]) -> None:
    """It is committed, the checkout is at the head, the revert is disarmed: nobody asks twice, and the run goes on."""
    names = [call.name for call in late if call.writes and any(words in call.name for words in LOOKED_UP)]
    assert len(names) == len(LOOKED_UP)
    seen = broken(parallel_world, MIRRORED, "lost", *names)
    seen.ran.demand(0)
    assert half_done(seen) == []
    # Positive control: of a world in which nothing was done, the same run's good end is not believed.
    assert half_done(replace(seen, after=seen.before)) != []


def test_no_call_that_fails_leaves_anything_half_done(
    parallel_world: ParallelWorld,
    calls: list[Call],
    chosen: list[tuple[Call, str]],
    record_property: Callable[[str, object], None],
) -> None:
    """Converged, or a verdict that says what happened, and a world that is whole either way."""
    wrong: dict[str, list[str]] = {}
    for call, failure in chosen:
        seen = broken(parallel_world, call.state, failure, call.name)
        point, found = f"{failure}: {call.name}", half_done(seen)
        print(f"{point}: exit {seen.ran.exit} {found or 'well'}", flush=True)
        wrong |= {point: found} if found else {}
    writes = sum(1 for call in calls if call.writes)
    record_property(
        "count",
        f"calls of a run: {len(calls)}, {writes} of them write; {len(chosen)} broken (MUSTER_SEED={SEED})",
    )
    assert wrong == {}
