"""Waits are bounded, report what they wait for and can be interrupted; only reads are retried, within bounds."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import struct
import subprocess
import sys
import termios
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from fixtures.clients.retry import Busy, repeat_probe
from fixtures.errors import Conflict, MusterError, Refused, TimedOut, Unreachable
from fixtures.run.waiting import Seen, Waiter
from tests_meta.muster_runs import ROOT, environment

SHORT_S = 0.01


@dataclass
class RecordingWatcher:
    """A watcher of a wait that records each notification."""

    ticks: list[tuple[str, float, str]] = field(default_factory=list)
    ends: list[tuple[str, float, bool, str]] = field(default_factory=list)
    finished: int = 0

    def waiting(self, what: str, waited_s: float, limit_s: float, last_seen: str) -> None:
        assert waited_s <= limit_s
        self.ticks.append((what, limit_s, last_seen))

    def waited(self, what: str, waited_s: float, limit_s: float, reached: bool, last_seen: str) -> None:
        self.ends.append((what, limit_s, reached, last_seen))

    def ended(self) -> None:
        self.finished += 1


def scripted(*outcomes: object) -> tuple[list[object], object]:
    """Return the list of outcomes still to come, and a probe that returns or raises them in turn."""
    left = list(outcomes)

    def look() -> object:
        outcome = left.pop(0)
        if isinstance(outcome, BaseException):
            raise outcome
        return outcome

    return left, look


def until(
    look: object, *, limit_s: float = 5.0, watcher: RecordingWatcher | None = None, interval_s: float = SHORT_S
) -> object:
    waiter = Waiter(watcher or RecordingWatcher(), interval_s=interval_s)
    return waiter.until("the mirror", look, limit_s=limit_s)  # type: ignore[arg-type]  # scripted


# -- waits -------------------------------------------------------------------------------------------------


def test_wait_returns_the_result_of_the_probe() -> None:
    """The probe is repeated until it returns anything but `Seen`."""
    watcher = RecordingWatcher()
    left, look = scripted(Seen("empty"), Seen("still empty"), "main")
    assert until(look, watcher=watcher) == "main"
    assert left == []
    assert watcher.ticks == [("the mirror", 5.0, "empty"), ("the mirror", 5.0, "still empty")]
    assert watcher.ends == [("the mirror", 5.0, True, "")]


@pytest.mark.parametrize("found", [None, False, 0, ""])
def test_any_result_but_seen_ends_the_wait(found: object) -> None:
    """None and other false values are results; only `Seen` means "probe again"."""
    assert until(scripted(found)[1]) is found


def test_immediate_result_is_returned_without_a_pause() -> None:
    """The first probe is made even with a limit of 0, and no pause follows its result."""
    started = time.monotonic()
    assert until(scripted("there")[1], interval_s=60, limit_s=0) == "there"
    assert time.monotonic() - started < 1


def test_wait_continues_while_a_server_is_unreachable() -> None:
    """`Unreachable` counts as not found, and its message is reported as last seen."""
    watcher = RecordingWatcher()
    assert until(scripted(Unreachable("host: no connection."), "back")[1], watcher=watcher) == "back"
    assert watcher.ticks[0][2] == "host: no connection."


@pytest.mark.parametrize("error", [Refused("no."), Conflict("moved."), KeyError("x")])
def test_other_error_ends_the_wait(error: Exception) -> None:
    """Errors other than `Unreachable` are raised immediately, because waiting cannot fix them."""
    with pytest.raises(type(error)):
        until(scripted(error)[1])


def test_wait_ends_at_its_limit_and_reports_the_last_state() -> None:
    """The error names the awaited thing and the setting to raise, and the watcher is notified."""
    watcher, started = RecordingWatcher(), time.monotonic()
    with pytest.raises(TimedOut, match="for the mirror; seen last: still empty") as caught:
        until(lambda: Seen("still empty"), limit_s=0.2, watcher=watcher)
    assert 0.2 <= time.monotonic() - started < 3
    assert "[limits]" in caught.value.do
    assert watcher.ends == [("the mirror", 0.2, False, "still empty")]


def test_wait_probes_a_last_time_at_the_limit() -> None:
    """The last probe is made when the limit is reached, not one interval earlier."""
    looks: list[float] = []
    started = time.monotonic()

    def look() -> Seen:
        looks.append(time.monotonic() - started)
        return Seen("nothing")

    with pytest.raises(TimedOut):
        until(look, limit_s=0.3, interval_s=60)
    assert len(looks) == 2
    assert looks[1] >= 0.3


def test_signal_ends_a_wait_immediately() -> None:
    """When the signal handler sets `stop`, a long wait raises KeyboardInterrupt."""
    waiter = Waiter(interval_s=3600)
    looked = threading.Event()

    def look() -> Seen:
        looked.set()
        return Seen("nothing")

    def stopping() -> None:
        looked.wait(10)
        waiter.stop.set()

    stopper = threading.Thread(target=stopping)
    stopper.start()
    with pytest.raises(KeyboardInterrupt):
        waiter.until("the build", look, limit_s=7200)
    stopper.join()


# -- repeated reads ----------------------------------------------------------------------------------------


def repeated(*outcomes: object, **bounds: float) -> object:
    _, look = scripted(*outcomes)
    return repeat_probe(look, pause_s=SHORT_S, **bounds)  # type: ignore[arg-type]  # scripted


def test_read_is_attempted_three_times() -> None:
    """Two failed attempts are retried; the third failure is raised."""
    unreachable = Unreachable("no answer.")
    assert repeated(unreachable, unreachable, "answer") == "answer"
    left, look = scripted(unreachable, unreachable, unreachable, "too late")
    with pytest.raises(Unreachable):
        repeat_probe(look, pause_s=SHORT_S)  # type: ignore[arg-type]  # scripted
    assert left == ["too late"]


@pytest.mark.parametrize("error", [Refused("no."), MusterError("what."), ValueError("x")])
def test_only_unreachable_is_retried(error: Exception) -> None:
    """Any other error is raised after the first attempt."""
    left, look = scripted(error, "never asked")
    with pytest.raises(type(error)):
        repeat_probe(look, pause_s=SHORT_S)  # type: ignore[arg-type]  # scripted
    assert left == ["never asked"]


def test_pauses_double() -> None:
    """The second pause is twice the first, to reduce the load on a failing server."""
    times: list[float] = []

    def look() -> None:
        times.append(time.monotonic())
        raise Unreachable("no answer.")

    with pytest.raises(Unreachable):
        repeat_probe(look, attempts=3, pause_s=0.1)
    assert times[1] - times[0] >= 0.1
    assert times[2] - times[1] >= 0.2


def test_attempts_are_bounded_in_total_time() -> None:
    """No pause begins that would end after the total limit, even if attempts remain."""
    left, look = scripted(*[Unreachable("no answer.")] * 9)
    started = time.monotonic()
    with pytest.raises(Unreachable):
        repeat_probe(look, attempts=9, within_s=0.3, pause_s=0.1)  # type: ignore[arg-type]  # scripted
    assert time.monotonic() - started < 0.4
    assert len(left) == 9 - 2


def test_retry_after_of_a_busy_server_is_respected() -> None:
    """Retry-After extends the pause if it fits within the total limit; otherwise Busy is raised."""
    started = time.monotonic()
    assert repeated(Busy("429", retry_after_s=0.3), "answer") == "answer"
    assert time.monotonic() - started >= 0.3
    with pytest.raises(Busy):
        repeated(Busy("429", retry_after_s=60), "never asked", within_s=1)


# -- progress on a terminal --------------------------------------------------------------------------------

WATCHED = """
import threading, pytest
from fixtures.run.progress import Progress
from fixtures.run.waiting import Seen, Waiter

def test_it(request):
    waiter, looks = Waiter(Progress(request.config), interval_s=0.2), iter(range(100))
    waiter.until("a build of ghost", lambda: Seen("pending") if next(looks) < 8 else True, limit_s=90)
"""


def on_a_terminal(folder: Path) -> str:
    """The output of a pytest run with one wait on a terminal of 100 columns."""
    (folder / "test_wait.py").write_text(WATCHED)
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 30, 100, 0, 0))
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-p",
        "no:cacheprovider",
        "--rootdir",
        str(folder),
        str(folder),
    ]
    process = subprocess.Popen(command, cwd=folder, env=environment(PYTHONPATH=str(ROOT), TERM="xterm"),
                               stdin=theirs, stdout=theirs, stderr=theirs)  # fmt: skip
    os.close(theirs)
    shown = b""
    while True:
        try:
            piece = os.read(ours, 4096)
        except OSError:
            break  # the other end is closed
        if not piece:
            break
        shown += piece
    os.close(ours)
    assert process.wait(60) == 0, shown.decode()
    return shown.decode()


def test_terminal_shows_the_progress_of_a_wait(tmp_path: Path) -> None:
    """One line shows the awaited thing, elapsed time, limit and last state; a final line gives the duration."""
    shown = on_a_terminal(tmp_path)
    assert re.search(r"\r.*… a build of ghost: \d+ s of at most 90 s \(pending\)", shown)
    assert re.search(r"waited [\d.]+ s for a build of ghost", shown)
