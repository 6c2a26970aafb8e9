"""The next run recovers a killed run, and two runs do not write to one host at the same time."""

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
from tests_meta.reports.statements import Finished, untrue_statements
from tests_meta.rollback.snapshots import suspend_world
from tests_meta.world_view import WorldView

AFTER_LOCKING = "before line 3 "


@pytest.fixture(scope="module")
def parallel_world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ParallelWorld]:
    """A running world that no test changes: its runs are stopped before their first change."""
    made = ParallelWorld(tmp_path_factory.mktemp("recovery") / "world")
    made.begin(SEEDED)
    yield made
    made.clear()


@contextmanager
def suspended_run(
    parallel_world: ParallelWorld, folder: Path, *arguments: str, at: str = AFTER_LOCKING
) -> Iterator[subprocess.Popen[bytes]]:
    """Start a run with its record in `folder`/first, suspend it at a boundary, and kill it at the end of the block."""
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
    arrived = "the first run at its boundary"
    until(lambda: names.exists() and at in names.read_text(), within_s=LIMIT_S, what=arrived)
    yield process
    if process.poll() is None:
        os.kill(process.pid, signal.SIGKILL)
    process.wait()


@pytest.fixture
def first(parallel_world: ParallelWorld, tmp_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A suspended run that holds the lock."""
    with suspended_run(parallel_world, tmp_path) as process:
        yield process


def test_second_run_is_refused_with_the_holder_of_the_lock(
    parallel_world: ParallelWorld, first: subprocess.Popen[bytes], tmp_path: Path
) -> None:
    """Exit 13 and no write; the output names the lock's holder, its start time and the command to end a dead holder."""
    before = parallel_world.world_state()
    assert before.left == ("the lock muster.lock",)
    second = parallel_world.visit(reports=tmp_path / "second").demand(13)
    assert f"pid {first.pid} " in second.output
    assert " since 20" in second.output
    assert "fuser -k" in second.output
    assert parallel_world.world_state() == before
    assert second.summary["verdict"] == "withheld"


def test_plan_does_not_need_the_lock(
    parallel_world: ParallelWorld, first: subprocess.Popen[bytes], tmp_path: Path
) -> None:
    """A plan during a running migration is made, and does not report the migration as killed."""
    assert first.poll() is None
    ran = parallel_world.visit("--plan", reports=tmp_path / "first").demand(10)
    assert [line for line in ran.of("finding") if line["id"].startswith("unfinished")] == []


def test_running_health_check_is_not_recovered(parallel_world: ParallelWorld, tmp_path: Path) -> None:
    """A health check holds no lock; a concurrent writing run does not recover it and keeps its record intact. After
    a kill, the next plan writes its report, and the next recovery ends its journal."""
    with suspended_run(parallel_world, tmp_path, "--health") as checking:
        (journal,) = (tmp_path / "first" / "runs").glob(f"*/{FILE_NAME}")
        beside = parallel_world.visit("--recover", reports=tmp_path / "first").demand(0)
        assert "settling" not in beside.output
        assert not read(journal).finished
        checking.send_signal(signal.SIGCONT)
        assert checking.wait() == 1, "nothing is migrated in this world"
        assert read(journal).of("end")[-1]["verdict"] == "drift"
    with suspended_run(parallel_world, tmp_path / "again", "--health") as checking:
        (journal,) = (tmp_path / "again" / "first" / "runs").glob(f"*/{FILE_NAME}")
        checking.kill()
        checking.wait()
        parallel_world.visit("--plan", reports=tmp_path / "again" / "first").demand(10)
        assert not read(journal).finished
        assert "Interrupted" in (journal.parent / "report.html").read_text()
        parallel_world.visit("--recover", reports=tmp_path / "again" / "first").demand(0)
        assert read(journal).of("end")[-1]["verdict"] == "interrupted"


def test_lock_of_a_killed_run_is_released(
    parallel_world: ParallelWorld, first: subprocess.Popen[bytes], tmp_path: Path
) -> None:
    """After kill -9 the next run gets the lock. Positive control: before that, the host reports the lock as held."""
    settings = parallel_world.settings
    assert leftovers(settings, WorldView(settings), WorldView(settings).database()) != []
    first.kill()
    first.wait()
    until(lambda: not parallel_world.world_state().left, what="the lock gone")
    parallel_world.visit("--recover", reports=tmp_path / "first").demand(0)


def test_refused_run_needs_no_recovery(
    parallel_world: ParallelWorld, first: subprocess.Popen[bytes], tmp_path: Path
) -> None:
    """A refused run ends its journal, so the next run does not treat it as killed."""
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
def changeable(parallel_world: ParallelWorld) -> Iterator[ParallelWorld]:
    """The world with mirrors in place, which the test may change; afterwards the shared state is restored."""
    parallel_world.begin(MIRRORED)
    yield parallel_world
    parallel_world.begin(SEEDED)


def test_lock_is_held_until_the_last_write(changeable: ParallelWorld, tmp_path: Path) -> None:
    """After the switch is confirmed over a new connection, a run still holds the lock while it triggers builds; then
    it completes."""
    with suspended_run(changeable, tmp_path, at="act testme-comment") as first:
        second = changeable.visit(reports=tmp_path / "second").demand(13)
        assert f"pid {first.pid} " in second.output
        first.send_signal(signal.SIGCONT)
        assert first.wait() == 0
    assert changeable.world_state().left == ()


def test_run_suspended_beyond_the_revert_timer_does_not_confirm_its_switch(
    changeable: ParallelWorld, tmp_path: Path
) -> None:
    """A run suspended in its switch until the revert timer fires exits with 11, and the host is restored."""
    before = changeable.world_state()
    with suspended_run(changeable, tmp_path, at="wrote HostWriter.act ( test ") as first:
        until(
            lambda: changeable.world_state().left == ("the lock muster.lock",),
            within_s=LIMIT_S,
            what="the revert to be complete",
        )
        first.send_signal(signal.SIGCONT)
        assert first.wait() == 11
    assert live_differences(before, changeable.world_state()) == []
    assert changeable.world_state().left == ()


def test_rollback_prevented_by_the_network_is_completed_by_recover(
    changeable: ParallelWorld, tmp_path: Path
) -> None:
    """If all servers stop responding between the enrollment and its deploy, the run exits with 12. When they respond
    again, a plan names the pending undo, and ``--recover`` makes it once."""
    before, reports = changeable.world_state(), tmp_path / "first"
    with suspended_run(changeable, tmp_path, at="act sync-checkout") as first:
        with suspend_world(changeable):
            first.send_signal(signal.SIGCONT)
            assert first.wait() == 12
        assert changeable.world_state().poll_set != before.poll_set
    (journal,) = (reports / "runs").glob(f"*/{FILE_NAME}")
    actions = [line["do"] for line in read(journal).of("finding") if line["id"].startswith("still-worse")]
    assert "look at the network from here first" in " ".join(actions)
    assert "could not take back" in changeable.visit("--plan", reports=reports).demand(10).output
    recovery = changeable.visit("--recover", reports=reports).demand(0)
    assert f"settling {journal.parent.name}" in recovery.output
    assert changeable.world_state().poll_set == before.poll_set
    assert live_differences(before, changeable.world_state()) == []
    assert untrue_statements(Finished(recovery)) == []
    assert read(journal).of("end")[-1]["settled_by"] == recovery.folder.name if recovery.folder else False
    assert "rollback-failed" in (journal.parent / "summary.json").read_text()
    assert "settling" not in changeable.visit("--recover", reports=reports).demand(0).output


def test_deploy_is_withheld_while_another_runs_revert_is_armed(changeable: ParallelWorld, tmp_path: Path) -> None:
    """A run without the record of a run that was killed in its switch is withheld while that run's revert is armed;
    after the revert, it converges."""
    before = changeable.world_state()
    with suspended_run(changeable, tmp_path, at="wrote HostWriter.act ( test ") as first:
        first.kill()
        first.wait()
        until(lambda: "the lock" not in str(changeable.world_state().left), what="the lock gone")
        second = changeable.visit(reports=tmp_path / "second").demand(13)
        assert "of another run is there" in second.output
        gone = "the dead run's revert over"
        until(lambda: not changeable.world_state().left, within_s=LIMIT_S, what=gone)
        assert changeable.world_state().host["running"] == before.host["running"]
        changeable.visit(reports=tmp_path / "second").demand(0)
