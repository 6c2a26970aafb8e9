"""Snapshots of a world and of a run's record after every write of the run; each simulates a power failure.

The run is stopped with SIGSTOP at each boundary: after each synced line of the journal, and after each write to
the outside. The world's processes are stopped too while its folder is copied, so a snapshot has what the disks
would have if the power had failed everywhere at that moment. Nothing durable changes between two boundaries, so
the snapshots cover the whole run.

A test restores a snapshot, starts the world from it, and runs muster again. Files that did not change between two
snapshots are hard links.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from fixtures.rehearsal.supervisor import descendants
from tests_meta.muster_runs import ROOT, command, environment
from tests_meta.parallel_worlds import SEEDED, ParallelWorld, WorldState
from tests_meta.rollback.crash_plugin import durable
from tests_meta.world_view import WorldView


@dataclass(frozen=True)
class Snapshot:
    """The content of the disks after `boundary`; `number` counts the boundaries of the run."""

    number: int
    boundary: str
    folder: Path


@dataclass(frozen=True)
class SnapshotSeries:
    """A whole run: the world before it, the content of cc-ci's head, its number of boundaries, and its snapshots."""

    before: WorldState
    content: str
    boundaries: int
    snapshots: tuple[Snapshot, ...]


def take_snapshots(parallel_world: ParallelWorld, folder: Path, *, state: str = SEEDED) -> SnapshotSeries:
    """Take snapshots of a successful run in a world in `state`."""
    folder.mkdir()
    names, reports = folder / "boundaries", folder / "reports"
    parallel_world.begin(state)
    before, content = parallel_world.world_state(), content_of(parallel_world)
    arguments = (
        "--site",
        str(parallel_world.site),
        "--roster",
        str(parallel_world.roster),
        "-p",
        "tests_meta.rollback.crash_plugin",
    )
    with open(folder / "output", "wb") as output:
        process = subprocess.Popen(
            command("phases/", *arguments, "--reports", str(reports), "-o", f"cache_dir={folder / 'cache'}"),
            cwd=ROOT,
            env=environment(MUSTER_BOUNDARIES=str(names), MUSTER_PAUSE="1"),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
        )
    snapshots: list[Snapshot] = []
    taker = SnapshotTaker()
    try:
        while os.WIFSTOPPED(status := os.waitpid(process.pid, os.WUNTRACED)[1]):
            # Other threads may have passed a boundary without durable state before they stopped.
            passed = [line.split("\t", 1) for line in names.read_text().splitlines()]
            number, boundary = next(each for each in reversed(passed) if durable(each[1]))
            target = folder / f"{number:0>4}"
            target.mkdir()
            with suspend_world(parallel_world):
                taker.copy(parallel_world.world, target / "world")
            taker.copy(reports, target / "reports")
            snapshots.append(Snapshot(int(number), boundary, target))
            process.send_signal(signal.SIGCONT)
    except BaseException:
        process.kill()
        raise
    process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0, (folder / "output").read_text()[-4000:]
    series = SnapshotSeries(before, content, len(names.read_text().splitlines()), tuple(snapshots))
    parallel_world.end()
    return series


def restore_snapshot(parallel_world: ParallelWorld, snapshot: Snapshot, reports: Path) -> None:
    """Restore the world's disks and the record from a snapshot, and start the world."""
    parallel_world.end()
    parallel_world.clear()
    _copy(snapshot.folder / "world", parallel_world.world)
    _copy(snapshot.folder / "reports", reports)
    parallel_world.start()


def content_of(parallel_world: ParallelWorld) -> str:
    """The tree id of cc-ci's head; unlike the commit id, a revert restores it."""
    return WorldView(parallel_world.settings).git("cc-ci", "rev-parse", "main^{tree}")


def forget_snapshots(series: SnapshotSeries) -> None:
    """Delete all snapshots, including read-only store folders."""
    for snapshot in series.snapshots:
        subprocess.run(
            ["find", str(snapshot.folder), "-type", "d", "-exec", "chmod", "u+w", "{}", "+"], check=True
        )
        shutil.rmtree(snapshot.folder)


class SnapshotTaker:
    """Copies folders repeatedly; files that did not change since the previous copy are hard links to it."""

    def __init__(self) -> None:
        self._seen: dict[str, tuple[tuple[int, ...], str]] = {}

    def copy(self, source: Path, target: Path) -> None:
        """Copy a folder that does not change meanwhile, with its links, permissions and times."""
        target.mkdir()
        for entry in os.scandir(source):
            there, status = str(target / entry.name), entry.stat(follow_symlinks=False)
            if entry.is_symlink():
                os.symlink(os.readlink(entry.path), there)
            elif entry.is_dir():
                self.copy(Path(entry.path), Path(there))
            elif entry.is_file():
                self._file(entry.path, status, there)
        shutil.copystat(source, target)

    def _file(self, path: str, status: os.stat_result, there: str) -> None:
        mark = (status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
        known, copy = self._seen.get(path, ((), ""))
        if known == mark:
            os.link(copy, there)
        else:
            shutil.copy2(path, there)
            self._seen[path] = (mark, there)


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    subprocess.run(["cp", "-a", "--reflink=auto", str(source), str(target)], check=True)


@contextmanager
def suspend_world(parallel_world: ParallelWorld) -> Iterator[None]:
    """Suspend all processes of the world for the duration of the block."""
    stopped: list[int] = []
    # A process may start another one before it stops, because the signal takes effect with a delay.
    while active := [pid for pid in descendants(parallel_world.supervisor) if _is_active(pid)]:
        for pid in active:
            _send_signal(pid, signal.SIGSTOP)
        stopped += [pid for pid in active if pid not in stopped]
        os.sched_yield()
    try:
        yield
    finally:
        for pid in stopped:
            _send_signal(pid, signal.SIGCONT)


def _is_active(pid: int) -> bool:
    """Whether a process can still run. A process in vfork(2) counts as suspended if its child is stopped."""
    state = _state(pid)
    waits = state == "D" and any(_state(child) in "Tt" for child in descendants(pid))
    return state not in "TtZX" and not waits


def _state(pid: int) -> str:
    """The state letter of /proc/PID/stat: ``T`` if stopped; ``X`` if the process has ended."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return "X"


def _send_signal(pid: int, number: signal.Signals) -> None:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return  # already ended
