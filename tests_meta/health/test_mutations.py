"""Every mutation of a converged world is named by the test or the finding that is about it.

CI runs a share of the mutations, another one each day, against a health check. ``MUSTER_LONG=1`` runs all of them, and
those of `test_mutations_applied` against an apply.
"""

from __future__ import annotations

import ast
import os
from datetime import UTC, datetime

import pytest

from tests_meta.health.laboratory import Laboratory, laboratory
from tests_meta.health.mutation import Mutation, Witness
from tests_meta.health.registry import MUTATIONS, NOT_FAILED_BY_A_WORLD
from tests_meta.muster_runs import ROOT

__all__ = ["laboratory"]

# How many days CI takes to run every mutation once.
SHARES = 1 if os.environ.get("MUSTER_LONG") else 6


def share_of(day: int, mutations: tuple[Mutation, ...], *, shares: int) -> tuple[Mutation, ...]:
    """The mutations that are due on a day; every one is due once in `shares` days."""
    return tuple(one for number, one in enumerate(mutations) if number % shares == day % shares)


DUE = share_of(datetime.now(UTC).date().toordinal(), MUTATIONS, shares=SHARES)


@pytest.mark.parametrize("mutation", DUE, ids=lambda one: one.name)
def test_a_health_check_names_the_mutation(laboratory: Laboratory, mutation: Mutation) -> None:
    """A health check of the broken world ends with the mutation's exit code, and its test or finding names it."""
    assert laboratory.problems(mutation, "health") == []


def test_a_healthy_world_has_nothing_to_name_after_all_mutations(laboratory: Laboratory) -> None:
    """Positive control: after the mutations the world is as it was, and a health check finds nothing."""
    usual = laboratory.usual("health")
    ran = laboratory.run("health").demand(0)
    assert {str(line["id"]) for line in ran.of("finding")} == usual


def test_every_mutation_is_due_once_in_a_round() -> None:
    """The shares of consecutive days hold every mutation, and none twice."""
    due = [one.name for day in range(6) for one in share_of(day, MUTATIONS, shares=6)]
    assert sorted(due) == sorted(one.name for one in MUTATIONS)


def test_every_mutation_says_what_is_broken() -> None:
    """The registry explains each mutation in one sentence, and each survivor by a reason."""
    assert [one.name for one in MUTATIONS if not one.broken.endswith(".")] == []
    assert [one.name for one in MUTATIONS if one.survives and not one.survives.endswith(".")] == []


def names_of_tests() -> set[str]:
    """The tests of the phases, by name."""
    return {
        node.name
        for file in (ROOT / "phases").glob("test_*.py")
        for node in ast.parse(file.read_text()).body
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")
    }


def test_every_assertion_of_the_phases_has_a_world_in_which_it_fails() -> None:
    """Each test of the phases is named by a mutation, or listed with the reason why no world makes it fail."""
    named = {
        "test_" + by.name.partition(":")[0].replace(" ", "_")
        for one in MUTATIONS
        for by in (one.named_by, *one.also)
        if by is not None and by.witness is Witness.TEST
    }
    assert sorted(names_of_tests() - named - NOT_FAILED_BY_A_WORLD.keys()) == []
    assert sorted((named | NOT_FAILED_BY_A_WORLD.keys()) - names_of_tests()) == []
