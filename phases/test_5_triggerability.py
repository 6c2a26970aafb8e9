"""Phase 5, triggerability. A comment on a newly enrolled recipe starts a build, and its verdict comes back.

Triggerable, reported and green are three facts. That the canaries answer is shown by asking them; whether each
recipe is green is read from its newest verdict, and held against what the roster expects. Only news fails: a red
that the roster does not know and that came since muster first looked, and an excuse that is over.
"""

from __future__ import annotations

import pytest

from fixtures.config.options import Mode
from fixtures.journal.kinds import VerdictClass
from fixtures.run.context import Context
from fixtures.run.exclusions import Exclusions
from fixtures.run.expectation import Expectation
from fixtures.run.gates import Gate
from fixtures.run.record import Recorder
from fixtures.survey import running_poll_set
from fixtures.triggers.fixture import Triggers
from fixtures.verdicts.scratch_pull import BRANCH_PREFIX

pytestmark = pytest.mark.dependency(depends=["phase 4"], scope="session")


def test_the_bridge_says_that_it_watches_them_all(
    context: Context, record: Recorder, excluded: Exclusions, triggers: Triggers, expect: Expectation
) -> None:
    """Its log and its environment tell the same number."""
    running = running_poll_set(triggers.survey)
    entries = running.entries if running else ()
    seen = triggers.watched.count if triggers.watched.count is not None else len(triggers.watched.repositories)
    expect.equal(
        "repositories that the bridge's log says it watches",
        expected=len(entries),
        seen=seen,
        check=f"ssh {context.site.host.address} docker service logs {context.site.bridge.service}",
    )
    expect.after_apply(any(step.phase in (3, 4) for step in record.planned), "the new poll set")
    wanted = {context.world.ccci, *(context.world.mirror(name) for name in excluded.remaining())}
    expect.nothing("recipes that it does not watch", sorted(wanted - set(entries)))


def test_a_comment_starts_a_build(canary: str, triggers: Triggers, expect: Expectation) -> None:
    expect.after_apply(canary in triggers.planned, "the trigger")
    verdict = triggers.testme_verdicts.get(canary)
    expect.true(
        f"a build of {canary} since it was enrolled",
        verdict is not None and verdict.triggerable,
        expected="started",
        seen=f"build {verdict.build}" if verdict and verdict.build else verdict.why if verdict else "none",
        check=verdict.build_url if verdict else "",
    )


def test_its_outcome_comes_back(canary: str, context: Context, triggers: Triggers, expect: Expectation) -> None:
    """As a commit status of the right context, from the bridge, about that build."""
    expect.after_apply(canary in triggers.planned, "the report")
    verdict = triggers.testme_verdicts.get(canary)
    expect.true(
        f"the verdict of {canary}",
        verdict is not None and verdict.reported,
        expected=f"{context.site.verdicts.context} reported",
        seen=f"at {verdict.verdict_at}" if verdict and verdict.reported else verdict.why if verdict else "none",
    )


def test_it_answered_if_it_was_asked(recipe: str, triggers: Triggers, expect: Expectation) -> None:
    """With --testme: in the time of one build, unless the night's time was over first."""
    retest = triggers.retests.get(recipe)
    expect.true(
        f"the answer of {recipe} to --testme",
        retest is None or retest.in_time,
        expected="an answer in its time, or not asked",
        seen=retest.words if retest else "not asked",
        check=retest.verdict.build_url if retest else "",
    )


def test_its_newest_verdict_is_no_new_red(
    recipe: str, context: Context, triggers: Triggers, expect: Expectation
) -> None:
    """Green, or red for a reason that the roster names, or that stood before anybody looked, or the machine's."""
    expect.only_if_known(context.mode is not Mode.PLAN, f"what the verdict of {recipe} means")
    verdict = triggers.recipes[recipe]
    expect.true(
        f"the newest verdict of {recipe}",
        verdict.verdict_class is not VerdictClass.NEW_RED,
        expected="no red that is new and not in the roster",
        seen=verdict.words,
        check=verdict.build_url,
    )


def test_its_excuse_for_being_red_holds(
    recipe: str, context: Context, triggers: Triggers, expect: Expectation
) -> None:
    """Where the roster expects red: it is red, and the last day of the excuse has not passed."""
    expect.only_if_known(context.mode is not Mode.PLAN, f"whether {recipe} is excused")
    verdict = triggers.recipes[recipe]
    until = f"holds until {verdict.known_red.until}, and it is red" if verdict.known_red else "none is needed"
    expect.true(
        f"the known-red entry of {recipe}",
        verdict.verdict_class not in (VerdictClass.EXPIRED, VerdictClass.FIXED),
        expected=until,
        seen=f"{verdict.words}: take it out of the roster"
        if verdict.verdict_class is VerdictClass.FIXED
        else verdict.words,
        check=verdict.build_url,
    )


def test_no_scratch_pull_request_is_left(triggers: Triggers, expect: Expectation) -> None:
    branches = [
        f"{name}: {branch}"
        for name, refs in triggers.survey.mirrors.items()
        for branch in refs.branches
        if branch.startswith(BRANCH_PREFIX)
    ]
    expect.nothing("scratch branches in the mirrors", branches)


@pytest.mark.dependency(name="phase 5", depends=["phase 4"], scope="session")
def test_gate(gate: Gate) -> None:
    gate.demand(5)
