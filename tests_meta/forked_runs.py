"""Run muster in a fork of a process that has already imported pytest and muster.

Starting an interpreter and importing everything takes two seconds of CPU time, longer than many runs. The parent of the
fork has only made these imports, so each run still has its own memory, environment, output and exit code.
"""

from __future__ import annotations

import multiprocessing
import os
import sys
import tempfile
from collections.abc import Mapping, Sequence
from multiprocessing.context import ForkServerProcess
from pathlib import Path

# The modules to import before the fork; no pytest plugins, because pytest warns of those that are already imported.
PRELOADED = ("pytest", "fixtures.plugin.hooks", "reports", "jinja2", "asyncio", "xml.etree.ElementTree")
QUIET = ("-W", "ignore::pytest.PytestAssertRewriteWarning")


def run(arguments: Sequence[str], *, cwd: Path, env: Mapping[str, str], limit_s: float) -> tuple[int, str]:
    """Run ``pytest ARGUMENTS`` in a new process; returns its exit code and output.

    At the time limit it is killed, and `TimeoutError` is raised with the output so far.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(list(PRELOADED))
    with tempfile.NamedTemporaryFile("r", prefix="muster-output-", errors="replace") as captured:
        process: ForkServerProcess = context.Process(
            target=become_pytest, args=(tuple(arguments), str(cwd), dict(env), captured.name)
        )
        process.start()
        process.join(limit_s)
        late = process.exitcode is None
        if late:
            process.kill()
            process.join()
        output, status = captured.read(), process.exitcode
        process.close()
    if late:
        raise TimeoutError(output)
    assert status is not None
    return status, output


def become_pytest(arguments: tuple[str, ...], cwd: str, env: dict[str, str], output_file: str) -> None:
    """In the fork: replace output, environment and folder, then do what ``python -m pytest`` does."""
    output = os.open(output_file, os.O_WRONLY)
    for stream in (1, 2):
        os.dup2(output, stream)
    os.environ.clear()
    os.environ.update(env)
    os.chdir(cwd)
    # A new interpreter reads these two variables at its start.
    sys.dont_write_bytecode = bool(env.get("PYTHONDONTWRITEBYTECODE"))
    sys.pycache_prefix = env.get("PYTHONPYCACHEPREFIX") or None
    sys.path[:] = [cwd, *(place for place in sys.path if place not in ("", cwd))]
    sys.argv = ["pytest", *arguments, *QUIET]
    import pytest

    sys.exit(pytest.console_main())
