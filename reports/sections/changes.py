"""The changes: each write with before, after, evidence, outcome, and how to undo it by hand."""

from __future__ import annotations

from fixtures.journal.kinds import UndoResult, change_title
from fixtures.journal.run_record import Planned, RecordedChange, RunRecord, SettledRun, settled_word
from fixtures.journal.words import brief, clock, plural, short
from reports.html_safety import Html, h
from reports.parts import command, heading, permalink
from reports.words import change_state, full


def changes(record: RunRecord) -> Html:
    planning = bool(record.planned) or (record.mode == "plan" and not record.changes)
    return h(
        "section",
        heading("What would be changed" if planning else "What was changed", "changes"),
        [_settled(one) for one in record.settled],
        _planned(record.planned) if planning else None,
        _made(record) if record.changes or not (planning or record.settled) else None,
        [_diff(target, text) for target, text in record.diffs],
        _generations(record),
        id="changes",
    )


def _settled(settled: SettledRun) -> Html:
    """An earlier run that this one recovered first: each change that it had left, and what was done about it."""
    rows = [
        h(
            "tr",
            h("th", str(one.id), scope="row"),
            h("td", change_title(one.kind), " ", h("code", one.target)),
            h("td", settled_word(one.result)),
            h("td", one.why),
        )
        for one in settled.changes
    ]
    heads = [h("th", name, scope="col") for name in ("Change", "What", "Now", "Because")]
    table = h("table", h("thead", h("tr", heads)), h("tbody", rows), cls="plain")
    label = f"Recovered: {settled.run}"
    return h(
        "figure",
        h("figcaption", "Recovered first: ", h("code", settled.run), f" ({settled.why})"),
        h("div", table, cls="scroll", tabindex="0", role="region", aria_label=label)
        if rows
        else h("p", "It had left no change.", cls="hint"),
        cls="settled",
    )


def _planned(planned: tuple[Planned, ...]) -> Html:
    if not planned:
        return h("p", h("strong", "Nothing."), " The system is in the wanted state.", cls="nothing")
    items = [
        h(
            "li",
            h("div", h("b", change_title(one.kind)), " ", h("code", one.target), cls="head"),
            h("div", _arrow(one.before, one.after), cls="arrow") if one.before != one.after else None,
            h("div", short(one.why), cls="why") if one.why else None,
            h("div", one.certainty, cls="why") if one.certainty not in ("", "change") else None,
        )
        for one in planned
    ]
    return h("ol", items, cls="planned")


def _made(record: RunRecord) -> Html:
    if not record.changes:
        return h("p", h("strong", "Nothing."), " This run made no change.", cls="nothing")
    undone = sum(change.undone for change in record.changes)
    intro = plural(len(record.changes), "change") + " (journalled before each write)"
    return h(
        "div",
        h(
            "p",
            f"{intro}; {undone} undone." if undone else f"{intro}. Open one for its evidence and its undo.",
            cls="hint",
        ),
        h("ol", [h("li", _change(change)) for change in record.changes], cls="changes"),
    )


def _change(change: RecordedChange) -> Html:
    undo_failed = change.undo is not None and change.undo.result == UndoResult.FAILED
    words, tone = change_state(change.state, undo_failed=undo_failed)
    return h(
        "details",
        h(
            "summary",
            h("span", f"{change.id}", cls="id"),
            h("time", clock(change.at)),
            h("span", h("b", change_title(change.kind)), " ", h("code", change.target), cls="object"),
            h("span", words, cls=f"state {tone}"),
            h("span", _arrow(change.before, change.after), cls="arrow"),
        ),
        h("dl", _pairs(change)),
        id=f"change-{change.id}",
        cls="change",
    )


def _pairs(change: RecordedChange) -> list[Html]:
    pairs: list[tuple[str, object]] = [
        ("Before", _block(full(change.before))),
        ("After", _block(full(change.after))),
        ("Evidence", _block(full(change.evidence)) if change.evidence is not None else "none was recorded"),
    ]
    if change.error:
        pairs.append(("Error", change.error))
    pairs.append(("When", f"intended {clock(change.at)}, outcome {clock(change.settled)} UTC"))
    if change.undo:
        at = f" at {clock(change.undo.at)} UTC" if change.undo.at else ""
        why = f". {change.undo.why}" if change.undo.why else "."
        pairs.append(("Undo", f"{change.undo.result}{at}{why}"))
    pairs.append(
        ("By hand", command(change.by_hand, label="Undo by hand") if change.by_hand else "nothing to do")
    )
    pairs.append(("Link", permalink(f"change-{change.id}", f"change {change.id}")))
    return [h("div", h("dt", name), h("dd", value)) for name, value in pairs]


def _block(value: str) -> Html:
    return h("pre", h("code", value))


def _arrow(before: object, after: object) -> list[object]:
    """Before and after on one line; of two lists only what was added and removed."""
    if isinstance(before, list) and isinstance(after, list):
        came = [one for one in after if one not in before]
        went = [one for one in before if one not in after]
        sides = [("added", came), ("removed", went)]
        said = [f"{word} {brief(ones)}" for word, ones in sides if ones]
        return [
            h(
                "span",
                f"{len(before)} → {len(after)}: {'; '.join(said) or 'the same, reordered'}",
                cls="after",
            )
        ]
    old, new = _from_difference(brief(before), brief(after))
    return [
        h("span", "from ", cls="hidden-label"),
        h("span", _cut(old), cls="before"),
        h("span", " → ", aria_hidden="true", cls="to"),
        h("span", "to ", cls="hidden-label"),
        h("span", _cut(new), cls="after"),
    ]


def _from_difference(before: str, after: str, shown: int = 40) -> tuple[str, str]:
    """Two long texts without most of what both begin with, so that the difference is not cut off."""
    common = _same(before, after)
    if before == after or common < 2 * shown:
        return before, after
    start = common - shown
    return f"…{before[start:]}", f"…{after[start:]}"


def _cut(value: str, limit: int = 150) -> str:
    """One line of the summary; the whole value is below it."""
    line = " ".join(value.split())
    return line if len(line) <= limit else line[: limit - 1] + "…"


def _diff(target: str, text: str) -> Html:
    """A unified diff, one element a line; added and removed lines are marked by sign, colour and element."""
    lines = text.splitlines()
    rows = []
    for number, line in enumerate(lines):
        kind = {"+": "add", "-": "del", "@": "hunk"}.get(line[:1], "same")
        if line.startswith(("+++ ", "--- ")):
            kind = "file"
        before, after = lines[number - 1 : number] or [""], lines[number + 1 : number + 2] or [""]
        other = {"add": before[0], "del": after[0]}.get(kind, "")
        rows.append(_diff_line(kind, line, other))
    return h(
        "figure",
        h("figcaption", "Difference in ", h("code", target)),
        h("pre", h("code", rows), tabindex="0", role="region", aria_label=f"Difference in {target}"),
        cls="diff",
    )


def _diff_line(kind: str, line: str, other: str) -> Html:
    """One line; if it replaces the line beside it, the differing part is marked, because a poll set is long."""
    tag = {"add": "ins", "del": "del"}.get(kind, "span")
    if {line[:1], other[:1]} != {"+", "-"} or other.startswith(("+++ ", "--- ")):
        return h(tag, line + "\n", cls=kind)
    start = _same(line[1:], other[1:]) + 1
    end = _same(line[start:][::-1], other[start:][::-1])
    stop = len(line) - end
    return h(
        tag, line[:start], h("mark", line[start:stop]) if stop > start else None, line[stop:] + "\n", cls=kind
    )


def _same(one: str, other: str) -> int:
    """The length of the common beginning of two texts."""
    pairs = enumerate(zip(one, other, strict=False))
    return next((index for index, (a, b) in pairs if a != b), min(len(one), len(other)))


def _generations(record: RunRecord) -> Html | None:
    if not record.generations:
        return None
    before, after = record.generations
    same = before.get("path") == after.get("path")
    rows = [
        h(
            "tr",
            h("th", name, scope="row"),
            h("td", str(one.get("number", "?"))),
            h("td", h("code", str(one.get("path", "?")))),
        )
        for name, one in (("before", before), ("after", after))
    ]
    return h(
        "figure",
        h("figcaption", "The host's generation", " (unchanged)" if same else ""),
        h(
            "div",
            h(
                "table",
                h(
                    "thead",
                    h("tr", [h("th", name, scope="col") for name in ("Moment", "Number", "Store path")]),
                ),
                h("tbody", rows),
                cls="plain",
            ),
            cls="scroll",
        ),
        cls="generations",
    )
