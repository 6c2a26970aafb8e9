"""Tags that a forge refused are remembered: a health check names them again, and no run tries them again."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

import pytest

from fixtures.clients.forge_values import Repository
from fixtures.clients.git import Refs
from fixtures.config.roster import Recipe
from fixtures.journal.forge_memory import LINE, ForgeMemory, RefusedTag, recall_forge
from fixtures.journal.kinds import StepKind
from fixtures.mirrors import unmirrored
from fixtures.mirrors.step import plan_step
from fixtures.run.surveys import Surveys
from fixtures.survey import Survey

HEAD, OBJECT, MOVED = "a" * 40, "b" * 40, "c" * 40
GHOST = Recipe(name="ghost", upstream="ghost", enroll=True)
WHY = "the push was refused: a hook declined it"


def refs(**tags: str) -> Refs:
    return Refs("main", branches={"main": HEAD}, tags=dict(tags), tag_objects=dict(tags))


def survey(upstream: Refs, mirror: Refs) -> Survey:
    listed = Repository(full_name="mirrors/ghost", empty=False, default_branch="main", private=True)
    return Survey(
        taken=datetime(2026, 6, 2, tzinfo=UTC),
        forge_version="",
        account="",
        drone_account="",
        repositories={"ghost": listed},
        mirrors={"ghost": mirror},
        upstreams={"ghost": upstream},
        open_pulls=(),
        ccci=None,
        host=None,
        builds=(),
    )


SEEN = survey(refs(good=HEAD, odd=OBJECT), refs(good=HEAD))


def recall(now: Survey, memory: ForgeMemory, *forced: str) -> Surveys:
    """The surveys of the next run, which finds `memory` in its records."""
    surveys: Any = SimpleNamespace(now=now, unmirrored={})
    options = SimpleNamespace(force_sync=frozenset(forced))
    context: Any = SimpleNamespace(options=options, forge_memory=memory, roster=SimpleNamespace(names=("ghost",)))
    unmirrored.recall_unmirrored(context, surveys)
    found: Surveys = surveys
    return found


def remembered() -> ForgeMemory:
    """What a run writes down that could not mirror `odd`, as the next run reads it."""
    tonight: Any = SimpleNamespace(unmirrored={"ghost": {"odd": WHY}})
    line = {"refused_tags": unmirrored.refused_tags(SEEN, tonight, ForgeMemory())}
    record: Any = SimpleNamespace(of=lambda kind: [line if kind == LINE else {"rehearsal": False}])
    return recall_forge(iter([record]), rehearsal=False)


def test_refused_tag_is_remembered_and_left_out() -> None:
    """The next run knows the tag and the reason from the record, and plans nothing for it."""
    assert plan_step(GHOST, SEEN).kind is StepKind.PUSH_TAGS, "the control: without a record it is missing"
    surveys = recall(SEEN, remembered())
    assert surveys.unmirrored == {"ghost": {"odd": WHY}}
    assert plan_step(GHOST, SEEN, surveys.unmirrored["ghost"]).kind is None


@pytest.mark.parametrize(
    "now",
    [
        pytest.param(survey(refs(good=HEAD, odd=MOVED), refs(good=HEAD)), id="upstream moved it"),
        pytest.param(survey(refs(good=HEAD), refs(good=HEAD)), id="upstream deleted it"),
        pytest.param(
            survey(refs(good=HEAD, odd=OBJECT), refs(good=HEAD, odd=OBJECT)), id="the mirror has it now"
        ),
    ],
)
def test_changed_tag_is_tried_again(now: Survey) -> None:
    """What was refused holds for one object only."""
    assert recall(now, remembered()).unmirrored == {}


def test_force_sync_tries_a_refused_tag_again() -> None:
    """A person who has repaired the forge names the recipe."""
    assert recall(SEEN, remembered(), "ghost").unmirrored == {}


def test_memory_of_a_recipe_that_was_not_read_is_kept() -> None:
    """A night in which upstream does not answer forgets nothing."""
    silent = replace(SEEN, upstreams={})
    tonight: Any = SimpleNamespace(unmirrored={})
    memory = ForgeMemory(refused_tags={"ghost": {"odd": RefusedTag(OBJECT, WHY)}})
    assert unmirrored.refused_tags(silent, tonight, memory) == {"ghost": {"odd": [OBJECT, WHY]}}
    assert unmirrored.refused_tags(SEEN, tonight, memory) == {}
