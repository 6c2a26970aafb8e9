"""Killed anywhere: the next run settles what was left, to the end state or to the baseline.

A *kill* is SIGKILL in the middle of a change, when its write was made and its outcome is not yet recorded, while
host, bridge, forge and Drone run on and do not notice. By itself one kill in the switch is tried, in each way
to go on; ``MUSTER_ALL_CRASH_POINTS=1`` tries all kinds of change. Power cuts, at every boundary of a run, are in
`test_power_cuts`.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from concurrent.futures import Future

import pytest

from fixtures.changes import REGISTRY
from tests_meta.parallel_worlds import MIRRORED, SEEDED, ParallelWorld, in_parallel_worlds
from tests_meta.rollback.crash_checks import AFTERWARDS, BACK, KILLED, ONWARD, ROSTER, Crash, judged, not_back
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
NOT_THAT_NIGHT = ("withdraw-suite", "restart-bridge")
LATE = ("enroll", "sync-checkout", "switch", "scratch-pull")
GONE_ON = tuple(kind for kind in KINDS if kind not in NOT_THAT_NIGHT) if ALL else ("switch",)
TAKEN_BACK = ("sync-tags", "switch") if ALL else ("switch",)


def crash(parallel_world: ParallelWorld, kind: str, way: str) -> Crash:
    """Kill a run in a change of this kind, then run again in the world that went on meanwhile."""
    parallel_world.begin(MIRRORED if kind in LATE and not ALL else SEEDED)
    reports = parallel_world.folder / f"reports-{re.sub('[^a-z]+', '-', f'{kind} {way}')}"
    try:
        before = parallel_world.world_state()
        env = {"MUSTER_STOP_AT": f"acted {kind}"}
        killed = parallel_world.visit("-p", "tests_meta.rollback.crash_plugin", env=env, reports=reports)
        # Somebody's backup or editor touches a file and changes nothing in it.
        (parallel_world.settings.host_dir / "root" / "cc-ci" / POLL_FILE).touch()
        settled = parallel_world.visit(*AFTERWARDS[way], reports=reports)
        return Crash(before, killed, settled, parallel_world.world_state())
    finally:
        parallel_world.end()


@pytest.fixture(scope="module")
def crashes(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Future[Crash]]:
    """One kill per kind of change and way to go on."""

    def job(kind: str, way: str) -> Callable[[ParallelWorld], Crash]:
        return lambda parallel_world: crash(parallel_world, kind, way)

    jobs = {f"{kind} {ONWARD}": job(kind, ONWARD) for kind in GONE_ON}
    jobs |= {f"{kind} {BACK}": job(kind, BACK) for kind in TAKEN_BACK}
    return in_parallel_worlds(tmp_path_factory.mktemp("crashes"), jobs, roster=ROSTER, width=2 if ALL else 1)


def test_the_kinds_are_those_of_the_table_of_undos() -> None:
    """Nothing new escapes these tests."""
    assert sorted(KINDS) == sorted(REGISTRY)
    assert set(GONE_ON) | set(TAKEN_BACK) <= set(KINDS)


@pytest.mark.parametrize("kind", GONE_ON)
def test_after_a_kill_the_next_run_reaches_the_end_state(crashes: Mapping[str, Future[Crash]], kind: str) -> None:
    """Killed for real, settled, converged; no orphan branch, comment, unit, timer or lock."""
    assert judged(crashes[f"{kind} {ONWARD}"].result()) == []


@pytest.mark.parametrize("kind", TAKEN_BACK)
def test_recover_undo_all_brings_the_baseline_back(crashes: Mapping[str, Future[Crash]], kind: str) -> None:
    """`--recover --undo all` after a kill: every repository, the poll set and the host are what they were."""
    seen = crashes[f"{kind} {BACK}"].result()
    assert seen.killed.exit == KILLED
    assert not_back(seen) == []
