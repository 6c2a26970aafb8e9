"""A pytest plugin that acts as another person during a run: loaded with ``-p tests_meta.rollback.act_during_run``.

At the first boundary whose name begins with ``MUSTER_ACT_AT``, the request of ``MUSTER_ACT`` (a JSON object with
method, url, token and body) is sent once.
"""

from __future__ import annotations

import json
import os
import urllib.request

import pytest

from fixtures.plugin.session import OBSERVER


def pytest_configure(config: pytest.Config) -> None:
    at, act = os.environ["MUSTER_ACT_AT"], json.loads(os.environ["MUSTER_ACT"])
    done: list[int] = []

    def observe(boundary: str) -> None:
        if boundary.startswith(at) and not done:
            done.append(_send(**act))

    config.stash[OBSERVER] = observe


def _send(method: str, url: str, token: str, body: dict[str, object]) -> int:
    headers = {"Authorization": f"token {token}", "Content-Type": "application/json"}
    request = urllib.request.Request(url, json.dumps(body).encode(), headers, method=method)
    with urllib.request.urlopen(request, timeout=20) as response:
        return int(response.status)
