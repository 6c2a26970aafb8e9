"""DEFERRED.md: items are read, prose is passed over, and nothing that looks like an item is lost."""

from __future__ import annotations

import dataclasses
from datetime import date
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import fixtures
from fixtures.ccci.deferred import Item, parse_deferred
from fixtures.config.roster import load_roster

ITEM = """\
### 2026-05-31 — ghost-backup
- [ ] **What:** bring the backup to green
**Filed by:** reviewer, phase 5
**Reason for deferral:** restore loses the database
**Re-entry trigger:** ghost enrolled
**Linked IDEA / BACKLOG:** BACKLOG-5 A5-9
"""
READ = Item(
    date=date(2026, 5, 31),
    slug="ghost-backup",
    what="bring the backup to green",
    filed_by="reviewer, phase 5",
    reason="restore loses the database",
    trigger="ghost enrolled",
    linked="BACKLOG-5 A5-9",
    open=True,
    line=1,
)


def test_item() -> None:
    """An item has a date, a slug, five fields, and is open until it is ticked."""
    assert parse_deferred(ITEM).items == (READ,)
    assert parse_deferred(ITEM).problems == ()
    assert parse_deferred(ITEM).open == (READ,)
    with pytest.raises(dataclasses.FrozenInstanceError):
        READ.slug = "other"  # type: ignore[misc]


@pytest.mark.parametrize("tick", ["x", "X"])
def test_ticked(tick: str) -> None:
    """A ticked item is closed, and is still there."""
    registry = parse_deferred(ITEM.replace("[ ]", f"[{tick}]"))
    assert registry.items == (dataclasses.replace(READ, open=False),)
    assert registry.open == ()


SAME = {
    "CRLF": ITEM.replace("\n", "\r\n"),
    "hyphen": ITEM.replace("—", "-"),
    "two hyphens": ITEM.replace("—", "--"),
    "no line end": ITEM.rstrip(),
    "blank lines": ITEM.replace("\n", "\n\n"),
    "wrapped": ITEM.replace("the database", "the\n  database"),
    "colon outside": ITEM.replace("What:**", "What**:"),
    "fields as a list": ITEM.replace("\n**", "\n- **"),
    "other case": ITEM.replace("Filed by", "Filed By"),
    "another order": "\n".join([*ITEM.splitlines()[:2], *reversed(ITEM.splitlines()[2:])]),
    "a note of its own": ITEM + "**Closed by:** nothing yet\n  more of it\n",
    "prose behind": ITEM + "\nSome more words, not of the last field.\n",
}


@pytest.mark.parametrize("variant", SAME)
def test_written_otherwise(variant: str) -> None:
    """Line ends, dashes, wrapping, and the order and looks of the fields do not matter."""
    registry = parse_deferred(SAME[variant])
    assert registry.items == (READ,)
    assert registry.problems == ()


def test_prose_around() -> None:
    """Titles, prose, tables, rules, code blocks and comments around items are no items and no problems."""
    around = (
        "# Deferred work\n\nAppend-only. Since 2026-05-26.\n\n## Format\n```\n" + ITEM + "```\n"
        "<!-- an old one:\n" + ITEM + "-->\n<!-- one line -->\n---\n| a | b |\n\n## Open deferrals\n\n"
    )
    registry = parse_deferred(
        around + ITEM + "\n### Not dated\n\nwords\n\n" + ITEM.replace("ghost-backup", "two")
    )
    assert registry.problems == ()
    assert [item.slug for item in registry.items] == ["ghost-backup", "two"]
    assert registry.items[0].line == around.count("\n") + 1


def test_empty() -> None:
    """A registry without items has none, and no problem."""
    for text in ("", "# Deferred work\n\nnothing\n"):
        assert parse_deferred(text).items == ()
        assert parse_deferred(text).problems == ()


PROBLEMS = [
    (ITEM.replace("2026-05-31", "2026-13-31"), 1, "does not begin with a date"),
    (ITEM.replace("2026-05-31", "2026-5-31"), 1, "does not begin with a date"),
    (ITEM.replace(" — ghost-backup", ""), 1, "is not a date, a dash and a slug"),
    (ITEM.replace(" — ghost-backup", " ghost-backup"), 1, "is not a date, a dash and a slug"),
    (ITEM.replace("ghost-backup", "ghost backup"), 1, "is not a date, a dash and a slug"),
    (ITEM.replace("###", "##"), 1, "a dated heading of level ##"),
    (ITEM.replace("###", "####"), 1, "a dated heading of level ####"),
    (ITEM.replace("2026-05-31 — ", ""), 2, "an item without a heading"),
    ("\n".join(ITEM.splitlines()[1:]), 1, "an item without a heading"),
    (ITEM.replace("[ ] ", ""), 1, "has no box"),
    (ITEM.replace("[ ]", "[]"), 1, "has the box []"),
    (ITEM.replace("[ ]", "[y]"), 1, "has the box [y]"),
    (ITEM.replace("Filed by", "Field by"), 1, "has no 'Filed by'"),
    (ITEM.replace("**Re-entry trigger:**", "Re-entry trigger:"), 1, "has no 'Re-entry trigger'"),
    (ITEM.replace(" restore loses the database", ""), 1, "has an empty 'Reason for deferral'"),
    (ITEM + "**Filed by:** builder, phase 6\n", 7, "a second 'Filed by'"),
    (ITEM + ITEM, 7, "is a duplicate"),
    ("```\n" + ITEM, 1, "a code block is never closed"),
    ("<!--\n" + ITEM, 1, "a comment is never closed"),
]


@pytest.mark.parametrize(("text", "line", "says"), PROBLEMS)
def test_malformed(text: str, line: int, says: str) -> None:
    """What looks like an item and is none is a problem with its line, and not an item."""
    registry = parse_deferred(text)
    assert says in next(problem.text for problem in registry.problems if problem.line == line)
    assert len(registry.items) == (1 if text == ITEM + ITEM else 0)


def test_a_malformed_item_hides_no_other() -> None:
    """The items before and after a malformed one are read."""
    broken = ITEM.replace("Filed by", "Field by").replace("ghost-backup", "broken")
    registry = parse_deferred(ITEM + broken + ITEM.replace("ghost-backup", "after"))
    assert [item.slug for item in registry.items] == ["ghost-backup", "after"]
    assert [problem.line for problem in registry.problems] == [7]


def test_open_under_closed() -> None:
    """An open item under "Closed deferrals" is kept as open, and pointed out."""
    ticked = ITEM.replace("[ ]", "[x]").replace("ghost-backup", "done")
    registry = parse_deferred("## Closed deferrals\n\n" + ITEM + ticked)
    assert [(item.slug, item.open) for item in registry.items] == [("ghost-backup", True), ("done", False)]
    (problem,) = registry.problems
    assert problem.line == 3
    assert "listed under 'Closed deferrals'" in problem.text


LINES = [*ITEM.splitlines(), "", "prose", "## Closed", "```", "<!-- x -->"]


@given(st.lists(st.sampled_from(LINES), max_size=40))
def test_nothing_is_lost(lines: list[str]) -> None:
    """Whatever lines come in whatever order: an open box is in an item, in a problem, or in a code block."""
    registry = parse_deferred("\n".join(lines))
    assert len(registry.items) + len(registry.problems) >= _boxes_outside_code(lines)


def _boxes_outside_code(lines: list[str]) -> int:
    inside, boxes = False, 0
    for line in lines:
        inside ^= line == "```"
        boxes += not inside and line.startswith("- [ ]")
    return boxes


@given(st.text(max_size=300))
def test_any_text(text: str) -> None:
    """Any text is read without an exception."""
    parse_deferred(text)
    parse_deferred("### 2026-05-31" + text + ITEM)


def test_registry_of_the_rehearsal_has_an_item_for_each_deferred_recipe() -> None:
    """The rehearsal's registry has no problems, and an open item for each deferred recipe of the roster."""
    folder = Path(fixtures.__file__ or "").parent / "rehearsal" / "initial_state" / "ccci"
    registry = parse_deferred((folder / "machine-docs" / "DEFERRED.md").read_text())
    assert registry.problems == ()
    texts = [f"{item.slug} {item.what} {item.trigger} {item.reason}" for item in registry.open]
    for recipe in {item.recipe for item in load_roster().deferred}:
        assert any(recipe in text for text in texts), recipe
