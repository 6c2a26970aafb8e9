"""HTTP requests, git and ssh through a real HTTP or SOCKS5 proxy, with and without a login.

The login comes from a secret and must appear nowhere else.
"""

from __future__ import annotations

import getpass
import os
import shutil
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from fixtures.clients import git_proxy
from fixtures.clients.connection import connect_through, endpoint_of
from fixtures.clients.git import ZERO, Remote, Workspace
from fixtures.clients.host import HostReader
from fixtures.clients.http import Http
from fixtures.clients.ssh_config import HostAddress
from fixtures.config.secret import Secret
from fixtures.errors import MusterError, Refused, Unreachable
from fixtures.rehearsal.host.sshd import OpenSsh, find_sshd
from fixtures.rehearsal.tls import ensure
from fixtures.rehearsal.world import free_ports
from tests_meta.clients import proxy_server
from tests_meta.clients.http_server import serving
from tests_meta.clients.proxy_server import proxying
from tests_meta.clients.ssh_server import RunningSshServer
from tests_meta.rehearsal.forge_server import ForgeUnderTest, forge

__all__ = ["forge"]

KINDS = ("http", "socks5h")
LOGIN = "muster:p@ss:w0rd/41"
LIMIT_S = 20.0


def login(text: str = LOGIN) -> Secret:
    return Secret(text, where="a test")


def assert_one_sentence(problem: MusterError) -> None:
    """One line, the login not in it, and something to do about it."""
    said = str(problem)
    assert "\n" not in said
    assert "Traceback" not in said
    for piece in (LOGIN, "p@ss:w0rd", "p%40ss"):
        assert piece not in said + repr(problem.__cause__)


def dead(kind: str) -> str:
    return f"{kind}://127.0.0.1:{free_ports(1)[0]}"


# -- HTTP ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("wanted", ["", LOGIN], ids=["open", "with login"])
def test_requests_use_the_proxy_which_resolves_the_name(kind: str, wanted: str, tmp_path: Path) -> None:
    """A name that only the proxy knows is reached by TLS with a private authority."""
    files = ensure(tmp_path)
    names = {"localhost": "127.0.0.1"}
    with serving(files.server_context()) as server, proxying(kind, login=wanted, names=names) as proxy:
        url = server.url.replace("127.0.0.1", "localhost")
        http = Http("forge", url, timeout_s=5, ca=files.ca, proxy=proxy.url,
                    proxy_login=login() if wanted else None, headers={"Authorization": login("token t")})  # fmt: skip
        assert http.get("/version").status_code == 200
        assert http.send("POST", "/x", {}, answers=(200,)).status_code == 200
        http.close()
        assert {asked.rsplit(":", 1)[0] for asked in proxy.asked} == {"localhost"}
        assert proxy.refused == 0
        assert all("proxy-authorization" not in asked.headers for asked in server.asked), "the login went further"


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("given", [None, "muster:wrong"])
def test_rejected_proxy_login_is_reported(kind: str, given: str | None, tmp_path: Path) -> None:
    """A missing or wrong proxy login raises one clear error."""
    files = ensure(tmp_path)
    with serving(files.server_context()) as server, proxying(kind, login=LOGIN) as proxy:
        http = Http("drone", server.url, timeout_s=3, ca=files.ca, proxy=proxy.url,
                    proxy_login=login(given) if given else None)  # fmt: skip
        with pytest.raises(MusterError) as caught:
            http.get("/version")
        assert_one_sentence(caught.value)
        assert "proxy" in str(caught.value)
        assert server.asked == []
        assert proxy.refused > 0
        http.close()


@pytest.mark.parametrize("kind", KINDS)
def test_slow_answer_through_a_proxy_is_received(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The proxy's limit is for the connection only; a slow server is still answered."""
    monkeypatch.setattr(proxy_server, "REACH_S", 0.2)
    with serving() as server, proxying(kind) as proxy:
        server.hold = lambda: threading.Event().wait(0.6)
        http = Http("forge", server.url, timeout_s=5, proxy=proxy.url)
        assert http.get("/version").status_code == 200
        http.close()
        assert proxy.asked


@pytest.mark.parametrize("kind", KINDS)
def test_unreachable_proxy_is_named(kind: str) -> None:
    """An unreachable proxy raises `Unreachable`, also for a write, because nothing was sent."""
    with serving() as server:
        http = Http("forge", server.url, timeout_s=3, proxy=dead(kind))
        with pytest.raises(Unreachable, match=f"through the proxy {kind}://") as caught:
            http.get("/")
        assert_one_sentence(caught.value)
        with pytest.raises(Unreachable, match=f"through the proxy {kind}://") as caught:
            http.send("POST", "/", {}, answers=(200,))
        assert_one_sentence(caught.value)
        assert server.asked == []
        http.close()


# -- git -----------------------------------------------------------------------------------------------------


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return Workspace(tmp_path / "git", limit_s=LIMIT_S)


def remote(forge: ForgeUnderTest, full_name: str, proxy: str, secret: Secret | None) -> Remote:
    token = Secret(forge.server.tokens["operator"], where="a test")
    return Remote(f"{forge.url}/{full_name}.git", "bot", token, None, proxy, secret)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("wanted", ["", LOGIN], ids=["open", "with login"])
def test_git_uses_the_proxy(
    forge: ForgeUnderTest,
    tmp_path: Path,
    workspace: Workspace,
    monkeypatch: pytest.MonkeyPatch,
    kind: str,
    wanted: str,
) -> None:
    """Fetch and push; the login is in no argument and in no file."""
    source, target = forge.new_repo({"a": "b"}), forge.new_repo()
    arguments = spy_on_git(tmp_path, monkeypatch)
    with proxying(kind, login=wanted) as proxy:
        secret = login() if wanted else None
        workspace.fetch(
            remote(forge, f"{source.owner}/{source.name}", proxy.url, secret), ["refs/heads/main"], store="x"
        )
        there = remote(forge, f"{target.owner}/{target.name}", proxy.url, secret)
        workspace.push(there, "x", [("refs/heads/main", ZERO, source.head())])
        assert proxy.asked
    assert target.head() == source.head()
    said = arguments.read_text()
    assert "push" in said
    found = [path for path in tmp_path.rglob("*") if path.is_file() and holds_login(path.read_bytes())]
    assert found == []
    (tmp_path / "control").write_text(LOGIN)
    assert holds_login((tmp_path / "control").read_bytes())


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("exact", ["muster:p%40ss%", "mu%41ster:100%25", "mu@ster:a%2", "a b:c#d?e&f%3a"])
def test_proxy_gets_the_login_unchanged(workspace: Workspace, kind: str, exact: str) -> None:
    """Requests, git and ssh send the proxy login unchanged, even if it looks percent-encoded."""
    with serving() as server, proxying(kind, login=exact) as proxy:
        http = Http("forge", server.url, timeout_s=5, proxy=proxy.url, proxy_login=login(exact))
        assert http.get("/version").status_code == 200
        http.close()
        connect_through(proxy.url, endpoint_of(server.url), 5, login=login(exact)).close()
        there = Remote(f"{server.url}/a/b.git", proxy=proxy.url, proxy_login=login(exact))
        with pytest.raises(Unreachable):
            workspace.fetch(there, ["refs/heads/main"], store="x")
        assert any("/a/b.git/info/refs" in asked.path for asked in server.asked), "the proxy did not let git in"


def test_gits_treatment_of_a_login_is_tested(tmp_path: Path) -> None:
    """Whether git decodes a percent escape in a login (libcurl before 8.8.0) is found out by a trial."""
    with proxying("http", login="a%41:x") as proxy:
        url = f"http://a%2541:x@{proxy.url.removeprefix('http://')}"
        environment = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "GIT_HTTP_PROXY_AUTHMETHOD": "basic"}
        subprocess.run(
            ["git", "-c", f"http.proxy={url}", "ls-remote", "http://127.0.0.1:9/"],
            env=environment, cwd=tmp_path, capture_output=True, timeout=LIMIT_S,
        )  # fmt: skip
        assert git_proxy.decodes_percent(os.environ["PATH"], tmp_path) is bool(proxy.refused)


def test_git_without_http_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """If the trial fails, one clear error is raised and no login is sent."""
    (tmp_path / "git").write_text("#!/bin/sh\nexit 128\n")
    (tmp_path / "git").chmod(0o755)
    monkeypatch.setattr(git_proxy, "TRIAL_LIMIT_S", 0.3)
    with pytest.raises(Unreachable, match="proxy_login") as caught:
        git_proxy.decodes_percent(f"{tmp_path}:/usr/bin:/bin", tmp_path)
    assert_one_sentence(caught.value)


def test_non_ascii_socks_login_is_rejected() -> None:
    """A SOCKS login with non-ASCII characters is rejected before anything is sent."""
    with proxying("socks5h", login="m:x") as proxy:
        with pytest.raises(Refused, match="ASCII") as caught:
            connect_through(proxy.url, endpoint_of(dead("http")), 5, login=login("mü:x"))
        assert_one_sentence(caught.value)
        assert proxy.asked == []


def holds_login(content: bytes) -> bool:
    return any(piece in content for piece in (b"p@ss:w0rd", b"p%40ss", b"w0rd/41", b"w0rd%2F"))


def spy_on_git(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Put a git before git that writes down its arguments."""
    spy, log = folder / "bin", folder / "arguments"
    spy.mkdir()
    found = shutil.which("git")
    (spy / "git").write_text(f'#!/bin/sh\nprintf "%s\\n" "$@" >> {log}\nexec {found} "$@"\n')
    (spy / "git").chmod(0o755)
    monkeypatch.setenv("PATH", f"{spy}:{os.environ['PATH']}")
    return log


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("case", ["down", "refused"])
def test_git_behind_a_failing_proxy(forge: ForgeUnderTest, workspace: Workspace, kind: str, case: str) -> None:
    """A fetch raises `Unreachable` or `Refused`; the message has no part of the login."""
    source = forge.new_repo({"a": "b"})
    with proxying(kind, login=LOGIN) as proxy:
        where = dead(kind) if case == "down" else proxy.url
        there = remote(forge, f"{source.owner}/{source.name}", where, login("muster:p@ss:w0rd/wrong"))
        with pytest.raises((Unreachable, Refused)) as caught:
            workspace.fetch(there, ["refs/heads/main"], store="x")
    assert_one_sentence(caught.value)


# -- the host ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module", params=["paramiko", "openssh"])
def far(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningSshServer]:
    if request.param == "openssh" and find_sshd() is None:
        pytest.skip("sshd is not installed here")
    made = RunningSshServer(tmp_path_factory.mktemp(request.param), request.param)
    made.start()
    yield made
    made.close()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("wanted", ["", LOGIN], ids=["open", "with login"])
def test_host_is_reached_through_the_proxy(far: RunningSshServer, kind: str, wanted: str) -> None:
    """The proxy resolves the name; the host key is looked up by that name."""
    known = far.folder / f"known-{kind}-{bool(wanted)}"
    known.write_text(far.known_hosts.read_text().replace("[127.0.0.1]", "[cc-ci.internal]"))
    with proxying(kind, login=wanted, names={"cc-ci.internal": "127.0.0.1"}) as proxy:
        host = HostReader(replace(far.address, address="cc-ci.internal", known_hosts=known, proxy=proxy.url,
                                  proxy_login=login() if wanted else None))  # fmt: skip
        assert host.probe("echo here", limit_s=LIMIT_S).stdout == "here\n"
        host.close()
        assert proxy.asked == [f"cc-ci.internal:{far.port}"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("case", ["down", "refused", "no such host"])
def test_host_behind_a_failing_proxy(far: RunningSshServer, kind: str, case: str) -> None:
    """The error says whether the proxy or the host behind it failed."""
    with proxying(kind, login=LOGIN if case == "refused" else "") as proxy:
        where = dead(kind) if case == "down" else proxy.url
        port = free_ports(1)[0] if case == "no such host" else far.port
        known = far.folder / f"known-{port}"
        known.write_text(far.known_hosts.read_text().replace(str(far.port), str(port)))
        secret = login("muster:wrong") if case == "refused" else None
        host = HostReader(replace(far.address, port=port, known_hosts=known, proxy=where, proxy_login=secret))
        with pytest.raises((Unreachable, Refused)) as caught:
            host.probe("true", limit_s=LIMIT_S)
        assert_one_sentence(caught.value)
        expected = "does not answer" if case == "down" else "did not connect to"
        assert f"The proxy {where} {expected}" in caught.value.message
        assert isinstance(caught.value, Refused) is (case == "refused")


# -- the operator's own ways ---------------------------------------------------------------------------------


def ssh_config(far: RunningSshServer, *lines: str) -> Path:
    path = far.folder / f"config-{len(list(far.folder.iterdir()))}"
    key = far.folder / "id_ed25519"
    path.write_text(
        f"Host gate\n  HostName 127.0.0.1\n  Port {far.port}\n  User {getpass.getuser()}\n  IdentityFile {key}\n"
        f"  IdentitiesOnly yes\n  UserKnownHostsFile {far.known_hosts}\n"
        f"Host cc-ci\n  HostName 127.0.0.1\n  Port {far.port}\n  User {getpass.getuser()}\n"
        + "".join(f"  {line}\n" for line in lines)
    )
    return path


@pytest.mark.parametrize("jump", ["gate", "{user}@localhost:{port}", "ssh://{user}@localhost:{port}"])
def test_jump_host_of_the_ssh_configuration_is_used(far: RunningSshServer, jump: str) -> None:
    """ProxyJump works by alias, as user@host:port and as a URI, with the jump host's own key and known_hosts."""
    if not isinstance(far.server, OpenSsh):
        pytest.skip("only OpenSSH's server passes connections on")
    if shutil.which("ssh") is None:
        pytest.skip("ssh is not installed here")
    where = jump.format(user=getpass.getuser(), port=far.port)
    config = ssh_config(far, f"IdentityFile {far.folder / 'id_ed25519'}", f"ProxyJump {where}")
    config.write_text(
        config.read_text()
        + f"Host localhost\n  HostName 127.0.0.1\n  IdentityFile {far.folder / 'id_ed25519'}\n"
        + f"  UserKnownHostsFile {far.known_hosts}\n"
    )
    host = HostReader(HostAddress(address="cc-ci", known_hosts=far.known_hosts, ssh_config=config))
    route = host.route()
    assert route.command.startswith("ssh ")
    assert route.pinned
    assert host.probe("echo $SSH_CONNECTION", limit_s=LIMIT_S).exit_status == 0
    host.close()


def test_agents_key_is_used_by_default(
    far: RunningSshServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without identity_file the agent's key is used, so that its passphrase is never needed."""
    if shutil.which("ssh-agent") is None:
        pytest.skip("ssh-agent is not installed here")
    socket = tmp_path / "agent"
    agent = subprocess.Popen(["ssh-agent", "-D", "-a", str(socket)], stdout=subprocess.DEVNULL)
    try:
        for _ in range(500):
            if socket.exists():
                break
            with pytest.raises(subprocess.TimeoutExpired):
                agent.wait(0.01)
        monkeypatch.setenv("SSH_AUTH_SOCK", str(socket))
        subprocess.run(["ssh-add", "-q", str(far.folder / "id_ed25519")], check=True, capture_output=True)
        address = HostAddress(address="cc-ci", known_hosts=far.known_hosts, ssh_config=ssh_config(far))
        host = HostReader(address)
        assert host.probe("echo here", limit_s=LIMIT_S).stdout == "here\n"
        host.close()
    finally:
        agent.terminate()
        agent.wait()


def test_route_is_read_without_connecting(far: RunningSshServer) -> None:
    """`route` has the name, port, user, keys and pinned key types, and contacts nothing."""
    route = HostReader(
        HostAddress(address="cc-ci", known_hosts=far.known_hosts, ssh_config=ssh_config(far))
    ).route()
    assert (route.name, route.port, route.user) == ("127.0.0.1", far.port, getpass.getuser())
    assert route.pinned == ("ssh-ed25519",)
    assert route.command == ""
