"""No exception of a library leaves a client: each that can come up is raised in it, and an error of muster comes out.

`test_http` does the same for httpx and ssl, `test_decoding` for JSON.
"""

from __future__ import annotations

import struct
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import paramiko
import pytest

from fixtures.clients.git import Remote, Workspace
from fixtures.clients.host import HeldSession, HostReader, HostWriter
from fixtures.clients.ssh_config import HostAddress
from fixtures.errors import MusterError, Unknown, Unreachable


def every(kind: type[Exception]) -> Iterator[type[Exception]]:
    yield kind
    for below in kind.__subclasses__():
        yield from every(below)


def made(kind: type[Exception]) -> Exception:
    """One of this kind, however its constructor is written."""
    key = paramiko.ECDSAKey.generate()
    for arguments in (
        ("broken",),
        ("host", key, key),
        ("broken", ["password"]),
        ("command", "broken"),
        ({("127.0.0.1", 22): OSError("refused")},),
        (1, "broken"),
        ("line", ValueError("broken")),
        (),
    ):
        try:
            return kind(*arguments)
        except (TypeError, AttributeError, ValueError):
            continue
    raise AssertionError(f"no arguments for {kind}")


def ssh_exceptions() -> list[Exception]:
    kinds = [
        *every(paramiko.SSHException),
        paramiko.hostkeys.InvalidHostKey,
        *every(OSError),
        EOFError,
        struct.error,
    ]
    ours = [
        kind
        for kind in dict.fromkeys(kinds)
        if kind.__module__.split(".")[0] in ("paramiko", "builtins", "socket", "struct")
    ]
    return [*map(made, ours), UnicodeDecodeError("utf-8", b"x", 0, 1, "broken"), ValueError("broken")]


class Raising:
    """A connection, its transport and its channel: every use raises, from the `stage` on that is named."""

    def __init__(self, problem: Exception, stage: str) -> None:
        self._problem, self._stage = problem, stage
        self.alive, self.transport = True, self

    def _at(self, stage: str) -> None:
        if stage == self._stage:
            raise self._problem

    def open_session(self, **_: Any) -> Raising:
        self._at("open")
        return self

    def exec_command(self, _: str) -> None:
        self._at("start")

    def recv(self, _: int) -> bytes:
        self._at("read")
        return b""

    def recv_ready(self) -> bool:
        self._at("read")
        return False

    def settimeout(self, _: float) -> None:
        pass

    def sendall(self, _: bytes) -> None:
        self._at("read")

    def shutdown_write(self) -> None:
        self._at("read")

    def close(self) -> None:
        pass


@pytest.mark.parametrize("stage", ["open", "start", "read"])
def test_ssh_exceptions_become_errors_of_muster(stage: str, tmp_path: Path) -> None:
    """Whatever paramiko raises for a session: it was not started, or its outcome is not known."""
    problems = ssh_exceptions()
    assert len(problems) > 25
    address = HostAddress(address="127.0.0.1", known_hosts=tmp_path / "known_hosts")
    for problem in problems:
        for kind in (HostReader, HostWriter):
            host = kind(address)
            host._connection = Raising(problem, stage)  # type: ignore[assignment]
            with pytest.raises((Unreachable, Unknown)):
                host._run("true", limit_s=1)
        writer = HostWriter(address)
        writer._connection = Raising(problem, stage)  # type: ignore[assignment]
        if stage != "read":
            with pytest.raises(Unreachable):
                writer.hold("cat")
        held = HeldSession(Raising(problem, "read"))  # type: ignore[arg-type]
        with pytest.raises(Unreachable):
            held.first_line(limit_s=1)
        assert held.answers(limit_s=1) is False
        held.end()


def test_git_that_cannot_be_started_is_an_error_of_muster(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever the system raises for a new process, from a missing shell to no memory for a fork, is `Unreachable`."""
    workspace = Workspace(tmp_path / "git", limit_s=5)
    for kind in every(OSError):
        if kind.__module__ != "builtins":
            continue

        def fail(*_: Any, kind: type[Exception] = kind, **__: Any) -> None:
            raise kind("broken")

        monkeypatch.setattr(subprocess, "Popen", fail)
        with pytest.raises(MusterError, match="git cannot be started"):
            workspace.fetch(Remote("http://127.0.0.1:9/x.git"), ["refs/heads/main"], store="x")
        monkeypatch.undo()
