"""A pytest plugin that breaks calls of a run to other systems: loaded with ``-p tests_meta.run.broken_calls_plugin``.

A *call* is one HTTP request, one git command that talks to a forge, or one script on the host. Its name is
the request without ids that differ between runs, preceded by the number of its repetition. The names are written to
``MUSTER_CALLS``, one per line: ``read`` or ``write``, a tab, the name.

``MUSTER_BREAK`` is the failure, ``MUSTER_BREAK_AT`` the calls that fail, one per line; without it, every read fails
on its first attempt. The failure is raised where the library would report it, so that all code above it is muster's
own:

==========  =======================================================================================
`reset`     the connection is reset before the call takes effect (host: lost, exit status -1)
`lost`      the call takes effect, and the connection is reset before the answer
`time-out`  the call takes effect, and no answer arrives in time (git: stopped before it takes effect)
`500`       the server answers 500, and the call has no effect (host: as `reset`)
==========  =======================================================================================
"""

from __future__ import annotations

import os
import re
import subprocess
import threading
from collections import Counter
from pathlib import Path
from typing import Any

import httpx
import pytest

from fixtures.clients.git import Remote, Workspace
from fixtures.clients.host import CommandResult, CommandTimedOut, HeldSession, HostReader, HostWriter
from fixtures.errors import Unreachable

VARIABLE = re.compile(r"[0-9a-f]{40}|\d{8}t\d+z?[-a-z]*|[0-9a-z]{32}-|/tmp/[^\s'\"]*|\d+", re.IGNORECASE)
LENGTH = 160


def pytest_configure(config: pytest.Config) -> None:
    calls = Calls()
    _break_http(calls)
    _break_git(calls)
    _break_host(calls)


class Calls:
    """Names each call and decides whether and how it fails."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._met: Counter[str] = Counter()
        self._names = os.environ.get("MUSTER_CALLS")
        self._how = os.environ.get("MUSTER_BREAK", "")
        self._at = os.environ.get("MUSTER_BREAK_AT", "").splitlines()

    def failure_of(self, what: str, *, reads: bool) -> str:
        """The failure of this call; empty when it succeeds."""
        name = VARIABLE.sub("#", " ".join(what.split()))[:LENGTH]
        with self._lock:
            self._met[name] += 1
            met = self._met[name]
            if self._names:
                with open(self._names, "a") as stream:
                    stream.write(f"{'read' if reads else 'write'}\t{met} {name}\n")
        if self._at:
            return self._how if f"{met} {name}" in self._at else ""
        # Every read fails once: odd repetitions are first attempts, because each is retried.
        return self._how if reads and met % 2 == 1 else ""


def _break_http(calls: Calls) -> None:
    request = httpx.Client.request

    def broken(self: httpx.Client, method: str, url: Any, **named: Any) -> httpx.Response:
        how = calls.failure_of(f"{method} {httpx.URL(url).path}", reads=method == "GET")
        if how == "reset":
            raise httpx.ReadError("[Errno 104] Connection reset by peer")
        if how == "500":
            return httpx.Response(500, request=httpx.Request(method, url), text="internal server error")
        answer = request(self, method, url, **named)
        if how == "lost":
            raise httpx.ReadError("[Errno 104] Connection reset by peer")
        if how == "time-out":
            raise httpx.ReadTimeout("timed out")
        return answer

    httpx.Client.request = broken  # type: ignore[method-assign]


def _break_git(calls: Calls) -> None:
    start = Workspace._start

    def broken(
        self: Workspace, arguments: list[str], *, cwd: Path, remote: Remote | None
    ) -> subprocess.CompletedProcess[bytes]:
        if remote is None:
            return start(self, arguments, cwd=cwd, remote=remote)
        # git calls count as writes, because a push is never retried.
        how = calls.failure_of(f"git {arguments[0]} {cwd.name}", reads=False)
        if how == "time-out":
            hurried = Workspace(self._folder, limit_s=0.001)
            return start(hurried, arguments, cwd=cwd, remote=remote)
        if how == "500":
            message = f"fatal: unable to access '{remote.url}/': The requested URL returned error: 500"
            return subprocess.CompletedProcess(arguments, 128, b"", message.encode())
        if how == "reset":
            message = f"fatal: unable to access '{remote.url}/': Recv failure: Connection reset by peer"
            return subprocess.CompletedProcess(arguments, 128, b"", message.encode())
        done = start(self, arguments, cwd=cwd, remote=remote)
        if how == "lost":
            message = "error: RPC failed; curl 56 Recv failure: Connection reset by peer"
            return subprocess.CompletedProcess(arguments, 128, b"", message.encode())
        return done

    Workspace._start = broken  # type: ignore[method-assign]


def _break_host(calls: Calls) -> None:
    run, hold, act = HostReader._run, HostWriter.hold, HostWriter.act
    acting = threading.local()

    def broken(self: HostReader, script: str, *, limit_s: float) -> CommandResult:
        writes = getattr(acting, "now", False)
        how = calls.failure_of(f"host {script.rpartition('|| exit 90')[2]}", reads=not writes)
        if how in ("reset", "500"):
            raise self._lost(None)
        result = run(self, script, limit_s=limit_s)
        if how == "lost":
            raise self._lost(None)
        if how == "time-out":
            raise CommandTimedOut(f"{self._name}: the command did not end within its limit of {limit_s:.0f} s.")
        return result

    def noted(self: HostWriter, script: str, *, limit_s: float) -> CommandResult:
        acting.now = True
        try:
            return act(self, script, limit_s=limit_s)
        finally:
            acting.now = False

    def held(self: HostWriter, script: str) -> HeldSession:
        if calls.failure_of("host lock", reads=False):
            raise Unreachable(f"{self._name}: no connection (Connection reset by peer).")
        return hold(self, script)

    HostReader._run, HostWriter.act, HostWriter.hold = broken, noted, held  # type: ignore[method-assign]
