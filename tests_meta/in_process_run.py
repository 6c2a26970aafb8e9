"""A run as the phases' fixtures get it, opened by a test: for the work of one phase without a pytest of its own."""

from __future__ import annotations

from datetime import date
from pathlib import Path

from fixtures.clients.world import open_read_world, open_write_world, resolve_secrets
from fixtures.config.options import Mode, Options, UndoScope
from fixtures.config.roster import Roster
from fixtures.config.site import Site
from fixtures.journal.lines import FILE_NAME
from fixtures.journal.writer import Journal
from fixtures.rehearsal.parts import choose
from fixtures.run.context import Run
from fixtures.run.waiting import Waiter
from fixtures.survey import take


def open_run(
    site: Site,
    roster: Roster,
    folder: Path,
    *,
    mode: Mode = Mode.APPLY,
    payload: Path | None = None,
    reports: Path | None = None,
) -> Run:
    """A run that has taken its baseline and done nothing; its journal is in `folder`."""
    keys = resolve_secrets(site)
    world = open_write_world(site, keys) if mode is Mode.APPLY else open_read_world(site, keys)
    survey = take(world, roster)
    return Run(
        options=Options(
            mode=mode,
            site=None,
            roster=None,
            world=None,
            pace=0.02,
            faults=(),
            parts=choose(),
            undo=UndoScope.LIVE,
            force_sync=frozenset(),
            reports=reports or folder,
        ),
        site=site,
        roster=roster,
        world=world,
        journal=Journal(folder / FILE_NAME),
        folder=folder,
        waiter=Waiter(interval_s=0.1),
        today=date(2026, 6, 2),
        baseline=survey,
        now=survey,
        payload=payload or folder,
    )


def close_run(run: Run) -> None:
    run.journal.close()
    run.world.close()
