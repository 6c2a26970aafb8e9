"""Every write of an undo fails once: reset, lost, time-out or 500.

A run is killed after nearly all of its changes, and ``--recover --undo all`` undoes them. The calls are enumerated from
such a recovery. An undo checks the state before and after its write, so an undo whose answer is lost succeeds in the
same run. An undo that fails is reported (exit 12), and the next ``--recover`` completes it.

By default a sample of the writes is tested, chosen by ``MUSTER_SEED`` (default: the date); ``MUSTER_ALL_CALLS=1`` tests
all of them.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from tests_meta.parallel_worlds import SEEDED, ParallelWorld, WorldState
from tests_meta.rollback.crash_checks import KILLED, ROSTER, UNDO_ALL, Crash, baseline_differences
from tests_meta.run.test_broken_calls import ALL, FAILURES, PLUGIN, SEED

DONE = "nearly-all-done"
LAST_ACT = "acted testme-comment recipe-maintainers/immich"
SAMPLE = 4
NOT_BEGUN, REFUSED = 1, 12


@dataclass(frozen=True)
class Recovery:
    """Whether the first attempt failed, and the differences from the baseline after the last."""

    refused: bool
    wrong: tuple[str, ...]


@dataclass(frozen=True)
class KilledRun:
    """A kept world in which a run was killed late, its state before that run, and the run's record."""

    parallel_world: ParallelWorld
    before: WorldState
    reports: Path

    def recover_with_broken_calls(self, folder: str, env: dict[str, str]) -> Recovery:
        """Run ``--recover --undo all`` with some call broken, and again if the first attempt failed."""
        reports = self.parallel_world.folder / folder
        shutil.copytree(self.reports, reports)
        (run,) = (reports / "runs").iterdir()
        self.parallel_world.lay(DONE)
        self.parallel_world.start()
        try:
            ran = self.parallel_world.visit(*UNDO_ALL, *PLUGIN, reports=reports, env=env)
            refused = ran.exit in (NOT_BEGUN, REFUSED)
            if refused:
                assert [line["do"] for line in ran.of("finding") if line["do"]] != [], ran.output
                ran = self.parallel_world.visit(*UNDO_ALL, reports=reports)
            crash = Crash(
                self.before, replace(ran, exit=KILLED, folder=run), ran, self.parallel_world.world_state()
            )
            return Recovery(refused, tuple(baseline_differences(crash)))
        finally:
            self.parallel_world.end()
            shutil.rmtree(reports)


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KilledRun]:
    parallel_world = ParallelWorld(tmp_path_factory.mktemp("undo") / "world", ROSTER)
    reports = parallel_world.folder / "reports"
    parallel_world.begin(SEEDED)
    before = parallel_world.world_state()
    env = {"MUSTER_STOP_AT": LAST_ACT}
    assert parallel_world.visit("-p", "tests_meta.rollback.crash_plugin", env=env, reports=reports).exit == KILLED
    parallel_world.keep(DONE)
    yield KilledRun(parallel_world, before, reports)
    parallel_world.clear()


@pytest.fixture(scope="module")
def writes(killed: KilledRun) -> list[str]:
    """The names of the undo's writes, in order."""
    names = killed.parallel_world.folder / "calls"
    recovery = killed.recover_with_broken_calls("enumerated", {"MUSTER_CALLS": str(names)})
    assert recovery == Recovery(refused=False, wrong=())
    rows = [line.split("\t", 1) for line in names.read_text().splitlines()]
    return [name for kind, name in rows if kind == "write"]


def test_writes_of_an_undo_cover_forge_git_and_host(writes: list[str]) -> None:
    """The enumerated writes include every kind of request that an undo makes."""
    for words in ("DELETE", "PATCH", "/contents", "git push", "systemctl stop", "reset --quiet --keep"):
        assert [name for name in writes if words in name] != [], words


def test_failed_write_of_an_undo_is_completed(
    killed: KilledRun, writes: list[str], record_property: Callable[[str, object], None]
) -> None:
    """The same run or, after a reported failure, the next one restores the baseline without leftovers."""
    everything = [(name, failure) for name in writes for failure in FAILURES]
    step = 1 if ALL else max(1, len(everything) // SAMPLE)
    chosen = everything[SEED % step :: step]
    wrong: dict[str, tuple[str, ...]] = {}
    refused = 0
    for number, (name, failure) in enumerate(chosen):
        recovery = killed.recover_with_broken_calls(
            f"broken-{number}", {"MUSTER_BREAK": failure, "MUSTER_BREAK_AT": name}
        )
        refused += recovery.refused
        print(
            f"{failure}: {name}: {'exit 12, then ' if recovery.refused else ''}{recovery.wrong or 'back'}",
            flush=True,
        )
        wrong |= {f"{failure}: {name}": recovery.wrong} if recovery.wrong else {}
    record_property(
        "count",
        f"writes of an undo: {len(writes)}; {len(chosen)} broken, {refused} made up for later (MUSTER_SEED={SEED})",
    )
    assert wrong == {}


def test_checks_detect_a_world_without_an_undo(killed: KilledRun) -> None:
    """Positive control: the checks report differences in a world in which no change was undone."""
    killed.parallel_world.lay(DONE)
    killed.parallel_world.start()
    try:
        after = killed.parallel_world.world_state()
    finally:
        killed.parallel_world.end()
    assert after.poll_set != killed.before.poll_set
    assert [one for one in after.left if "scratch" in one or "comment" in one] != []
