"""An HTTP server with scripted answers, which records the requests."""

from __future__ import annotations

import contextlib
import json
import socket
import ssl
import struct
import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from email.utils import formatdate
from typing import Any


@dataclass(frozen=True)
class Answer:
    """One answer; `cut` sends only so many bytes of the body, `then_close` closes the connection unannounced."""

    status: int = 200
    body: bytes = b"{}"
    headers: Mapping[str, str] = field(default_factory=dict)
    cut: int | None = None
    then_close: bool = False

    def encoded(self) -> bytes:
        headers = {
            "Content-Type": "application/json",
            "Content-Length": str(len(self.body)),
            "Date": formatdate(usegmt=True),
        }
        lines = [f"HTTP/1.1 {self.status} Said"] + [
            f"{k}: {v}" for k, v in (headers | dict(self.headers)).items()
        ]
        return "\r\n".join(lines).encode() + b"\r\n\r\n" + self.body[: self.cut]


RESET, SILENCE, HANG_UP = "reset", "silence", "hang up"
Script = Answer | str
"""An answer, or an action after the request was read: reset the connection, never answer, or close it."""


@dataclass(frozen=True)
class Asked:
    """One received request."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes


class HttpServer:
    """Sends the scripted `answers` in order, then `usual`; records requests in `asked` and counts `connections`."""

    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        self._tls = tls
        self.answers: deque[Script] = deque()
        self.usual: Script = Answer()
        self.asked: list[Asked] = []
        self.connections = 0
        self.most_at_once = 0
        self.hold: Callable[[], object] = lambda: None
        self.hung_up = threading.Event()
        self._at_once = 0
        self._lock = threading.Lock()
        self._over = threading.Event()
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=64)
        self._links: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http{'s' if self._tls else ''}://127.0.0.1:{self._listener.getsockname()[1]}"

    def will(self, *answers: Script) -> None:
        self.answers.extend(answers)

    def will_say(self, body: Any, status: int = 200, **headers: str) -> None:
        self.will(Answer(status, json.dumps(body).encode(), headers))

    def close(self) -> None:
        self._over.set()
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for link in self._links:
            link.close()

    def _accept(self) -> None:
        while True:
            try:
                link, _ = self._listener.accept()
            except OSError:
                return
            self._links.append(link)
            with self._lock:
                self.connections += 1
                self._at_once += 1
                self.most_at_once = max(self.most_at_once, self._at_once)
            threading.Thread(target=self._serve, args=(link,), daemon=True).start()

    def _serve(self, link: socket.socket) -> None:
        try:
            if self._tls:
                link = self._tls.wrap_socket(link, server_side=True)
            with link, contextlib.suppress(OSError), link.makefile("rb") as stream:
                while (asked := _read(stream)) is not None:
                    with self._lock:
                        self.asked.append(asked)
                        answer = self.answers.popleft() if self.answers else self.usual
                    self.hold()
                    if not self._say(link, answer):
                        return
        except ssl.SSLError:
            return  # the client did not like our certificate
        finally:
            with self._lock:
                self._at_once -= 1
            self.hung_up.set()

    def _say(self, link: socket.socket, answer: Script) -> bool:
        if answer == RESET:
            link.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        if answer == SILENCE:
            self._over.wait(30)
        if isinstance(answer, str):
            return False
        link.sendall(answer.encoded())
        return answer.cut is None and not answer.then_close


def _read(stream: Any) -> Asked | None:
    line = stream.readline().decode(errors="replace")
    words = line.split(" ", 2)
    if len(words) != 3:  # the end, or a TLS handshake
        return None
    method, path, _ = words
    headers: dict[str, str] = {}
    while (header := stream.readline().decode().strip()) != "":
        name, _, value = header.partition(":")
        headers[name.lower()] = value.strip()
    return Asked(method, path, headers, stream.read(int(headers.get("content-length", "0"))))


@contextmanager
def serving(tls: ssl.SSLContext | None = None) -> Iterator[HttpServer]:
    server = HttpServer(tls)
    try:
        yield server
    finally:
        server.close()
