"""SIGINT, SIGTERM, SIGHUP end a run in order: undo, record, exit code; a second one does not break the undo."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import Future

import pytest

from tests_meta.parallel_worlds import (
    MIRRORED,
    SEEDED,
    FaultRun,
    ParallelWorld,
    in_parallel_worlds,
    live_differences,
)

# Where the signal comes: the world before it, the boundary, and how often it is sent.
MOMENTS: dict[str, tuple[str, str, str, int]] = {
    "INT before the first change": (SEEDED, "INT", "before line 3 ", 1),
    "HUP while the mirrors are made": (SEEDED, "HUP", "act create-mirror", 1),
    "TERM during the switch": (MIRRORED, "TERM", "act switch", 1),
    "INT twice during the switch": (MIRRORED, "INT", "act switch", 2),
}


def run_with_fault(parallel_world: ParallelWorld, moment: str) -> FaultRun:
    state, name, boundary, times = MOMENTS[moment]
    parallel_world.begin(state)
    try:
        before = parallel_world.world_state()
        environment = {"MUSTER_STOP_AT": boundary, "MUSTER_STOP_BY": name, "MUSTER_STOP_TIMES": str(times)}
        ran = parallel_world.visit("-p", "tests_meta.rollback.crash_plugin", env=environment)
        return FaultRun(before, ran, parallel_world.world_state())
    finally:
        parallel_world.end()


@pytest.fixture(scope="module")
def stopped(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Future[FaultRun]]:
    """One run per moment, each in a world of its own."""

    def job(moment: str) -> Callable[[ParallelWorld], FaultRun]:
        return lambda parallel_world: run_with_fault(parallel_world, moment)

    return in_parallel_worlds(tmp_path_factory.mktemp("signals"), {moment: job(moment) for moment in MOMENTS})


def test_before_the_first_change_nothing_is_undone(stopped: Mapping[str, Future[FaultRun]]) -> None:
    """There is nothing to undo: exit 2 as pytest has it, no undo in the record, and the world untouched."""
    seen = stopped["INT before the first change"].result()
    seen.ran.demand(2)
    assert seen.ran.of("undo") == []
    assert seen.after == seen.before


def test_in_the_middle_of_the_mirrors_no_half_mirror_stays(stopped: Mapping[str, Future[FaultRun]]) -> None:
    """A mirror is whole or not there; the live host and the poll set were not touched."""
    seen = stopped["HUP while the mirrors are made"].result()
    assert seen.ran.exit in (2, 11), seen.ran.output
    assert live_differences(seen.before, seen.after) == []
    for name in set(seen.after.forge) & set(seen.after.upstream):
        mirror, upstream = seen.after.forge[name], seen.after.upstream[name]
        whole = {ref: mirror.get(ref) == sha for ref, sha in upstream.items() if not ref.startswith("refs/pull")}
        assert all(whole.values()) or mirror == seen.before.forge.get(name), name


@pytest.mark.parametrize("moment", [name for name in MOMENTS if "switch" in name])
def test_during_the_switch_the_host_goes_back(stopped: Mapping[str, Future[FaultRun]], moment: str) -> None:
    """Exit 11, and host, checkout and poll set are what they were; a second signal changes nothing about it."""
    seen = stopped[moment].result()
    seen.ran.demand(11)
    assert live_differences(seen.before, seen.after) == []
    assert seen.after.host["checkout"] == seen.before.host["checkout"]
    assert seen.ran.summary["verdict"] == "rolled-back"


@pytest.mark.parametrize("moment", MOMENTS)
def test_the_record_is_written_to_its_end(stopped: Mapping[str, Future[FaultRun]], moment: str) -> None:
    """Report, summary and the journal's last line are there and name the same exit code."""
    ran = stopped[moment].result().ran
    assert ran.folder is not None
    assert (ran.folder / "report.html").exists()
    assert ran.lines[-1]["type"] == "end"
    assert ran.lines[-1]["exit"] == ran.summary["exit"] == ran.exit
    assert "Traceback" not in ran.output
