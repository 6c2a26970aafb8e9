"""Open a run inside a test, to call the code of one phase without another pytest process."""

from __future__ import annotations

from datetime import UTC, date, datetime
from pathlib import Path

from fixtures.clients.world import open_read_world, open_write_world, resolve_secrets
from fixtures.config.roster import Roster
from fixtures.config.run_options import Mode, Options, UndoScope
from fixtures.config.site import Site
from fixtures.journal.lines import FILE_NAME
from fixtures.journal.writer import Journal
from fixtures.rehearsal.parts import choose
from fixtures.run.context import Context
from fixtures.run.exclusions import Exclusions
from fixtures.run.recorder import Recorder
from fixtures.run.run import Run
from fixtures.run.surveys import Surveys
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
    today: date | None = None,
    started: datetime | None = None,
) -> Run:
    """A run with its baseline and without changes; its journal is in `folder`."""
    keys = resolve_secrets(site)
    world = open_write_world(site, keys) if mode is Mode.APPLY else open_read_world(site, keys)
    survey = take(world, roster)
    context = Context(
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
        folder=folder,
        waiter=Waiter(interval_s=0.1),
        today=today or date(2026, 6, 2),
        payload=payload or folder,
        started=started or datetime.now(UTC),
    )
    journal = Journal(folder / FILE_NAME)
    surveys = Surveys(world, roster, baseline=survey, now=survey, count_changes=journal.count_changes)
    return Run(context, Recorder(journal), surveys, Exclusions(roster.names))


def close_run(run: Run) -> None:
    run.record.journal.close()
    run.context.world.close()
