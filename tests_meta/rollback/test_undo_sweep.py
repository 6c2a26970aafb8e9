"""Taking back goes wrong too: every write of an undo is reset, lost, timed out or answered with 500, once.

A run was killed when it had done nearly everything, and ``--recover --undo all`` takes it back. Its calls are
enumerated from itself. An undo looks before it acts and looks again afterwards, so one whose answer was lost ends well
in the same run; what could not be reached at all is said (exit 12), and the next ``--recover`` makes up for it.

By itself that is a sample of its writes, which moves on every day (``MUSTER_SEED`` chooses); ``MUSTER_ALL_CALLS=1``
tries all of them.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from tests_meta.parallel_worlds import SEEDED, ParallelWorld, WorldState
from tests_meta.rollback.crash_checks import BACK_AGAIN, KILLED, ROSTER, Crash, not_back
from tests_meta.run.test_broken_calls import ALL, FAILURES, PLUGIN, SEED

DONE = "nearly-all-done"
LAST_ACT = "acted testme-comment recipe-maintainers/immich"
SAMPLE = 4
NOT_BEGUN, REFUSED = 1, 12


@dataclass(frozen=True)
class Taken:
    """Whether the first try had to say no, and what is not back after the last."""

    refused: bool
    wrong: tuple[str, ...]


@dataclass(frozen=True)
class Killed:
    """A world in which a run was killed late, kept in the lane; the world before that run, and its record."""

    parallel_world: ParallelWorld
    before: WorldState
    reports: Path

    def taken_back(self, folder: str, env: dict[str, str]) -> Taken:
        """``--recover --undo all`` with some call broken, and again where the first said that it could not."""
        reports = self.parallel_world.folder / folder
        shutil.copytree(self.reports, reports)
        (run,) = (reports / "runs").iterdir()
        self.parallel_world.lay(DONE)
        self.parallel_world.start()
        try:
            ran = self.parallel_world.visit(*BACK_AGAIN, *PLUGIN, reports=reports, env=env)
            refused = ran.exit in (NOT_BEGUN, REFUSED)
            if refused:
                assert [line["do"] for line in ran.of("finding") if line["do"]] != [], ran.output
                ran = self.parallel_world.visit(*BACK_AGAIN, reports=reports)
            seen = Crash(
                self.before, replace(ran, exit=KILLED, folder=run), ran, self.parallel_world.world_state()
            )
            return Taken(refused, tuple(not_back(seen)))
        finally:
            self.parallel_world.end()
            shutil.rmtree(reports)


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Killed]:
    parallel_world = ParallelWorld(tmp_path_factory.mktemp("undo") / "world", ROSTER)
    reports = parallel_world.folder / "reports"
    parallel_world.begin(SEEDED)
    before = parallel_world.world_state()
    env = {"MUSTER_STOP_AT": LAST_ACT}
    assert parallel_world.visit("-p", "tests_meta.rollback.crash_plugin", env=env, reports=reports).exit == KILLED
    parallel_world.keep(DONE)
    yield Killed(parallel_world, before, reports)
    parallel_world.clear()


@pytest.fixture(scope="module")
def writes(killed: Killed) -> list[str]:
    """The names of the undo's writes, in order."""
    names = killed.parallel_world.folder / "calls"
    seen = killed.taken_back("enumerated", {"MUSTER_CALLS": str(names)})
    assert seen == Taken(refused=False, wrong=())
    rows = [line.split("\t", 1) for line in names.read_text().splitlines()]
    return [name for kind, name in rows if kind == "write"]


def test_every_kind_of_undo_is_among_them(writes: list[str]) -> None:
    """What is swept is all that an undo does: forge, git and host."""
    for words in ("DELETE", "PATCH", "/contents", "git push", "systemctl stop", "reset --quiet --keep"):
        assert [name for name in writes if words in name] != [], words


def test_an_undo_that_was_broken_off_is_made_up_for(
    killed: Killed, writes: list[str], record_property: Callable[[str, object], None]
) -> None:
    """In the same run, or said and made up for by the next: the baseline is back, and nothing is left."""
    everything = [(name, failure) for name in writes for failure in FAILURES]
    step = 1 if ALL else max(1, len(everything) // SAMPLE)
    chosen = everything[SEED % step :: step]
    wrong: dict[str, tuple[str, ...]] = {}
    refused = 0
    for number, (name, failure) in enumerate(chosen):
        seen = killed.taken_back(f"broken-{number}", {"MUSTER_BREAK": failure, "MUSTER_BREAK_AT": name})
        refused += seen.refused
        print(f"{failure}: {name}: {'exit 12, then ' if seen.refused else ''}{seen.wrong or 'back'}", flush=True)
        wrong |= {f"{failure}: {name}": seen.wrong} if seen.wrong else {}
    record_property(
        "count",
        f"writes of an undo: {len(writes)}; {len(chosen)} broken, {refused} made up for later (MUSTER_SEED={SEED})",
    )
    assert wrong == {}


def test_the_checks_see_what_an_undo_left(killed: Killed) -> None:
    """Positive control: the world in which nothing was taken back is not the baseline."""
    killed.parallel_world.lay(DONE)
    killed.parallel_world.start()
    try:
        after = killed.parallel_world.world_state()
    finally:
        killed.parallel_world.end()
    assert after.poll_set != killed.before.poll_set
    assert [one for one in after.left if "scratch" in one or "comment" in one] != []
