"""All mutations: the modules that register them, and the tests of the phases that none of them fails."""

from __future__ import annotations

from tests_meta.health import forge, host
from tests_meta.health.mutation import REGISTRY, Mutation

MODULES = (host, forge)
MUTATIONS: tuple[Mutation, ...] = tuple(REGISTRY.values())
