"""Killed anywhere: the next run settles what was left and the world becomes the end state, or the baseline again.

The boundaries are enumerated from a run itself: before and after each line of its journal, before and after each
write to the outside. On every push a few kinds of change are tried; ``MUSTER_ALL_CRASH_POINTS=1`` tries every
durable boundary. What runs on meanwhile is the world: host, bridge, forge and Drone do not notice that muster died.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests_meta.fault_lanes import MIRRORED, SEEDED, Lane, Sight, converged_but, in_lanes, live_differs
from tests_meta.rehearsals import Ran

ALL = os.environ.get("MUSTER_ALL_CRASH_POINTS") == "1"
KILLED = -9
ROSTER = """\
recipes = [
  { name = "n8n", enroll = false },
  { name = "hedgedoc", enroll = false },
  { name = "immich", enroll = true, known_red = { reason = "restore", until = 9999-12-31 } },
  { name = "mumble", enroll = true },
]
canaries = ["immich"]
deferred = []
"""
RECIPES = ("n8n", "hedgedoc", "immich", "mumble")
# The changes of a run from the night, each killed when its write was made and its outcome was not yet recorded.
KINDS = (
    "create-mirror",
    "sync-main",
    "sync-tags",
    "withdraw-suite",
    "propose-suite",
    "describe-suite",
    "merge-suite",
    "enroll",
    "sync-checkout",
    "switch",
    "scratch-pull",
    "testme-comment",
)
QUICK = ("create-mirror", "sync-main", "merge-suite", "enroll", "switch", "scratch-pull")
BACK = ("sync-tags", "switch")
LATE = ("enroll", "sync-checkout", "switch", "scratch-pull")


@dataclass(frozen=True)
class Crash:
    """The world before, the run that was killed, the next one, and the world after it."""

    before: Sight
    killed: Ran
    settled: Ran
    after: Sight


def crash(lane: Lane, boundary: str, *arguments: str) -> Crash:
    """Kill a run at `boundary`, then run again with `arguments` in the world that went on meanwhile."""
    late = any(boundary.endswith(kind) or f" {kind} " in boundary for kind in LATE) and not ALL
    lane.begin(MIRRORED if late else SEEDED)
    reports = lane.folder / f"reports-{re.sub('[^a-z0-9]+', '-', boundary)}-{len(arguments)}"
    try:
        before = lane.sight()
        killed = lane.visit(
            "-p", "tests_meta.crash_plugin", env={"MUSTER_STOP_AT": boundary}, reports=reports
        )
        settled = lane.visit(*arguments, reports=reports)
        return Crash(before, killed, settled, lane.sight())
    finally:
        lane.end()


def enumerated(lane: Lane) -> list[str]:
    """Every boundary of a whole run, in order, as it names them itself."""
    names = lane.folder / "boundaries"
    lane.begin(SEEDED)
    try:
        lane.visit("-p", "tests_meta.crash_plugin", env={"MUSTER_BOUNDARIES": str(names)}).demand(0)
    finally:
        lane.end()
    return [line.partition("\t")[2] for line in names.read_text().splitlines()]


def durable(boundaries: Iterable[str]) -> list[str]:
    """The boundaries at which something outside, or the synced part of the journal, may differ."""
    synced = ("run", "intent", "outcome", "undo", "end")
    return [
        str(number)
        for number, name in enumerate(boundaries)
        if name.startswith("act") or name.rpartition(" ")[2] in synced
    ]


@pytest.fixture(scope="module")
def points(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Where to kill: one boundary of each kind of change, or all durable ones of a run."""
    if not ALL:
        return [f"acted {kind}" for kind in QUICK]
    folder = tmp_path_factory.mktemp("enumerated")
    boundaries = enumerated(Lane(folder / "lane", ROSTER))
    chosen = durable(boundaries)
    print(f"{len(boundaries)} boundaries, {len(chosen)} of them durable")
    return chosen


@pytest.fixture(scope="module")
def crashes(points: list[str], tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Future[Crash]]:
    """One crash per point, settled by the next ordinary run."""

    def job(boundary: str) -> Callable[[Lane], Crash]:
        return lambda lane: crash(lane, boundary)

    return in_lanes(
        tmp_path_factory.mktemp("crashes"), {point: job(point) for point in points}, roster=ROSTER
    )


@pytest.fixture(scope="module")
def taken_back(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Future[Crash]]:
    """One crash per kind in `BACK`, taken back as a whole."""

    def job(kind: str) -> Callable[[Lane], Crash]:
        return lambda lane: crash(lane, f"acted {kind}", "--recover", "--undo", "all")

    return in_lanes(tmp_path_factory.mktemp("back"), {kind: job(kind) for kind in BACK}, roster=ROSTER)


def test_the_points_cover_every_kind_of_change(points: list[str]) -> None:
    """Whatever is chosen for a push, the list of kinds is the table of undos; nothing new escapes it."""
    from fixtures.undo import KINDS as UNDOS

    assert sorted(KINDS) == sorted(UNDOS)
    assert set(QUICK) | set(BACK) <= set(KINDS)
    assert points


def test_after_a_kill_the_next_run_reaches_the_end_state(
    points: list[str], crashes: Mapping[str, Future[Crash]]
) -> None:
    """For each point: killed for real, settled, converged; no orphan branch, comment, unit, timer or lock."""
    wrong = {point: found for point in points if (found := judged(crashes[point]))}
    print(f"{len(points)} points")
    assert wrong == {}


def judged(future: Future[Crash]) -> list[str]:
    """Why a crash was not settled; empty when it was."""
    seen = future.result()
    if seen.killed.exit != KILLED:
        return [f"the run was not killed: exit {seen.killed.exit}"]
    wrong = [] if seen.settled.exit == 0 else [f"exit {seen.settled.exit}: {seen.settled.output[-1500:]}"]
    return wrong + converged_but(seen.after, RECIPES) + unsettled(seen) + orphans(seen.after)


def unsettled(seen: Crash) -> list[str]:
    """The killed run's journal has an end that names who settled it; the chain of its lines was not broken."""
    assert seen.killed.folder is not None
    last = seen.killed.lines[-1]
    if last["type"] == "end" and last.get("settled_by") == seen.settled.folder.name:  # type: ignore[union-attr]
        return []
    return [f"the killed run's journal ends with {last['type']}"]


def orphans(after: Sight) -> list[str]:
    """Branches and open pull requests of muster's in any repository."""
    branches = [
        f"{name} {ref}" for name, refs in after.forge.items() for ref in refs if "heads/muster/" in ref
    ]
    return branches + [f"open: {row[2]}" for row in after.talk["pulls"]
                       if str(row[2]).startswith("muster/") and row[4] == "open"]  # fmt: skip


@pytest.mark.parametrize("kind", BACK)
def test_recover_undo_all_brings_the_baseline_back(
    taken_back: Mapping[str, Future[Crash]], kind: str
) -> None:
    """`--recover --undo all` after a kill: every repository, the poll set and the host are what they were."""
    seen = taken_back[kind].result()
    assert seen.killed.exit == KILLED
    seen.settled.demand(0)
    assert "INTERNALERROR" not in seen.settled.output
    assert live_differs(seen.before, seen.after) == []
    assert seen.after.host["checkout"] == seen.before.host["checkout"]
    assert orphans(seen.after) == []
    mirrors = [name for name in RECIPES if seen.after.forge.get(name) != seen.before.forge.get(name)]
    assert mirrors == []


def test_the_checks_see_what_a_kill_leaves(tmp_path: Path) -> None:
    """Positive control: the same checks, on a world in which nobody has settled anything, do find fault."""
    lane = Lane(tmp_path / "lane", ROSTER)
    lane.begin(MIRRORED)
    try:
        killed = lane.visit("-p", "tests_meta.crash_plugin", env={"MUSTER_STOP_AT": "acted scratch-pull"})
        assert killed.exit == KILLED
        after = lane.sight()
    finally:
        lane.clear()
    assert [one for one in after.left if "muster/scratch-" in one] != []
    assert orphans(after) != []
