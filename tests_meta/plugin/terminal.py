"""Run pytest in a pseudo-terminal of a given width, and read what a person would see there."""

from __future__ import annotations

import fcntl
import multiprocessing
import os
import pty
import re
import select
import struct
import termios
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyte

from tests_meta import forked_runs
from tests_meta.muster_runs import PLUGINS_OFF, ROOT, environment

ROWS = 40
COLOUR = re.compile(rb"\x1b\[[0-9;]*m")
REDRAW = b"\r\x1b[K"


@dataclass(frozen=True)
class Shown:
    """The output of one run in a terminal: its bytes, and the screen's rows, those that scrolled away included."""

    exit: int
    raw: bytes
    rows: list[str]

    @property
    def text(self) -> str:
        return "\n".join(self.rows)

    @property
    def redrawn(self) -> list[str]:
        """Each text that was written over the line before, without the erasures."""
        parts = [COLOUR.sub(b"", part).decode() for part in self.raw.split(REDRAW)[1:]]
        return [part for part in parts if part.startswith("  … ")]


def run_in_terminal(
    arguments: Sequence[str],
    *,
    columns: int,
    env: Mapping[str, str] | None = None,
    cwd: Path = ROOT,
    limit_s: float = 120.0,
) -> Shown:
    """Run ``pytest ARGUMENTS`` in a fork whose standard output is a terminal; fails the test at the time limit."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(list(forked_runs.PRELOADED))
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", ROWS, columns, 0, 0))
    variables = {"TERM": "xterm-256color"} | environment(**(env or {}))
    for name in ("COLUMNS", "LINES", *({"NO_COLOR", "FORCE_COLOR"} - set(env or ()))):
        variables.pop(name, None)
    variables["TERM"] = (env or {}).get("TERM", "xterm-256color")
    process = context.Process(
        target=forked_runs.become_pytest,
        args=((*PLUGINS_OFF, *arguments), str(cwd), variables, os.ttyname(slave)),
    )
    process.start()
    raw = _read(master, process.sentinel, limit_s)
    os.close(slave)
    os.close(master)
    process.join(1.0)
    assert process.exitcode is not None, raw[-4000:].decode(errors="replace")
    return Shown(process.exitcode, raw, render(raw, columns))


def _read(master: int, ended: int, limit_s: float) -> bytes:
    """Everything that is written to the terminal until the process ends."""
    read, deadline = b"", time.monotonic() + limit_s
    while time.monotonic() < deadline:
        ready, _, _ = select.select([master, ended], [], [], 1.0)
        if master in ready:
            read += os.read(master, 65536)
        elif ended in ready:
            break
    return read


def render(raw: bytes, columns: int) -> list[str]:
    """The rows of a terminal of `columns` after it has shown `raw`, from the first one that scrolled away."""
    screen = pyte.HistoryScreen(columns, ROWS, history=10_000, ratio=1.0)
    pyte.ByteStream(screen).feed(raw)
    gone = ["".join(row[place].data for place in range(columns)) for row in screen.history.top]
    return [row.rstrip() for row in [*gone, *screen.display]]
