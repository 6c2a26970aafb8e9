"""Which canaries are triggered: those of which it is known that they have no build since their enrollment."""

from __future__ import annotations

from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

import pytest

from fixtures.clients.drone_values import Build
from fixtures.triggers.fixture import _builds_are_known

AT = datetime(2026, 6, 2, tzinfo=UTC)


def build(sender: str, event: str = "custom", **params: str) -> Build:
    return Build(7, "success", event, "a" * 40, sender, params, AT, AT, AT, "")


@pytest.mark.parametrize(
    ("found", "known"),
    [
        (build("bot", RECIPE="n8n"), True),
        (build("bot", event="push"), True),
        (build("alice"), True),
        (build("Bot"), False),
        (build("bot", REF="a" * 40), False),
    ],
)
def test_build_of_the_bridge_without_a_recipe_may_be_of_any_recipe(found: Build, known: bool) -> None:
    """While Drone does not show the recipe of a build of the bridge, no recipe is triggered for lack of a build."""
    drone: Any = SimpleNamespace(unreadable_builds_of=lambda _: frozenset())
    world = SimpleNamespace(drone=drone, forge=SimpleNamespace(bot="bot"))
    site = SimpleNamespace(drone=SimpleNamespace(recipe_parameter="RECIPE", bridge_account=""))
    surveys: Any = SimpleNamespace(now=SimpleNamespace(builds=(found,), problems={}))
    context: Any = SimpleNamespace(world=world, site=site)
    assert _builds_are_known(context, surveys, "ghost") is known
