"""A pytest plugin that changes one answer of a run: loaded with ``-p tests_meta.health.changed_answer_plugin``.

``MUSTER_CHANGED_ANSWER`` is a JSON object: the answer's `key`, the name of the `mutation`, its `seed`, and the file
`mark`, which is made when the answer was given. Every time that the answer is given it is changed in the same way.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from random import Random
from typing import Any

import httpx
import pytest

from fixtures.clients.host import CommandResult, HostReader
from tests_meta.health.answer_mutations import MUTATIONS, Answer
from tests_meta.health.answer_script import KEPT_HEADERS, key_of


def pytest_configure(config: pytest.Config) -> None:
    order = json.loads(os.environ["MUSTER_CHANGED_ANSWER"])
    mark = Path(order["mark"])
    mutate, request, run = MUTATIONS.all[order["mutation"]], httpx.Client.request, HostReader._run

    def changed(known: Answer) -> Answer | None:
        return mutate(known, Random(order["seed"]))

    def ask(client: httpx.Client, method: str, url: Any, **named: Any) -> httpx.Response:
        real = request(client, method, url, **named)
        sent = httpx.Request(method, url, params=named.get("params"))
        if method != "GET" or key_of(sent) != order["key"]:
            return real
        headers = tuple((k, v) for k, v in real.headers.items() if k in KEPT_HEADERS)
        given = changed(Answer(real.status_code, real.content, headers))
        if given is None:
            return real
        mark.touch()
        return httpx.Response(given.status, headers=list(given.headers), content=given.body, request=sent)

    def execute(host: HostReader, script: str, *, limit_s: float) -> CommandResult:
        done = run(host, script, limit_s=limit_s)
        given = changed(Answer(done.exit_status, done.stdout.encode(), host=True))
        if f"host {script}" != order["key"] or given is None:
            return done
        mark.touch()
        return CommandResult(given.status, given.body.decode(errors="replace"), done.stderr, done.seconds)

    httpx.Client.request = ask  # type: ignore
    HostReader._run = execute  # type: ignore
