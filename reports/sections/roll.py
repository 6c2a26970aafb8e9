"""The status of the recipes: one row for each, with five answers and the evidence of each answer.

Plain HTML: a cell is a ``details`` element, so evidence opens by mouse, keyboard and screen reader without a
script, and all of it is printed. Sorting and filtering come on top where scripts run.
"""

from __future__ import annotations

from collections.abc import Mapping

from fixtures.journal.kinds import VerdictClass
from fixtures.journal.run_record import COLUMNS, Cell, LatestVerdict, RollRow, RunRecord, stamp
from fixtures.journal.words import plural, short, span
from reports.html_safety import Html, h, link
from reports.parts import heading

# The words for yes, no and unknown in each column.
_WORDS: Mapping[str, tuple[str, str, str]] = {
    "mirrored": ("yes", "no", "unknown"),
    "covered": ("yes", "no", "unknown"),
    "polled": ("yes", "no", "unknown"),
    "triggerable": ("yes", "no", "not tried"),
    "green": ("green", "red", "no verdict"),
}
# The tone of a class of a latest verdict that is neither plainly green nor plainly red; its word is its label.
_TONES: Mapping[str, str] = {
    VerdictClass.NEW_RED: "n",
    VerdictClass.EXPIRED: "n",
    VerdictClass.FIXED: "n",
    VerdictClass.RED_BEFORE: "n",
    VerdictClass.UNPROVEN: "n",
    VerdictClass.FLAKY: "k",
    VerdictClass.ENVIRONMENTAL: "k",
    VerdictClass.STALE: "k",
    VerdictClass.TOO_OLD: "k",
}
_LABELS = {"build_url": "build", "comment_url": "comment", "suite_commit": "suite at", "verdict_at": "at"}
# Above this many recipes, evidence that all rows share in form is still complete but laid out on one line each.
MANY = 60


def roll(record: RunRecord) -> Html:
    final = record.has_final_roll or record.mode == "plan"
    title = "Status of the recipes" if final else "Status of the recipes before the first write"
    return h(
        "section",
        heading(title, "roll"),
        h(
            "p",
            "Open a cell for its evidence. ",
            h("b", "was"),
            " marks what has changed since before the first write.",
            cls="hint",
        )
        if any(record.asked(column) for column in COLUMNS)
        else h("p", "The run ended before the recipes were checked.", cls="nothing"),
        _tools(record) if record.roll else None,
        h("div", _table(record), cls="scroll") if record.roll else None,
        id="roll",
    )


def _tools(record: RunRecord) -> Html:
    """Controls that the page's script shows; without it they have no function."""
    choices = [h("option", label, value=value) for value, label in _CHOICES]
    return h(
        "div",
        h(
            "label",
            "Find ",
            h("input", type="search", id="roll-find", autocomplete="off", placeholder="recipe"),
        ),
        h("label", "Show ", h("select", choices, id="roll-show")),
        h("button", "Open all evidence", type="button", id="roll-open", aria_pressed="false"),
        h("output", plural(len(record.roll), "recipe"), id="roll-count", for_="roll-find roll-show"),
        cls="tools",
        hidden=True,
    )


_CHOICES = (
    ("all", "all recipes"),
    ("wanting", "something missing"),
    ("changed", "changed by this run"),
    ("red", "red"),
    ("green", "green"),
    ("new", "newly enrolled"),
)


def _table(record: RunRecord) -> Html:
    heads = [h("th", "Recipe", scope="col", data_sort="recipe")]
    heads += [h("th", column.capitalize(), scope="col", data_sort=column) for column in COLUMNS]
    return h(
        "table",
        h("caption", f"{record.expected:,} recipes, five answers each", cls="hidden-label"),
        h("thead", h("tr", heads)),
        h("tbody", [_row(row) for row in record.roll]),
        id="roll-table",
        cls="roll" + (" many" if len(record.roll) > MANY else ""),
    )


def _row(row: RollRow) -> Html:
    flags = [
        ("wanting", any(row.cells[column].ok is not True for column in COLUMNS[:3])),
        ("changed", any(_was(row, column) for column in COLUMNS)),
        ("red", row.cells["green"].ok is False),
        ("green", row.cells["green"].ok is True),
        ("new", row.newly_enrolled),
    ]
    marks = [h("span", "new", cls="mark", title="newly enrolled")] if row.newly_enrolled else []
    return h(
        "tr",
        h("th", row.recipe, *[" ", *marks] if marks else [], scope="row"),
        [_cell(row, column) for column in COLUMNS],
        data_is=" ".join(name for name, true in flags if true) or None,
    )


def _cell(row: RollRow, column: str) -> Html:
    cell = row.cells[column]
    yes, no, unasked = _WORDS[column]
    word, tone = {True: (yes, "y"), False: (no, "n"), None: (unasked, "u")}[cell.ok]
    evidence = dict(cell.evidence)
    if column == "green" and row.known_red and cell.ok is not True:
        tone = "k" if cell.ok is False else tone
        word = "red, known" if cell.ok is False else word
        evidence |= {f"known red {key}": value for key, value in row.known_red.items()}
    if column == "green" and row.latest:
        if row.latest.kind in _TONES:
            word, tone = VerdictClass(row.latest.kind).label, _TONES[row.latest.kind]
        evidence |= _facts_of(row.latest)
    if cell.since:
        evidence = {"since": cell.since, **evidence}
    state = [h("b", word), _marker(row, column)]
    label = column.capitalize()
    if not evidence:
        return h("td", h("span", state, cls="s"), cls=tone, data_label=label)
    return h("td", h("details", h("summary", state), _evidence(evidence)), cls=tone, data_label=label)


def _facts_of(latest: LatestVerdict) -> dict[str, str]:
    """The subject of the latest verdict, its age, and the tests that it ran."""
    facts = {
        "class": latest.kind,
        "in it since": stamp(latest.since),
        "age": span(latest.age_s) if latest.age_s is not None else "",
        "head": latest.head,
        "that is": latest.about,
        "suite_commit": latest.suite_commit,
        "ran": ", ".join(f"{n} {what}" for what in ("passed", "failed", "skipped") if (n := latest.ran(what))),
        "why": latest.why,
        "infrastructure failure": latest.sign,
    }
    return {name: value for name, value in facts.items() if value}


def _marker(row: RollRow, column: str) -> Html | None:
    """The baseline's answer, where the final one is the opposite."""
    if not _was(row, column):
        return None
    yes, no, _ = _WORDS[column]
    lost = row.cells[column].ok is False
    return h("i", f"was {yes if lost else no}", cls="lost" if lost else None)


def _was(row: RollRow, column: str) -> bool:
    """Whether the final answer is the opposite of the baseline's."""
    before: Cell = row.baseline[column]
    return before.ok is not None and row.cells[column].ok is (not before.ok)


def _evidence(evidence: Mapping[str, str]) -> Html:
    """The pairs as a list; a URL becomes the link of the fact it belongs to (build and build_url)."""
    shown = []
    for key, value in evidence.items():
        base = key.removesuffix("_url")
        if key != base and base in evidence:
            continue
        label = _LABELS.get(key, key.replace("_", " "))
        shown.append(h("dt", label))
        shown.append(h("dd", _value(value, evidence.get(f"{key}_url", ""))))
    return h("dl", shown)


def _value(value: str, url: str) -> Html | str:
    if url:
        return link(url, value)
    if value.startswith(("http://", "https://")):
        return link(value, value.split("://", 1)[1])
    return h("abbr", short(value), title=value) if short(value) != value else value
