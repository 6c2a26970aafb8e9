"""A pytest plugin that uses the console as a run does: waits, messages, and the summary of a recorded run.

``MUSTER_CONSOLE_RECORD`` names the folder of the recorded run. A wait is shown as if each tick were a second.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from fixtures.journal.load_record import load
from fixtures.plugin.console_summary import last_line, summarize
from fixtures.run import progress
from fixtures.run.progress import Progress
from fixtures.run.waiting import Seen, Waiter

PROGRESS = pytest.StashKey[Progress]()
UNCHANGED = {"mirrors": ["ghost", "immich"], "suites": ["keycloak"]}


def pytest_configure(config: pytest.Config) -> None:
    progress.TICK_S = 0.02
    config.stash[PROGRESS] = Progress(config)
    config.pluginmanager.register(config.stash[PROGRESS], "muster-progress")


@pytest.fixture
def wait(pytestconfig: pytest.Config) -> Callable[..., str]:
    """Wait through `ticks` looks, each of which sees `seen`; the last one returns or raises `then`."""

    def until(what: str, seen: str, *, ticks: int = 6, then: str | Exception = "there") -> str:
        left = iter([Seen(seen)] * ticks)

        def look() -> str | Seen:
            if found := next(left, None):
                return found
            if isinstance(then, Exception):
                raise then
            return then

        return Waiter(pytestconfig.stash[PROGRESS], interval_s=0.03).until(what, look, limit_s=72)

    return until


@pytest.hookimpl(trylast=True)
def pytest_terminal_summary(config: pytest.Config) -> None:
    record = load(Path(os.environ["MUSTER_CONSOLE_RECORD"]))
    for one in [*summarize(record, unchanged=UNCHANGED), last_line(record)]:
        config.stash[PROGRESS].say(one)
