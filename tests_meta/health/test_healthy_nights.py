"""Thirty health checks in a row find nothing, whatever people and servers do meanwhile that is nobody's mistake.

The acts are the mutations that nothing has to name (`tests_meta.health.mutation`), and an apply that moves a mirror.
A green of the mirror's former head is then stale, which is no alarm about the system; nothing else may be found. Each
night reads the records of all nights before it, as on a real system; ``pytest -s`` prints a line for each.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests_meta.health.mutation import Mutation, When
from tests_meta.health.registry import MUTATIONS
from tests_meta.health.world import World, git
from tests_meta.muster_runs import Ran

NIGHTS = 30
# What a mutation restores would take a commit out of the history again.
LASTING = "ccci has a new commit"
HARMLESS = tuple(one for one in MUTATIONS if one.survives and one.name != LASTING)
EVERY_FEW_NIGHTS = 6
Act = Callable[[World, Path], set[str]]


def apply_moves_a_mirror(world: World, reports: Path) -> set[str]:
    """Upstream gets a commit, and an apply brings it to the mirror; the green of its former head is stale then."""
    made = world.commit("hedgedoc", {"notes.txt": reports.name}, upstream=True)
    world.set_ref("hedgedoc", "refs/heads/main", made, upstream=True)
    applied = world.parallel.visit(reports=reports).demand(0)
    assert [change["kind"] for change in applied.summary["changes"]] == ["sync-main"]
    return {"stale-hedgedoc"}


def ccci_gets_a_commit(world: World, _reports: Path) -> set[str]:
    """Somebody commits to cc-ci and syncs the host's checkout."""
    made = world.commit("cc-ci", {"docs/notes.md": "notes\n"})
    world.set_ref("cc-ci", "refs/heads/main", made)
    checkout = world.host_folder / "root/cc-ci"
    git(checkout, "fetch", "--quiet", str(world.bare("cc-ci")), "main")
    git(checkout, "reset", "--quiet", "--hard", made)
    return set()


def acts() -> Iterator[Mutation | Act]:
    """One act before each night; what cannot be undone is done once, but for those that go on for ever."""
    night = 0
    for round_number in range(NIGHTS):
        for one in HARMLESS:
            if night % EVERY_FEW_NIGHTS == 1:
                night += 2
                yield apply_moves_a_mirror
                yield ccci_gets_a_commit
            if one.restores or round_number == 0:
                night += 1
                yield one


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
        breaking = act.make(world) if isinstance(act, Mutation) else iter(())
        is_offline = isinstance(act, Mutation) and act.when is When.OFFLINE
        if is_offline:
            world.parallel.end()
        if not isinstance(act, Mutation):
            usual |= act(world, reports)
        next(breaking, None)
        if is_offline:
            world.parallel.start()
        ran = world.parallel.visit("--health", reports=reports)
        name = act.name if isinstance(act, Mutation) else act.__name__.replace("_", " ")
        print(f"night {night:2}: exit {ran.exit}, {name}")
        check(ran, usual, recipes=len(world.parallel.recipes))
        next(breaking, None)
