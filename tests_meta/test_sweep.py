"""Every request and every command of a run goes wrong once: reset, time-out, 500, lost connection.

The calls are enumerated from a run itself (`tests_meta.sweep_plugin`). Reads are made again by muster: so in one
run all of them fail once, and it converges all the same. Writes are never repeated blindly: each is broken in a
run of its own, which has to converge or to say what happened, and must not leave anything half done. On every
push a sample of the writes is tried that moves on every day (``MUSTER_SEED`` chooses one); ``MUSTER_ALL_CALLS=1``
tries all, and in addition every single read that never gets an answer.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import pytest

from tests_meta.fault_lanes import MIRRORED, SEEDED, Attack, Lane, converged_but, in_lanes, live_differs
from tests_meta.test_crash import RECIPES, ROSTER, orphans

ALL = os.environ.get("MUSTER_ALL_CALLS") == "1"
SEED = int(os.environ.get("MUSTER_SEED", date.today().toordinal()))
FAILURES = ("reset", "lost", "time-out", "500")
SAMPLE = 6
PLUGIN = ("-p", "tests_meta.sweep_plugin")
# Exit codes that say what happened; 12 would be a rollback that one single failure made impossible.
SAID = (1, 11, 13)


@dataclass(frozen=True)
class Call:
    """One call of a run, and the state of the world in which that run begins."""

    name: str
    writes: bool
    state: str


def enumerated(lane: Lane, state: str) -> list[Call]:
    """Every call of a run that begins in `state`, in order."""
    names = lane.folder / f"calls-{state}"
    lane.begin(state)
    try:
        lane.visit(*PLUGIN, env={"MUSTER_CALLS": str(names)}).demand(0)
    finally:
        lane.end()
    rows = [line.split("\t", 1) for line in names.read_text().splitlines()]
    return [Call(name, kind == "write", state) for kind, name in rows]


def broken(lane: Lane, state: str, failure: str, call: str = "") -> Attack:
    """A run in which this call, or every read once, goes wrong."""
    lane.begin(state)
    try:
        before = lane.sight()
        ran = lane.visit(*PLUGIN, env={"MUSTER_BREAK": failure, "MUSTER_BREAK_AT": call})
        return Attack(before, ran, lane.sight())
    finally:
        lane.end()


def half_done(seen: Attack) -> list[str]:
    """What is wrong with the end of a run in which one call failed; empty when it is an end to be proud of."""
    ran, before, after = seen.ran, seen.before, seen.after
    wrong = [word for word in ("Traceback (most recent call last)", "INTERNALERROR") if word in ran.output]
    if ran.exit == 0:
        return wrong + converged_but(after, RECIPES) + orphans(after)
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
    # The host is what it was, or it runs, boots and serves the poll set that cc-ci's head holds.
    deployed = after.served == after.poll_set and after.host["running"] == after.host["boots"]
    return wrong + ([] if deployed else live_differs(before, after))


@pytest.fixture(scope="module")
def calls(tmp_path_factory: pytest.TempPathFactory) -> list[Call]:
    """Those of a run from the night; from enrollment on, those of one in which the mirrors and suites are there."""

    def job(state: str) -> Callable[[Lane], list[Call]]:
        return lambda lane: enumerated(lane, state)

    folder = tmp_path_factory.mktemp("calls")
    found = in_lanes(folder, {state: job(state) for state in (SEEDED, MIRRORED)}, roster=ROSTER)
    whole, late = found[SEEDED].result(), found[MIRRORED].result()
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
        if call.writes or ALL
    ]
    step = 1 if ALL else max(1, len(everything) // SAMPLE)
    picked = everything[SEED % step :: step]
    writes = sum(1 for call in calls if call.writes)
    print(f"{len(calls)} calls, {writes} of them write; {len(picked)} tried (MUSTER_SEED={SEED})")
    return picked


def test_every_read_may_fail_once(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Reset, without an answer in time, answered with 500: each read is made again, and the run converges."""

    def job(failure: str) -> Callable[[Lane], Attack]:
        return lambda lane: broken(lane, MIRRORED, failure)

    failures: Sequence[str] = ("reset", "time-out", "500") if ALL else ("reset", "500")
    found = in_lanes(tmp_path_factory.mktemp("reads"), {each: job(each) for each in failures}, roster=ROSTER)
    for future in found.values():
        seen = future.result()
        seen.ran.demand(0)
        assert half_done(seen) == []


@pytest.fixture(scope="module")
def swept(
    chosen: list[tuple[Call, str]], tmp_path_factory: pytest.TempPathFactory
) -> Mapping[str, Future[Attack]]:
    """One run for each call and failure."""

    def job(call: Call, failure: str) -> Callable[[Lane], Attack]:
        def attack(lane: Lane) -> Attack:
            seen = broken(lane, call.state, failure, call.name)
            print(f"{failure}: {call.name}: exit {seen.ran.exit} {half_done(seen) or 'well'}", flush=True)
            return seen

        return attack

    jobs = {f"{failure}: {call.name}": job(call, failure) for call, failure in chosen}
    return in_lanes(tmp_path_factory.mktemp("swept"), jobs, roster=ROSTER)


def test_no_call_that_fails_leaves_anything_half_done(swept: Mapping[str, Future[Attack]]) -> None:
    """Converged, or a verdict that says what happened, and a world that is whole either way."""
    wrong = {name: found for name, future in swept.items() if (found := half_done(future.result()))}
    assert wrong == {}


def test_the_check_sees_what_is_half_done(tmp_path: Path) -> None:
    """Positive control: a poll set that is committed and not deployed, by a run that says that all is well."""
    lane = Lane(tmp_path / "lane", ROSTER)
    lane.begin(SEEDED)
    try:
        before = lane.sight()
        killed = lane.visit("-p", "tests_meta.crash_plugin", env={"MUSTER_STOP_AT": "acted create-mirror"})
        assert half_done(Attack(before, killed, lane.sight())) != []
    finally:
        lane.clear()
