"""``activation = "test-then-switch"``: until a system is accepted, it is not what the host boots.

With it a power cycle is a rollback as well, also in the moment in which everything holds and nothing is confirmed.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from fixtures.rehearsal.host.activation import boot_default
from fixtures.rehearsal.host.layout import HostPaths
from tests_meta.muster_runs import Ran
from tests_meta.parallel_worlds import (
    MIRRORED,
    ParallelWorld,
    WorldState,
    differences_from_end_state,
    live_differences,
)
from tests_meta.rollback.crash_checks import KILLED, RECIPES, ROSTER

BEFORE_IT_IS_CONFIRMED = "write HostWriter.act nix-env "


@dataclass(frozen=True)
class Seen:
    """The world, and what the host's boot loader would start."""

    world_state: WorldState
    boots: str


@dataclass(frozen=True)
class Tale:
    """A run that is killed when its system is accepted, a power cycle, and the two runs after that."""

    before: Seen
    killed: Ran
    accepted: Seen
    cycled: Seen
    settled: Ran
    back: Seen
    again: Ran
    after: Seen


@pytest.fixture(scope="module")
def tale(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tale]:
    parallel_world = ParallelWorld(tmp_path_factory.mktemp("boot") / "world", ROSTER)
    parallel_world.begin(MIRRORED)
    text = parallel_world.site.read_text()
    parallel_world.site.write_text(text.replace("[host]\n", '[host]\nactivation = "test-then-switch"\n'))

    def seen() -> Seen:
        return Seen(parallel_world.world_state(), str(boot_default(HostPaths(parallel_world.settings.host_dir))))

    reports = parallel_world.folder / "reports"
    try:
        before = seen()
        stop = {"MUSTER_STOP_AT": BEFORE_IT_IS_CONFIRMED}
        killed = parallel_world.visit("-p", "tests_meta.rollback.crash_plugin", env=stop, reports=reports)
        accepted = seen()
        parallel_world.end()
        parallel_world.start()
        cycled = seen()
        settled = parallel_world.visit("--recover", reports=reports)
        back = seen()
        again = parallel_world.visit(reports=reports)
        yield Tale(before, killed, accepted, cycled, settled, back, again, seen())
    finally:
        parallel_world.clear()


def test_an_accepted_system_runs_before_it_is_what_boots(tale: Tale) -> None:
    """The new system is active and its bridge polls the new set; profile and boot loader still say the old one."""
    assert tale.killed.exit == KILLED, tale.killed.output[-2000:]
    now, was = tale.accepted.world_state.host, tale.before.world_state.host
    assert now["running"] != was["running"]
    assert tale.accepted.world_state.served == tale.accepted.world_state.poll_set
    assert (now["boots"], now["generation"]) == (was["boots"], was["generation"])
    assert tale.accepted.boots == tale.before.boots == was["running"]


def test_a_power_cycle_is_a_rollback(tale: Tale) -> None:
    """The host comes up with the system of the baseline, and with its poll set."""
    assert tale.cycled.world_state.host["running"] == tale.before.world_state.host["running"]
    tale.settled.demand(0)
    assert live_differences(tale.before.world_state, tale.back.world_state) == []
    assert tale.back.world_state.host["checkout"] == tale.before.world_state.host["checkout"]


def test_after_acceptance_it_is_the_boot_default(tale: Tale) -> None:
    """A run that comes to its end leaves one system: it runs, it is the profile's, and the loader starts it."""
    tale.again.demand(0)
    assert differences_from_end_state(tale.after.world_state, RECIPES) == []
    host = tale.after.world_state.host
    assert host["running"] == host["boots"] == tale.after.boots
    assert host["running"] != tale.before.world_state.host["running"]
