"""Phase 2, suites. Every recipe has a test suite of its own in cc-ci.

A suite that muster carries (hedgedoc's) and cc-ci lacks is compared with cc-ci's template, proposed as one pull
request, proven by a green verdict that is younger than the proposal and ran exactly these tests, and merged with its
head pinned.
"""

from __future__ import annotations

import pytest

from fixtures.ccci.pipeline import EVENT, why_nothing_runs
from fixtures.ccci.suites import Suite
from fixtures.journal.kinds import SUITE_KINDS, Answer
from fixtures.mirrors.forge_health import ForgeHealth
from fixtures.run.context import Context
from fixtures.run.expectation import Expectation
from fixtures.run.gates import Gate
from fixtures.run.provenance import PROPOSALS
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
    """Its suite is complete, and at least one of its tests can fail; the files are parsed and not executed."""
    proposal = suites.proposals.get(recipe)
    expect.after_apply(proposal is not None and proposal.outcome.planned, "its suite")
    suite = suites.survey.demand_ccci().suites.get(recipe, Suite(recipe))
    expect.true(
        f"{context.site.ccci.tests_dir}/{recipe}/",
        suite.covers,
        expected="recipe_meta.py and tests of its own that can fail",
        seen=", ".join(suite.own_tests) if suite.covers else suite.lacks,
        check=f"git ls-tree -r --name-only origin/{context.site.ccci.branch} {context.site.ccci.tests_dir}/{recipe}/",
    )


def test_the_pipeline_runs_something(context: Context, suites: Suites, expect: Expectation) -> None:
    """A pipeline whose commands are gone succeeds, and then no green says anything."""
    expect.stops_nothing()
    name, pipeline = context.site.ccci.pipeline_file, suites.survey.demand_ccci().pipeline
    why = why_nothing_runs(pipeline.content) if pipeline else f"{context.world.ccci} has no {name}"
    expect.true(
        f"{name} for the event {EVENT}",
        not why,
        expected="a step that runs a command which can fail",
        seen=why or "such a step",
        check=f"git show origin/{context.site.ccci.branch}:{name}",
    )


def test_ccci_can_be_pushed_to(context: Context, forge_health: ForgeHealth, expect: Expectation) -> None:
    """An archived repository, and one in which the account has no right to write, refuse every push."""
    expect.only_if_known(forge_health.ccci is not None, f"the settings of {context.world.ccci}")
    expect.stops_nothing()
    refuses = forge_health.ccci.refuses_pushes if forge_health.ccci else ""
    expect.true(
        context.world.ccci, not refuses, expected="accepts pushes of the account", seen=refuses or "it does"
    )


def test_ccci_is_as_private_as_before(context: Context, forge_health: ForgeHealth, expect: Expectation) -> None:
    """As the site file says; where it does not say, a repository that was private stays so."""
    expect.only_if_known(forge_health.ccci is not None, f"the settings of {context.world.ccci}")
    expect.stops_nothing()
    private = forge_health.ccci is not None and forge_health.ccci.private
    said, before = context.site.ccci.private, forge_health.memory.ccci_private
    wanted = said if said is not None else True if before else private
    expect.true(
        context.world.ccci,
        private == wanted,
        expected=_word(wanted, "private"),
        seen=_word(private, "private"),
        check=f"GET {context.site.forge.url}/api/v1/repos/{context.world.ccci}",
    )


def _word(holds: bool, word: str) -> str:
    return word if holds else f"not {word}"


def test_no_branch_of_a_proposal_is_left(context: Context, suites: Suites, expect: Expectation) -> None:
    """Each of muster's branches in cc-ci belongs to an open pull request about a recipe that has no suite yet."""
    expect.stops_nothing()
    ccci = suites.survey.demand_ccci()
    still_open = {ccci.pulls.get(pull.number) for pull in suites.survey.pulls_of(context.world.ccci)}
    left = [
        branch
        for branch, head in ccci.branches.items()
        if branch.startswith(PROPOSALS)
        and (head not in still_open or ccci.suites.get(branch.removeprefix(PROPOSALS), Suite("")).covers)
    ]
    expect.nothing(
        "branches of proposed suites without an open pull request, or whose recipe has a suite",
        sorted(left),
        check=f"git ls-remote {context.site.forge.url}/{context.world.ccci}.git 'refs/heads/{PROPOSALS}*'",
    )


@pytest.mark.dependency(name="phase 2", depends=["phase 1"], scope="session")
def test_gate(gate: Gate) -> None:
    gate.demand(2)
