"""Record every answer that clients get, and play one of them back changed.

`Script` stands between muster's clients and the real systems: for HTTP in place of `httpx.Client.request`, for the host
in place of `HostReader._run`. An answer is known by its `key`: the request without what differs between runs.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from random import Random
from typing import Any
from unittest import mock

import httpx

from fixtures.clients.host import CommandResult, HostReader
from tests_meta.health.answer_mutations import MUTATIONS, Answer

KEPT_HEADERS = ("x-total-count", "link", "date", "content-type", "retry-after")


@dataclass
class Script:
    """The recorded answers, in the order of their first request, and the one that is played back changed.

    `replay` answers what is recorded without asking again. `hits` counts how often the changed answer was given.
    """

    replay: bool = False
    recorded: dict[str, Answer] = field(default_factory=dict)
    changed_key: str = ""
    changed: Answer | None = None
    hits: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def choose(self, key: str, mutation: str, seed: int) -> bool:
        """Change this answer from now on; False if the mutation does not apply to it."""
        self.changed_key, self.hits = key, 0
        self.changed = MUTATIONS.all[mutation](self.recorded[key], Random(seed))
        if self.changed == self.recorded[key]:
            self.changed = None
        return self.changed is not None

    def restore(self) -> None:
        self.changed_key, self.changed = "", None

    def answer(self, key: str) -> Answer | None:
        """What to answer instead of asking, if anything."""
        with self._lock:
            if key == self.changed_key and self.changed is not None:
                self.hits += 1
                return self.changed
            return self.recorded.get(key) if self.replay else None

    @contextmanager
    def between(self) -> Iterator[None]:
        """Stand between the clients and the systems inside the block."""
        request, run = httpx.Client.request, HostReader._run

        def ask(client: httpx.Client, method: str, url: Any, **named: Any) -> httpx.Response:
            sent = httpx.Request(method, url, params=named.get("params"))
            key = key_of(sent)
            given = self.answer(key) if method == "GET" else None
            if given is None:
                real = request(client, method, url, **named)
                if method == "GET":
                    headers = tuple((k, v) for k, v in real.headers.items() if k in KEPT_HEADERS)
                    self.recorded.setdefault(key, Answer(real.status_code, real.content, headers))
                return real
            return httpx.Response(given.status, headers=list(given.headers), content=given.body, request=sent)

        def execute(host: HostReader, script: str, *, limit_s: float) -> CommandResult:
            key = f"host {script}"
            given = self.answer(key)
            if given is None:
                done = run(host, script, limit_s=limit_s)
                known = Answer(done.exit_status, done.stdout.encode("utf-8", "surrogateescape"), host=True)
                self.recorded.setdefault(key, known)
                return done
            return CommandResult(given.status, given.body.decode(errors="replace"), "", 0.01)

        with mock.patch.object(httpx.Client, "request", ask), mock.patch.object(HostReader, "_run", execute):
            yield


def key_of(request: httpx.Request) -> str:
    return f"{request.method} {request.url}"
