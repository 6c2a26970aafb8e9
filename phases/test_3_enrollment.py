"""Phase 3, enrollment. The poll set in cc-ci's git is cc-ci itself and all recipes, in the order of their enrollment.

One commit changes one value. A recipe is enrolled only if its mirror and its suite exist.
"""

from __future__ import annotations

import pytest

from fixtures.ccci.suites import Suite
from fixtures.enrollment.fixture import Enrollment
from fixtures.run.context import Context
from fixtures.run.exclusions import Exclusions
from fixtures.run.expectation import Expectation
from fixtures.run.gates import Gate
from fixtures.run.recorder import Recorder

pytestmark = pytest.mark.dependency(depends=["phase 2"], scope="session")


def test_it_is_covered_before_it_is_polled(
    recipe: str, record: Recorder, enrollment: Enrollment, expect: Expectation
) -> None:
    """A recipe that is polled has a suite; if this run would still propose the suite, it was enrolled before."""
    suites = enrollment.survey.demand_ccci().suites
    planned = any(step.recipe == recipe and step.phase == 2 for step in record.planned)
    expect.after_apply(planned, "its suite")
    expect.true(
        f"the suite of {recipe}",
        suites.get(recipe, Suite(recipe)).covers,
        expected="recipe_meta.py and named tests of its own",
        seen=suites.get(recipe, Suite(recipe)).lacks or "recipe_meta.py and named tests of its own",
    )


def test_it_is_in_the_poll_set(
    recipe: str, context: Context, enrollment: Enrollment, expect: Expectation
) -> None:
    expect.success(enrollment[recipe], kinds=())
    entries = enrollment.in_git.entries
    entry = context.world.mirror(recipe)
    expect.equal(
        f"the number of times that {entry} is in {context.site.ccci.poll_file}",
        expected=1,
        seen=entries.count(entry),
    )


def test_the_poll_set_could_be_updated(enrollment: Enrollment, expect: Expectation) -> None:
    expect.no_problem(enrollment.problem, what="updating the poll set")


def test_the_poll_set_is_exactly_the_roster(
    context: Context, excluded: Exclusions, enrollment: Enrollment, expect: Expectation
) -> None:
    """cc-ci first, then every recipe that no phase excluded, each once, and nothing else.

    A plan asserts this of the file that an apply would commit.
    """
    expect.after_apply(enrollment.drifted, "the poll set")
    entries = context.roster.poll_entries(org=context.site.forge.org, ccci_repository=context.world.ccci)
    wanted = [e for e in entries if e.rsplit("/", 1)[1] not in excluded or e in enrollment.wanted.entries]
    check = f"git show origin/{context.site.ccci.branch}:{context.site.ccci.poll_file}"
    seen = enrollment.in_git.entries
    expect.equal(
        f"the entries of {context.site.ccci.poll_variable} in {context.site.ccci.poll_file}",
        expected=sorted(wanted),
        seen=sorted(seen),
        check=check,
    )
    expect.equal("the first entry", expected=context.world.ccci, seen=seen[0] if seen else "none", check=check)


def test_the_order_of_what_was_polled_is_kept(enrollment: Enrollment, expect: Expectation) -> None:
    """New recipes are appended; the entries that were there before come first, in their order."""
    expect.depends_on(enrollment.problem)
    before = enrollment.before.poll_set.entries if enrollment.before else ()
    expect.equal(
        "the first entries of the poll set", expected=before, seen=enrollment.in_git.entries[: len(before)]
    )


def test_only_that_value_was_changed(enrollment: Enrollment, expect: Expectation) -> None:
    """Outside of the value, the file is byte for byte the same as before."""
    expect.depends_on(enrollment.problem)
    rest = [
        file.content[: file.found.span[0]] + file.content[file.found.span[1] :]
        for file in (enrollment.before, enrollment.after)
        if file
    ]
    expect.true(
        "the file outside of the value",
        len(rest) == 2 and rest[0] == rest[1],
        expected="unchanged",
        seen=enrollment.diff or "no edit",
    )


def test_the_file_still_evaluates(enrollment: Enrollment, expect: Expectation) -> None:
    """nix on this machine evaluates it to the value in its text; without nix, the host does so before the deploy."""
    expect.depends_on(enrollment.problem)
    assert enrollment.after is not None
    evaluated = enrollment.after.evaluated
    expect.only_if_known(evaluated.entries is not None, f"{evaluated.why}; the host evaluates it before a deploy")
    expect.equal(
        "the value, evaluated by nix",
        expected=enrollment.in_git.entries,
        seen=evaluated.entries,
        check=evaluated.how,
    )


@pytest.mark.dependency(name="phase 3", depends=["phase 2"], scope="session")
def test_gate(gate: Gate) -> None:
    gate.demand(3)
