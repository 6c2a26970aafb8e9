"""An HTTP or SOCKS5 proxy that records its requests; optionally with a login."""

from __future__ import annotations

import base64
import contextlib
import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit

TUNNEL = b"HTTP/1.1 200 Connection established\r\n\r\n"
END = b"Content-Length: 0\r\nConnection: close\r\n\r\n"
WHO = b'HTTP/1.1 407 Who are you\r\nProxy-Authenticate: Basic realm="p"\r\n' + END
NO = b"HTTP/1.1 502 Bad Gateway\r\n" + END
REACH_S = 5.0


class ProxyServer:
    """`kind` is ``http`` or ``socks5h``; `names` maps names that only this proxy can resolve to addresses.

    `asked` holds the destinations as they were written, `refused` how many callers had no or a wrong login.
    """

    def __init__(self, kind: str, *, login: str = "", names: dict[str, str] | None = None) -> None:
        self.kind, self._login, self._names = kind, login, names or {}
        self.asked: list[str] = []
        self.refused = 0
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=64)
        self._links: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def url(self) -> str:
        return f"{self.kind}://127.0.0.1:{self._listener.getsockname()[1]}"

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for link in self._links:
            with contextlib.suppress(OSError):
                link.shutdown(socket.SHUT_RDWR)
            link.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                near, _ = self._listener.accept()
                self._links.append(near)
                threading.Thread(target=self._serve, args=(near,), daemon=True).start()

    def _serve(self, near: socket.socket) -> None:
        with near, contextlib.suppress(OSError, EOFError):
            beyond = self._http(near) if self.kind == "http" else self._socks(near)
            if beyond is None:
                return
            self._links.append(beyond)
            with beyond:
                back = threading.Thread(target=_copy, args=(beyond, near), daemon=True)
                back.start()
                _copy(near, beyond)
                back.join()

    def _reach(self, host: str, port: int) -> socket.socket | None:
        self.asked.append(f"{host}:{port}")
        with contextlib.suppress(OSError):
            beyond = socket.create_connection((self._names.get(host, host), port), timeout=REACH_S)
            # The limit is for the connection only. The server may take longer, as a forge does for a push.
            beyond.settimeout(None)
            return beyond
        return None

    # -- HTTP: CONNECT, and plain requests by their whole URL ------------------------------------------------

    def _http(self, near: socket.socket) -> socket.socket | None:
        head = _until_blank_line(near)
        lines = head.decode("latin-1").split("\r\n")
        method, target, version = lines[0].split(" ")
        exact = dict(line.split(": ", 1) for line in lines[1:] if ": " in line)
        given = next((v for k, v in exact.items() if k.lower() == "proxy-authorization"), "")
        if self._login and given != "Basic " + base64.b64encode(self._login.encode()).decode():
            self.refused += 1
            near.sendall(WHO)
            return None
        if method == "CONNECT":
            host, _, port = target.rpartition(":")
            beyond = self._reach(host.strip("[]"), int(port))
            near.sendall(TUNNEL if beyond else NO)
            return beyond
        parts = urlsplit(target)
        beyond = self._reach(str(parts.hostname), parts.port or 80)
        if beyond is None:
            near.sendall(NO)
            return None
        path = target.split("/", 3)[3] if target.count("/") > 2 else ""
        kept = [f"{k}: {v}" for k, v in exact.items() if not k.lower().startswith("proxy-")]
        kept = [line for line in kept if not line.lower().startswith("connection:")] + ["Connection: close"]
        beyond.sendall("\r\n".join([f"{method} /{path} {version}", *kept, "", ""]).encode("latin-1"))
        return beyond

    # -- SOCKS5 (RFC 1928, RFC 1929) -------------------------------------------------------------------------

    def _socks(self, near: socket.socket) -> socket.socket | None:
        _, count = _exactly(near, 2)
        methods = _exactly(near, count)
        wanted = 2 if self._login else 0
        if wanted not in methods:
            self.refused += 1
            near.sendall(b"\x05\xff")
            return None
        near.sendall(bytes([5, wanted]))
        if self._login and not self._known(near):
            return None
        _, _, _, kind = _exactly(near, 4)
        if kind == 3:
            host = _exactly(near, _exactly(near, 1)[0]).decode()
        else:
            family, size = (socket.AF_INET, 4) if kind == 1 else (socket.AF_INET6, 16)
            host = socket.inet_ntop(family, _exactly(near, size))
        (port,) = struct.unpack(">H", _exactly(near, 2))
        beyond = self._reach(host, port)
        near.sendall(bytes([5, 0 if beyond else 5, 0, 1, 0, 0, 0, 0, 0, 0]))
        return beyond

    def _known(self, near: socket.socket) -> bool:
        _exactly(near, 1)
        user = _exactly(near, _exactly(near, 1)[0]).decode()
        password = _exactly(near, _exactly(near, 1)[0]).decode()
        known = f"{user}:{password}" == self._login
        self.refused += not known
        near.sendall(b"\x01\x00" if known else b"\x01\x01")
        return known


def _exactly(link: socket.socket, count: int) -> bytes:
    found = b""
    while len(found) < count:
        piece = link.recv(count - len(found))
        if not piece:
            raise EOFError
        found += piece
    return found


def _until_blank_line(link: socket.socket) -> bytes:
    found = b""
    while not found.endswith(b"\r\n\r\n"):
        found += _exactly(link, 1)
    return found[:-4]


def _copy(source: socket.socket, target: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(65536):
            target.sendall(data)
    with contextlib.suppress(OSError):
        target.shutdown(socket.SHUT_WR)


@contextmanager
def proxying(kind: str, *, login: str = "", names: dict[str, str] | None = None) -> Iterator[ProxyServer]:
    proxy = ProxyServer(kind, login=login, names=names)
    try:
        yield proxy
    finally:
        proxy.close()
