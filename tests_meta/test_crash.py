"""Killed or unplugged anywhere: the next run settles what was left, to the end state or to the baseline.

A *power cut* is one of the pictures of a run (`tests_meta.film`), one for each of its boundaries at which
anything durable differs, enumerated from the run itself. Each is put back twice: the next ordinary run has to
reach the end state, and ``--recover --undo all`` has to bring the baseline back. A *kill* is SIGKILL in the
middle of a change, while host, bridge, forge and Drone run on and do not notice.

On every push a sample is tried that moves on every day (``MUSTER_SEED`` chooses one); ``MUSTER_ALL_CRASH_POINTS=1``
tries all.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path

import pytest

from tests_meta.fault_lanes import MIRRORED, SEEDED, Lane, Sight, converged_but, in_lanes, live_differs
from tests_meta.film import content_of, forget, put_back, shoot
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
NOT_THAT_NIGHT = ("withdraw-suite",)
LATE = ("enroll", "sync-checkout", "switch", "scratch-pull")
KILLED_IN = tuple(kind for kind in KINDS if kind not in NOT_THAT_NIGHT) if ALL else ("merge-suite", "switch")
BACK = ("sync-tags", "switch") if ALL else ("switch",)
# How many pictures are put back on a push, and what is run then.
SAMPLE = {"taken back": 8, "gone on": 4}
AFTERWARDS = {"taken back": ("--recover", "--undo", "all"), "gone on": ()}
SEED = int(os.environ.get("MUSTER_SEED", date.today().toordinal()))


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
        killed = lane.visit("-p", "tests_meta.crash_plugin", env={"MUSTER_STOP_AT": boundary}, reports=reports)
        settled = lane.visit(*arguments, reports=reports)
        return Crash(before, killed, settled, lane.sight())
    finally:
        lane.end()


@dataclass(frozen=True)
class PowerCuts:
    """What became of the pictures of one film: by the boundary that each stands for, what is wrong."""

    boundaries: int
    pictures: int
    tried: Mapping[str, list[str]]


def power_cuts(lane: Lane, afterwards: str) -> PowerCuts:
    """Film a run; put back its pictures, or a sample that is spread evenly; run and judge each."""
    film = shoot(lane, lane.folder / "film")
    step = 1 if ALL else max(1, len(film.pictures) // SAMPLE[afterwards])
    tried = {}
    for picture in film.pictures[SEED % step :: step]:
        reports = lane.folder / f"reports-{picture.number}"
        put_back(lane, picture, reports)
        known = set((reports / "runs").iterdir())
        ran = lane.visit(*AFTERWARDS[afterwards], reports=reports)
        crash = Crash(film.before, replace(ran, exit=KILLED, folder=known.pop()), ran, lane.sight())
        finished = picture is film.pictures[-1]
        back = afterwards == "taken back" and not finished
        wrong = not_back(crash) if back else judged(crash, finished=finished)
        if back and content_of(lane) != film.content:
            wrong.append("cc-ci's head holds other files than before")
        tried[f"{picture.number} {picture.boundary}"] = wrong
        print(f"{afterwards}: {picture.number} {picture.boundary}: {wrong or 'settled'}", flush=True)
        lane.end()
        forget(picture)
    return PowerCuts(film.boundaries, len(film.pictures), tried)


@pytest.fixture(scope="module")
def cut(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Future[PowerCuts]]:
    """One film per way to go on."""

    def job(afterwards: str) -> Callable[[Lane], PowerCuts]:
        return lambda lane: power_cuts(lane, afterwards)

    folder = tmp_path_factory.mktemp("cuts")
    return in_lanes(folder, {afterwards: job(afterwards) for afterwards in AFTERWARDS}, roster=ROSTER)


@pytest.fixture(scope="module")
def crashes(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Future[Crash]]:
    """One kill per kind of change, when its write was made and not yet recorded; settled by an ordinary run."""

    def job(kind: str) -> Callable[[Lane], Crash]:
        return lambda lane: crash(lane, f"acted {kind}")

    return in_lanes(tmp_path_factory.mktemp("crashes"), {kind: job(kind) for kind in KILLED_IN}, roster=ROSTER)


@pytest.fixture(scope="module")
def taken_back(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Future[Crash]]:
    """One crash per kind in `BACK`, taken back as a whole."""

    def job(kind: str) -> Callable[[Lane], Crash]:
        return lambda lane: crash(lane, f"acted {kind}", "--recover", "--undo", "all")

    return in_lanes(tmp_path_factory.mktemp("back"), {kind: job(kind) for kind in BACK}, roster=ROSTER)


def test_the_kinds_are_those_of_the_table_of_undos() -> None:
    """Nothing new escapes these tests."""
    from fixtures.undo import KINDS as UNDOS

    assert sorted(KINDS) == sorted(UNDOS)
    assert set(KILLED_IN) | set(BACK) <= set(KINDS)


@pytest.mark.parametrize("afterwards", AFTERWARDS)
def test_after_a_power_cut_the_next_run_settles(cut: Mapping[str, Future[PowerCuts]], afterwards: str) -> None:
    """At each boundary: the world equals the end state, or the baseline; nothing of muster's is left in it."""
    seen = cut[afterwards].result()
    print(
        f"{seen.boundaries} boundaries, {seen.pictures} of them differ on disk; {afterwards}: "
        f"{len(seen.tried)} tried (MUSTER_SEED={SEED})"
    )
    assert len(seen.tried) >= (seen.pictures if ALL else SAMPLE[afterwards])
    assert {point: wrong for point, wrong in seen.tried.items() if wrong} == {}


@pytest.mark.parametrize("kind", KILLED_IN)
def test_after_a_kill_the_next_run_reaches_the_end_state(crashes: Mapping[str, Future[Crash]], kind: str) -> None:
    """Killed for real, settled, converged; no orphan branch, comment, unit, timer or lock."""
    assert judged(crashes[kind].result()) == []


def judged(seen: Crash, *, finished: bool = False) -> list[str]:
    """Why a crash was not settled; empty when it was. A run that had `finished` left nothing to settle."""
    if seen.killed.exit != KILLED:
        return [f"the run was not killed: exit {seen.killed.exit}"]
    wrong = [] if seen.settled.exit == 0 else [f"exit {seen.settled.exit}: {seen.settled.output[-1500:]}"]
    wrong += [] if finished else unsettled(seen)
    return wrong + converged_but(seen.after, RECIPES) + orphans(seen.after)


def not_back(seen: Crash) -> list[str]:
    """How the world differs from the baseline after everything was taken back."""
    wrong = [] if seen.settled.exit == 0 else [f"exit {seen.settled.exit}: {seen.settled.output[-1500:]}"]
    wrong += [word for word in ("Traceback", "INTERNALERROR") if word in seen.settled.output]
    wrong += live_differs(seen.before, seen.after) + orphans(seen.after) + unsettled(seen)
    if seen.after.host["checkout"] != seen.before.host["checkout"]:
        wrong.append("the checkout moved")
    return wrong + [
        f"the mirror of {name} is not what it was"
        for name in RECIPES
        if seen.after.forge.get(name) != seen.before.forge.get(name)
    ]


def unsettled(seen: Crash) -> list[str]:
    """The killed run's journal has an end that names who settled it; the chain of its lines was not broken."""
    assert seen.killed.folder is not None
    assert seen.settled.folder is not None
    last = seen.killed.lines[-1]
    if last["type"] == "end" and last.get("settled_by") == seen.settled.folder.name:
        return []
    return [f"the killed run's journal ends with {last['type']}"]


def orphans(after: Sight) -> list[str]:
    """Branches and open pull requests of muster's in any repository."""
    branches = [f"{name} {ref}" for name, refs in after.forge.items() for ref in refs if "heads/muster/" in ref]
    return branches + [f"open: {row[2]}" for row in after.talk["pulls"]
                       if str(row[2]).startswith("muster/") and row[4] == "open"]  # fmt: skip


@pytest.mark.parametrize("kind", BACK)
def test_recover_undo_all_brings_the_baseline_back(taken_back: Mapping[str, Future[Crash]], kind: str) -> None:
    """`--recover --undo all` after a kill: every repository, the poll set and the host are what they were."""
    seen = taken_back[kind].result()
    assert seen.killed.exit == KILLED
    assert not_back(seen) == []


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
