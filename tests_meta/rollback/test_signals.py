"""After SIGINT, SIGTERM or SIGHUP a run undoes its changes, completes its record and exits; a second signal does not
interrupt the undo."""

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
from tests_meta.reports.statements import Finished, untrue_statements

# For each signal: the world before the run, the signal, the boundary, and the number of signals.
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


def test_signal_before_the_first_change_undoes_nothing(stopped: Mapping[str, Future[FaultRun]]) -> None:
    """The run exits with 2, records no undo and does not change the world."""
    fault_run = stopped["INT before the first change"].result()
    fault_run.ran.demand(2)
    assert fault_run.ran.of("undo") == []
    assert fault_run.after == fault_run.before


def test_signal_during_mirroring_leaves_no_partial_mirror(stopped: Mapping[str, Future[FaultRun]]) -> None:
    """Each mirror is complete or did not change, and neither the live host nor the poll set changed."""
    fault_run = stopped["HUP while the mirrors are made"].result()
    fault_run.ran.demand(2)
    assert live_differences(fault_run.before, fault_run.after) == []
    for name in set(fault_run.after.forge) & set(fault_run.after.upstream):
        mirror, upstream = fault_run.after.forge[name], fault_run.after.upstream[name]
        whole = {ref: mirror.get(ref) == sha for ref, sha in upstream.items() if not ref.startswith("refs/pull")}
        assert all(whole.values()) or mirror == fault_run.before.forge.get(name), name


@pytest.mark.parametrize("moment", [name for name in MOMENTS if "switch" in name])
def test_signal_during_the_switch_rolls_the_host_back(
    stopped: Mapping[str, Future[FaultRun]], moment: str
) -> None:
    """Exit 2; host, checkout and poll set are restored, also after a second signal; the verdict is interrupted."""
    fault_run = stopped[moment].result()
    fault_run.ran.demand(2)
    assert live_differences(fault_run.before, fault_run.after) == []
    assert fault_run.after.host["checkout"] == fault_run.before.host["checkout"]
    assert fault_run.ran.summary["verdict"] == "interrupted"
    assert fault_run.ran.summary["stopped_by"] == f"SIG{MOMENTS[moment][1]}"


@pytest.mark.parametrize("moment", MOMENTS)
def test_record_of_an_interrupted_run_is_complete(stopped: Mapping[str, Future[FaultRun]], moment: str) -> None:
    """Report and summary exist, and the summary and the journal's last line have the run's exit code."""
    ran = stopped[moment].result().ran
    assert ran.folder is not None
    assert (ran.folder / "report.html").exists()
    assert ran.lines[-1]["type"] == "end"
    assert ran.lines[-1]["exit"] == ran.summary["exit"] == ran.exit
    assert "Traceback" not in ran.output


@pytest.mark.parametrize("moment", MOMENTS)
def test_record_of_an_interrupted_run_is_true(stopped: Mapping[str, Future[FaultRun]], moment: str) -> None:
    """What the record says was done, undone and left agrees with the journal and the world."""
    fault_run = stopped[moment].result()
    assert untrue_statements(Finished(fault_run.ran, fault_run.before, fault_run.after)) == []
