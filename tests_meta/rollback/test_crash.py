"""After a kill in any change, the next run recovers the world to the end state or to the baseline.

A *kill* is SIGKILL in the middle of a change, after its write and before its outcome is recorded, while host, bridge,
forge and Drone continue to run. By default one kill in the switch is tested for each way to continue;
``MUSTER_ALL_CRASH_POINTS=1`` tests all kinds of change. `test_power_cuts` tests power cuts at every boundary.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from concurrent.futures import Future

import pytest

from fixtures.changes import REGISTRY
from tests_meta.parallel_worlds import MIRRORED, SEEDED, ParallelWorld, in_parallel_worlds
from tests_meta.rollback.crash_checks import (
    AFTERWARDS,
    BACK,
    KILLED,
    ONWARD,
    ROSTER,
    Crash,
    baseline_differences,
    recovery_defects,
)
from tests_meta.world_view import POLL_FILE

ALL = os.environ.get("MUSTER_ALL_CRASH_POINTS") == "1"
KINDS = (
    "create-mirror",
    "sync-main",
    "sync-tags",
    "withdraw-suite",
    "restart-bridge",
    "propose-suite",
    "describe-suite",
    "merge-suite",
    "enroll",
    "sync-checkout",
    "switch",
    "scratch-pull",
    "testme-comment",
)
NOT_IN_THIS_RUN = ("withdraw-suite", "restart-bridge")
LATE = ("enroll", "sync-checkout", "switch", "scratch-pull")
CONTINUED = tuple(kind for kind in KINDS if kind not in NOT_IN_THIS_RUN) if ALL else ("switch",)
UNDONE = ("sync-tags", "switch") if ALL else ("switch",)


def crash(parallel_world: ParallelWorld, kind: str, way: str) -> Crash:
    """Kill a run in a change of this kind, then run again while the world has continued."""
    parallel_world.begin(MIRRORED if kind in LATE and not ALL else SEEDED)
    reports = parallel_world.folder / f"reports-{re.sub('[^a-z]+', '-', f'{kind} {way}')}"
    try:
        before = parallel_world.world_state()
        env = {"MUSTER_STOP_AT": f"acted {kind}"}
        killed = parallel_world.visit("-p", "tests_meta.rollback.crash_plugin", env=env, reports=reports)
        # A backup or an editor changes a file's time and not its content.
        (parallel_world.settings.host_dir / "root" / "cc-ci" / POLL_FILE).touch()
        recovery = parallel_world.visit(*AFTERWARDS[way], reports=reports)
        return Crash(before, killed, recovery, parallel_world.world_state())
    finally:
        parallel_world.end()


@pytest.fixture(scope="module")
def crashes(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Future[Crash]]:
    """One kill per kind of change and way to continue."""

    def job(kind: str, way: str) -> Callable[[ParallelWorld], Crash]:
        return lambda parallel_world: crash(parallel_world, kind, way)

    jobs = {f"{kind} {ONWARD}": job(kind, ONWARD) for kind in CONTINUED}
    jobs |= {f"{kind} {BACK}": job(kind, BACK) for kind in UNDONE}
    return in_parallel_worlds(tmp_path_factory.mktemp("crashes"), jobs, roster=ROSTER, width=2 if ALL else 1)


def test_every_kind_of_change_is_tested() -> None:
    """The tested kinds are those of the registry of changes."""
    assert sorted(KINDS) == sorted(REGISTRY)
    assert set(CONTINUED) | set(UNDONE) <= set(KINDS)


@pytest.mark.parametrize("kind", CONTINUED)
def test_next_run_after_a_kill_reaches_the_end_state(crashes: Mapping[str, Future[Crash]], kind: str) -> None:
    """The next run recovers and converges, and leaves no orphaned branch, comment, unit, timer or lock."""
    assert recovery_defects(crashes[f"{kind} {ONWARD}"].result()) == []


@pytest.mark.parametrize("kind", UNDONE)
def test_recover_undo_all_restores_the_baseline(crashes: Mapping[str, Future[Crash]], kind: str) -> None:
    """After a kill, `--recover --undo all` restores every repository, the poll set and the host."""
    outcome = crashes[f"{kind} {BACK}"].result()
    assert outcome.killed.exit == KILLED
    assert baseline_differences(outcome) == []
