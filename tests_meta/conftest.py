"""What the tests share: one station for worlds, the stories that were run there, and the rule about skips."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests_meta.rehearsals import CONVERGED, NIGHT, Station
from tests_meta.stories import Story, lay_night, tell

# Each runs whole rehearsals by the dozen. They are for an hour of one's own: MUSTER_LONG=1 pytest tests_meta/
LONG = [
    "test_crash.py",
    "test_sweep.py",
    "test_undo_sweep.py",
    "test_thirty_nights.py",
    "test_twentieth_recipe.py",
    "test_rebuild.py",
    "test_boot_default.py",
    "test_systemd_bridge.py",
    "test_testme_sweep.py",
    "test_reviewed_plan.py",
    "test_clocks.py",
    "test_site_check.py",
    "test_signals.py",
    "test_recovery.py",
]
# Begun first, where several processes share the tests (-n): whoever gets one of these last is waited for.
SLOWEST = ("test_power_cuts", "test_known_bad_worlds", "test_whole_rehearsal", "test_faults", "test_as_a_service")
collect_ignore = [] if os.environ.get("MUSTER_LONG") else LONG

ALLOWED_SKIPS = Path(__file__).with_name("allowed_skips.txt")


STATION = pytest.StashKey[Station]()


@pytest.fixture(scope="session")
def station(pytestconfig: pytest.Config, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Station]:
    """The place for this session's worlds."""
    made = pytestconfig.stash[STATION] = Station(tmp_path_factory.mktemp("station"))
    yield made
    made.clear()


@pytest.fixture(scope="session")
def story(station: Station) -> Story:
    """Plan, apply, apply again and health, one after the other in one world; told once."""
    return tell(station)


@pytest.fixture
def night(station: Station) -> Station:
    """The world of the night, in which nothing is done yet, running; for tests that leave it as it is."""
    if not station.has(NIGHT):
        lay_night(station)
    return station.untouched(NIGHT)


@pytest.fixture
def converged(story: Story, station: Station) -> Station:
    """A world in which all is done, running; for tests that leave it as it is."""
    assert story.applied.ran.exit == 0
    return station.untouched(CONVERGED)


def pytest_runtest_setup(item: pytest.Item) -> None:
    """A world that runs polls all the time: it ends with the last test in a row that looks at it."""
    station = item.config.stash.get(STATION, None)
    if station is not None and "station" not in getattr(item, "fixturenames", ()):
        station.end()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    order = {name: place for place, name in enumerate(SLOWEST)}
    items.sort(key=lambda item: order.get(item.path.stem, len(order)))


def pytest_configure(config: pytest.Config) -> None:
    # Hundreds of processes are started; one that may not keep what it compiled takes seconds longer.
    if os.environ.pop("PYTHONDONTWRITEBYTECODE", ""):
        compiled = os.environ["PYTHONPYCACHEPREFIX"] = tempfile.mkdtemp(prefix="muster-compiled-")
        config.add_cleanup(lambda: shutil.rmtree(compiled, ignore_errors=True))
    config.pluginmanager.register(Skips(), "muster-skips")
    # pytest-xdist would give out the files with most tests first, and the longest are not among them.
    config.option.loadscopereorder = False


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """What a test counted: how many points of a run were tried, say."""
    for outcome in ("passed", "failed"):
        for report in terminalreporter.stats.get(outcome, []):
            for name, value in getattr(report, "user_properties", ()):
                if name == "count":
                    terminalreporter.write_line(str(value))


class Skips:
    """On CI, a skip that nobody agreed to is a failure: nothing checked must never look like nothing wrong."""

    def __init__(self) -> None:
        lines = (line.strip() for line in ALLOWED_SKIPS.read_text().splitlines())
        self._allowed = tuple(line for line in lines if line and not line.startswith("#"))
        self._unlisted: list[str] = []

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.skipped and not hasattr(report, "wasxfail"):
            self._note(report)

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if report.skipped:
            self._note(report)

    def _note(self, report: pytest.TestReport | pytest.CollectReport) -> None:
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
        if not reason.removeprefix("Skipped: ").startswith(self._allowed):
            self._unlisted.append(f"{report.nodeid}: {reason}")

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        if self._unlisted and os.environ.get("CI") == "true" and session.exitstatus == pytest.ExitCode.OK:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        for line in self._unlisted:
            terminalreporter.write_line(f"skipped for a reason that is not in {ALLOWED_SKIPS.name}: {line}")
