"""A pytest plugin that kills a run at one of its boundaries: loaded with ``-p tests_meta.rollback.crash_plugin``.

The journal calls its observer before and after every line and around every act. This observer counts
the boundaries, writes their names to ``MUSTER_BOUNDARIES``, and sends this process a signal at ``MUSTER_STOP_AT`` (a
number, or the beginning of a name): ``MUSTER_STOP_BY`` is KILL (the default), INT, TERM, HUP or STOP, sent
``MUSTER_STOP_TIMES`` times. ``MUSTER_PAUSE`` suspends the process (SIGSTOP) at every boundary after which durable
state differs. Each write to another system is a boundary too: ``wrote …`` with the call's first words comes after
the write has taken effect and before its answer is processed. ``MUSTER_FULL_AT`` simulates a full disk instead: from
that boundary on, the journal cannot grow.
"""

from __future__ import annotations

import os
import resource
import signal
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fixtures.clients.git import Workspace
from fixtures.clients.host import HostWriter
from fixtures.clients.http import Http
from fixtures.journal.writer import Observer
from fixtures.plugin.session import OBSERVER

WORDS = 60
SYNCED = ("run", "intent", "outcome", "undo", "end")


def pytest_configure(config: pytest.Config) -> None:
    observer: Observer = Boundaries()
    config.stash[OBSERVER] = observer
    _around(Http, "send", observer)
    _around(Workspace, "push", observer)
    _around(HostWriter, "act", observer)


def _around(kind: type, method: str, observer: Observer) -> None:
    """Make each call of a writing method a boundary, before it and after it."""
    write: Callable[..., Any] = getattr(kind, method)
    noun = f"{kind.__name__}.{method}"

    def observed(self: object, *arguments: Any, **named: Any) -> Any:
        words = " ".join(" ".join(word for word in arguments if isinstance(word, str)).split())[:WORDS]
        observer(f"write {noun} {words}")
        answer = write(self, *arguments, **named)
        observer(f"wrote {noun} {words}")
        return answer

    setattr(kind, method, observed)


class Boundaries:
    """Counts the boundaries of one run, and interrupts the run at one of them as the environment requests."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._passed = 0
        self._names = os.environ.get("MUSTER_BOUNDARIES")
        self._stop = os.environ.get("MUSTER_STOP_AT", "")
        self._pause = bool(os.environ.get("MUSTER_PAUSE"))
        self._full = os.environ.get("MUSTER_FULL_AT", "")
        self._signal = getattr(signal, "SIG" + os.environ.get("MUSTER_STOP_BY", "KILL"))
        self._times = int(os.environ.get("MUSTER_STOP_TIMES", "1"))

    def __call__(self, boundary: str) -> None:
        with self._lock:
            number, self._passed = self._passed, self._passed + 1
            if self._names:
                with open(self._names, "a") as stream:
                    stream.write(f"{number}\t{boundary}\n")
            if self._pause and durable(boundary):
                # Sent to this thread, so that it stops here and not a moment later.
                signal.pthread_kill(threading.get_ident(), signal.SIGSTOP)
        if self._meets(self._stop, number, boundary):
            for _ in range(self._times):
                os.kill(os.getpid(), self._signal)
        if self._meets(self._full, number, boundary):
            resource.setrlimit(resource.RLIMIT_FSIZE, (_written(), resource.RLIM_INFINITY))

    def _meets(self, wanted: str, number: int, boundary: str) -> bool:
        """Whether the boundary has the wanted number, or is the first whose name begins with `wanted`."""
        if wanted == str(number):
            return True
        if not wanted or wanted.isdigit() or not boundary.startswith(wanted):
            return False
        self._stop = self._full = ""
        return True


def durable(boundary: str) -> bool:
    """Whether another system or the synced part of the journal has changed since the previous boundary."""
    kind = boundary.rpartition(" ")[2]
    return boundary.startswith("wrote ") or (boundary.startswith("after line ") and kind in SYNCED)


def _written() -> int:
    """The size of the largest journal that this process has open, as the limit for file sizes."""
    sizes = [0]
    for link in Path("/proc/self/fd").iterdir():
        try:
            if link.readlink().name == "journal.jsonl":
                sizes.append(link.stat().st_size)
        except OSError:
            continue  # closed meanwhile
    return max(sizes)
