"""The pytest side of the record: a plugin that keeps pytest-html's part safe, complete and in its place.

What goes wrong without it, each of it seen (pytest 9.2, pytest-html 4.2): ``--collect-only`` overwrites the last
record with an empty one; the test that Ctrl-C interrupted has no row; test ids are written as live HTML; and
a secret in a traceback, a captured line, a skip reason or a warning is printed and written as it is. `prepare` is
called from ``pytest_configure`` before pytest-html's (``tryfirst``), and the plugin it registers does the rest.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from pytest_metadata.plugin import metadata_key  # type: ignore[import-untyped]

from fixtures.journal.redaction import Redactor
from fixtures.journal.words import cut, visible
from reports import JUNIT, REPORT
from reports.html_safety import Html, h, text

NAME = "muster-report"


def prepare(config: pytest.Config, run_dir: Path, redactor: Redactor) -> AuditPlugin:
    """Send pytest-html's and junit's files into the run's folder and register the plugin.

    Under ``--collect-only`` (and ``--setup-plan``) nothing is written at all: such a run is not a run.
    """
    listing = bool(config.option.collectonly or getattr(config.option, "setupplan", False))
    config.option.htmlpath = None if listing else str(run_dir / REPORT)
    config.option.xmlpath = None if listing else str(run_dir / JUNIT)
    config.option.self_contained_html = True
    plugin = AuditPlugin(run_dir, redactor)
    config.pluginmanager.register(plugin, NAME)
    return plugin


@dataclass(frozen=True)
class Crash:
    """Where a test failed and with what message, for the short summary and junit.xml."""

    path: str
    lineno: int
    message: str


@dataclass(frozen=True)
class CleanRepr:
    """A failure's text with secrets taken out, as an object that pytest can print (`toterminal`)."""

    text: str
    reprcrash: Crash | None

    def toterminal(self, tw: Any) -> None:
        for line in self.text.splitlines():
            tw.line(line, red=line.startswith("E"), bold=line.startswith((">", "E")))

    def __str__(self) -> str:
        return self.text


class AuditPlugin:
    """Hooks around every report that pytest makes; `redactor` may be extended during the run."""

    def __init__(self, run_dir: Path, redactor: Redactor) -> None:
        self.run_dir = run_dir
        self.redactor = redactor
        self._config: pytest.Config | None = None
        self._running: tuple[str, tuple[str, int | None, str]] | None = None

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionstart(self, session: pytest.Session) -> None:
        self._config = session.config
        self._clean_metadata(session.config)

    @pytest.hookimpl(tryfirst=True)
    def pytest_collection_finish(self, session: pytest.Session) -> None:
        """Refuse a test whose id holds a secret, because an id is printed, cached and used as a key everywhere."""
        for item in session.items:
            if self.redactor.leaks(item.nodeid):
                raise pytest.UsageError(
                    f"a test of {item.nodeid.partition('::')[0]} has an id that holds a secret; "
                    "ids are recipe names, never values"
                )

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_logstart(self, nodeid: str, location: tuple[str, int | None, str]) -> None:
        self._running = (nodeid, location)

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_logfinish(self, nodeid: str) -> None:
        self._running = None

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self._clean(report)

    @pytest.hookimpl(tryfirst=True)
    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        self._clean(report)

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> Generator[None, object, object]:
        """Give the interrupted test a report like every other, before any other hook handles the end of the session."""
        if self._running:
            nodeid, location = self._running
            self._running = None
            for report in _interrupted(nodeid, location):
                session.config.hook.pytest_runtest_logreport(report=report)
        return (yield)

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_terminal_summary(self, terminalreporter: Any) -> Generator[None, object, object]:
        """Clean the warnings where the terminal keeps them; they reach no report hook.

        A wrapper, because the terminal's own wrapper prints the failures and warnings before any plain hook runs.
        """
        for warning in terminalreporter.stats.get("warnings", ()):
            warning.message = self._harmless(warning.message)
        return (yield)

    @pytest.hookimpl(optionalhook=True)
    def pytest_html_report_title(self, report: Any) -> None:
        report.title = f"muster {self.run_dir.name}"

    @pytest.hookimpl(optionalhook=True)
    def pytest_html_results_table_row(self, report: pytest.TestReport, cells: list[str]) -> None:
        """Escape the test id, which pytest-html writes as it is: a file name could hold a script."""
        stage = "" if report.when == "call" else f"::{report.when}"
        shown = self.redactor.clean(f"{report.nodeid}{stage}")
        for index, cell in enumerate(cells):
            if "col-testId" in cell:
                cells[index] = f'<td class="col-testId">{text(shown)}</td>'

    @pytest.hookimpl(optionalhook=True)
    def pytest_html_results_summary(self, prefix: list[str]) -> None:
        """Write into pytest-html's own page how to make the whole report from the journal."""
        prefix.append(_unfinished(self.run_dir))

    def _clean(self, report: pytest.TestReport | pytest.CollectReport) -> None:
        """Take secrets and control characters out of what a report carries; a text without any keeps its form."""
        clean = self._harmless
        longrepr: Any = report.longrepr
        if isinstance(longrepr, tuple) and len(longrepr) == 3:
            path, line, reason = longrepr
            report.longrepr = (path, line, clean(reason))
        elif longrepr is not None:
            shown = report.longreprtext
            kept = clean(shown)
            crash = getattr(longrepr, "reprcrash", None)
            said = clean(crash.message) if crash else ""
            if kept != shown or (crash and said != crash.message):
                report.longrepr = CleanRepr(kept, crash and Crash(crash.path, crash.lineno, said))  # type: ignore[assignment]
        if isinstance(report, pytest.TestReport) and hasattr(report, "wasxfail"):
            report.wasxfail = clean(report.wasxfail)
        report.sections[:] = [(clean(name), clean(content)) for name, content in report.sections]
        if isinstance(report, pytest.TestReport):
            report.user_properties[:] = [
                (clean(name), self.redactor.clean_value(value)) for name, value in report.user_properties
            ]
            self._clean_extras(getattr(report, "extras", ()))

    def _harmless(self, text: str) -> str:
        """The text without secrets, and without characters by which a remote text could control a terminal."""
        return visible(cut(self.redactor.clean(text)))

    def _clean_extras(self, extras: Iterable[dict[str, Any]]) -> None:
        for extra in extras:
            for key in ("name", "content"):
                content = extra.get(key)
                if isinstance(content, bytes):
                    content = content.decode("utf-8", "replace")
                extra[key] = self.redactor.clean_value(content)

    def _clean_metadata(self, config: pytest.Config) -> None:
        """pytest-metadata copies CI variables and plugin names into the report; take out our secrets."""
        metadata: dict[str, Any] = config.stash.get(metadata_key, {})
        for key in list(metadata):
            metadata[key] = self.redactor.clean_value(metadata[key])


def _interrupted(nodeid: str, location: tuple[str, int | None, str]) -> list[pytest.TestReport]:
    """The two reports of an interrupted test; pytest-html makes its row from the last one."""
    said = "interrupted: the run was stopped inside this test"
    call = pytest.TestReport(nodeid, location, {}, outcome="failed", longrepr=said, when="call")
    return [call, pytest.TestReport(nodeid, location, {}, outcome="passed", longrepr=None, when="teardown")]


def _unfinished(run_dir: Path) -> Html:
    return h(
        "p",
        "This is only the raw part of the record: the run was stopped before the page was finished. ",
        h("code", f"python -m reports render {run_dir.name}"),
        " makes the whole page from the journal.",
    )
