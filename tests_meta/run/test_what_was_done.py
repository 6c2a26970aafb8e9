"""The words of an outcome come from the changes in the journal, not from the outcome's own state."""

from __future__ import annotations

from pathlib import Path

from fixtures.journal.kinds import ChangeKind
from fixtures.journal.writer import Journal
from fixtures.run.expectation import what_was_done


def made(journal: Journal, kind: ChangeKind) -> None:
    """Record one change of this kind as done."""
    with journal.change(kind, "host", before="a", after="b", undo={}, by_hand="") as change:
        change.done()


def test_nothing_was_needed_only_without_a_change(tmp_path: Path) -> None:
    """Without a change the words are the outcome's message, or that none was needed; a change is always named."""
    journal = Journal(tmp_path / "journal.jsonl")
    assert what_was_done(journal.changes(), "") == "none needed"
    assert what_was_done(journal.changes(), "cc-ci has the suite") == "cc-ci has the suite"
    made(journal, ChangeKind.SYNC_CHECKOUT)
    assert what_was_done(journal.changes(), "") == "Sync the host's checkout"
    made(journal, ChangeKind.SWITCH)
    assert (
        what_was_done(journal.changes(), "it runs /x") == "Sync the host's checkout, Switch the host: it runs /x"
    )


def test_change_that_was_undone_says_so(tmp_path: Path) -> None:
    """A change that was undone is named with that; two of one kind are counted."""
    journal = Journal(tmp_path / "journal.jsonl")
    made(journal, ChangeKind.SWITCH)
    made(journal, ChangeKind.SWITCH)
    assert what_was_done(journal.changes(), "") == "Switch the host (2 times)"
    journal.write("undo", change=2, result="undone", why="a regression")
    assert what_was_done(journal.changes(), "") == "Switch the host, Switch the host [undone]"
