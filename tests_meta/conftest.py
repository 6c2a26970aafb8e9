"""Shared fixtures: the pool of worlds, the reference night, and the check that every skip on CI is allowed."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections import Counter
from collections.abc import Iterator
from multiprocessing.util import Finalize
from pathlib import Path

import pytest

from tests_meta.muster_runs import CONVERGED, NIGHT, WorldPool, processes_of
from tests_meta.reference_night import ReferenceNight, prepare_initial_world, run_reference_night

# Each of these runs dozens of rehearsals; run them with MUSTER_LONG=1 pytest tests_meta/
LONG = [
    "rollback/test_crash.py",
    "rollback/test_undo_sweep.py",
    "rehearsal/test_thirty_nights.py",
    "config/test_twentieth_recipe.py",
    "deploy/test_rebuild.py",
    "deploy/test_boot_default.py",
    "deploy/test_systemd_bridge.py",
    "verdicts/test_retest.py",
    "plan/test_reviewed_plan.py",
    "preflight/test_site_check.py",
    "rollback/test_signals.py",
    "rollback/test_recovery.py",
    "health/test_mutations_applied.py",
    "health/test_healthy_nights.py",
]
# Started first, so that with -n no worker starts one of these last while the others are finished.
SLOWEST = ("test_power_cuts", "test_known_bad_worlds", "test_whole_rehearsal", "test_faults", "test_as_a_service")
collect_ignore = [] if os.environ.get("MUSTER_LONG") else LONG

ALLOWED_SKIPS = Path(__file__).with_name("allowed_skips.txt")


# What runs leave in the folder of temporary files until the session ends: reports, compiled modules, a fork server.
KEPT_UNTIL_THE_END = ("muster-reports-", "muster-compiled-", "pymp-")

WORLD_POOL = pytest.StashKey[WorldPool]()


@pytest.fixture(scope="session")
def world_pool(pytestconfig: pytest.Config, tmp_path_factory: pytest.TempPathFactory) -> Iterator[WorldPool]:
    """The worlds of this session."""
    made = pytestconfig.stash[WORLD_POOL] = WorldPool(tmp_path_factory.mktemp("worlds"))
    yield made
    made.clear()


@pytest.fixture(scope="session")
def reference_night(world_pool: WorldPool) -> ReferenceNight:
    """Plan, apply, a second apply and health, in one world; run once per session."""
    return run_reference_night(world_pool)


@pytest.fixture
def night(world_pool: WorldPool) -> WorldPool:
    """The running world of 2026-06-02, before the migration; shared, so tests must not change it."""
    if not world_pool.has(NIGHT):
        prepare_initial_world(world_pool)
    return world_pool.untouched(NIGHT)


@pytest.fixture
def converged(reference_night: ReferenceNight, world_pool: WorldPool) -> WorldPool:
    """The running world after the migration; shared, so tests must not change it."""
    assert reference_night.applied.ran.exit == 0
    return world_pool.untouched(CONVERGED)


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Stop the shared world before a test that does not use it, because its bridge polls all the time."""
    world_pool = item.config.stash.get(WORLD_POOL, None)
    if world_pool is not None and "world_pool" not in getattr(item, "fixturenames", ()):
        world_pool.end()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    order = {name: place for place, name in enumerate(SLOWEST)}
    items.sort(key=lambda item: order.get(item.path.stem, len(order)))


def pytest_configure(config: pytest.Config) -> None:
    # The tests start hundreds of processes, and each takes seconds longer without compiled modules.
    if os.environ.pop("PYTHONDONTWRITEBYTECODE", ""):
        compiled = os.environ["PYTHONPYCACHEPREFIX"] = tempfile.mkdtemp(prefix="muster-compiled-")
        config.add_cleanup(lambda: shutil.rmtree(compiled, ignore_errors=True))
    config.pluginmanager.register(Skips(), "muster-skips")
    if not hasattr(config, "workerinput"):
        config.pluginmanager.register(Leftovers(config), "muster-leftovers")
    # By default pytest-xdist starts with the files that have the most tests, which are not the slowest ones.
    config.option.loadscopereorder = False


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print the counts that tests recorded, for instance how many points of a run were tried."""
    for outcome in ("passed", "failed"):
        for report in terminalreporter.stats.get(outcome, []):
            for name, value in getattr(report, "user_properties", ()):
                if name == "count":
                    terminalreporter.write_line(str(value))


class Leftovers:
    """Gives all temporary files of a session one folder, and fails the session if tests leave any there or a process.

    pytest's own folders (`tmp_path`) stay where they are: the path of a socket must be short.
    """

    def __init__(self, config: pytest.Config) -> None:
        os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", tempfile.gettempdir())
        self._folder = Path(tempfile.mkdtemp(prefix="muster-tests-"))
        os.environ["TMPDIR"] = str(self._folder)  # the workers of pytest-xdist inherit it
        tempfile.tempdir = None
        self._left: list[str] = []
        # After the process's own fork server (priority -100), which keeps its socket there.
        Finalize(None, shutil.rmtree, (self._folder,), {"ignore_errors": True}, exitpriority=-200)

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        names = sorted(
            path.name for path in self._folder.iterdir() if not path.name.startswith(KEPT_UNTIL_THE_END)
        )
        self._left = names + processes_of(str(self._folder))
        if self._left and session.exitstatus == pytest.ExitCode.OK:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        for line in self._left:
            terminalreporter.write_line(f"left behind by a test in {self._folder}: {line}")


class Skips:
    """Counts the skips by reason; on CI, one for a reason that is not in allowed_skips.txt fails the session."""

    def __init__(self) -> None:
        lines = (line.strip() for line in ALLOWED_SKIPS.read_text().splitlines())
        self._allowed = tuple(line for line in lines if line and not line.startswith("#"))
        self._unlisted: list[str] = []
        self._reasons: Counter[str] = Counter()

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.skipped and not hasattr(report, "wasxfail"):
            self._note(report)

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if report.skipped:
            self._note(report)

    def _note(self, report: pytest.TestReport | pytest.CollectReport) -> None:
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
        self._reasons[reason.removeprefix("Skipped: ").rstrip(".")] += 1
        if not reason.removeprefix("Skipped: ").startswith(self._allowed):
            self._unlisted.append(f"{report.nodeid}: {reason}")

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        if self._unlisted and os.environ.get("CI") == "true" and session.exitstatus == pytest.ExitCode.OK:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        if self._reasons:
            counted = "; ".join(f"{count} because {reason}" for reason, count in self._reasons.most_common())
            terminalreporter.write_line(f"skipped: {counted}")
        for line in self._unlisted if os.environ.get("CI") == "true" else ():
            terminalreporter.write_line(f"skipped for a reason that is not in {ALLOWED_SKIPS.name}: {line}")
