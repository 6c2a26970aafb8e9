"""The main job told once: plan, apply, apply again, health, in one world, and what the world was in between."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from fixtures.rehearsal.settings import WorldSettings
from tests_meta.eyes import Eyes
from tests_meta.rehearsals import CONVERGED, NIGHT, Ran, Station


@dataclass(frozen=True)
class Chapter:
    """One run, the world as it was after it, and the writes that the forge saw muster make."""

    ran: Ran
    world: dict[str, Any]
    writes: list[str]


@dataclass(frozen=True)
class Story:
    """The world before anything, and four runs in it."""

    settings: WorldSettings
    before: dict[str, Any]
    planned: Chapter
    applied: Chapter
    repeated: Chapter
    checked: Chapter


def lay_night(station: Station) -> None:
    """Make the world of the night once, and put it where it lives."""
    if not station.has(NIGHT):
        station.clear()
        station.start()
        station.keep(NIGHT)
    station.lay(NIGHT)


def tell(station: Station) -> Story:
    """Run the four; the world after the second is kept as `CONVERGED`."""
    lay_night(station)
    eyes = Eyes(station.settings)
    before = eyes.everything()

    def chapter(*arguments: str, cold: bool = False) -> Chapter:
        since = len(eyes.requests())
        ran = station.run(*arguments, cold=cold)
        return Chapter(ran, eyes.everything(), eyes.writes_by("muster", since=since))

    planned = chapter("--plan")
    applied = chapter(cold=True)
    station.keep(CONVERGED)
    return Story(station.settings, before, planned, applied, chapter(), chapter("--health"))
