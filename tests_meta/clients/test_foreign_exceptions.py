"""No exception of a library leaves a client: each that can be raised in it becomes an error of muster.

Covered are sessions, the steps of a connection (name, port, proxy, TLS, key exchange, login) and git's processes.
`test_http` does the same for requests with httpx and ssl, `test_decoding` for JSON.
"""

from __future__ import annotations

import contextlib
import socket
import ssl
import struct
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import paramiko
import pytest
import python_socks
from python_socks.sync import Proxy as SocksProxy

from fixtures.clients import connection, ssh_connection, ssh_keys
from fixtures.clients.connection import Endpoint
from fixtures.clients.git import Remote, Workspace
from fixtures.clients.host import HeldSession, HostReader, HostWriter
from fixtures.clients.http import Http
from fixtures.clients.known_hosts import KnownHost
from fixtures.clients.ssh_config import HostAddress, Route
from fixtures.config.secret import Secret
from fixtures.errors import MusterError, Refused, Unknown, Unreachable


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


# -- the way there ---------------------------------------------------------------------------------------------

PLACE = Endpoint("host.example.org", 22)
PROXIES = ("http://127.0.0.1:9", "https://127.0.0.1:9", "socks5h://127.0.0.1:9")


def connection_exceptions() -> list[Exception]:
    """What the system and ssl raise for a connection, and what names and ports that are none raise."""
    kinds = [
        kind
        for kind in dict.fromkeys([*every(OSError), *every(ssl.SSLError)])
        if kind.__module__ in ("builtins", "socket", "ssl")
    ]
    odd = [UnicodeError("label too long"), ValueError("server_hostname cannot be an empty string"), EOFError()]
    return [*(kind("broken") for kind in kinds), *odd, OverflowError("port must be 0-65535.")]


PROXY_EXCEPTIONS = (python_socks.ProxyError, python_socks.ProxyConnectionError, python_socks.ProxyTimeoutError)


def failing(problem: Exception) -> Callable[..., Any]:
    def fail(*_: Any, **__: Any) -> None:
        raise problem

    return fail


@contextlib.contextmanager
def pair() -> Iterator[socket.socket]:
    """A connected socket whose other end is open."""
    near, far = socket.socketpair()
    with near, far:
        yield near


def test_connection_exceptions_become_errors_of_muster(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever a name, a port or a local address raises is `Unreachable`, with a sentence and what to do."""
    steps: dict[str, Callable[[], Any]] = {
        "create_connection": lambda: connection.connect(PLACE, 5),
        "getaddrinfo": lambda: connection.resolve_addresses(PLACE.host, 5),
    }
    for problem in connection_exceptions():
        for step, take in steps.items():
            with monkeypatch.context() as patch:
                patch.setattr(socket, step, failing(problem))
                with pytest.raises(Unreachable) as caught:
                    take()
                assert caught.value.do, problem


@pytest.mark.parametrize("proxy", PROXIES)
def test_proxy_exceptions_become_errors_of_muster(proxy: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever a proxy's connection, handshake or answer raises names the proxy and never its login."""
    login = Secret("name:pass-word", where="nowhere")
    problems = [*connection_exceptions(), *(kind("broken") for kind in PROXY_EXCEPTIONS)]
    for problem in problems if proxy.startswith("socks") else connection_exceptions():
        with monkeypatch.context() as patch, pair() as link:
            broken = SimpleNamespace(sendall=failing(problem), close=link.close, settimeout=link.settimeout)
            tls = SimpleNamespace(wrap_socket=failing(problem))
            patch.setattr(connection, "connect", lambda *_, **__: broken)  # noqa: B023
            patch.setattr(ssl, "create_default_context", lambda *_, **__: tls)  # noqa: B023
            patch.setattr(SocksProxy, "create", lambda **_: SimpleNamespace(connect=failing(problem)))  # noqa: B023
            with pytest.raises((Unreachable, Refused), match="The proxy") as caught:
                connection.connect_through(proxy, PLACE, 5, login=login)
            assert "pass-word" not in str(caught.value)


def test_tls_exceptions_become_errors_of_muster() -> None:
    """Whatever a handshake raises is `Unreachable`; an issuer that cannot be read is no reason to fail."""
    for problem in connection_exceptions():
        context: Any = SimpleNamespace(wrap_socket=failing(problem))
        with pair() as link, pytest.raises(Unreachable, match=PLACE.host):
            connection.verify_certificate(link, PLACE, context)
        with pytest.MonkeyPatch.context() as patch, pair() as link:
            patch.setattr(ssl.SSLContext, "wrap_socket", failing(problem))
            assert connection.read_issuer(link, PLACE) == ""


def ssh_route(folder: Path) -> Route:
    return Route(
        name="127.0.0.1",
        port=22,
        user="root",
        command="",
        identities=(folder / "id",),
        certificates=(),
        only_identities=True,
        agent="",
        known=KnownHost(("127.0.0.1",), "127.0.0.1", (), ((),)),
        family=socket.AF_UNSPEC,
        bind_address="",
    )


def test_key_exchange_exceptions_become_errors_of_muster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever paramiko raises while keys are exchanged ends the connection as `Unreachable`, and closes it."""
    at, threads = HostAddress(address="127.0.0.1"), threading.active_count()
    for problem in [*ssh_exceptions(), *connection_exceptions(), IndexError("out of range"), TypeError("None")]:
        for step in ("start_client", "get_remote_server_key"):
            with monkeypatch.context() as patch, pair() as link:
                transport = ssh_connection.VerifiableTransport
                patch.setattr(transport, "start_client", lambda *_, **__: None)
                patch.setattr(transport, step, failing(problem))
                patch.setattr(ssh_connection, "_dial", lambda *_: link)
                with pytest.raises(Unreachable, match="no ssh connection"):
                    ssh_connection.open_connection(at, ssh_route(tmp_path))
                assert link.fileno() == -1, "it is closed"
    assert threading.active_count() == threads


def test_login_exceptions_become_errors_of_muster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever paramiko or an agent raises for a key is `Refused` or, if the connection ended by it, `Unreachable`."""
    key = paramiko.ECDSAKey.generate()
    (tmp_path / "id").touch()
    monkeypatch.setattr(ssh_keys, "read_private_key", lambda _: key)
    for problem in [*ssh_exceptions(), IndexError("out of range"), TypeError("None"), BrokenPipeError("agent")]:
        for active in (True, False):
            transport: Any = SimpleNamespace(auth_publickey=failing(problem), is_active=lambda: active)  # noqa: B023
            with pytest.raises((Refused, Unreachable), match="host x"):
                ssh_keys.log_in(transport, ssh_route(tmp_path), where="host x", limit_s=5)


def test_agent_exceptions_leave_the_other_keys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An agent that breaks in any way is named, and is no reason not to try the key files."""
    server = socket.socket(socket.AF_UNIX)
    with server:
        server.bind(str(tmp_path / "agent"))
        server.listen(64)
        for problem in [*ssh_exceptions(), IndexError("out of range"), TypeError("None")]:
            monkeypatch.setattr(paramiko.agent.AgentSSH, "_connect", failing(problem))
            agent = ssh_keys.Agent(str(tmp_path / "agent"), limit_s=5)
            assert agent.keys == ()
            assert "does not answer" in agent.problem
            agent.close()


def test_broken_pack_stream_is_unreachable(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever httpx raises while a repository's objects come is `Unreachable`."""
    defined = [one for one in vars(httpx).values() if isinstance(one, type) and issubclass(one, Exception)]
    bare = [one for one in defined if issubclass(one, httpx.StreamError) and one is not httpx.StreamError]
    problems: list[Exception] = [one("broken") for one in defined if one not in (*bare, httpx.HTTPStatusError)]
    problems += [one() for one in bare]  # type: ignore[call-arg]  # these have their text
    http = Http("upstream", "http://127.0.0.1:9", timeout_s=1)
    for problem in [*problems, *connection_exceptions()]:
        monkeypatch.setattr(httpx.Client, "stream", failing(problem))
        with pytest.raises(Unreachable, match="upstream: POST /x"):
            list(http.query("/x", b"", content_type="text/plain", most_mb=1))
    http.close()
