"""The section "What a person has to do now": worst first, each with where to look and what to do, or "Nothing."."""

from __future__ import annotations

from fixtures.journal.kinds import Severity
from fixtures.journal.run_record import RunRecord
from fixtures.journal.to_do import Task, tasks
from fixtures.journal.words import plural
from reports.html_safety import Html, h, link
from reports.parts import command, heading, marked


def todo(record: RunRecord) -> Html:
    every = tasks(record)
    urgent = [task for task in every if task.severity != Severity.INFO]
    notices = [task for task in every if task.severity == Severity.INFO]
    return h(
        "section",
        heading("What a person has to do now", "todo"),
        h("ol", [_item(task) for task in urgent], cls="tasks") if urgent else _nothing(notices),
        _notices(notices),
        _regressions(record),
        id="todo",
    )


def _nothing(notices: list[Task]) -> Html:
    return h(
        "p",
        h("strong", "Nothing."),
        h("span", " Good to know, below.", cls="hint") if notices else "",
        cls="nothing",
    )


def _item(task: Task) -> Html:
    return h(
        "li",
        h("p", h("span", _label(task.severity), cls="tag"), " ", marked(task.what), cls="what"),
        h("p", h("span", "Where ", cls="key"), _where(task.where), cls="where") if task.where else None,
        h("p", h("span", "Do ", cls="key"), marked(task.do), cls="do") if task.do else None,
        command(task.command) if task.command else None,
        _consequences(task),
        cls=f"task {task.severity}",
    )


def _consequences(task: Task) -> Html | None:
    """What else failed for the same reason, closed; and how many tests did not run because of it."""
    count, waiting = len(task.consequences), task.waiting
    waited = f"{plural(waiting, 'test')} did not run because of it"
    if not count:
        return h("p", waited, ".", cls="hint") if waiting else None
    said = f"{count:,} more for this reason" + (f"; {waited}" if waiting else "")
    return h(
        "details",
        h("summary", said),
        h("ul", [h("li", one) for one in task.consequences]),
        cls="consequences",
    )


def _label(severity: Severity) -> str:
    return {Severity.ACTION: "Act", Severity.WARNING: "Look", Severity.INFO: "Know"}[severity]


def _notices(notices: list[Task]) -> Html | None:
    if not notices:
        return None
    many = len(notices) > 6
    listed = h("ul", [_item(task) for task in notices], cls="tasks")
    if not many:
        return h("div", h("h3", "Good to know"), listed, cls="notices")
    return h("details", h("summary", f"Good to know: {plural(len(notices), 'notice')}"), listed, cls="notices")


def _regressions(record: RunRecord) -> Html | None:
    """What was true in the baseline and was false at the end."""
    if not record.regressions:
        return None
    items = [
        h("li", h("b", f"{recipe}: ") if recipe else None, marked(what)) for what, recipe in record.regressions
    ]
    return h("div", h("h3", "Regressions"), h("ul", items), cls="regressions")


def _where(where: str) -> Html:
    return link(where, where) if where.startswith(("http://", "https://")) else marked(where)
