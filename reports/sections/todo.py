"""What a person has to do now: findings worst first, each with where to look and what to do, or "Nothing."

A change whose outcome nobody knows and an undo that was refused ask for a person whether or not the run lived
long enough to write a finding about them, so both are derived from the journal here.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from fixtures.journal.kinds import change_title
from fixtures.journal.run_record import RecordedChange, RunRecord
from reports.html_safety import Html, h, link, text
from reports.words import clock, plural, verdict_word

TAKEN_BACK = ("undone", "not-needed")
_CODE = re.compile(r"`([^`]+)`")


@dataclass(frozen=True)
class Task:
    """One thing for a person: `command` is shown to be copied, `key` anchors it."""

    severity: str
    what: str
    where: str
    do: str
    command: str
    key: str


def tasks(record: RunRecord) -> tuple[Task, ...]:
    """Everything a person must look at, worst first: what the journal leaves open, then its findings."""
    derived = [
        _open(change) for change in record.changes if change.result in ("open", "unknown") and not change.undone
    ]
    derived += [
        _not_undone(change, settled=bool(record.settled_by))
        for change in record.changes
        if change.undo and change.undo.result in ("refused", "failed")
    ]
    if record.interrupted and not record.settled_by:
        derived.append(_settle(record))
    if record.planned:
        what = f"{plural(len(record.planned), 'change is', 'changes are')} pending; nothing was written."
        if drifted := [one for one in record.assertions if one.drifted]:
            what = f"Drift in {plural(len(drifted), 'assertion')}, the first: {drifted[0].title}. {what}"
        do = f"Read them under Changes; to make them, run the same command without `--{record.mode}`."
        derived.append(Task("warning", what, "", do, "", "planned"))
    derived += _unexplained(record)
    made_up = {
        f"undo-{change.id}" for change in record.changes if change.undo and change.undo.result in TAKEN_BACK
    }
    found = [
        Task(one.severity, one.what, one.where, one.do, "", one.id)
        for one in record.findings
        if one.id not in made_up
    ]
    order = {"action": 0, "warning": 1, "info": 2}
    return tuple(sorted([*derived, *found], key=lambda task: order.get(task.severity, 1)))


def _open(change: RecordedChange) -> Task:
    how = (
        "was sent, and its answer never came"
        if change.result == "unknown"
        else "was begun, and the run ended in it"
    )
    return Task(
        "action",
        f"{change_title(change.kind)} of {change.target} {how}: nobody knows whether it was made.",
        f"change {change.id}, intended at {clock(change.at)} UTC",
        "Look whether it was made. The next run looks at it first and settles it; to undo it by hand:",
        change.by_hand,
        f"open-{change.id}",
    )


def _not_undone(change: RecordedChange, *, settled: bool) -> Task:
    assert change.undo is not None
    why = f": {change.undo.why}" if change.undo.why else "."
    verb = "was refused" if change.undo.result == "refused" else "failed"
    again = "" if settled else "The next apply, or `--recover`, tries it once more before anything else. "
    return Task(
        "action",
        f"Undoing change {change.id} ({change_title(change.kind).lower()}, {change.target}) {verb}{why}",
        f"change {change.id}, made at {clock(change.at)} UTC",
        f"{again}By hand, if it is still to be undone:",
        change.by_hand,
        f"undo-{change.id}",
    )


def _settle(record: RunRecord) -> Task:
    ended = clock(record.last_seen)
    phase = next((f" inside phase {p.number}, {p.name}" for p in reversed(record.phases) if p.ended is None), "")
    return Task(
        "action",
        f"The run was interrupted{phase}; its last line is of {ended} UTC.",
        "",
        "Run the same command again: it reads this journal first, settles what was left open, and goes on.",
        "",
        "interrupted",
    )


def _unexplained(record: RunRecord) -> list[Task]:
    """What is wrong although no finding says so: "Nothing." never stands under a verdict that is not good."""
    if record.broken:
        return [Task("action", "The journal does not chain.", str(record.path.name), record.broken, "", "broken")]
    if not record.expected or not (record.assertions or record.interrupted):
        what = "The roster is empty" if not record.expected else "No test was executed"
        return [Task("action", f"{what}: nothing was checked.", "", "See why; then run again.", "", "hollow")]
    failed = [one for one in record.assertions if one.outcome not in ("passed", "skipped") and not one.drifted]
    named = {one.recipe for one in record.findings if one.severity != "info" and one.recipe}
    rest = [one for one in failed if not one.recipe or one.recipe not in named]
    if failed and (rest or not named):
        said = f"{plural(len(failed), 'assertion does', 'assertions do')} not hold; the first: {failed[0].title}."
        do = "See what was expected and what was seen under Every assertion"
        do += "; this shows it again:" if failed[0].check else "."
        return [Task("warning", said, failed[0].where or failed[0].nodeid, do, failed[0].check, "failed")]
    bad = verdict_word(record.verdict).tone in ("bad", "warn") or record.exit not in (0, 10, None)
    urgent = any(one.severity != "info" for one in record.findings)
    drifted = bool(record.planned) and any(one.drifted for one in record.assertions)
    if bad and not (failed or urgent or record.interrupted or drifted):
        return [
            Task("action", verdict_word(record.verdict).meaning, f"exit {record.exit}", "See below.", "", "bad")
        ]
    return []


def todo(record: RunRecord) -> Html:
    every = tasks(record)
    urgent = [task for task in every if task.severity != "info"]
    notices = [task for task in every if task.severity == "info"]
    return h(
        "section",
        h("h2", "What a person has to do now"),
        h("ol", [_item(task) for task in urgent], cls="tasks") if urgent else _nothing(notices),
        _notices(notices),
        _regressions(record),
        id="todo",
    )


def _nothing(notices: list[Task]) -> Html:
    return h("p", h("strong", "Nothing."), " Good to know, below." if notices else "", cls="nothing")


def _item(task: Task) -> Html:
    return h(
        "li",
        h("p", h("span", _label(task.severity), cls="tag"), " ", _marked(task.what), cls="what"),
        h("p", h("span", "Where ", cls="key"), _where(task.where), cls="where") if task.where else None,
        h("p", h("span", "Do ", cls="key"), _marked(task.do), cls="do") if task.do else None,
        h("pre", h("code", task.command), tabindex="0", aria_label="Command") if task.command else None,
        cls=f"task {task.severity}",
    )


def _label(severity: str) -> str:
    return {"action": "Act", "warning": "Look", "info": "Know"}.get(severity, severity)


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
        h("li", h("b", f"{recipe}: ") if recipe else None, _marked(what)) for what, recipe in record.regressions
    ]
    return h("div", h("h3", "What had worked before and did not any more"), h("ul", items), cls="regressions")


def _where(where: str) -> Html:
    return link(where, where) if where.startswith(("http://", "https://")) else _marked(where)


def _marked(sentence: str) -> Html:
    """Text in which `backticks` mark code, as messages are written throughout muster."""
    pieces = _CODE.split(sentence)
    return Html("".join(h("code", piece) if index % 2 else text(piece) for index, piece in enumerate(pieces)))
