"""Changes by other people during a run become findings; regressions caused by muster are undone."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from fixtures.changes import REGISTRY, Area
from fixtures.clients.forge_values import File
from fixtures.journal.kinds import ChangeKind
from fixtures.journal.reader import Change
from fixtures.rollback.cause import find_causes, with_dependents
from fixtures.rollback.regression import Difference, lost_entries


def made(kind: ChangeKind, id: int, *, recipe: str | None = None, **undo: Any) -> Change:
    undo = {"refs": [["refs/heads/main", "a" * 40, "b" * 40]], **undo}
    return Change(id, kind, str(recipe), None, {}, undo, "", "", "done", None, None, str(recipe), recipe)


def run_with(*changes: Change, mirrors: dict[str, Any] | None = None) -> Any:
    """The parts of a run that the search for a cause reads."""
    journal = SimpleNamespace(changes=lambda: list(changes), count_changes=lambda: max(c.id for c in changes))
    survey = SimpleNamespace(mirrors=mirrors or {}, host=None)
    return SimpleNamespace(
        record=SimpleNamespace(journal=journal),
        surveys=SimpleNamespace(now=survey, baseline=survey, earlier=[]),
    )


@pytest.mark.parametrize("area", [area for area in Area if area.live])
def test_live_regression_is_caused_only_by_a_change_of_the_host(area: Area) -> None:
    """Neither a sync nor an enrollment can cause a live regression; a switch can."""
    difference = Difference("worse", area, "x")
    sync = made(ChangeKind.SYNC_MAIN, 1, recipe="ghost")
    assert find_causes(run_with(sync, made(ChangeKind.ENROLL, 2)), difference) == []
    switch = made(ChangeKind.SWITCH, 3)
    assert find_causes(run_with(sync, switch), difference) == [switch]


@pytest.mark.parametrize(("entry", "lost"), [("org/ghost", True), ("org/mailu", True), ("org/playground", False)])
def test_entry_that_nobody_committed_is_no_regression(entry: str, lost: bool) -> None:
    """What only a bridge that was deployed by hand polled is lost with the next deploy of what is committed."""

    def polling(*entries: str) -> Any:
        host = SimpleNamespace(bridge=SimpleNamespace(poll_set=",".join(entries), unread=""))
        ccci = SimpleNamespace(poll_file=File("bridge.nix", b'"POLL_REPOS=org/cc-ci,org/mailu"', ""))
        return SimpleNamespace(host=host, ccci=ccci)

    site = SimpleNamespace(ccci=SimpleNamespace(repository="org/cc-ci"))
    context: Any = SimpleNamespace(roster=SimpleNamespace(names=["ghost"]), site=site)
    found = lost_entries(context, polling("org/cc-ci", entry), polling("org/cc-ci"))
    assert [one.subject for one in found] == ([entry] if lost else [])


def test_mirror_regression_is_caused_only_by_a_change_of_that_mirror() -> None:
    """If only keycloak was synced, a difference of ghost has no cause in this run."""
    sync = made(ChangeKind.SYNC_MAIN, 1, recipe="keycloak")
    refs = {"keycloak": SimpleNamespace(branches={"main": "b" * 40})}
    assert find_causes(run_with(sync, mirrors=refs), Difference("w", Area.MIRROR, "x", "ghost")) == []
    assert find_causes(run_with(sync, mirrors=refs), Difference("w", Area.MIRROR, "x", "keycloak")) == [sync]


def test_ref_moved_by_somebody_else_has_no_cause_in_the_run() -> None:
    """A difference is not attributed to the run if main is at a commit that the run neither found nor pushed."""
    sync = made(ChangeKind.SYNC_MAIN, 1, recipe="ghost")
    refs = {"ghost": SimpleNamespace(branches={"main": "c" * 40})}
    assert find_causes(run_with(sync, mirrors=refs), Difference("w", Area.MIRROR, "x", "ghost")) == []


def test_dependent_changes_are_undone_together() -> None:
    """When a created mirror is deleted, the enrollment and the switch that depend on it are undone too."""
    create, other = (
        made(ChangeKind.CREATE_MIRROR, 1, recipe="mumble"),
        made(ChangeKind.SYNC_MAIN, 2, recipe="ghost"),
    )
    enroll, switch = made(ChangeKind.ENROLL, 3), made(ChangeKind.SWITCH, 4)
    chosen = with_dependents([create], [create, other, enroll, switch])
    assert [change.id for change in chosen] == [1, 3, 4]
    assert with_dependents([other], [create, other, enroll, switch]) == [other]


def test_kinds_that_cannot_cause_a_regression_are_listed() -> None:
    """A kind without affected areas is never undone as the cause of a regression."""
    without_effect = {kind for kind, entry in REGISTRY.items() if not entry.affects}
    assert without_effect == {
        ChangeKind.SYNC_TAGS,
        ChangeKind.PROPOSE_SUITE,
        ChangeKind.DESCRIBE_SUITE,
        ChangeKind.MERGE_SUITE,
        ChangeKind.WITHDRAW_SUITE,
        ChangeKind.ENROLL,
        ChangeKind.SYNC_CHECKOUT,
        ChangeKind.SCRATCH_PULL,
        ChangeKind.TESTME_COMMENT,
    }
