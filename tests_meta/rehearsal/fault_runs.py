"""One run in a misbehaving world, and how what it left differs from what the fault's expectation says."""

from __future__ import annotations

from dataclasses import replace

from fixtures.rehearsal.faults import expected
from fixtures.rehearsal.faults import forge as forge_faults
from fixtures.rehearsal.faults.expected import Expected
from fixtures.rehearsal.faults.host import FAULTS as HOST_FAULTS
from fixtures.rehearsal.faults.record import FAULTS as OUR_OWN_DISK
from tests_meta.muster_runs import LIMIT_S
from tests_meta.parallel_worlds import (
    MIRRORED,
    RECIPES,
    SEEDED,
    FaultRun,
    ParallelWorld,
    converged_but,
    live_differs,
)

# These are planted when a world is seeded; the others can be switched on in a world that is there already.
PLANTED = {*forge_faults.IN_THE_REPOSITORIES, "wrong-target", "host-key-changed", "stale-green"}
ARGUMENTS = {"red-build": "red-build:hedgedoc"}


def run_with_fault(parallel_world: ParallelWorld, name: str) -> FaultRun:
    """One run in a world with this fault; the world runs on until it has been looked at."""
    fault = ARGUMENTS.get(name, name)
    state = "" if name in PLANTED else MIRRORED if name in (*HOST_FAULTS, *OUR_OWN_DISK) else SEEDED
    if name in OUR_OWN_DISK:
        parallel_world.begin(state)
    else:
        parallel_world.begin(state, fault)
    reports = parallel_world.folder / f"reports-{name}"
    try:
        before = parallel_world.world_state()
        if name in OUR_OWN_DISK:
            # muster's own disk is not the world's: the run is told, and starts the world by itself.
            ran = parallel_world.run("--roster", str(parallel_world.roster), "--fault", name, reports=reports)
        else:
            # With real parts every request takes longer, and some faults are waits to their very end.
            ran = parallel_world.visit(
                reports=reports, limit_s=LIMIT_S if parallel_world.parts is None else 2 * LIMIT_S
            )
        return FaultRun(before, ran, parallel_world.world_state())
    finally:
        parallel_world.end()


def differences(entry: Expected, seen: FaultRun) -> list[str]:
    """How the world differs from the state that `entry` names."""
    before, after = seen.before, seen.after
    match entry.state:
        case expected.CONVERGED:
            return converged_but(after, RECIPES)
        case expected.ALL_BUT_ONE:
            unpolled = [name for name in RECIPES if name not in after.polled(RECIPES)]
            hit = entry.recipe if entry.recipe != "?" else unpolled[0]
            return converged_but(after, RECIPES, missing=hit)
        case expected.BASELINE_LIVE:
            moved = [] if after.host["checkout"] == before.host["checkout"] else ["the checkout moved"]
            return live_differs(before, after) + moved
        case expected.NOT_ENROLLED:
            moved = [] if after.host["checkout"] == before.host["checkout"] else ["the checkout moved"]
            return live_differs(before, after) + moved
        case expected.WITHHELD:
            enrolled = replace(after, poll_set=before.poll_set)
            missing = [] if len(after.polled(RECIPES)) == len(RECIPES) else ["the poll set was not committed"]
            return live_differs(before, enrolled) + missing
        case expected.FOREIGN:
            return ["the foreign system is gone"] if after.host["running"] == before.host["running"] else []
        case expected.GONE:
            return [] if after.poll_set == before.poll_set else ["the enrollment was not taken back"]
        case expected.UNTOUCHED:
            return [] if after == before else ["something was written"]
    return [f"no check for {entry.state}"]
