"""Makes a run count for another night; loaded into muster with ``-p tests_meta.rehearsal.night_plugin``.

The machine's clock does not change, because the world's servers use it too. ``MUSTER_NIGHT`` (a date) is the night for
which findings are reported, ``MUSTER_HOURS_SINCE`` the age of the latest finished run; earlier records are older by the
same time.
"""

from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

import pytest

from fixtures.journal import past_runs
from fixtures.journal.past_runs import PastRun, Retention
from fixtures.notify import finding_state, missed_nights


def pytest_configure(config: pytest.Config) -> None:
    tonight = os.environ["MUSTER_NIGHT"]
    later = timedelta(hours=float(os.environ["MUSTER_HOURS_SINCE"]))

    def night_of(started: datetime) -> str:
        del started
        return tonight

    prune = past_runs.prune

    def prune_later(root: Path, rule: Retention, now: datetime, *, pretend: bool = False) -> list[PastRun]:
        return prune(root, rule, now + later, pretend=pretend)

    finding_state.night_of = night_of
    past_runs.prune = prune_later
    missed_nights.note_missed = partial(missed_nights.note_missed, now=datetime.now(UTC) + later)
