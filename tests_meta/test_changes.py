"""The registry of change kinds is complete, and what each entry says agrees with the others."""

from __future__ import annotations

import pytest

from fixtures.changes import REGISTRY
from fixtures.journal.kinds import ChangeKind, StepKind


def test_every_kind_of_change_has_an_entry() -> None:
    """A kind without an entry could be made and never undone."""
    assert set(REGISTRY) == set(ChangeKind)


@pytest.mark.parametrize("kind", ChangeKind)
def test_an_entry_is_complete(kind: ChangeKind) -> None:
    """Each kind has a title for the report, a function that makes it, one that undoes it, a check and its steps."""
    entry = REGISTRY[kind]
    assert kind.label.strip()
    assert entry.make
    assert all(callable(one) for one in (*entry.make, entry.undo, entry.check))
    assert entry.steps <= set(StepKind)
    assert entry.steps
    assert not (entry.live and entry.always)


def test_every_kind_of_step_is_made_of_changes() -> None:
    """A step that no kind of change belongs to could be reviewed and never applied."""
    assert {step for entry in REGISTRY.values() for step in entry.steps} == set(StepKind)
