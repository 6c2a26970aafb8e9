"""Thirty health checks in a row find nothing, whatever people and servers do meanwhile that is nobody's mistake.

The acts are the mutations that nothing has to name (`tests_meta.health.mutation`), and an apply that moves a mirror.
A green of the mirror's former head is then stale, which is no alarm about the system; nothing else may be found. Each
night reads the records of all nights before it, as on a real system; ``pytest -s`` prints a line for each.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests_meta.health.mutation import Mutation, When
from tests_meta.health.registry import MUTATIONS
from tests_meta.health.world import World
from tests_meta.muster_runs import Ran

NIGHTS = 30
HARMLESS = tuple(one for one in MUTATIONS if one.survives)
EVERY_FEW_NIGHTS = 6


def acts() -> Iterator[Mutation | None]:
    """One act before each night; None is an apply that moves a mirror. What cannot be undone is done once."""
    night = 0
    for round_number in range(NIGHTS):
        for one in HARMLESS:
            if night % EVERY_FEW_NIGHTS == 1:
                night += 1
                yield None
            if one.restores or round_number == 0:
                night += 1
                yield one


def apply_moves_a_mirror(world: World, reports: Path) -> None:
    """Upstream gets a commit, and an apply brings it to the mirror."""
    made = world.commit("hedgedoc", {"notes.txt": reports.name}, upstream=True)
    world.set_ref("hedgedoc", "refs/heads/main", made, upstream=True)
    applied = world.parallel.visit(reports=reports).demand(0)
    assert [change["kind"] for change in applied.summary["changes"]] == ["sync-main"]


def check(ran: Ran, usual: set[str], *, recipes: int) -> None:
    """The night finds nothing, and stays within its budget."""
    assert ran.demand(0).failed == set()
    assert {str(line["id"]) for line in ran.of("finding")} == usual
    made = ran.summary["requests"]
    assert 0 < made["forge"] + made["upstream"] + made["drone"] <= 2 * recipes + 12
    assert (made["host_sessions"], made["host_connections"]) == (2, 1)


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path / "world")
    made.converge()
    yield made
    made.parallel.clear()


def test_thirty_healthy_nights_find_nothing(world: World, tmp_path: Path) -> None:
    """Each ends with 0 and without a finding beyond those of the first night, within 2R+12 requests."""
    reports = tmp_path / "reports"
    first = world.parallel.visit("--health", reports=reports).demand(0)
    usual = {str(line["id"]) for line in first.of("finding")}
    for night, act in zip(range(1, NIGHTS + 1), acts(), strict=False):
        breaking = act.make(world) if act else iter(())
        if act is None:
            apply_moves_a_mirror(world, reports)
            usual |= {"stale-hedgedoc"}
        elif act.when is When.OFFLINE:
            world.parallel.end()
        next(breaking, None)
        if act and act.when is When.OFFLINE:
            world.parallel.start()
        ran = world.parallel.visit("--health", reports=reports)
        print(f"night {night:2}: exit {ran.exit}, {act.name if act else 'an apply moved a mirror'}")
        check(ran, usual, recipes=len(world.parallel.recipes))
        next(breaking, None)
