"""One run in a world with a fault, and how the resulting state differs from the expected end state."""

from __future__ import annotations

from dataclasses import dataclass, replace

from fixtures.rehearsal.faults import host
from fixtures.rehearsal.faults.effects import FillDisk
from fixtures.rehearsal.faults.model import EndState
from fixtures.rehearsal.faults.table import FAULTS, effects
from tests_meta.muster_runs import LIMIT_S
from tests_meta.parallel_worlds import (
    MIRRORED,
    RECIPES,
    SEEDED,
    FaultRun,
    ParallelWorld,
    differences_from_end_state,
    live_differences,
)


def run_with_fault(parallel_world: ParallelWorld, name: str) -> FaultRun:
    """Run once in a world with this fault; the world is stopped after its state was read."""
    fault = FAULTS[name]
    fills_our_disk = bool(effects([name], FillDisk))
    state = "" if fault.is_seeded else MIRRORED if fault in host.FAULTS or fills_our_disk else SEEDED
    if fills_our_disk:
        parallel_world.begin(state)
    else:
        parallel_world.begin(state, fault.example)
    reports = parallel_world.folder / f"reports-{name}"
    try:
        before = parallel_world.world_state()
        if fills_our_disk:
            # The full disk is muster's, not the world's: the run gets the option and starts the world itself.
            ran = parallel_world.run("--roster", str(parallel_world.roster), "--fault", name, reports=reports)
        else:
            # With real parts every request takes longer, and some faults wait until their time limit.
            ran = parallel_world.visit(
                reports=reports, limit_s=LIMIT_S if parallel_world.parts is None else 2 * LIMIT_S
            )
        return FaultRun(before, ran, parallel_world.world_state())
    finally:
        parallel_world.end()


@dataclass(frozen=True)
class EndingOfARun:
    """A way to end without a fault of the world: a signal at a boundary (`crash_plugin`), and what is run after it."""

    signal: str
    at: str
    exit: int
    then: tuple[str, ...] = ()


ENDINGS = {
    "stopped-in-the-switch": EndingOfARun("TERM", "act switch", exit=2),
    "killed-and-recovered": EndingOfARun("KILL", "act sync-checkout", exit=0, then=("--recover",)),
    "health-of-a-world-that-is-not-migrated": EndingOfARun("", "", exit=1, then=("--health",)),
}


def run_to_its_ending(parallel_world: ParallelWorld, name: str) -> FaultRun:
    """Run once to this ending; the last run is returned, with the world before it and after it."""
    ending = ENDINGS[name]
    parallel_world.begin(MIRRORED)
    reports = parallel_world.folder / f"reports-{name}"
    try:
        before, ran = parallel_world.world_state(), None
        if ending.signal:
            stop = {"MUSTER_STOP_AT": ending.at, "MUSTER_STOP_BY": ending.signal, "MUSTER_STOP_TIMES": "1"}
            plugin = ("-p", "tests_meta.rollback.crash_plugin")
            ran = parallel_world.visit(*plugin, env=stop, reports=reports)
        if ending.then:
            before = parallel_world.world_state()
            ran = parallel_world.visit(*ending.then, reports=reports)
        assert ran is not None
        return FaultRun(before, ran, parallel_world.world_state())
    finally:
        parallel_world.end()


def differences(state: EndState, seen: FaultRun, *, recipe: str = "") -> list[str]:
    """How the world differs from `state`; `recipe` is hit by the fault, "?" is the unpolled recipe."""
    before, after = seen.before, seen.after
    match state:
        case EndState.CONVERGED:
            return differences_from_end_state(after, RECIPES)
        case EndState.ALL_BUT_ONE:
            unpolled = [name for name in RECIPES if name not in after.polled(RECIPES)]
            hit = recipe if recipe != "?" else unpolled[0]
            return differences_from_end_state(after, RECIPES, missing=hit)
        case EndState.BASELINE_LIVE:
            moved = [] if after.host["checkout"] == before.host["checkout"] else ["the checkout moved"]
            return live_differences(before, after) + moved
        case EndState.NOT_ENROLLED:
            moved = [] if after.host["checkout"] == before.host["checkout"] else ["the checkout moved"]
            return live_differences(before, after) + moved
        case EndState.WITHHELD:
            enrolled = replace(after, poll_set=before.poll_set)
            missing = [] if len(after.polled(RECIPES)) == len(RECIPES) else ["the poll set was not committed"]
            return live_differences(before, enrolled) + missing
        case EndState.FOREIGN:
            return ["the foreign system is gone"] if after.host["running"] == before.host["running"] else []
        case EndState.GONE:
            return [] if after.poll_set == before.poll_set else ["the enrollment was not taken back"]
        case EndState.UNTOUCHED:
            return [] if after == before else ["something was written"]
