"""Phase 6, resume. The work that was put off until the recipes were ready is released, item by item.

Whoever does it is a person; what each item waited for, and whether that holds now, stands in the record. What
the plan left to a person (bluesky-pds #1, a leftover smoke test) is reported and not touched.
"""

from __future__ import annotations

import pytest

from fixtures.resume.fixture import Resumption
from fixtures.run.context import Context
from fixtures.run.expectation import Expectation
from fixtures.run.gates import Gate
from fixtures.run.recipe_status import covered, mirrored, polled
from fixtures.run.record import Recorder
from fixtures.run.surveys import Surveys
from fixtures.survey import Survey

pytestmark = pytest.mark.dependency(depends=["phase 5"], scope="session")


def test_the_deferred_work_is_released(
    item: str, record: Recorder, resumption: Resumption, expect: Expectation
) -> None:
    release = resumption.releases[item]
    planned = any(step.phase < 5 for step in record.planned)
    expect.after_apply(planned and not release.released, f"{item} waits for {', '.join(release.waits_for)}")
    expect.nothing(f"what {item} still waits for", release.waits_for)


def test_the_register_of_deferred_work_can_be_read(
    context: Context, resumption: Resumption, expect: Expectation
) -> None:
    expect.nothing(f"entries of {context.site.ccci.deferred_file} that are not in its form", resumption.problems)


def test_it_has_passed_muster(
    recipe: str, context: Context, record: Recorder, surveys: Surveys, resumption: Resumption, expect: Expectation
) -> None:
    """Mirrored, covered and polled: the end state, for each recipe."""
    reached = {
        "mirrored": mirrored(surveys, recipe),
        "covered": covered(record, surveys, recipe),
        "polled": polled(context, surveys, recipe),
    }
    missing = [name for name, cell in reached.items() if not cell.ok]
    expect.after_apply(
        bool(missing) and any(step.phase < 5 for step in record.planned), f"{recipe}: {', '.join(missing)}"
    )
    expect.nothing(f"what {recipe} has not reached", missing)


def test_what_is_left_to_people_was_not_touched(
    context: Context, surveys: Surveys, resumption: Resumption, expect: Expectation
) -> None:
    """Open before and open now, at the same head: bluesky-pds #1 is a person's to close."""

    def heads(survey: Survey) -> list[str]:
        listed = [(left, survey.mirrors.get(left.recipe)) for left in context.roster.left_to_people]
        opened = {pull.name for pull in survey.open_pulls}
        return [
            f"{left.recipe}#{left.pull} at {refs.pulls.get(left.pull)}"
            for left, refs in listed
            if refs and f"{context.world.mirror(left.recipe)}#{left.pull}" in opened
        ]

    expect.equal("what is left to a person", expected=heads(surveys.baseline), seen=heads(surveys.now))


@pytest.mark.dependency(name="phase 6", depends=["phase 5"], scope="session")
def test_gate(gate: Gate) -> None:
    gate.demand(6)
