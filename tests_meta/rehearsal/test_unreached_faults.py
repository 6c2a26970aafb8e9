"""A fault that a kept world is past has no effect: the run ends with exit 4 and never passes."""

from __future__ import annotations

import pytest

from fixtures.rehearsal.faults.table import FAULTS, unreached
from tests_meta.muster_runs import CONVERGED, WorldPool
from tests_meta.reference_night import ReferenceNight


def test_faults_without_an_effect_are_told_apart() -> None:
    """A run that ends well has not met a fault that ends it otherwise, nor one of a switch without a switch."""
    assert unreached(["switch-breaks-bridge", "forge-500"], switched=True) == ["switch-breaks-bridge"]
    assert unreached(["switch-exit-4-old-unit", "drone-slow"], switched=False) == ["switch-exit-4-old-unit"]
    assert unreached(["switch-exit-4-old-unit", "red-build:ghost"], switched=True) == ["red-build"]
    assert unreached([], switched=False) == []


@pytest.mark.parametrize("name", sorted(name for name, fault in FAULTS.items() if fault.is_seeded)[:1])
def test_fault_of_a_new_world_is_refused_for_a_kept_one(
    reference_night: ReferenceNight, world_pool: WorldPool, name: str
) -> None:
    """The refusal names the fault and the world, before anything is started."""
    assert reference_night.applied.ran.exit == 0
    world_pool.lay(CONVERGED)
    said = world_pool.run("--fault", name).refused()
    assert name in said
    assert str(world_pool.world) in said


def test_run_past_its_fault_ends_with_exit_4(reference_night: ReferenceNight, world_pool: WorldPool) -> None:
    """A converged world has nothing to switch to, so a fault of the switch cannot show; a finding says so."""
    assert reference_night.applied.ran.exit == 0
    world_pool.lay(CONVERGED)
    ran = world_pool.run("--health", "--fault", "switch-hangs", "--roster", str(world_pool.roster)).demand(4)
    assert ran.summary["exit"] == 4
    assert [one["id"] for one in ran.summary["findings"] if "--fault" in one["what"]] == ["fault-not-reached"]


def test_run_past_the_act_of_a_person_ends_with_exit_4(
    reference_night: ReferenceNight, world_pool: WorldPool
) -> None:
    """In a converged world nothing is proposed, so nobody can comment on the proposal; a finding says so."""
    assert reference_night.applied.ran.exit == 0
    world_pool.lay(CONVERGED)
    roster = ("--roster", str(world_pool.roster))
    ran = world_pool.run("--health", "--fault", "comment-on-proposal", *roster).demand(4)
    assert [one["id"] for one in ran.summary["findings"] if "--fault" in one["what"]] == ["fault-not-reached"]
