"""An apply to each broken world repairs it, or names what is broken; see `tests_meta.health.mutation`."""

from __future__ import annotations

import pytest

from tests_meta.health.laboratory import Laboratory, laboratory
from tests_meta.health.mutation import Mutation
from tests_meta.health.registry import MUTATIONS

__all__ = ["laboratory"]


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda one: one.name)
def test_an_apply_repairs_or_names_the_mutation(laboratory: Laboratory, mutation: Mutation) -> None:
    """An apply to the broken world repairs it, or ends with the mutation's exit code and names it."""
    assert laboratory.problems(mutation, "apply") == []
