"""One run, with a picture of the whole world and of the run's record after every write: each is a power cut.

A run is stopped (SIGSTOP, so all of its threads) at each boundary after which something durable differs: after
each synced line of the journal and after each write to the outside, enumerated by the run itself. The world's
processes are stopped too while its folder is copied, so that a picture is what a disk would hold if the power
had failed everywhere at that instant. Between two pictures nothing durable changes, so together they stand for
every boundary of the run.

A picture is put back at its place, the world is started from it, and the next muster has to cope.
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
from tests_meta.crash_plugin import durable
from tests_meta.eyes import Eyes
from tests_meta.fault_lanes import SEEDED, Lane, Sight
from tests_meta.rehearsals import ROOT, command, environment


@dataclass(frozen=True)
class Picture:
    """What was on the disks after `boundary`; `number` counts the boundaries of the run."""

    number: int
    boundary: str
    folder: Path


@dataclass(frozen=True)
class Film:
    """A whole run: the world before it (and what cc-ci's head held), its boundaries, and its pictures."""

    before: Sight
    content: str
    boundaries: int
    pictures: tuple[Picture, ...]


def shoot(lane: Lane, folder: Path, *, state: str = SEEDED) -> Film:
    """Film a run that ends well in a world that was put into `state`."""
    folder.mkdir()
    names, reports = folder / "boundaries", folder / "reports"
    lane.begin(state)
    before, content = lane.sight(), content_of(lane)
    arguments = ("--site", str(lane.site), "--roster", str(lane.roster), "-p", "tests_meta.crash_plugin")
    with open(folder / "output", "wb") as output:
        process = subprocess.Popen(
            command("phases/", *arguments, "--reports", str(reports), "-o", f"cache_dir={folder / 'cache'}"),
            cwd=ROOT,
            env=environment(MUSTER_BOUNDARIES=str(names), MUSTER_PAUSE="1"),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
        )
    pictures: list[Picture] = []
    while os.WIFSTOPPED(status := os.waitpid(process.pid, os.WUNTRACED)[1]):
        # Other threads may have passed a boundary of no consequence before they stood still.
        passed = [line.split("\t", 1) for line in names.read_text().splitlines()]
        number, boundary = next(each for each in reversed(passed) if durable(each[1]))
        target = folder / f"{number:0>4}"
        with _still(lane):
            _copy(lane.world, target / "world")
        _copy(reports, target / "reports")
        pictures.append(Picture(int(number), boundary, target))
        process.send_signal(signal.SIGCONT)
    process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0, (folder / "output").read_text()[-4000:]
    film = Film(before, content, len(names.read_text().splitlines()), tuple(pictures))
    lane.end()
    return film


def put_back(lane: Lane, picture: Picture, reports: Path) -> None:
    """The power is back: the world starts from what its disks hold, and the record lies where it lay."""
    lane.end()
    lane.clear()
    _copy(picture.folder / "world", lane.world)
    _copy(picture.folder / "reports", reports)
    lane.start()


def content_of(lane: Lane) -> str:
    """All files at cc-ci's head, as one id: a revert brings it back, though the history has grown."""
    return Eyes(lane.settings).git("cc-ci", "rev-parse", "main^{tree}")


def forget(picture: Picture) -> None:
    subprocess.run(["chmod", "-R", "u+w", str(picture.folder)], check=True)
    shutil.rmtree(picture.folder)


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    subprocess.run(["cp", "-a", "--reflink=auto", str(source), str(target)], check=True)


@contextmanager
def _still(lane: Lane) -> Iterator[None]:
    """While the block runs, no process of the world does anything."""
    stopped = descendants(lane.supervisor)
    for pid in stopped:
        _tell(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in stopped:
            _tell(pid, signal.SIGCONT)


def _tell(pid: int, number: signal.Signals) -> None:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return  # it ended by itself
