"""Renamed repositories are reported by their new name for reads, writes and git, and nothing is written to them.

Also: a forge behind a path prefix, and a forge with a private certificate authority, for requests and git.
"""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from fixtures.clients.forge import ForgeReader, ForgeWriter
from fixtures.clients.forge_values import FileWrite
from fixtures.clients.git import ZERO, Remote, Workspace, advertised_refs
from fixtures.clients.http import Http
from fixtures.config.secret import Secret
from fixtures.errors import Drift, Unreachable
from fixtures.rehearsal.tls import ensure
from tests_meta.clients.http_server import Answer, serving
from tests_meta.rehearsal.forge_server import ForgeUnderTest, forge
from tests_meta.rehearsal.forge_server import Remote as Repository

__all__ = ["forge"]


def http_to(forge: ForgeUnderTest, url: str = "", ca: Path | None = None) -> Http:
    token = Secret(f"token {forge.server.tokens['operator']}", where="a test")
    return Http("forge", url or forge.url, timeout_s=10, headers={"Authorization": token}, ca=ca)


def renamed(forge: ForgeUnderTest) -> tuple[Repository, str]:
    """A renamed repository with a commit; returns it under its old name, and its new full name."""
    before = forge.new_repo({"a": "b"})
    new = before.name + "-new"
    answer = forge.api().patch(before.api, json={"name": new})
    assert answer.status_code == 200, answer.text
    return before, f"{before.owner}/{new}"


def remote(forge: ForgeUnderTest, full_name: str, url: str = "", ca: Path | None = None) -> Remote:
    token = Secret(forge.server.tokens["operator"], where="a test")
    return Remote(f"{url or forge.url}/{full_name}.git", "bot", token, ca)


# -- renamed -------------------------------------------------------------------------------------------------


def test_read_of_a_renamed_repository_reports_its_new_name(forge: ForgeUnderTest) -> None:
    """The API and git's ref advertisement raise `Drift` with the new name."""
    before, new = renamed(forge)
    old = f"{before.owner}/{before.name}"
    http = http_to(forge)
    with pytest.raises(Drift, match=new) as caught:
        ForgeReader(http, bot="bot").repository(old)
    assert "site" in caught.value.do
    with pytest.raises(Drift, match=f"answers as {new}") as caught:
        advertised_refs(http, old)
    assert "ccci.repository" in caught.value.do
    refs = advertised_refs(http, new)
    assert refs is not None
    assert refs.branches, "the control: under its new name it is read"
    http.close()


def test_write_to_a_renamed_repository_is_not_made(forge: ForgeUnderTest) -> None:
    """A write neither follows the redirect nor becomes a GET; the error has the new name and the settings to change."""
    before, new = renamed(forge)
    old, head = f"{before.owner}/{before.name}", Repository(before.owner, new.split("/")[1], forge).head()
    http = http_to(forge)
    writer = ForgeWriter(http, bot="bot")
    write = FileWrite("new", b"x", None)
    for attempt in (
        lambda: writer.commit_files(old, [write], message="m", branch="main"),
        lambda: writer.delete_repository(old),
        lambda: writer.set_default_branch(old, "main"),
        lambda: writer.comment(old, 1, "hello"),
    ):
        with pytest.raises(Drift, match=new) as caught:
            attempt()
        assert "ccci.repository" in caught.value.do
        assert "Nothing was written" in caught.value.message
    assert Repository(before.owner, new.split("/")[1], forge).head() == head
    http.close()


def test_git_does_not_follow_a_renamed_repository(forge: ForgeUnderTest, tmp_path: Path) -> None:
    """Neither fetch nor push follows the redirect."""
    before, new = renamed(forge)
    old, workspace = f"{before.owner}/{before.name}", Workspace(tmp_path / "git", limit_s=20)
    head = Repository(before.owner, new.split("/")[1], forge).head()
    with pytest.raises(Drift, match="renamed or moved"):
        workspace.fetch(remote(forge, old), ["refs/heads/main"], store="x")
    workspace.fetch(remote(forge, new), ["refs/heads/main"], store="x")
    with pytest.raises(Drift, match="renamed or moved"):
        workspace.push(remote(forge, old), "x", [("refs/heads/pushed", ZERO, head)])
    assert Repository(before.owner, new.split("/")[1], forge).head("pushed") == ""
    workspace.push(remote(forge, new), "x", [("refs/heads/pushed", ZERO, head)])
    assert Repository(before.owner, new.split("/")[1], forge).head("pushed") == head


def test_redirect_to_another_forge_is_reported() -> None:
    """A redirect to another server, which gets no token and answers 401, raises `Drift` with its address."""
    with serving() as old, serving() as new:
        old.usual = Answer(301, headers={"Location": f"{new.url}/api/v1/user"})
        new.usual = Answer(401, b'{"message": "token is required"}')
        http = Http("forge", old.url, timeout_s=5, headers={"Authorization": Secret("token t", where="a test")})
        with pytest.raises(Drift, match=new.url) as caught:
            http.get("/api/v1/user")
        assert new.url in caught.value.do
        assert "authorization" not in new.asked[0].headers
        http.close()


def test_redirect_loop_is_unreachable() -> None:
    """A redirect loop raises `Unreachable`."""
    with serving() as server:
        server.usual = Answer(302, headers={"Location": "/again"})
        http = Http("forge", server.url, timeout_s=2)
        with pytest.raises(Unreachable):
            http.get("/api/v1/version")
        http.close()


# -- path prefix and private authority ---------------------------------------------------------------


@contextmanager
def front(forge: ForgeUnderTest, prefix: str, tls: ssl.SSLContext) -> Iterator[str]:
    """A reverse proxy with TLS that serves the forge only below `prefix`; yields the forge's URL."""
    listener = socket.create_server(("127.0.0.1", 0), backlog=32)
    place = forge.url.removeprefix("http://").split(":")
    target = (place[0], int(place[1].split("/")[0]))

    def serve(link: socket.socket) -> None:
        with contextlib.suppress(OSError), tls.wrap_socket(link, server_side=True) as near:
            head = b""
            while not head.endswith(b"\r\n\r\n"):
                piece = near.recv(1)
                if not piece:
                    return
                head += piece
            first, _, rest = head.partition(b"\r\n")
            method, path, version = first.split(b" ")
            if not path.startswith(prefix.encode() + b"/"):
                near.sendall(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
                return
            lines = [line for line in rest.split(b"\r\n") if line and not line.lower().startswith(b"connection:")]
            asked = b" ".join((method, path[len(prefix) :], version))
            with socket.create_connection(target) as beyond:
                beyond.sendall(b"\r\n".join([asked, *lines, b"Connection: close", b"", b""]))
                back = threading.Thread(target=_copy, args=(beyond, near), daemon=True)
                back.start()
                body = next(
                    (int(x.split(b":")[1]) for x in lines if x.lower().startswith(b"content-length:")), None
                )
                _copy(near, beyond, body)
                back.join(20)

    def accept() -> None:
        with contextlib.suppress(OSError):
            while True:
                link, _ = listener.accept()
                threading.Thread(target=serve, args=(link,), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    try:
        yield f"https://127.0.0.1:{listener.getsockname()[1]}{prefix}"
    finally:
        with contextlib.suppress(OSError):
            listener.shutdown(socket.SHUT_RDWR)
        listener.close()


def _copy(source: socket.socket, target: socket.socket, size: int | None = None) -> None:
    left = size
    with contextlib.suppress(OSError):
        while (left is None or left > 0) and (data := source.recv(65536)):
            target.sendall(data)
            left = None if left is None else left - len(data)


def test_forge_behind_a_path_with_a_private_authority(forge: ForgeUnderTest, tmp_path: Path) -> None:
    """API, refs, fetch and push work below the prefix with the named authority, and fail without it."""
    source, target = forge.new_repo({"a": "b"}), forge.new_repo()
    files = ensure(tmp_path / "tls")
    with front(forge, "/git/forge", files.server_context()) as url:
        http = http_to(forge, url, files.ca)
        writer = ForgeWriter(http, bot="bot")
        full_name = f"{source.owner}/{source.name}"
        assert writer.version()
        assert writer.repository(full_name) is not None
        assert writer.commit_files(full_name, [FileWrite("new", b"x", None)], message="m", branch="main")
        refs = advertised_refs(http, full_name)
        assert refs is not None
        assert refs.head == source.head()
        workspace = Workspace(tmp_path / "git", limit_s=20)
        workspace.fetch(remote(forge, full_name, url, files.ca), ["refs/heads/main"], store="x")
        there = remote(forge, f"{target.owner}/{target.name}", url, files.ca)
        workspace.push(there, "x", [("refs/heads/main", ZERO, source.head())])
        assert target.head() == source.head()
        with pytest.raises(Unreachable, match=r"(?i)certificate"):
            workspace.fetch(remote(forge, full_name, url), ["refs/heads/main"], store="y")
        doubting = http_to(forge, url)
        with pytest.raises(Unreachable, match=r"(?i)certificate"):
            doubting.get("/api/v1/version")
        wrong = http_to(forge, url.removesuffix("/forge"), files.ca)
        with pytest.raises(Unreachable, match="404"):
            ForgeReader(wrong, bot="bot").version()
        for one in (http, doubting, wrong):
            one.close()
