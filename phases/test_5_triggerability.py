"""Phase 5, triggerability. A comment on a newly enrolled recipe starts a build, and its verdict comes back.

Triggerable, reported and green are three facts. A recipe that is known to be red may be red; that it answers is
what this phase is about.
"""

from __future__ import annotations

import pytest

from fixtures.expectation import Expectation
from fixtures.gates import Gate
from fixtures.run import Run
from fixtures.scratch import PREFIX
from fixtures.survey import running_poll_set
from fixtures.triggers import Triggers

pytestmark = pytest.mark.dependency(depends=["phase 4"], scope="session")


def test_the_bridge_says_that_it_watches_them_all(run: Run, triggers: Triggers, expect: Expectation) -> None:
    """Its log and its environment tell the same number."""
    running = running_poll_set(triggers.survey)
    entries = running.entries if running else ()
    seen = triggers.watched.count if triggers.watched.count is not None else len(triggers.watched.repositories)
    expect.equal(
        "repositories that the bridge's log says it watches",
        expected=len(entries),
        seen=seen,
        check=f"ssh {run.site.host.address} docker service logs {run.site.bridge.service}",
    )
    expect.applied(any(step.phase in (3, 4) for step in run.planned), "the new poll set")
    wanted = {run.world.ccci, *(run.world.mirror(name) for name in run.standing())}
    expect.nothing("recipes that it does not watch", sorted(wanted - set(entries)))


def test_a_comment_starts_a_build(canary: str, run: Run, triggers: Triggers, expect: Expectation) -> None:
    expect.applied(canary in triggers.planned, "the trigger")
    verdict = triggers.verdicts.get(canary)
    expect.true(
        f"a build of {canary} since it was enrolled",
        verdict is not None and verdict.triggerable,
        expected="started",
        seen=f"build {verdict.build}" if verdict and verdict.build else verdict.why if verdict else "none",
        check=verdict.build_url if verdict else "",
    )


def test_its_outcome_comes_back(canary: str, run: Run, triggers: Triggers, expect: Expectation) -> None:
    """As a commit status of the right context, from the bridge, about that build."""
    expect.applied(canary in triggers.planned, "the report")
    verdict = triggers.verdicts.get(canary)
    expect.true(
        f"the verdict of {canary}",
        verdict is not None and verdict.reported,
        expected=f"{run.site.verdicts.context} reported",
        seen=f"at {verdict.verdict_at}" if verdict and verdict.reported else verdict.why if verdict else "none",
    )


def test_it_is_green_or_known_to_be_red(canary: str, run: Run, triggers: Triggers, expect: Expectation) -> None:
    expect.applied(canary in triggers.planned, "the build's outcome")
    verdict = triggers.verdicts.get(canary)
    reason = run.known_red(canary)
    expect.true(
        f"the build of {canary}",
        verdict is not None and (verdict.green or bool(reason)),
        expected=f"green, or red because: {reason}" if reason else "green",
        seen="green" if verdict and verdict.green else verdict.why if verdict else "none",
        check=verdict.build_url if verdict else "",
    )


def test_its_excuse_for_being_red_has_not_expired(canary: str, run: Run, expect: Expectation) -> None:
    listed = next(recipe for recipe in run.roster.recipes if recipe.name == canary)
    until = listed.known_red.until if listed.known_red else None
    expect.true(
        f"the known-red entry of {canary}",
        until is None or run.today <= until,
        expected=f"holds on {run.today}",
        seen=f"until {until}" if until else "none",
    )


def test_no_scratch_pull_request_is_left(run: Run, triggers: Triggers, expect: Expectation) -> None:
    branches = [
        f"{name}: {branch}"
        for name, refs in triggers.survey.mirrors.items()
        for branch in refs.branches
        if branch.startswith(PREFIX)
    ]
    expect.nothing("scratch branches in the mirrors", branches)


@pytest.mark.dependency(name="phase 5", depends=["phase 4"], scope="session")
def test_gate(gate: Gate) -> None:
    gate.demand(5)
