"""The report of one run: a self-contained page for a maintainer the next morning and an auditor a year later."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path

from fixtures.journal.past_runs import Neighbours
from fixtures.journal.run_record import RunRecord
from reports.html_safety import Html, csp, h, raw
from reports.pytest_table import SCRIPT_ID, PytestTable
from reports.pytest_table import section as pytest_section
from reports.sections.assertions import assertions
from reports.sections.banner import banner
from reports.sections.changes import changes
from reports.sections.colophon import colophon
from reports.sections.nights import links, since
from reports.sections.roll import roll
from reports.sections.timeline import timeline
from reports.sections.todo import todo
from reports.words import verdict_word

_HERE = Path(__file__).parent
CONTENTS = (
    ("todo", "To do"),
    ("since", "Since"),
    ("roll", "Recipes"),
    ("changes", "Changes"),
    ("timeline", "Timeline"),
    ("assertions", "Assertions"),
    ("pytest", "pytest"),
    ("about", "About"),
)


def report(record: RunRecord, table: PytestTable | None, nights: Neighbours | None = None) -> str:
    """The whole page of one run.

    `table` is pytest-html's data, None when the run was killed before it was written; `nights` are the runs around this
    one, None for a run that belongs to no history.
    """
    none = (
        "The run ended before pytest-html wrote its table." if record.cut_off else "pytest-html wrote no table."
    )
    body = [
        h("a", "Skip to what a person has to do", href="#todo", cls="skip"),
        banner(record),
        links(nights),
        h(
            "nav",
            h("ul", [h("li", h("a", label, href=f"#{name}")) for name, label in CONTENTS]),
            cls="contents",
            aria_label="Contents",
        ),
        h(
            "main",
            todo(record),
            since(record, nights),
            roll(record),
            changes(record),
            timeline(record),
            assertions(record),
            pytest_section(table, none),
            colophon(record),
            h(
                "p",
                f"Printed from the report of run {record.run}: verdict, to-do, status, changes, failures. Evidence, "
                "timeline and every assertion are in report.html; long lists are cut on paper, not there.",
                cls="print-only",
            ),
            cls="wrap",
        ),
    ]
    word = verdict_word(record.verdict)
    site = "REHEARSAL" if record.rehearsal else record.site
    scripts = [(SCRIPT_ID, table.script)] if table else []
    return document(f"{word.headline} · {site} · {record.run}", word.tone, body, [*scripts, ("page", script())])


def document(title: str, tone: str, body: Sequence[Html | None], scripts: list[tuple[str, str]]) -> str:
    """A self-contained page whose policy names exactly the style and the scripts that it holds."""
    policy = csp(scripts=[source for _, source in scripts], styles=[style()])
    head = [
        h("meta", charset="utf-8"),
        h("meta", http_equiv="Content-Security-Policy", content=policy),
        h("meta", name="viewport", content="width=device-width, initial-scale=1"),
        h("meta", name="color-scheme", content="light dark"),
        h("meta", name="referrer", content="no-referrer"),
        h("title", title),
        h("style", raw(style())),
    ]
    tail = [h("script", raw(source), id=name) for name, source in scripts]
    return "<!DOCTYPE html>\n" + h("html", h("head", head), h("body", body, tail, cls=tone), lang="en") + "\n"


@cache
def style() -> str:
    return (_HERE / "style.css").read_text(encoding="utf-8")


@cache
def script() -> str:
    return (_HERE / "page.js").read_text(encoding="utf-8")
