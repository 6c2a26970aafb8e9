"""After a power cut at any boundary, the next run recovers the world to the end state or to the baseline.

A *power cut* is a snapshot of a run (`tests_meta.rollback.snapshots`), one for each boundary after which durable
state differs, enumerated from the run. Each snapshot is restored; then either the next ordinary run must reach the
end state, or ``--recover --undo all`` must restore the baseline. By default each snapshot is restored once: every
third one is continued, but only every sixth of those in which a suite still needs a build, because that takes three
times as long. ``MUSTER_SEED`` (default: the date) selects them. ``MUSTER_ALL_CRASH_POINTS=1`` tests both ways for
each snapshot.
"""

from __future__ import annotations

import itertools
import os
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import date

import pytest

from fixtures.journal.lines import FILE_NAME
from fixtures.journal.reader import read
from tests_meta.parallel_worlds import ParallelWorld
from tests_meta.rollback.crash_checks import (
    BACK,
    KILLED,
    ONWARD,
    ROSTER,
    UNDO_ALL,
    Crash,
    baseline_differences,
    orphans,
    recover_from,
)
from tests_meta.rollback.snapshots import SnapshotSeries, forget_snapshots, restore_snapshot, take_snapshots

ALL = os.environ.get("MUSTER_ALL_CRASH_POINTS") == "1"
SEED = int(os.environ.get("MUSTER_SEED", date.today().toordinal()))
MERGED = "/merge"


@dataclass(frozen=True)
class RecordedRun:
    """A series of snapshots and the world in which they were taken."""

    parallel_world: ParallelWorld
    series: SnapshotSeries


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RecordedRun]:
    parallel_world = ParallelWorld(tmp_path_factory.mktemp("cuts") / "world", ROSTER)
    series = take_snapshots(parallel_world, parallel_world.folder / "snapshots")
    yield RecordedRun(parallel_world, series)
    parallel_world.clear()
    forget_snapshots(series)


def ways(series: SnapshotSeries) -> Iterator[tuple[int, str]]:
    """The index of each snapshot to test, with the way to continue from it."""
    merged = next(place for place, snapshot in enumerate(series.snapshots) if MERGED in snapshot.boundary)
    for place in range(len(series.snapshots)):
        onward = (place + SEED) % (6 if place < merged else 3) == 0
        yield from [(place, way) for way, chosen in ((ONWARD, onward), (BACK, not onward)) if chosen or ALL]


def test_power_cut_at_any_boundary_is_recovered(
    recorded: RecordedRun, record_property: Callable[[str, object], None]
) -> None:
    """After recovery the world equals the end state or the baseline, without leftovers of muster."""
    tried: dict[str, list[str]] = {}
    series, began = recorded.series, time.monotonic()
    for place, way in ways(series):
        snapshot = series.snapshots[place]
        point = f"{way}: {snapshot.number} {snapshot.boundary}"
        tried[point] = recover_from(recorded.parallel_world, series, snapshot, way)
        print(f"{time.monotonic() - began:7.1f} s {point}: {tried[point] or 'recovered'}", flush=True)
    record_property("count", describe_count(series, tried))
    assert len(tried) == len(series.snapshots) * (2 if ALL else 1)
    assert {point: wrong for point, wrong in tried.items() if wrong} == {}


def describe_count(series: SnapshotSeries, tried: Mapping[str, list[str]]) -> str:
    """Describe the number of boundaries, of snapshots, and of snapshots tested in each way."""
    each = ", ".join(f"{sum(1 for point in tried if point.startswith(way))} {way}" for way in (ONWARD, BACK))
    points = f"{series.boundaries} boundaries, {len(series.snapshots)} differ on disk"
    return f"power cuts: {points}; {each} (MUSTER_SEED={SEED})"


def test_failed_recovery_is_reported_and_retried_by_the_next_run(recorded: RecordedRun) -> None:
    """While git cannot reach the forge, recovery exits with 12 and a finding names the action. Neither a failed nor an
    interrupted recovery ends the killed run's journal; the next one completes it."""
    parallel_world, series = recorded.parallel_world, recorded.series
    # The push of a mirror: later ones delete a branch whose pull request is closed already.
    before_suites = itertools.takewhile(lambda one: "propose-suite" not in one.boundary, series.snapshots)
    snapshot = [snapshot for snapshot in before_suites if "Workspace.push" in snapshot.boundary][-1]
    reports = parallel_world.folder / "reports-later"
    restore_snapshot(parallel_world, snapshot, reports)
    (killed,) = (reports / "runs").iterdir()
    try:
        with parallel_world.breaking({"method": "*", "path": "git-(upload|receive)-pack", "action": "reset"}):
            for _ in range(2):
                ran = parallel_world.visit(*UNDO_ALL, reports=reports)
                assert (ran.exit, ran.summary["verdict"]) == (12, "rollback-failed"), ran.output
                assert [one["do"] for one in ran.of("finding") if killed.name in one["id"]] != []
                assert read(killed / FILE_NAME).of("end") == []
        interrupt = {"MUSTER_STOP_AT": "wrote Workspace.push", "MUSTER_STOP_BY": "INT"}
        ran = parallel_world.visit(
            *UNDO_ALL, "-p", "tests_meta.rollback.crash_plugin", reports=reports, env=interrupt
        )
        assert (ran.exit, ran.summary["verdict"]) == (2, "interrupted"), ran.output
        assert read(killed / FILE_NAME).of("end") == []
        ran = parallel_world.visit(*UNDO_ALL, reports=reports)
        assert (
            baseline_differences(
                Crash(series.before, replace(ran, exit=KILLED, folder=killed), ran, parallel_world.world_state())
            )
            == []
        )
    finally:
        parallel_world.end()


def test_checks_detect_an_unrecovered_world(recorded: RecordedRun) -> None:
    """Positive control: the same checks report defects in a world without recovery."""
    parallel_world, series = recorded.parallel_world, recorded.series
    with_open_pull = [
        snapshot for snapshot in series.snapshots if snapshot.boundary.startswith("wrote Http.send POST")
    ]
    restore_snapshot(parallel_world, with_open_pull[-1], parallel_world.folder / "reports-unrecovered")
    try:
        after = parallel_world.world_state()
    finally:
        parallel_world.end()
    assert [one for one in after.left if "muster/scratch-" in one] != []
    assert orphans(after) != []
