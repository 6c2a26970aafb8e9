"""Phase 5, triggerability. A comment on a newly enrolled recipe starts a build, and its verdict comes back.

Triggerable, reported and green are three facts. The canaries are triggered to show the first two. Whether a recipe is
green is read from its latest verdict and compared with the roster. A red recipe fails only if it is not listed as known
red and became red since the first run. A known-red entry fails if its last day has passed or the recipe is green.
"""

from __future__ import annotations

import pytest

from fixtures.config.run_options import Mode
from fixtures.journal.kinds import Answer, VerdictClass
from fixtures.run.context import Context
from fixtures.run.exclusions import Exclusions
from fixtures.run.expectation import Expectation
from fixtures.run.gates import Gate
from fixtures.run.recorder import Recorder
from fixtures.survey import running_poll_set
from fixtures.triggers.fixture import Triggers
from fixtures.verdicts.scratch_pull import BRANCH_PREFIX

pytestmark = pytest.mark.dependency(depends=["phase 4"], scope="session")


def test_the_bridge_watches_every_recipe(
    context: Context, record: Recorder, excluded: Exclusions, triggers: Triggers, expect: Expectation
) -> None:
    """Its log and its environment agree on the number, and every recipe is among them."""
    running = running_poll_set(triggers.survey)
    entries = running.entries if running else ()
    seen = triggers.watched.count if triggers.watched.count is not None else len(triggers.watched.repositories)
    expect.equal(
        "the number of repositories that the bridge logs",
        expected=len(entries),
        seen=seen,
        check=f"ssh {context.site.host.address} docker service logs {context.site.bridge.service}",
    )
    expect.after_apply(any(step.phase in (3, 4) for step in record.planned), "the new poll set")
    wanted = {context.world.ccci, *(context.world.mirror(name) for name in excluded.remaining())}
    expect.nothing("repositories that it does not watch", sorted(wanted - set(entries)))


def test_a_comment_starts_a_build(canary: str, triggers: Triggers, expect: Expectation) -> None:
    expect.after_apply(canary in triggers.planned, "the trigger")
    verdict = triggers.testme_verdicts.get(canary)
    expect.true(
        f"a build of {canary} since it was enrolled",
        verdict is not None and verdict.triggerable is Answer.YES,
        expected="started",
        seen=f"build {verdict.build}" if verdict and verdict.build else verdict.why if verdict else "none",
        check=verdict.build_url if verdict else "",
    )


def test_its_outcome_comes_back(canary: str, context: Context, triggers: Triggers, expect: Expectation) -> None:
    """As a commit status of the configured context, written by the bridge, that points to that build."""
    expect.after_apply(canary in triggers.planned, "the report")
    verdict = triggers.testme_verdicts.get(canary)
    expect.true(
        f"the verdict of {canary}",
        verdict is not None and verdict.reported is Answer.YES,
        expected=f"reported as {context.site.verdicts.context}",
        seen=f"at {verdict.verdict_at}"
        if verdict and verdict.reported is Answer.YES
        else verdict.why
        if verdict
        else "none",
    )


def test_its_retest_reported_in_time(recipe: str, triggers: Triggers, expect: Expectation) -> None:
    """With --testme: within the time of one build, unless the night's time was over before."""
    retest = triggers.retests.get(recipe)
    expect.true(
        f"the retest of {recipe}",
        retest is None or retest.in_time,
        expected="a verdict in time, or not retested",
        seen=retest.words if retest else "not retested",
        check=retest.verdict.build_url if retest else "",
    )


def test_its_latest_verdict_is_not_newly_red(
    recipe: str, context: Context, triggers: Triggers, expect: Expectation
) -> None:
    """It is green, or red as the roster lists, or red since before the first run, or red by the infrastructure."""
    expect.only_if_known(context.mode is not Mode.PLAN, f"the class of the verdict of {recipe}")
    verdict = triggers.verdicts[recipe]
    expect.true(
        f"the latest verdict of {recipe}",
        verdict.verdict_class is not VerdictClass.NEW_RED,
        expected="not newly red",
        seen=verdict.words,
        check=verdict.build_url,
    )


def test_its_green_build_is_borne_out(
    recipe: str, context: Context, triggers: Triggers, expect: Expectation
) -> None:
    """A green build has results in which tests of the recipe's own suite passed, and none failed."""
    expect.only_if_known(context.mode is not Mode.PLAN, f"the class of the verdict of {recipe}")
    verdict = triggers.verdicts[recipe]
    doubt = verdict.latest.doubt if verdict.latest else None
    expect.true(
        f"the results of the latest green build of {recipe}",
        doubt is None or not doubt.contradicts,
        expected="own tests that passed, and none that failed",
        seen=verdict.words,
        check=verdict.build_url,
    )


def test_its_green_is_not_stale_for_long(
    recipe: str, context: Context, triggers: Triggers, expect: Expectation
) -> None:
    """A green whose suite, pipeline or head changed since is a finding at once, and fails after the site's limit."""
    expect.only_if_known(context.mode is not Mode.PLAN, f"the class of the verdict of {recipe}")
    verdict, limit_d = triggers.verdicts[recipe], context.site.limits.verdict_age_d
    stale_d = (context.started - verdict.since).total_seconds() / 86_400
    expect.true(
        f"the latest green of {recipe}",
        verdict.verdict_class is not VerdictClass.STALE or stale_d <= limit_d,
        expected=f"of the suite, pipeline and head in use, or stale for at most {limit_d} days",
        seen=verdict.words,
        check=verdict.build_url,
    )


def test_its_known_red_entry_is_valid(
    recipe: str, context: Context, triggers: Triggers, expect: Expectation
) -> None:
    """A recipe that the roster lists as known red is red, and the last day of the entry has not passed."""
    expect.only_if_known(context.mode is not Mode.PLAN, f"the class of the verdict of {recipe}")
    verdict = triggers.verdicts[recipe]
    until = f"until {verdict.known_red.until}, and it is red" if verdict.known_red else "no entry"
    expect.true(
        f"the known-red entry of {recipe}",
        verdict.verdict_class not in (VerdictClass.EXPIRED, VerdictClass.FIXED),
        expected=until,
        seen=verdict.words,
        check=verdict.build_url,
    )


def test_no_scratch_pull_request_is_left(triggers: Triggers, expect: Expectation) -> None:
    branches = [
        f"{name}: {branch}"
        for name, branches_of in {
            **{name: refs.branches for name, refs in triggers.survey.mirrors.items()},
            "cc-ci": triggers.survey.demand_ccci().branches,
        }.items()
        for branch in branches_of
        if branch.startswith(BRANCH_PREFIX)
    ]
    expect.nothing("scratch branches in the mirrors and in cc-ci", branches)


@pytest.mark.dependency(name="phase 5", depends=["phase 4"], scope="session")
def test_gate(gate: Gate) -> None:
    gate.demand(5)
