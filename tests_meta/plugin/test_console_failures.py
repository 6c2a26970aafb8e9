"""The console shows one failure for each cause, and counts all of them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from fixtures.journal.causes import failures_by_cause
from fixtures.journal.run_record import Assertion
from fixtures.plugin.console_failures import one_for_each_cause
from tests_meta.reports.report_suite import Suite

DEAD = "host: no route to 192.0.2.1"
ONE = Assertion(
    "phases/test_0_x.py::test_0", 0, None, "the host answers", "failed", "", "", DEAD, "", "", 0.1, ""
)


def report(nodeid: str) -> pytest.TestReport:
    return pytest.TestReport(nodeid, ("x", 1, "x"), {}, outcome="failed", longrepr=DEAD, when="call")


def test_failures_of_one_cause_are_shown_once() -> None:
    """Of twenty-five failures of one cause one is shown, with 24 more named; afterwards all are counted again."""
    failed = [replace(ONE, nodeid=f"phases/test_0_x.py::test_{n}", cause=DEAD) for n in range(25)]
    stranger = "test_other.py::test_x"
    every = [report(one.nodeid) for one in failed] + [report(stranger)]
    terminal: Any = SimpleNamespace(stats={"failed": every})
    with one_for_each_cause(terminal, failures_by_cause(failed)):
        shown = terminal.stats["failed"]
        assert [one.nodeid for one in shown] == [failed[0].nodeid, stranger]
        assert shown[0].longreprtext.startswith(f"{DEAD}\n24 more for this reason: the host answers, ")
        assert shown[1].longreprtext == DEAD
    assert terminal.stats["failed"] is every
    assert every[0].longreprtext == DEAD


COLLAPSING = """
import pytest
from dataclasses import replace
from fixtures.journal.causes import failures_by_cause
from fixtures.plugin.console_failures import one_for_each_cause
from tests_meta.plugin.test_console_failures import ONE

@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_terminal_summary(terminalreporter):
    failed = [replace(ONE, nodeid=one.nodeid, cause="x") for one in terminalreporter.stats.get("failed", ())]
    with one_for_each_cause(terminalreporter, failures_by_cause(failed)):
        return (yield)
"""


def test_real_pytest_prints_one_line_and_counts_all(tmp_path: Path) -> None:
    """In a real pytest the summary has one FAILED line and the last line says 25 failed; without it there are 25."""
    suite = Suite(
        tmp_path,
        """
        import pytest
        @pytest.mark.parametrize("n", range(25))
        def test_host(n): pytest.fail("host: no route", pytrace=False)
        """,
    )
    (tmp_path / "collapsing.py").write_text(COLLAPSING)
    path = {"PYTHONPATH": f"{Path(__file__).parents[2]}:{tmp_path}"}
    printed = suite.run("-p", "collapsing", env=path).printed
    assert printed.count("\nFAILED ") == 1
    assert "24 more for this reason" in printed
    assert "25 failed" in printed
    assert suite.run().printed.count("\nFAILED ") == 25
