"""The power fails anywhere: the next run settles what was left, to the end state or to the baseline.

A *power cut* is one of the snapshots of a run (`tests_meta.rollback.snapshots`), one for each of its boundaries
at which anything durable differs, enumerated from the run itself. Each is put back, and then either the next
ordinary run has to reach the end state, or ``--recover --undo all`` has to bring the baseline back. On every
push each snapshot is put back once: every third one is gone on from, and every sixth of those from which a suite
is still to be proven by a build, which takes three times as long; which ones moves on every day
(``MUSTER_SEED`` chooses). ``MUSTER_ALL_CRASH_POINTS=1`` tries each snapshot in both ways.
"""

from __future__ import annotations

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
    BACK_AGAIN,
    KILLED,
    ONWARD,
    ROSTER,
    Crash,
    not_back,
    orphans,
    settle,
)
from tests_meta.rollback.snapshots import SnapshotSeries, forget_snapshots, restore_snapshot, take_snapshots

ALL = os.environ.get("MUSTER_ALL_CRASH_POINTS") == "1"
SEED = int(os.environ.get("MUSTER_SEED", date.today().toordinal()))
PROVEN = "/merge"


@dataclass(frozen=True)
class Filmed:
    """A series of snapshots, and the world that they were taken of."""

    parallel_world: ParallelWorld
    series: SnapshotSeries


@pytest.fixture(scope="module")
def filmed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Filmed]:
    parallel_world = ParallelWorld(tmp_path_factory.mktemp("cuts") / "world", ROSTER)
    series = take_snapshots(parallel_world, parallel_world.folder / "snapshots")
    yield Filmed(parallel_world, series)
    parallel_world.clear()
    forget_snapshots(series)


def ways(series: SnapshotSeries) -> Iterator[tuple[int, str]]:
    """For each snapshot, by its place in the film: what comes afterwards."""
    proven = next(place for place, snapshot in enumerate(series.snapshots) if PROVEN in snapshot.boundary)
    for place in range(len(series.snapshots)):
        onward = (place + SEED) % (6 if place < proven else 3) == 0
        yield from [(place, way) for way, chosen in ((ONWARD, onward), (BACK, not onward)) if chosen or ALL]


def test_after_a_power_cut_the_next_run_settles(
    filmed: Filmed, record_property: Callable[[str, object], None]
) -> None:
    """At each boundary: the world equals the end state, or the baseline; nothing of muster's is left in it."""
    tried: dict[str, list[str]] = {}
    series, began = filmed.series, time.monotonic()
    for place, way in ways(series):
        snapshot = series.snapshots[place]
        point = f"{way}: {snapshot.number} {snapshot.boundary}"
        tried[point] = settle(filmed.parallel_world, series, snapshot, way)
        print(f"{time.monotonic() - began:7.1f} s {point}: {tried[point] or 'settled'}", flush=True)
    record_property("count", said(series, tried))
    assert len(tried) == len(series.snapshots) * (2 if ALL else 1)
    assert {point: wrong for point, wrong in tried.items() if wrong} == {}


def said(series: SnapshotSeries, tried: Mapping[str, list[str]]) -> str:
    """How many points there were, and how many were tried in each way."""
    each = ", ".join(f"{sum(1 for point in tried if point.startswith(way))} {way}" for way in (ONWARD, BACK))
    points = f"{series.boundaries} boundaries, {len(series.snapshots)} differ on disk"
    return f"power cuts: {points}; {each} (MUSTER_SEED={SEED})"


def test_what_cannot_be_settled_now_is_said_and_settled_later(filmed: Filmed) -> None:
    """Git gets no answer from the forge: exit 12 and what to do, never an end that looks well. Nor does one that is
    interrupted. Then it is settled."""
    parallel_world, series = filmed.parallel_world, filmed.series
    snapshot = [one for one in series.snapshots if "Workspace.push" in one.boundary][-1]
    reports = parallel_world.folder / "reports-later"
    restore_snapshot(parallel_world, snapshot, reports)
    (killed,) = (reports / "runs").iterdir()
    try:
        with parallel_world.breaking({"method": "*", "path": "git-(upload|receive)-pack", "action": "reset"}):
            for arguments in (BACK_AGAIN, ()):
                ran = parallel_world.visit(*arguments, reports=reports)
                assert (ran.exit, ran.summary["verdict"]) == (12, "rollback-failed"), ran.output
                assert [one["do"] for one in ran.of("finding") if killed.name in one["id"]] != []
                assert read(killed / FILE_NAME).of("end") == []
        interrupt = {"MUSTER_STOP_AT": "wrote Workspace.push", "MUSTER_STOP_BY": "INT"}
        ran = parallel_world.visit(
            *BACK_AGAIN, "-p", "tests_meta.rollback.crash_plugin", reports=reports, env=interrupt
        )
        assert (ran.exit, ran.summary["verdict"]) == (2, "failed"), ran.output
        assert read(killed / FILE_NAME).of("end") == []
        ran = parallel_world.visit(*BACK_AGAIN, reports=reports)
        assert (
            not_back(
                Crash(series.before, replace(ran, exit=KILLED, folder=killed), ran, parallel_world.world_state())
            )
            == []
        )
    finally:
        parallel_world.end()


def test_the_checks_see_what_a_power_cut_leaves(filmed: Filmed) -> None:
    """Positive control: the same checks, on worlds in which nobody has settled anything, do find fault."""
    parallel_world, series = filmed.parallel_world, filmed.series
    opened = [snapshot for snapshot in series.snapshots if snapshot.boundary.startswith("wrote Http.send POST")]
    restore_snapshot(parallel_world, opened[-1], parallel_world.folder / "reports-unsettled")
    try:
        after = parallel_world.world_state()
    finally:
        parallel_world.end()
    assert [one for one in after.left if "muster/scratch-" in one] != []
    assert orphans(after) != []
