"""The words, colours and shapes of a page: verdicts, states of a change, the summary sentence.

Every verdict has a colour *and* a shape *and* a word, because a page is also read by colour-blind people, printed in
grey, and read aloud.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from fixtures.journal.kinds import ChangeResult, RunVerdict, UndoResult, run_verdict
from fixtures.journal.run_record import RunRecord
from fixtures.journal.words import plural


@dataclass(frozen=True)
class Word:
    """How a page shows one verdict: headline, tone (good, plan, warn, bad) and shape."""

    headline: str
    tone: str
    glyph: str


_VERDICTS: Mapping[RunVerdict, tuple[str, str, str]] = {
    RunVerdict.CONVERGED: ("Converged", "good", "✓"),
    RunVerdict.UNCHANGED: ("Unchanged", "good", "✓"),
    RunVerdict.PARTIAL: ("Partial", "warn", "▲"),
    RunVerdict.PLANNED: ("Changes pending", "plan", "○"),
    RunVerdict.DRIFT: ("Drift", "bad", "✕"),
    RunVerdict.UNREACHABLE: ("Unreachable", "bad", "?"),
    RunVerdict.FAILED: ("Failed", "bad", "✕"),
    RunVerdict.ROLLED_BACK: ("Rolled back", "warn", "↶"),
    RunVerdict.ROLLBACK_FAILED: ("Rollback failed", "bad", "✕"),
    RunVerdict.WITHHELD: ("Withheld", "warn", "▲"),
    RunVerdict.RECOVERED: ("Recovered", "good", "✓"),
    RunVerdict.INTERRUPTED: ("Interrupted", "warn", "▲"),
}

CHANGE_STATES: Mapping[str, tuple[str, str]] = {
    ChangeResult.DONE: ("done", "good"),
    ChangeResult.FAILED: ("not made", "bad"),
    ChangeResult.UNKNOWN: ("outcome unknown", "bad"),
    ChangeResult.OPEN: ("interrupted: it is not known whether it was made", "bad"),
    UndoResult.UNDONE: ("undone", "plan"),
    UndoResult.REFUSED: ("undo refused", "bad"),
}


def verdict_word(name: str) -> Word:
    """How a page shows the verdict that a record names."""
    known = run_verdict(name)
    headline, tone, glyph = _VERDICTS[known] if known else (name or "Unknown", "bad", "✕")
    return Word(headline, tone, glyph)


def change_state(state: str, *, undo_failed: bool) -> tuple[str, str]:
    """The words and the tone for a change's state; a failed undo is not a failed change."""
    return ("undo failed", "bad") if undo_failed else CHANGE_STATES.get(state, (state, "plan"))


def lede(record: RunRecord) -> str:
    """The second sentence of the page: how many recipes, how many changes."""
    total = record.expected
    if record.mode == "recover":
        return _recovered(record)
    if not total:
        return "The roster is empty: nothing was checked."
    if not any(record.asked(column) for column in ("mirrored", "covered", "polled")):
        return f"The {total} recipes were not checked. {_changes_made(record)}"
    columns = ("mirrored", "covered", "polled")
    full = [column for column in columns if record.count(column) == total]
    unknown = [column for column in columns if not record.asked(column)]
    short = [_figure(record, column) for column in columns if column not in (*full, *unknown)]
    if len(full) == len(columns):
        state = f"All {total} recipes are mirrored, covered and polled."
    else:
        parts = [_and(short)] if short else []
        parts += [f"{'all' if short else 'All'} {total} {_and(full)}"] if full else []
        parts += [f"{_and(unknown)} {'is' if len(unknown) == 1 else 'are'} unknown"] if unknown else []
        state = f"{'; '.join(parts)}."
    when = "" if record.has_final_roll or record.mode == "plan" else "Before the first write: "
    return f"{when}{state} {_changes_made(record)}"


def _recovered(record: RunRecord) -> str:
    """What a recovery settled: of how many runs, and what was done with the changes that they had left."""
    return " ".join(f"{one.run} ({one.why}): {one.in_words}." for one in record.settled)


def _figure(record: RunRecord, column: str) -> str:
    """``18 of 19 mirrored``; what is unknown does not count as a no."""
    unknown = record.unknown(column)
    return f"{record.count(column)} of {record.expected} {column}" + (f" ({unknown} unknown)" if unknown else "")


def _changes_made(record: RunRecord) -> str:
    if record.mode == "plan" or record.planned:
        return f"{plural(len(record.planned), 'change')} would be made."
    unknown = sum(change.is_open and change.undo is None for change in record.changes)
    made = sum(change.stands or change.undone for change in record.changes) - unknown
    undone = sum(change.undone for change in record.changes)
    text = f"{plural(made, 'change was', 'changes were')} made" if made else "No change was made"
    text += f", {undone} undone" if undone else ""
    return f"{text}; the outcome of {unknown} is not known." if unknown else f"{text}."


def _and(words: list[str]) -> str:
    return words[0] if len(words) == 1 else ", ".join(words[:-1]) + " and " + words[-1]


def full(value: Any) -> str:
    """A recorded value at full length, maps one pair a line."""
    if value is None:
        return "nothing"
    if isinstance(value, Mapping):
        return (
            "\n".join(
                f"{key}: {one if isinstance(one, str) else json.dumps(one, ensure_ascii=False)}"
                for key, one in value.items()
            )
            or "nothing"
        )
    if isinstance(value, list):
        return "\n".join(one if isinstance(one, str) else json.dumps(one, ensure_ascii=False) for one in value)
    return str(value)
