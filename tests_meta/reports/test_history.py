"""The history over all runs, what is pruned and what never is, and whether a run is fresh."""

from __future__ import annotations

import re
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from fixtures.journal import past_runs
from fixtures.journal.past_runs import (
    PastRun,
    Retention,
    green_since,
    latest_finished,
    list_runs,
    prune,
    select_expired,
)
from reports import render
from reports.index_page import write_index
from tests_meta.reports.report_suite import PROJECT
from tests_meta.reports.sample_night import MIDNIGHT
from tests_meta.reports.sample_runs import STATES, write

NOW = datetime(2026, 12, 1, tzinfo=UTC)


def night(days_ago: float, **told: object) -> PastRun:
    """A healthy, uneventful night of a real site, so many days before NOW."""
    at = NOW - timedelta(days=days_ago)
    plain: dict[str, object] = {
        "folder": Path(f"/runs/{at:%Y%m%dT%H%M%SZ}-site-health"),
        "run": f"{at:%Y%m%dT%H%M%SZ}-site-health",
        "site": "site",
        "mode": "health",
        "rehearsal": False,
        "started": at,
        "wall_s": 60.0,
        "verdict": "unchanged",
        "exit": 0,
        "expected": 19,
        "counts": {},
        "green": {},
        "known_red": frozenset(),
        "changes": (),
        "findings": (),
        "finished": at,
    }
    return PastRun(**{**plain, **told})  # type: ignore[arg-type]


def gone(every: list[PastRun], **rule: object) -> list[int]:
    """Of nights given newest first, the days ago of those that the rule lets go."""
    going = select_expired(every, Retention(**{"days": 90, "last": 2, **rule}), NOW)  # type: ignore[arg-type]
    return [(NOW - one.started).days for one in going if one.started]


def test_old_quiet_nights_go() -> None:
    """A quiet night goes when it is older than the rule's days and not among the newest of its site."""
    assert gone([night(days) for days in (1, 50, 89, 91, 120, 400)]) == [91, 120, 400]


def test_the_newest_of_each_site_stay() -> None:
    """The newest runs of every site stay whatever their age: a site that stopped running keeps its record."""
    other = [night(days, site="other") for days in (200, 300, 400)]
    assert gone([night(1), night(2), night(150), *other]) == [150, 400]


@pytest.mark.parametrize(
    "told",
    [
        {"changes": ("create-mirror o/ghost",)},
        {"findings": (("red", "action", "x"),)},
        {"findings": (("red", "warning", "x"),)},
        {"findings": (("news", "info", "x"),)},
        *({"verdict": verdict} for verdict in STATES if verdict not in past_runs.UNEVENTFUL),
    ],
)
def test_what_happened_once_is_never_pruned(told: dict[str, object]) -> None:
    """A run with changes, findings or any verdict but a quiet one stays by default, and goes only when told."""
    every = [night(1), night(2), night(200), night(300, **told), night(400)]
    assert gone(every) == [200, 400]
    assert gone(every, eventful_too=True) == [200, 300, 400]


@pytest.mark.parametrize("severity", ["info", "warning", "action"])
def test_the_same_finding_every_night_keeps_only_the_first(severity: str) -> None:
    """What stood in the run before as well is no news, however grave: the folder is bounded while nobody mends it."""
    found = (("left", severity, "x"),)
    assert gone([night(days, findings=found) for days in (1, 2, 200, 300, 400)]) == [200, 300]


@pytest.mark.parametrize("verdict", past_runs.LASTING)
def test_the_same_bad_verdict_every_night_keeps_only_the_first(verdict: str) -> None:
    """A drift that lasts is one drift; with something new in it, the night stays."""
    nights = [night(days, verdict=verdict) for days in (1, 2, 200, 300, 400)]
    assert gone(nights) == [200, 300]
    nights[3] = night(300, verdict=verdict, findings=(("news", "warning", "x"),))
    assert gone(nights) == [200]


@pytest.mark.parametrize("verdict", ["rolled-back", "rollback-failed", "interrupted"])
def test_every_rollback_stays(verdict: str) -> None:
    """Each is an event of its own, even night after night."""
    assert gone([night(days, verdict=verdict) for days in (1, 2, 200, 300)]) == []


def test_rehearsals_go_only_when_told() -> None:
    """A rehearsal changed a world that is gone; it is kept like any other run until the rule says otherwise."""
    every = [night(days, rehearsal=True, changes=("enroll x",)) for days in (1, 2, 200)]
    assert gone(every) == []
    assert gone(every, rehearsals=True) == [200]


def test_prune_deletes_folders_and_rebuilds(tmp_path: Path) -> None:
    """Pruning deletes exactly what it names, ``--pretend`` deletes nothing, and the index follows."""
    for days in range(4):
        render(write(tmp_path, "unchanged", start=MIDNIGHT + timedelta(days=days)))
    kept = write(tmp_path, "withheld", start=MIDNIGHT - timedelta(days=9))
    render(kept)
    rule = Retention(days=1, last=1)
    would = prune(tmp_path, rule, NOW, pretend=True)
    assert len(list((tmp_path / "runs").iterdir())) == 5
    assert [one.run for one in prune(tmp_path, rule, NOW)] == [one.run for one in would]
    assert sorted(folder.name for folder in (tmp_path / "runs").iterdir()) == [
        kept.name,
        "20260605T001300Z-autonomic-health",
    ]
    write_index(tmp_path)
    assert (tmp_path / "index.html").read_text().count("/report.html") == 2


def test_green_since() -> None:
    """Green since the oldest green after the last red; a night without a verdict neither makes nor breaks it."""
    marks = [True, None, True, False, True]
    every = [night(index, green={"ghost": mark}) for index, mark in enumerate(marks)]
    assert green_since(every, "ghost") == every[2].started
    assert green_since(every[3:], "ghost") is None
    assert green_since([night(1)], "ghost") is None


def test_lists_every_run(tmp_path: Path) -> None:
    """Every state has a row with its verdict, newest first, and a strip with as many marks as there were runs."""
    for day, state in enumerate(STATES):
        render(write(tmp_path, state, start=MIDNIGHT + timedelta(days=day)))
    page = (tmp_path / "index.html").read_text()
    runs = page.partition('class="plain runs"')[2]
    assert re.findall(r'<th scope="row"><a href="runs/([0-9]{8})', runs) == [
        f"202606{day:02d}" for day in range(10, 1, -1)
    ]
    strip = page.partition('aria-label="mumble: 3 green, 0 red in 9 runs"')[2].partition("</svg>")[0]
    assert re.findall(r'class="([gro])"', strip) == list("ggogooooo")
    assert "12 changes" in runs
    assert "9 pending" in runs


def test_a_run_without_a_summary_is_listed(tmp_path: Path) -> None:
    """A run that was killed before its summary is listed from its journal; an empty folder is not a run."""
    write(tmp_path, "interrupted")
    (tmp_path / "runs" / "empty").mkdir()
    (tmp_path / "runs" / "stray.txt").write_text("x")
    write_index(tmp_path)
    assert [one.verdict for one in list_runs(tmp_path)] == ["interrupted"]
    assert "Interrupted" in (tmp_path / "index.html").read_text()


def test_no_run_yet(tmp_path: Path) -> None:
    """A history over nothing says that there is none."""
    write_index(tmp_path)
    assert "No run yet" in (tmp_path / "index.html").read_text()


def test_freshness_needs_a_finished_run_of_a_real_site(tmp_path: Path) -> None:
    """Rehearsals, plans and interrupted runs are not the nightly check; a finished run of the site is."""
    render(write(tmp_path, "converged", rehearsal=True, start=MIDNIGHT + timedelta(days=5)))
    render(write(tmp_path, "interrupted", start=MIDNIGHT + timedelta(days=4)))
    render(write(tmp_path, "planned", start=MIDNIGHT + timedelta(days=3)))
    assert latest_finished(tmp_path) is None
    render(write(tmp_path, "drift"))
    found = latest_finished(tmp_path)
    assert found is not None
    assert found.verdict == "drift"
    assert latest_finished(tmp_path, site="other") is None


@pytest.mark.parametrize(("age_h", "code", "word"), [(1, 0, "FRESH"), (30, 1, "STALE"), (None, 1, "STALE")])
def test_freshness_as_a_timer_asks(tmp_path: Path, age_h: float | None, code: int, word: str) -> None:
    """``python -m reports freshness --max 26h`` exits 0 for a young run, 1 for an old one or none at all."""
    if age_h is not None:
        render(write(tmp_path, "unchanged", start=datetime.now(UTC) - timedelta(hours=age_h)))
    told = subprocess.run(
        [sys.executable, "-m", "reports", "--root", str(tmp_path), "freshness", "--max", "26h"],
        cwd=PROJECT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (told.returncode, told.stdout.split()[:2]) == (code, ["muster:", word])
