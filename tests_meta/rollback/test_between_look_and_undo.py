"""Somebody acts in the moment between the last look of an undo and its write: nothing of theirs is lost.

Each undo here is really made, in a small world; the act happens right before the undo's first write is sent.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import httpx
import pytest

from fixtures.clients.git import Workspace
from fixtures.clients.host import HostWriter
from fixtures.clients.http import Http
from fixtures.clients.world import WriteWorld
from fixtures.config.roster import load_roster
from fixtures.config.site import load_site
from fixtures.deploy.from_checkout import CheckoutDeployer
from fixtures.enrollment.fixture import enroll
from fixtures.errors import TakenOver
from fixtures.journal.kinds import ChangeKind, UndoResult
from fixtures.journal.reader import Change
from fixtures.mirrors.fixture import sync_mirrors
from fixtures.rehearsal.people.crew import Crew, Kept, Kind
from fixtures.rollback.undo import undo_change
from fixtures.run.run import Run
from fixtures.verdicts.scratch_pull import pull_for
from tests_meta.census import take_census
from tests_meta.in_process_run import close_run, open_run
from tests_meta.parallel_worlds import SEEDED, ParallelWorld
from tests_meta.world_view import POLL_FILE, WorldView

ONE, TWO = 1, 2


@pytest.fixture(scope="module")
def small_world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ParallelWorld]:
    made = ParallelWorld(tmp_path_factory.mktemp("small-world"))
    made.begin(SEEDED)
    yield made
    made.clear()


@pytest.fixture(scope="module")
def run(small_world: ParallelWorld, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    """A run that has synced the mirrors, committed the poll set, and moved the host's checkout."""
    opened = open_run(
        load_site(small_world.site), load_roster(small_world.roster), tmp_path_factory.mktemp("between")
    )
    sync_mirrors(opened)
    enrollment = enroll(opened)
    CheckoutDeployer(opened, writer(opened), enrollment).sync_checkout(opened.surveys.now.demand_host())
    yield opened
    close_run(opened)


@pytest.fixture
def crew(small_world: ParallelWorld) -> Iterator[Crew]:
    """The people, whose belongings are counted before and after the test."""
    before = take_census(small_world.settings)
    yield (made := Crew(small_world.settings))
    after = take_census(small_world.settings)
    assert before.missing_in(after) == []
    assert [one for one in made.take_kept() if one.kind is Kind.REF and not _is_there(small_world, one)] == []


def _is_there(small_world: ParallelWorld, kept: Kept) -> bool:
    name, ref = kept.where.split(" ")
    return WorldView(small_world.settings).refs(name).get(ref) == kept.value


def writer(run: Run) -> WriteWorld:
    assert run.context.writer is not None
    return run.context.writer


def change_of(run: Run, kind: ChangeKind, recipe: str | None = None) -> Change:
    return next(one for one in run.record.journal.changes() if (one.kind, one.recipe) == (kind, recipe))


@contextmanager
def acting_before_write(number: int, act: Callable[[], Any]) -> Iterator[list[str]]:
    """Inside the block, `act` happens once, right before the write of this number is sent to the outside."""
    writes: list[str] = []

    def watch(patch: pytest.MonkeyPatch, owner: type, name: str) -> None:
        real = getattr(owner, name)

        def write(self: Any, *args: Any, **options: Any) -> Any:
            writes.append(name)
            if len(writes) == number:
                act()
            return real(self, *args, **options)

        patch.setattr(owner, name, write)

    with pytest.MonkeyPatch.context() as patch:
        for owner, name in ((Http, "send"), (Workspace, "push"), (HostWriter, "act")):
            watch(patch, owner, name)
        yield writes


def test_edit_of_the_poll_file_stays(run: Run, crew: Crew) -> None:
    """alice commits the poll file right before the old one is committed: hers stays."""
    edit = partial(crew.commit, "cc-ci", "main", POLL_FILE, "# mine\n")
    with acting_before_write(ONE, edit) as writes, pytest.raises(TakenOver, match="somebody changed"):
        undo_change(writer(run), run, change_of(run, ChangeKind.ENROLL))
    assert writes == ["send"]


def test_push_to_main_stays(run: Run, crew: Crew) -> None:
    """alice pushes to a mirror's main right before it is put back: her commit stays there."""
    push = partial(crew.commit, "n8n", "main", "mine.txt", "mine\n")
    with acting_before_write(ONE, push), pytest.raises(TakenOver, match="moved on"):
        undo_change(writer(run), run, change_of(run, ChangeKind.SYNC_MAIN, "n8n"))


def test_push_of_another_branch_stops_no_undo(run: Run, crew: Crew) -> None:
    """Positive control: what somebody does beside the change does not keep it from being undone."""
    push = partial(crew.commit, "keycloak", "main", "mine.txt", "mine\n", new_branch="mine")
    change = change_of(run, ChangeKind.SYNC_MAIN, "keycloak")
    with acting_before_write(ONE, push):
        assert undo_change(writer(run), run, change) is UndoResult.UNDONE
    assert crew.head("keycloak", "main") == change.undo["refs"][0][1]


def test_issue_on_a_created_mirror_stays(run: Run, crew: Crew) -> None:
    """alice opens an issue right before a created mirror is deleted: the mirror stays, and is open to everybody."""
    ask = partial(crew.ask, "POST", "/mailu/issues", {"title": "Which ports?"})
    with acting_before_write(ONE, ask), pytest.raises(TakenOver, match="issues or pull requests"):
        undo_change(writer(run), run, change_of(run, ChangeKind.CREATE_MIRROR, "mailu"))
    assert crew.ask("GET", "/mailu")["archived"] is False
    assert len(crew.ask("GET", "/mailu/issues")) == 1


def test_mirror_that_is_about_to_be_deleted_takes_nothing(run: Run, small_world: ParallelWorld) -> None:
    """Right before the deletion itself nobody can write any more: whoever tries is told so, and loses nothing."""
    refused: list[int] = []
    crew, before = Crew(small_world.settings), take_census(small_world.settings)

    def ask() -> None:
        with pytest.raises(httpx.HTTPStatusError) as answer:
            crew.ask("POST", "/mumble/issues", {"title": "Which ports?"})
        refused.append(answer.value.response.status_code)

    with acting_before_write(TWO, ask) as writes:
        undone = undo_change(writer(run), run, change_of(run, ChangeKind.CREATE_MIRROR, "mumble"))
    assert (undone, refused, writes) == (UndoResult.UNDONE, [423], ["send", "send"])
    gone = before.missing_in(take_census(small_world.settings))
    assert [line for line in gone if not line.startswith("mumble: ")] == []


def test_push_to_a_scratch_branch_stays(run: Run, crew: Crew) -> None:
    """alice pushes to the branch of a scratch pull request right before it is removed: the branch stays."""
    with pull_for(run.context, run.record, writer(run), "n8n") as pull:
        push = partial(crew.commit, "n8n", pull.head_branch, "mine.txt", "mine\n")
        with acting_before_write(ONE, push), pytest.raises(TakenOver, match="somebody pushed"):
            undo_change(writer(run), run, change_of(run, ChangeKind.SCRATCH_PULL, "n8n"))


def test_commit_in_the_checkout_stays(run: Run, crew: Crew) -> None:
    """root commits in the checkout right before it is put back: the commit stays its HEAD."""
    commit = partial(crew.on_host, "cd cc-ci; echo mine >mine.txt; git add mine.txt; git commit -qm mine")
    with acting_before_write(ONE, commit), pytest.raises(TakenOver, match="moved by somebody else"):
        undo_change(writer(run), run, change_of(run, ChangeKind.SYNC_CHECKOUT))
    assert crew.on_host("git -C cc-ci log -1 --format=%s").strip() == "mine"
