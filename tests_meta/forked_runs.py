"""Runs of muster as forks of a process that has imported already what every run imports.

A new interpreter, pytest and the libraries take two seconds of a core, which is longer than a settled crash takes.
A fork of a process that has done nothing else is as much a process of its own as one that was started anew: with
its own memory, environment, output, exit code and end.
"""

from __future__ import annotations

import multiprocessing
import os
import sys
import tempfile
from collections.abc import Mapping, Sequence
from multiprocessing.context import ForkServerProcess
from pathlib import Path

# What muster's own start imports, but no plugin of pytest's: it warns of those that it finds imported.
PRELOADED = ("pytest", "fixtures.plugin.hooks", "reports", "jinja2", "asyncio", "xml.etree.ElementTree")
QUIET = ("-W", "ignore::pytest.PytestAssertRewriteWarning")


def run(arguments: Sequence[str], *, cwd: Path, env: Mapping[str, str], limit_s: float) -> tuple[int, str]:
    """``pytest ARGUMENTS`` in a new process: its exit code and all that it said.

    Raises `TimeoutError` with what it said so far, after killing it at its limit.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(list(PRELOADED))
    with tempfile.NamedTemporaryFile("r", prefix="muster-said-", errors="replace") as said:
        process: ForkServerProcess = context.Process(
            target=_become_pytest, args=(tuple(arguments), str(cwd), dict(env), said.name)
        )
        process.start()
        process.join(limit_s)
        late = process.exitcode is None
        if late:
            process.kill()
            process.join()
        output, status = said.read(), process.exitcode
        process.close()
    if late:
        raise TimeoutError(output)
    assert status is not None
    return status, output


def _become_pytest(arguments: tuple[str, ...], cwd: str, env: dict[str, str], said: str) -> None:
    """In the fork: leave behind what was the tests' own, then do what ``python -m pytest`` does."""
    output = os.open(said, os.O_WRONLY)
    for stream in (1, 2):
        os.dup2(output, stream)
    os.environ.clear()
    os.environ.update(env)
    os.chdir(cwd)
    # An interpreter reads these two when it starts.
    sys.dont_write_bytecode = bool(env.get("PYTHONDONTWRITEBYTECODE"))
    sys.pycache_prefix = env.get("PYTHONPYCACHEPREFIX") or None
    sys.path[:] = [cwd, *(place for place in sys.path if place not in ("", cwd))]
    sys.argv = ["pytest", *arguments, *QUIET]
    import pytest

    sys.exit(pytest.console_main())
