"""How a record speaks: verdicts, states, times and values in words a person understands at once.

Every verdict has a colour *and* a shape *and* a word, because a page is also read by the colour-blind, printed
in grey, and read aloud.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from fixtures.journal.run_record import RunRecord

_SHA = re.compile(r"\b[0-9a-f]{40}\b|\b[0-9a-f]{64}\b")
# git's name for "no commit": the old side of a branch that is made, the new side of one that is deleted.
_NO_COMMIT = "0" * 40


@dataclass(frozen=True)
class Word:
    """One verdict as it is said: the headline, its tone (good, plan, warn, bad) and its shape."""

    headline: str
    tone: str
    glyph: str
    meaning: str


VERDICTS: Mapping[str, Word] = {
    "converged": Word(
        "Converged", "good", "✓", "The system is in the wanted state, and this run brought it there."
    ),
    "unchanged": Word("Unchanged", "good", "✓", "The system is in the wanted state; nothing had to be changed."),
    "planned": Word(
        "Changes pending", "plan", "○", "Nothing was written. An apply run would make the changes below."
    ),
    "drift": Word("Drift", "bad", "✕", "Something no longer holds. Nothing was written."),
    "failed": Word(
        "Failed", "bad", "✕", "Something asserted does not hold; nothing that worked before was broken."
    ),
    "rolled-back": Word(
        "Rolled back", "warn", "↶", "Something that worked before broke, and was put back as it was."
    ),
    "rollback-failed": Word(
        "Rollback failed", "bad", "✕", "Something that worked before is broken and could not be put back."
    ),
    "withheld": Word("Withheld", "warn", "▲", "The deploy was not attempted; everything else stands."),
    "interrupted": Word(
        "Interrupted", "warn", "▲", "The run never came to its end. This is what its journal kept."
    ),
}

CHANGE_STATES: Mapping[str, tuple[str, str]] = {
    "done": ("done", "good"),
    "failed": ("not made", "bad"),
    "unknown": ("outcome unknown", "bad"),
    "open": ("cut off: nobody knows whether it was made", "bad"),
    "undone": ("undone", "plan"),
    "refused": ("undo refused", "bad"),
}


def verdict_word(name: str) -> Word:
    return VERDICTS.get(
        name, Word(name or "Unknown", "bad", "✕", "This record names a verdict that is not known.")
    )


def change_state(state: str, *, undo_failed: bool) -> tuple[str, str]:
    """The words and the tone for a change's state; a failed undo is not a failed change."""
    return ("undo failed", "bad") if undo_failed else CHANGE_STATES.get(state, (state, "plan"))


def lede(record: RunRecord) -> str:
    """The second sentence of the page: how many recipes, how many changes."""
    total = record.expected
    if not total:
        return "The roster is empty: nothing was checked, so nothing is known."
    if not any(record.asked(column) for column in ("mirrored", "covered", "polled")):
        return f"The roll was not called, so nothing is known about the {total} recipes. {_changes_said(record)}"
    full = [column for column in ("mirrored", "covered", "polled") if record.count(column) == total]
    short = [f"{record.count(c)} of {total} {c}" for c in ("mirrored", "covered", "polled") if c not in full]
    if short:
        state = f"{_and(short)}" + (f"; all {total} {_and(full)}." if full else ".")
    else:
        state = f"All {total} recipes are mirrored, covered and polled."
    when = "" if record.has_final_roll or record.mode == "plan" else "Before the first write: "
    return f"{when}{state} {_changes_said(record)}"


def _changes_said(record: RunRecord) -> str:
    if record.mode == "plan" or record.planned:
        return f"{plural(len(record.planned), 'change')} would be made."
    made = [change for change in record.changes if change.result != "failed" or change.undone]
    if not made:
        return "No change was made."
    undone = sum(change.undone for change in made)
    said = f"{plural(len(made), 'change was', 'changes were')} made"
    return f"{said}, {undone} undone." if undone else f"{said}."


def _and(words: list[str]) -> str:
    return words[0] if len(words) == 1 else ", ".join(words[:-1]) + " and " + words[-1]


def plural(count: int, one: str, many: str = "") -> str:
    return f"{count:,} {one if count == 1 else many or one + 's'}"


def span(seconds: float) -> str:
    """``0.4 s``, ``12 s``, ``3 min 05 s``, ``1 h 01 min``."""
    if seconds < 0.0005:
        return "0 s"
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def clock(at: datetime | None) -> str:
    return at.strftime("%H:%M:%S") if at else "?"


def day(at: datetime | None) -> str:
    return at.strftime("%Y-%m-%d") if at else "?"


def short(value: str) -> str:
    """The text with every full commit hash cut to twelve digits."""
    return _SHA.sub(lambda found: found.group()[:12] if found.group() != _NO_COMMIT else "nothing", value)


def brief(value: Any) -> str:
    """A recorded value on one line: nothing for None, the text, or the pairs of a map."""
    if value is None or value == "" or value == {} or value == []:
        return "nothing"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, Mapping):
        return short(", ".join(f"{key} {brief(one)}" for key, one in value.items()))
    if isinstance(value, list):
        return short(", ".join(brief(one) for one in value))
    return short(str(value))


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
