"""Phase 2, suites. Every recipe has a test suite of its own in cc-ci.

A suite that muster carries (hedgedoc's) and cc-ci lacks is compared with cc-ci's template, proposed as one pull
request, proven by a green verdict that is younger than the proposal and ran exactly these tests, and merged with its
head pinned.
"""

from __future__ import annotations

import pytest

from fixtures.ccci.suites import Suite
from fixtures.journal.kinds import SUITE_KINDS, Answer
from fixtures.run.context import Context
from fixtures.run.expectation import Expectation
from fixtures.run.gates import Gate
from fixtures.suites.fixture import Suites

pytestmark = pytest.mark.dependency(depends=["phase 1"], scope="session")


def test_the_carried_suite_is_in_ccci(carried: str, suites: Suites, expect: Expectation) -> None:
    """It was in cc-ci already, or it was proposed, proven and merged."""
    expect.success(suites.proposals[carried].outcome, kinds=SUITE_KINDS, recipe=carried)


def test_its_proposal_was_one_commit(carried: str, suites: Suites, expect: Expectation) -> None:
    proposal = suites.proposals[carried]
    expect.only_if_known(not proposal.outcome.planned, "the proposal")
    expect.depends_on(proposal.outcome.error)
    if proposal.outcome.state == "unchanged":
        expect.true("the suite to propose", True, expected="none", seen=proposal.outcome.message)
        return
    expect.equal(
        "the number of commits in the pull request",
        expected=1,
        seen=proposal.commits,
        check=f"open {proposal.pull.name} on the forge" if proposal.pull else "",
    )


def test_its_verdict_covers_these_tests(carried: str, suites: Suites, expect: Expectation) -> None:
    """It is green, of the proposed head, and a test of every test file ran."""
    proposal = suites.proposals[carried]
    expect.only_if_known(not proposal.outcome.planned, "the verdict")
    expect.depends_on(proposal.outcome.error)
    if proposal.outcome.state == "unchanged":
        expect.true("the suite to prove", True, expected="none", seen=proposal.outcome.message)
        return
    verdict = proposal.verdict
    expect.true(
        "its verdict",
        verdict is not None and verdict.green is Answer.YES,
        expected="green",
        seen=verdict.why or "green" if verdict else "none",
        check=verdict.build_url if verdict else "",
    )
    expect.nothing("its test files that did not run", proposal.not_run)


def test_it_is_covered(recipe: str, context: Context, suites: Suites, expect: Expectation) -> None:
    proposal = suites.proposals.get(recipe)
    expect.after_apply(proposal is not None and proposal.outcome.planned, "its suite")
    suite = suites.survey.demand_ccci().suites.get(recipe, Suite(recipe))
    expect.true(
        f"{context.site.ccci.tests_dir}/{recipe}/",
        suite.covers,
        expected="recipe_meta.py and named tests of its own",
        seen=", ".join(suite.own_tests) if suite.covers else suite.lacks,
        check=f"git ls-tree -r --name-only origin/{context.site.ccci.branch} {context.site.ccci.tests_dir}/{recipe}/",
    )


@pytest.mark.dependency(name="phase 2", depends=["phase 1"], scope="session")
def test_gate(gate: Gate) -> None:
    gate.demand(2)
