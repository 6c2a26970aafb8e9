"""Serve stand-in HedgeDoc apps over TLS in this process, and run the shipped suite against them in another one."""

from __future__ import annotations

import asyncio
import http.client
import os
import socket
import ssl
import subprocess
import sys
import threading
import time
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aiohttp import web

from fixtures.rehearsal import tls
from fixtures.rehearsal.apps import hedgedoc

PAYLOAD = Path(__file__).parents[2] / "fixtures" / "shipped" / "payload"
SUITE = PAYLOAD / "hedgedoc"
SUITE_WITHIN_S = 90.0


@dataclass(frozen=True)
class SuiteRun:
    """The result of one run of the suite: its tests by outcome, the reasons of skips, and the output."""

    passed: frozenset[str]
    failed: frozenset[str]
    skipped: dict[str, str]
    seconds: float
    output: str

    @property
    def names(self) -> frozenset[str]:
        return self.passed | self.failed | frozenset(self.skipped)


class Servers:
    """An event loop in a thread, which serves apps during the tests."""

    def __init__(self, directory: Path) -> None:
        self.files = tls.ensure(directory)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()

    @contextmanager
    def hedgedoc(self, **options: Any) -> Iterator[str]:
        """Serve a stand-in app with these options; yields its domain and port."""
        domain, runner = self._run(self._start(options))
        try:
            yield domain
        finally:
            self._run(runner.cleanup())

    def get(self, domain: str, path: str) -> tuple[int, str, bytes]:
        """GET `https://{domain}{path}`; returns status, headers as text, and body."""
        context = ssl.create_default_context(cafile=str(self.files.ca))
        connection = http.client.HTTPSConnection(domain, timeout=5, context=context)
        try:
            connection.request("GET", path)
            answer = connection.getresponse()
            return answer.status, str(answer.headers), answer.read()
        finally:
            connection.close()

    def close(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _run(self, work: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(timeout=SUITE_WITHIN_S)

    async def _start(self, options: dict[str, Any]) -> tuple[str, web.AppRunner]:
        listener = await asyncio.to_thread(_listen)
        domain = f"localhost:{listener.getsockname()[1]}"
        app = hedgedoc.make_app(public_url=f"https://{domain}", **options)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await runner.setup()
        await web.SockSite(runner, listener, ssl_context=self.files.server_context()).start()
        return domain, runner


def _listen() -> socket.socket:
    listener = socket.create_server(("127.0.0.1", 0))
    listener.setblocking(False)
    return listener


def run_suite(
    domain: str, *, ca: Path, report: Path, suite: Path = SUITE, arguments: tuple[str, ...] = ()
) -> SuiteRun:
    """Run the suite against `https://{domain}` as a person would; writes a JUnit file to `report`."""
    command = [
        sys.executable,
        "-m",
        "pytest",
        str(suite),
        "-p",
        "no:cacheprovider",
        f"--junitxml={report}",
        *arguments,
    ]
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith(("PYTEST_", "COV_"))},
        "SSL_CERT_FILE": str(ca),
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
        "HEDGEDOC_URL": f"https://{domain}",
        "CCCI_APP_DOMAIN": domain,
    }
    started = time.monotonic()
    done = subprocess.run(
        command,
        env=environment,
        cwd=suite.parent,
        capture_output=True,
        text=True,
        timeout=SUITE_WITHIN_S,
        check=False,
    )
    return _read(report, time.monotonic() - started, done.stdout + done.stderr)


def _read(report: Path, seconds: float, output: str) -> SuiteRun:
    passed, failed, skipped = set(), set(), {}
    for case in ElementTree.parse(report).iter("testcase"):
        name = case.get("name", "")
        skip = case.find("skipped")
        if skip is not None:
            skipped[name] = skip.get("message", "")
        elif case.find("failure") is not None or case.find("error") is not None:
            failed.add(name)
        else:
            passed.add(name)
    return SuiteRun(frozenset(passed), frozenset(failed), skipped, seconds, output)
