"""Phase 1, mirrors. Every recipe has a private mirror whose main and tags are upstream's.

Reviewers accepted a mirror on four facts: it answers, it is not empty, its default branch is main, and its head is
upstream's head. No pull request is opened, and open ones keep their state and head. A health check changes nothing: it
accepts a mirror that is behind upstream for less than the site's grace period.
"""

from __future__ import annotations

import pytest

from fixtures.clients.forge_values import Repository
from fixtures.clients.git import MAIN, Refs
from fixtures.journal.kinds import MIRROR_KINDS
from fixtures.mirrors.fixture import Mirrors
from fixtures.mirrors.forge_health import ForgeHealth
from fixtures.mirrors.pulls import find_closed_by_run
from fixtures.run.context import Context
from fixtures.run.expectation import Expectation
from fixtures.run.gates import Gate
from fixtures.run.recorder import Recorder
from fixtures.run.surveys import Surveys

pytestmark = pytest.mark.dependency(depends=["phase 0"], scope="session")


def test_it_was_brought_up_to_date(recipe: str, mirrors: Mirrors, expect: Expectation) -> None:
    """It was created, fast-forwarded, or already up to date; it is never overwritten."""
    expect.success(mirrors[recipe], kinds=MIRROR_KINDS, recipe=recipe)


def _listed(recipe: str, mirrors: Mirrors, expect: Expectation) -> Repository | None:
    """The mirror in the organisation's list; if it is not listed and the survey knows why, the test fails with that."""
    __tracebackhide__ = True
    seen = mirrors.survey.repositories.get(recipe)
    if seen is None:
        expect.read(f"mirror {recipe}")
    return seen


def test_it_exists(recipe: str, context: Context, mirrors: Mirrors, expect: Expectation) -> None:
    expect.after_apply(mirrors[recipe].planned, "the mirror")
    url = f"{context.site.forge.url}/api/v1/repos/{context.world.mirror(recipe)}"
    mirror = _listed(recipe, mirrors, expect)
    expect.equal(
        "the full name of the mirror",
        expected=context.world.mirror(recipe),
        seen=mirror.full_name if mirror else "missing",
        check=f"GET {url}",
    )


def test_it_is_not_empty(recipe: str, mirrors: Mirrors, expect: Expectation) -> None:
    expect.after_apply(mirrors[recipe].planned, "its content")
    mirror = _listed(recipe, mirrors, expect)
    expect.true(
        "the mirror",
        mirror is not None and not mirror.empty,
        expected="not empty",
        seen="missing" if mirror is None else "empty" if mirror.empty else "not empty",
    )


def test_its_default_branch_is_main(recipe: str, mirrors: Mirrors, expect: Expectation) -> None:
    expect.after_apply(mirrors[recipe].planned, "its default branch")
    mirror = _listed(recipe, mirrors, expect)
    expect.equal("its default branch", expected=MAIN, seen=mirror.default_branch if mirror else "missing")


def test_its_head_is_upstreams_head(
    recipe: str, context: Context, surveys: Surveys, mirrors: Mirrors, expect: Expectation
) -> None:
    expect.after_apply(mirrors[recipe].planned, "its head")
    expect.read(f"mirror {recipe}")
    if (lag := surveys.lag_of(recipe)) and lag.tolerated:
        within = f"upstream's head, or at most {context.site.limits.mirror_grace_h} h behind it"
        expect.true("the head of its main", True, expected=within, seen=lag.words)
        return
    mirror, upstream = mirrors.survey.mirrors.get(recipe), mirrors.survey.upstreams.get(recipe)
    url = f"{context.site.forge.url}/{context.world.mirror(recipe)}.git"
    expect.equal(
        "the head of its main",
        expected=upstream.branches.get(MAIN) if upstream else "upstream's head",
        seen=mirror.branches.get(MAIN) if mirror else "missing",
        check=f"git ls-remote {url} refs/heads/{MAIN}",
    )


def test_nobody_moved_its_main(
    recipe: str, context: Context, mirrors: Mirrors, forge_health: ForgeHealth, expect: Expectation
) -> None:
    """A mirror that had upstream's head keeps it as long as upstream does; a lag starts with a push to upstream."""
    expect.after_apply(mirrors[recipe].planned, "its head")
    expect.stops_nothing()
    mirror = mirrors.survey.mirrors.get(recipe) or Refs("")
    expect.true(
        "its main",
        recipe not in forge_health.set_back,
        expected=f"{forge_health.memory.mains.get(recipe, 'upstream')[:10]}, as in earlier records",
        seen=mirror.branches.get(MAIN, "missing")[:10],
        check=f"git ls-remote {context.site.forge.url}/{context.world.mirror(recipe)}.git refs/heads/{MAIN}",
    )


def test_it_has_upstreams_tags(
    recipe: str, context: Context, surveys: Surveys, mirrors: Mirrors, expect: Expectation
) -> None:
    """It has every tag that upstream has, by name; which commits they name is another test's."""
    expect.after_apply(mirrors[recipe].planned, "its tags")
    expect.read(f"mirror {recipe}")
    if (lag := surveys.lag_of(recipe)) and lag.tolerated:
        within = f"upstream's tags, or at most {context.site.limits.mirror_grace_h} h behind them"
        expect.true("its tags", True, expected=within, seen=lag.words)
        return
    mirror = mirrors.survey.mirrors.get(recipe) or Refs("")
    upstream = mirrors.survey.upstreams.get(recipe) or Refs("")
    unmirrored = surveys.unmirrored.get(recipe, {})
    expect.nothing(
        f"missing tags, of the {len(upstream.tags) - len(unmirrored)} tags of upstream that can be mirrored",
        mirror.missing_tags(upstream, but=unmirrored),
    )


def test_its_tags_are_upstreams_own(
    recipe: str, context: Context, forge_health: ForgeHealth, expect: Expectation
) -> None:
    """No tag was moved or added in the mirror; what upstream moved or deleted is a finding to act on."""
    expect.stops_nothing()
    found = forge_health.tags.get(recipe)
    expect.only_if_known(found is not None, "its tags and upstream's")
    expect.nothing(
        "tags that were moved or added in the mirror",
        found.by_mirror if found else (),
        check=f"git ls-remote --tags {context.site.forge.url}/{context.world.mirror(recipe)}.git",
    )


def test_its_objects_can_be_read(
    recipe: str, context: Context, forge_health: ForgeHealth, expect: Expectation
) -> None:
    """A ref can name a commit that is lost. Each run reads two mirrors, those that were read longest ago."""
    expect.stops_nothing()
    problem = forge_health.objects.get(recipe)
    expect.no_problem(problem, what="reading everything that its main and its tags reach")
    tonight = recipe in forge_health.objects
    last = forge_health.memory.fetched.get(recipe)
    expect.true(
        "the objects of its main and its tags",
        True,
        expected="read, two mirrors in each run",
        seen="read in this run" if tonight else f"read at {last:%Y-%m-%d}" if last else "not read yet",
        check=f"git clone --bare {context.site.forge.url}/{context.world.mirror(recipe)}.git",
    )


def test_it_can_be_pushed_to(recipe: str, mirrors: Mirrors, expect: Expectation) -> None:
    """An archived repository, a pull mirror, and one in which the account has no right to write refuse every push."""
    expect.after_apply(mirrors[recipe].planned, "its settings")
    mirror = _listed(recipe, mirrors, expect)
    expect.stops_nothing()
    expect.true(
        "the mirror",
        mirror is not None and not mirror.refuses_pushes,
        expected="accepts pushes of the account",
        seen="missing" if mirror is None else mirror.refuses_pushes or "it does",
    )


def test_it_is_private_like_its_siblings(recipe: str, mirrors: Mirrors, expect: Expectation) -> None:
    expect.after_apply(mirrors[recipe].planned, "its visibility")
    mirror = _listed(recipe, mirrors, expect)
    expect.true(
        "the mirror",
        mirror is not None and mirror.private,
        expected="private",
        seen="missing" if mirror is None else "private" if mirror.private else "public",
    )


def test_no_pull_request_was_opened(
    recipe: str, context: Context, surveys: Surveys, mirrors: Mirrors, expect: Expectation
) -> None:
    """muster opens none in this phase; one that somebody else opens meanwhile is a finding."""
    full_name, bot = context.world.mirror(recipe), context.site.forge.bot.lower()
    before = {pull.name for pull in surveys.baseline.pulls_of(full_name)}
    ours = {pull.name for pull in mirrors.survey.pulls_of(full_name) if pull.author.lower() == bot}
    expect.nothing(f"new pull requests of {context.site.forge.bot}", sorted(ours - before))


def test_open_pull_requests_are_untouched(
    recipe: str, context: Context, record: Recorder, surveys: Surveys, mirrors: Mirrors, expect: Expectation
) -> None:
    """This run closed none of them; what people did to theirs meanwhile is a finding, and stops nothing."""
    expect.nothing(
        "pull requests that this run may have closed",
        [closed.words for closed in find_closed_by_run(context, record, surveys, recipe)],
        check=f"{context.site.forge.url}/{context.world.mirror(recipe)}/pulls?state=closed",
    )


@pytest.mark.dependency(name="phase 1", depends=["phase 0"], scope="session")
def test_gate(gate: Gate) -> None:
    gate.demand(1)
