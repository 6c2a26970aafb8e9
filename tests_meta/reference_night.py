"""The reference night: plan, apply, a second apply and health in one world, with the world's state after each."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from fixtures.rehearsal.settings import WorldSettings
from tests_meta.muster_runs import CONVERGED, NIGHT, Ran, WorldPool
from tests_meta.world_view import WorldView


@dataclass(frozen=True)
class RecordedRun:
    """One run, the world's state after it, and muster's writes according to the forge's request log."""

    ran: Ran
    world: dict[str, Any]
    writes: list[str]


@dataclass(frozen=True)
class ReferenceNight:
    """The initial state of the world, and four runs in it."""

    settings: WorldSettings
    before: dict[str, Any]
    planned: RecordedRun
    applied: RecordedRun
    repeated: RecordedRun
    checked: RecordedRun


def prepare_initial_world(world_pool: WorldPool) -> None:
    """Restore the world of 2026-06-02; seeds it at the first call."""
    if not world_pool.has(NIGHT):
        world_pool.clear()
        world_pool.start()
        world_pool.keep(NIGHT)
    world_pool.lay(NIGHT)


def run_reference_night(world_pool: WorldPool) -> ReferenceNight:
    """Run the reference night; keeps the world after the first apply as `CONVERGED`."""
    prepare_initial_world(world_pool)
    world_view = WorldView(world_pool.settings)
    before = world_view.everything()

    def recorded_run(*arguments: str, cold: bool = False) -> RecordedRun:
        since = len(world_view.requests())
        ran = world_pool.run(*arguments, cold=cold)
        return RecordedRun(ran, world_view.everything(), world_view.writes_by("muster", since=since))

    planned = recorded_run("--plan")
    applied = recorded_run(cold=True)
    world_pool.keep(CONVERGED)
    return ReferenceNight(world_pool.settings, before, planned, applied, recorded_run(), recorded_run("--health"))
