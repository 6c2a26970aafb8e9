"""What a killed run left is found by the next one, and two musters do not work on one host at the same time."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from fixtures.journal.lines import FILE_NAME
from fixtures.journal.reader import read
from tests_meta.muster_runs import LIMIT_S, ROOT, command, environment
from tests_meta.parallel_worlds import MIRRORED, SEEDED, ParallelWorld, leftovers, live_differences
from tests_meta.rehearsal.ci_world import until
from tests_meta.rollback.snapshots import still
from tests_meta.world_view import WorldView

HELD = "before line 3 "


@pytest.fixture(scope="module")
def parallel_world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ParallelWorld]:
    """One running world; nothing here changes it but a run that is stopped before its first change."""
    made = ParallelWorld(tmp_path_factory.mktemp("recovery") / "world")
    made.begin(SEEDED)
    yield made
    made.clear()


@contextmanager
def standing_still(
    parallel_world: ParallelWorld, folder: Path, *arguments: str, at: str = HELD
) -> Iterator[subprocess.Popen[bytes]]:
    """A muster that has begun its record in `folder`/first and stands still at a boundary, until the block is over."""
    folder.mkdir(exist_ok=True)
    names = folder / "boundaries"
    arguments = (
        "--site",
        str(parallel_world.site),
        "--roster",
        str(parallel_world.roster),
        "-p",
        "tests_meta.rollback.crash_plugin",
        *arguments,
    )
    process = subprocess.Popen(
        command("phases/", *arguments, "--reports", str(folder / "first"), "-o", f"cache_dir={folder / 'cache'}"),
        cwd=ROOT,
        env=environment(MUSTER_STOP_AT=at, MUSTER_STOP_BY="STOP", MUSTER_BOUNDARIES=str(names)),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    arrived = "the first muster at its boundary"
    until(lambda: names.exists() and at in names.read_text(), within_s=LIMIT_S, what=arrived)
    yield process
    if process.poll() is None:
        os.kill(process.pid, signal.SIGKILL)
    process.wait()


@pytest.fixture
def first(parallel_world: ParallelWorld, tmp_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A muster that has the lock and stands still."""
    with standing_still(parallel_world, tmp_path) as process:
        yield process


def test_a_second_muster_is_refused_and_told_by_whom(
    parallel_world: ParallelWorld, first: subprocess.Popen[bytes], tmp_path: Path
) -> None:
    """Exit 13, nothing written; it says who holds the lock, since when, and how to take over from a dead one."""
    before = parallel_world.world_state()
    assert before.left == ("the lock muster.lock",)
    second = parallel_world.visit(reports=tmp_path / "second").demand(13)
    assert f"pid {first.pid} " in second.output
    assert " since 20" in second.output
    assert "fuser -k" in second.output
    assert parallel_world.world_state() == before
    assert second.summary["verdict"] == "withheld"


def test_a_run_that_only_reads_does_not_need_the_lock(
    parallel_world: ParallelWorld, first: subprocess.Popen[bytes], tmp_path: Path
) -> None:
    """A plan beside a running migration is told, not refused, and does not take it for a killed one."""
    assert first.poll() is None
    ran = parallel_world.visit("--plan", reports=tmp_path / "first").demand(10)
    assert [line for line in ran.of("finding") if line["id"].startswith("unfinished")] == []


def test_a_health_check_that_still_runs_is_left_alone(parallel_world: ParallelWorld, tmp_path: Path) -> None:
    """It holds no lock on the host. A writing run beside it settles nothing of it, and its record stays whole; once it
    is killed, the next run that looks gives it a report that says so, and the next that writes its end."""
    with standing_still(parallel_world, tmp_path, "--health") as checking:
        (journal,) = (tmp_path / "first" / "runs").glob(f"*/{FILE_NAME}")
        beside = parallel_world.visit("--recover", reports=tmp_path / "first").demand(0)
        assert "settling" not in beside.output
        assert not read(journal).finished
        checking.send_signal(signal.SIGCONT)
        assert checking.wait() == 1, "nothing is migrated in this world"
        assert read(journal).of("end")[-1]["verdict"] == "drift"
    with standing_still(parallel_world, tmp_path / "again", "--health") as checking:
        (journal,) = (tmp_path / "again" / "first" / "runs").glob(f"*/{FILE_NAME}")
        checking.kill()
        checking.wait()
        parallel_world.visit("--plan", reports=tmp_path / "again" / "first").demand(10)
        assert not read(journal).finished
        assert "Interrupted" in (journal.parent / "report.html").read_text()
        parallel_world.visit("--recover", reports=tmp_path / "again" / "first").demand(0)
        assert read(journal).of("end")[-1]["verdict"] == "interrupted"


def test_a_dead_owners_lock_is_gone(
    parallel_world: ParallelWorld, first: subprocess.Popen[bytes], tmp_path: Path
) -> None:
    """kill -9, and the next run gets the lock at once; positive control: before that, the host says it is held."""
    settings = parallel_world.settings
    assert leftovers(settings, WorldView(settings), WorldView(settings).database()) != []
    first.kill()
    first.wait()
    until(lambda: not parallel_world.world_state().left, what="the lock gone")
    parallel_world.visit("--recover", reports=tmp_path / "first").demand(0)


def test_a_run_that_was_refused_leaves_nothing_to_settle(
    parallel_world: ParallelWorld, first: subprocess.Popen[bytes], tmp_path: Path
) -> None:
    """Its journal has an end: the run after it does not take it for a killed one."""
    before = parallel_world.world_state()
    reports = tmp_path / "second"
    parallel_world.visit(reports=reports).demand(13)
    first.kill()
    first.wait()
    until(lambda: not parallel_world.world_state().left, what="the lock gone")
    again = parallel_world.visit("--recover", reports=reports).demand(0)
    assert "settling" not in again.output
    assert live_differences(before, parallel_world.world_state()) == []


@pytest.fixture
def spoilt(parallel_world: ParallelWorld) -> Iterator[ParallelWorld]:
    """A world of its own in which the mirrors are there, for one test to change; the shared one comes back after it."""
    parallel_world.begin(MIRRORED)
    yield parallel_world
    parallel_world.begin(SEEDED)


def test_the_lock_is_held_to_the_last_write(spoilt: ParallelWorld, tmp_path: Path) -> None:
    """A run whose switch is confirmed, over a new connection, still has it when it asks for verdicts; then it goes on
    to its end."""
    with standing_still(spoilt, tmp_path, at="act testme-comment") as first:
        second = spoilt.visit(reports=tmp_path / "second").demand(13)
        assert f"pid {first.pid} " in second.output
        first.send_signal(signal.SIGCONT)
        assert first.wait() == 0
    assert spoilt.world_state().left == ()


def test_a_run_that_slept_in_its_switch_wakes_up_to_a_host_that_went_back(
    spoilt: ParallelWorld, tmp_path: Path
) -> None:
    """A lid was closed for longer than the revert waits: nothing is confirmed afterwards, and all is as it was."""
    before = spoilt.world_state()
    with standing_still(spoilt, tmp_path, at="wrote HostWriter.act ( test ") as first:
        until(
            lambda: spoilt.world_state().left == ("the lock muster.lock",),
            within_s=LIMIT_S,
            what="the revert was made",
        )
        first.send_signal(signal.SIGCONT)
        assert first.wait() == 11
    assert live_differences(before, spoilt.world_state()) == []
    assert spoilt.world_state().left == ()


def test_a_rollback_that_the_network_did_not_let_happen_is_made_up_for(
    spoilt: ParallelWorld, tmp_path: Path
) -> None:
    """Between the enrollment and its deploy everything falls silent: exit 12, which says so. When the servers answer
    again, a plan names what is owed, and ``--recover`` takes it back, once."""
    before, reports = spoilt.world_state(), tmp_path / "first"
    with standing_still(spoilt, tmp_path, at="act sync-checkout") as first:
        with still(spoilt):
            first.send_signal(signal.SIGCONT)
            assert first.wait() == 12
        assert spoilt.world_state().poll_set != before.poll_set
    (journal,) = (reports / "runs").glob(f"*/{FILE_NAME}")
    told = [line["do"] for line in read(journal).of("finding") if line["id"].startswith("still-worse")]
    assert "look at the network from here first" in " ".join(told)
    assert "could not take back" in spoilt.visit("--plan", reports=reports).demand(10).output
    settled = spoilt.visit("--recover", reports=reports).demand(0)
    assert f"settling {journal.parent.name}" in settled.output
    assert spoilt.world_state().poll_set == before.poll_set
    assert live_differences(before, spoilt.world_state()) == []
    assert read(journal).of("end")[-1]["settled_by"] == settled.folder.name if settled.folder else False
    assert "rollback-failed" in (journal.parent / "summary.json").read_text()
    assert "settling" not in spoilt.visit("--recover", reports=reports).demand(0).output


def test_nothing_is_deployed_below_a_revert_that_somebody_else_armed(
    spoilt: ParallelWorld, tmp_path: Path
) -> None:
    """A run was killed in its switch, and its record is on a machine that is gone. The next one from elsewhere is
    withheld while the dead one's revert is armed; when that is over, it converges."""
    before = spoilt.world_state()
    with standing_still(spoilt, tmp_path, at="wrote HostWriter.act ( test ") as first:
        first.kill()
        first.wait()
        until(lambda: "the lock" not in str(spoilt.world_state().left), what="the lock gone")
        second = spoilt.visit(reports=tmp_path / "second").demand(13)
        assert "of another run is there" in second.output
        gone = "the dead run's revert over"
        until(lambda: not spoilt.world_state().left, within_s=LIMIT_S, what=gone)
        assert spoilt.world_state().host["running"] == before.host["running"]
        spoilt.visit(reports=tmp_path / "second").demand(0)
