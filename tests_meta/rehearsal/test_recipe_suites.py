"""The suites that cc-ci has on the night: each holds against its app, and none holds against a placeholder."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
import threading
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any, TypeVar

import pytest
from aiohttp import web

from fixtures.rehearsal import tls
from fixtures.rehearsal.apps.base import AppContext
from fixtures.rehearsal.apps.registry import make_app
from tests_meta.rehearsal.ci_world import PACKAGE

T = TypeVar("T")
CCCI = PACKAGE / "initial_state" / "ccci"
RECIPES = sorted(path.parent.name for path in (CCCI / "tests").glob("*/recipe_meta.py"))
RED_ON_THE_NIGHT = {"plausible": {"tests/plausible/functional/test_events.py::test_stores_are_up"}}


class Servers:
    """Serves apps over TLS from a thread."""

    def __init__(self, folder: Path) -> None:
        self.files = tls.ensure(folder)
        self._loop = asyncio.new_event_loop()
        self._runners: list[web.AppRunner] = []
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()

    def serve(self, make: Callable[[str], web.Application]) -> str:
        """Serve what `make` makes for its domain; returns the domain."""
        return self._run(self._serve(make))

    async def _serve(self, make: Callable[[str], web.Application]) -> str:
        listener = socket.create_server(("127.0.0.1", 0))
        domain = f"localhost:{listener.getsockname()[1]}"
        runner = web.AppRunner(make(domain), access_log=None, shutdown_timeout=0.1)
        await runner.setup()
        await web.SockSite(runner, listener, ssl_context=self.files.server_context()).start()
        self._runners.append(runner)
        return domain

    def close(self) -> None:
        for runner in self._runners:
            self._run(runner.cleanup())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _run(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(timeout=20)


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Servers]:
    found = Servers(tmp_path_factory.mktemp("tls"))
    yield found
    found.close()


def outcomes(servers: Servers, folder: Path, domain: str, *paths: str, recipe: str = "") -> dict[str, bool]:
    """Run suites against `domain`; every test by its id, and whether it passed."""
    junit = folder / "junit.xml"
    argv = [sys.executable, "-I", "-B", "-m", "pytest", "-q", "-p", "no:cacheprovider", "-c", os.devnull]
    argv += [f"--rootdir={CCCI}", f"--confcutdir={CCCI}", "--import-mode=importlib"]
    argv += [f"--junitxml={junit}", "-o", "junit_family=xunit1"]
    environment = {
        "PATH": os.environ["PATH"],
        "RECIPE": recipe,
        "CCCI_APP_DOMAIN": domain,
        "SSL_CERT_FILE": str(servers.files.ca),
        "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
    }
    done = subprocess.run(
        [*argv, *paths], cwd=CCCI, env=environment, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode in (0, 1), done.stdout
    return {
        f"{case.get('file')}::{case.get('name')}": case.find("failure") is None and case.find("error") is None
        for case in ElementTree.parse(junit).iter("testcase")
    }


def test_eighteen_recipes_are_covered() -> None:
    """The folders are the eighteen of the plan; hedgedoc is the one that has none."""
    assert len(RECIPES) == 18
    assert "hedgedoc" not in RECIPES
    for recipe in RECIPES:
        assert (CCCI / "tests" / recipe / "PARITY.md").read_text().startswith(f"# Parity: {recipe}\n")


@pytest.mark.parametrize("recipe", RECIPES)
def test_suite_holds_against_its_app(servers: Servers, tmp_path: Path, recipe: str) -> None:
    """A suite's functional tests, two or more, pass against its app, but for the reds of the night."""
    checkout = tmp_path / "checkout"
    checkout.mkdir()

    def app(domain: str) -> web.Application:
        context = AppContext(recipe=recipe, domain=domain, checkout=checkout, state=tmp_path / "state")
        return make_app(context)

    found = outcomes(servers, tmp_path, servers.serve(app), f"tests/{recipe}/functional", recipe=recipe)
    assert len(found) >= 2
    assert {name for name, passed in found.items() if not passed} == RED_ON_THE_NIGHT.get(recipe, set())


def test_no_suite_holds_against_a_placeholder(servers: Servers, tmp_path: Path) -> None:
    """A server that answers every request with 200 and a page makes every one of the suites red."""

    async def page(_: web.Request) -> web.Response:
        return web.Response(text="<title>It works</title>{}", content_type="text/html")

    def app(_: str) -> web.Application:
        placeholder = web.Application()
        placeholder.router.add_route("*", "/{path:.*}", page)
        return placeholder

    suites = [f"tests/{recipe}/functional" for recipe in RECIPES]
    found = outcomes(servers, tmp_path, servers.serve(app), *suites)
    assert len(found) >= 2 * len(RECIPES)
    held = [suite for suite in suites if all(passed for name, passed in found.items() if suite in name)]
    assert held == []
