"""A small suite of its own in a temporary folder, run by a real pytest with this project's report plugin.

Its conftest does what the project's own does for the record and nothing else: a journal, one line an assertion,
the end line before pytest-html writes, `reports.finish` after it.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from textwrap import dedent

PROJECT = Path(__file__).parents[2]

CONFTEST = """
import json, os
from pathlib import Path
import pytest
from fixtures.journal.writer import Journal
from fixtures.config.secret import Secret
from fixtures.journal.redaction import Redactor
from fixtures.journal.status_line import status_line
from reports import finish, pytest_report

RUN = Path(__file__).parent / "runs" / "20260602T001300Z-tiny-apply"
PLANTED = json.loads(os.environ.get("PLANTED", "[]"))
REDACTOR = Redactor(Secret(value, where=f"secret {n}") for n, value in enumerate(PLANTED))

class Recorder:
    def __init__(self, plugin):
        self.plugin, self.counts = plugin, {"passed": 0, "failed": 0, "skipped": 0}
        self.journal = Journal(RUN / "journal.jsonl")
        self.journal.write("run", run=RUN.name, site="tiny", mode="apply", rehearsal=False, version="0",
                           roster=["alpha"], newly_enrolled=[], planned_tests=None)
        self.journal.write("phase", phase=0, name="preflight", event="start")

    def pytest_collection_finish(self, session):
        self.journal.write("note", text=f"{len(session.items)} tests planned")

    def pytest_runtest_logreport(self, report):
        if report.when == "call" or report.outcome != "passed":
            self.counts[report.outcome] += 1
            self.journal.write("assertion", nodeid=report.nodeid, phase=0, recipe=None,
                title=report.nodeid, outcome=report.outcome, what="", expected="", seen=report.longreprtext,
                check="", message=report.longreprtext, duration_s=report.duration, where="")

    @pytest.hookimpl(wrapper=True, trylast=True)
    def pytest_sessionfinish(self, session, exitstatus):
        verdict = "converged" if exitstatus == 0 else "failed"
        self.journal.write("phase", phase=0, name="preflight", event="end", wall_s=0.1, **self.counts)
        self.journal.write("end", exit=int(exitstatus), verdict=verdict, wall_s=0.1)
        self.journal.close()
        try:
            return (yield)
        except OSError as cause:
            print(f"report not written: {cause.strerror}")
        finally:
            self.written = finish(RUN, REDACTOR)

    def pytest_terminal_summary(self, terminalreporter):
        for problem in self.written.problems:
            terminalreporter.write_line(f"problem: {problem}")
        if self.written.record:
            terminalreporter.write_line(status_line(self.written.record))

@pytest.hookimpl(tryfirst=True)
def pytest_configure(config):
    if config.option.collectonly:
        pytest_report.prepare(config, RUN, REDACTOR)
        return
    RUN.mkdir(parents=True, exist_ok=True)
    plugin = pytest_report.prepare(config, RUN, REDACTOR)
    config.pluginmanager.register(Recorder(plugin))
"""


@dataclass(frozen=True)
class Outcome:
    """What a finished pytest left: its exit code, everything it printed, and the run's folder."""

    exit: int
    printed: str
    run: Path

    @property
    def page(self) -> str:
        return (self.run / "report.html").read_text(encoding="utf-8")


class Suite:
    """A folder with a conftest and one test module."""

    def __init__(self, folder: Path, tests: str) -> None:
        self.folder = folder
        self.run_dir = folder / "runs" / "20260602T001300Z-tiny-apply"
        (folder / "conftest.py").write_text(CONFTEST, encoding="utf-8")
        (folder / "pytest.ini").write_text("[pytest]\naddopts = -ra\n", encoding="utf-8")
        (folder / "test_0_preflight.py").write_text(dedent(tests), encoding="utf-8")

    def start(self, *arguments: str, env: Mapping[str, str] | None = None) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-p", "no:xdist", *arguments],
            cwd=self.folder,
            env={**os.environ, "PYTHONPATH": str(PROJECT), **(env or {})},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def run(self, *arguments: str, env: Mapping[str, str] | None = None) -> Outcome:
        process = self.start(*arguments, env=env)
        printed, _ = process.communicate(timeout=120)
        return Outcome(process.returncode, printed, self.run_dir)
