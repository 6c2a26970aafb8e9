"""Phase 6, resume. The work that was deferred until the recipes were ready is released, item by item.

A person does the work; the record says what each item waited for and whether that is reached. Pull requests that the
roster leaves to people (bluesky-pds #1, a leftover smoke test) are reported and not touched.
"""

from __future__ import annotations

import pytest

from fixtures.journal.kinds import Answer
from fixtures.mirrors.forge_health import ForgeHealth
from fixtures.resume.fixture import Resumption
from fixtures.run.context import Context
from fixtures.run.expectation import Expectation
from fixtures.run.gates import Gate
from fixtures.run.recipe_status import covered, mirrored, polled
from fixtures.run.recorder import Recorder
from fixtures.run.surveys import Surveys

pytestmark = pytest.mark.dependency(depends=["phase 5"], scope="session")


def test_the_deferred_work_is_released(
    item: str, record: Recorder, resumption: Resumption, expect: Expectation
) -> None:
    release = resumption.releases[item]
    planned = any(step.phase < 5 for step in record.planned)
    expect.after_apply(planned and not release.released, f"{item} waits for {', '.join(release.waits_for)}")
    expect.nothing(f"milestones that {item} still waits for", release.waits_for)


def test_the_register_of_deferred_work_can_be_read(
    context: Context, surveys: Surveys, forge_health: ForgeHealth, resumption: Resumption, expect: Expectation
) -> None:
    """It is there, unless it was not in the first run either, and every entry has the register's form."""
    there = surveys.now.demand_ccci().deferred is not None
    expect.true(
        context.site.ccci.deferred_file,
        there or forge_health.memory.has_register is not True,
        expected="there, as in earlier runs",
        seen="there" if there else "missing",
        check=f"git show origin/{context.site.ccci.branch}:{context.site.ccci.deferred_file}",
    )
    expect.nothing(f"malformed entries in {context.site.ccci.deferred_file}", resumption.problems)


def test_it_has_passed_muster(
    recipe: str, context: Context, record: Recorder, surveys: Surveys, resumption: Resumption, expect: Expectation
) -> None:
    """The end state of each recipe: mirrored, covered and polled."""
    reached = {
        "mirrored": mirrored(surveys, recipe),
        "covered": covered(record, surveys, recipe),
        "polled": polled(context, surveys, recipe),
    }
    missing = [name for name, fact in reached.items() if fact.answer is not Answer.YES]
    expect.after_apply(
        bool(missing) and any(step.phase < 5 for step in record.planned), f"{recipe}: {', '.join(missing)}"
    )
    expect.nothing(f"milestones that {recipe} has not reached", missing)


def test_pull_requests_left_to_people_are_untouched(
    context: Context, record: Recorder, resumption: Resumption, expect: Expectation
) -> None:
    """This run changed none of them; a person closes bluesky-pds #1, at any time."""
    left = {f"{context.world.mirror(one.recipe)}#{one.pull}" for one in context.roster.left_to_people}
    expect.nothing(
        "changes of this run to the pull requests that are left to people",
        [f"{change.kind} of {change.target}" for change in record.journal.changes() if change.target in left],
        check=f"python -m fixtures.journal show {context.folder}",
    )


@pytest.mark.dependency(name="phase 6", depends=["phase 5"], scope="session")
def test_gate(gate: Gate) -> None:
    gate.demand(6)
