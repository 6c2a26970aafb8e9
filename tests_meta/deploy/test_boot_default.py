"""``activation = "test-then-switch"``: a new system becomes the boot default only after it is accepted.

Until then a power cycle rolls the host back, even after all checks have passed.
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

BEFORE_CONFIRMATION = "write HostWriter.act nix-env "


@dataclass(frozen=True)
class Observation:
    """The state of the world, and the system that the host's boot loader would start."""

    world_state: WorldState
    boots: str


@dataclass(frozen=True)
class PowerCycle:
    """A run killed after its system is accepted, a power cycle, a recovery and a run; each with the state after it."""

    before: Observation
    killed: Ran
    accepted: Observation
    cycled: Observation
    recovery: Ran
    recovered: Observation
    again: Ran
    after: Observation


@pytest.fixture(scope="module")
def power_cycle(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PowerCycle]:
    parallel_world = ParallelWorld(tmp_path_factory.mktemp("boot") / "world", ROSTER)
    parallel_world.begin(MIRRORED)
    text = parallel_world.site.read_text()
    parallel_world.site.write_text(text.replace("[host]\n", '[host]\nactivation = "test-then-switch"\n'))

    def observe() -> Observation:
        return Observation(
            parallel_world.world_state(), str(boot_default(HostPaths(parallel_world.settings.host_dir)))
        )

    reports = parallel_world.folder / "reports"
    try:
        before = observe()
        stop = {"MUSTER_STOP_AT": BEFORE_CONFIRMATION}
        killed = parallel_world.visit("-p", "tests_meta.rollback.crash_plugin", env=stop, reports=reports)
        accepted = observe()
        parallel_world.end()
        parallel_world.start()
        cycled = observe()
        recovery = parallel_world.visit("--recover", reports=reports)
        recovered = observe()
        again = parallel_world.visit(reports=reports)
        yield PowerCycle(before, killed, accepted, cycled, recovery, recovered, again, observe())
    finally:
        parallel_world.clear()


def test_accepted_system_is_active_but_not_yet_the_boot_default(power_cycle: PowerCycle) -> None:
    """The new system is active and its bridge polls the new set; profile and boot loader still name the old system."""
    assert power_cycle.killed.exit == KILLED, power_cycle.killed.output[-2000:]
    now, was = power_cycle.accepted.world_state.host, power_cycle.before.world_state.host
    assert now["running"] != was["running"]
    assert power_cycle.accepted.world_state.served == power_cycle.accepted.world_state.poll_set
    assert (now["boots"], now["generation"]) == (was["boots"], was["generation"])
    assert power_cycle.accepted.boots == power_cycle.before.boots == was["running"]


def test_power_cycle_before_confirmation_rolls_back(power_cycle: PowerCycle) -> None:
    """The host boots the baseline's system, and recovery restores the baseline's poll set."""
    assert power_cycle.cycled.world_state.host["running"] == power_cycle.before.world_state.host["running"]
    power_cycle.recovery.demand(0)
    assert live_differences(power_cycle.before.world_state, power_cycle.recovered.world_state) == []
    assert power_cycle.recovered.world_state.host["checkout"] == power_cycle.before.world_state.host["checkout"]


def test_confirmed_system_is_the_boot_default(power_cycle: PowerCycle) -> None:
    """After a complete run, the running system, the profile and the boot loader's default are the same."""
    power_cycle.again.demand(0)
    assert differences_from_end_state(power_cycle.after.world_state, RECIPES) == []
    host = power_cycle.after.world_state.host
    assert host["running"] == host["boots"] == power_cycle.after.boots
    assert host["running"] != power_cycle.before.world_state.host["running"]
