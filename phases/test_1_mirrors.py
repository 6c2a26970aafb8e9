"""Phase 1, mirrors. Every recipe has a private mirror whose main and tags are upstream's.

Reviewers accepted a mirror on four facts: it answers, it is not empty, its default branch is main, its head is
upstream's head. No pull request is opened, and those that are open keep their state and head. A health check
moves nothing: it allows a mirror to be behind upstream for the hours that the site grants.
"""

from __future__ import annotations

import pytest

from fixtures.clients.forge_values import Repository
from fixtures.clients.git import MAIN, Refs
from fixtures.mirrors.fixture import Mirrors
from fixtures.mirrors.pulls import find_closed_by_run
from fixtures.run.context import Context
from fixtures.run.expectation import Expectation
from fixtures.run.gates import Gate
from fixtures.run.record import Recorder
from fixtures.run.surveys import Surveys

pytestmark = pytest.mark.dependency(depends=["phase 0"], scope="session")


def test_it_was_brought_up_to_date(recipe: str, mirrors: Mirrors, expect: Expectation) -> None:
    """Created, moved forward, or left alone because nothing was missing; never overwritten."""
    expect.success(mirrors[recipe])


def _seen(recipe: str, mirrors: Mirrors, expect: Expectation) -> Repository | None:
    """The mirror as the organisation lists it; where it is not listed and why is known (renamed), that is told."""
    __tracebackhide__ = True
    seen = mirrors.survey.repositories.get(recipe)
    if seen is None:
        expect.read(f"mirror {recipe}")
    return seen


def test_it_exists(recipe: str, context: Context, mirrors: Mirrors, expect: Expectation) -> None:
    expect.after_apply(mirrors[recipe].planned, "the mirror")
    url = f"{context.site.forge.url}/api/v1/repos/{context.world.mirror(recipe)}"
    seen = _seen(recipe, mirrors, expect)
    expect.equal(
        "the mirror",
        expected=context.world.mirror(recipe),
        seen=seen.full_name if seen else "missing",
        check=f"GET {url}",
    )


def test_it_is_not_empty(recipe: str, mirrors: Mirrors, expect: Expectation) -> None:
    expect.after_apply(mirrors[recipe].planned, "its content")
    seen = _seen(recipe, mirrors, expect)
    expect.true(
        "the mirror",
        seen is not None and not seen.empty,
        expected="not empty",
        seen="missing" if seen is None else f"empty={seen.empty}",
    )


def test_its_default_branch_is_main(recipe: str, mirrors: Mirrors, expect: Expectation) -> None:
    expect.after_apply(mirrors[recipe].planned, "its default branch")
    seen = _seen(recipe, mirrors, expect)
    expect.equal("its default branch", expected=MAIN, seen=seen.default_branch if seen else "missing")


def test_its_head_is_upstreams_head(
    recipe: str, context: Context, surveys: Surveys, mirrors: Mirrors, expect: Expectation
) -> None:
    expect.after_apply(mirrors[recipe].planned, "its head")
    expect.read(f"mirror {recipe}")
    if (late := surveys.lags.get(recipe)) and late.tolerated:
        grace_h = context.site.limits.mirror_grace_h
        expect.true("the head of its main", True, expected=f"upstream's for all but {grace_h} h", seen=late.words)
        return
    mirror, upstream = mirrors.survey.mirrors.get(recipe), mirrors.survey.upstreams.get(recipe)
    url = f"{context.site.forge.url}/{context.world.mirror(recipe)}.git"
    expect.equal(
        "the head of its main",
        expected=upstream.branches.get(MAIN) if upstream else "upstream's head",
        seen=mirror.branches.get(MAIN) if mirror else "missing",
        check=f"git ls-remote {url} refs/heads/{MAIN}",
    )


def test_it_has_upstreams_tags(recipe: str, surveys: Surveys, mirrors: Mirrors, expect: Expectation) -> None:
    expect.after_apply(mirrors[recipe].planned, "its tags")
    expect.read(f"mirror {recipe}")
    upstream, late = mirrors.survey.upstreams.get(recipe), surveys.lags.get(recipe)
    missing = (mirrors.survey.mirrors.get(recipe) or Refs("")).missing_tags(upstream or Refs(""))
    if late and late.tolerated:
        expect.true("its tags", True, expected="upstream's, within the site's grace", seen=late.words)
        return
    expect.nothing(
        f"tags that upstream has ({len(upstream.tags) if upstream else 0}) and the mirror has not", missing
    )


def test_it_is_private_like_its_siblings(recipe: str, mirrors: Mirrors, expect: Expectation) -> None:
    expect.after_apply(mirrors[recipe].planned, "its visibility")
    seen = _seen(recipe, mirrors, expect)
    expect.true(
        "the mirror",
        seen is not None and seen.private,
        expected="private",
        seen="missing" if seen is None else f"private={seen.private}",
    )


def test_no_pull_request_was_opened(
    recipe: str, context: Context, surveys: Surveys, mirrors: Mirrors, expect: Expectation
) -> None:
    full_name = context.world.mirror(recipe)
    before = {pull.name for pull in surveys.baseline.pulls_of(full_name)}
    expect.nothing(
        "pull requests that were not there before",
        sorted({pull.name for pull in mirrors.survey.pulls_of(full_name)} - before),
    )


def test_open_pull_requests_are_untouched(
    recipe: str, context: Context, record: Recorder, surveys: Surveys, mirrors: Mirrors, expect: Expectation
) -> None:
    """This run closed none. What people did to their own meanwhile is a finding and stops nothing."""
    expect.nothing(
        "pull requests that were open before and that this run can have closed",
        [closed.words for closed in find_closed_by_run(context, record, surveys, recipe)],
        check=f"{context.site.forge.url}/{context.world.mirror(recipe)}/pulls?state=closed",
    )


@pytest.mark.dependency(name="phase 1", depends=["phase 0"], scope="session")
def test_gate(gate: Gate) -> None:
    gate.demand(1)
