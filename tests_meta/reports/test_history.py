"""The history of all runs, the retention rules, and the freshness of the latest run."""

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


def night(days_ago: float, **values: object) -> PastRun:
    """A healthy run of a real site without events, `days_ago` days before NOW."""
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
    return PastRun(**{**plain, **values})  # type: ignore[arg-type]


def expired_ages(every: list[PastRun], **rule: object) -> list[int]:
    """The ages in days of the runs that the retention rule deletes; runs are given latest first."""
    expired = select_expired(every, Retention(**{"days": 90, "last": 2, **rule}), NOW)  # type: ignore[arg-type]
    return [(NOW - one.started).days for one in expired if one.started]


def test_old_uneventful_runs_expire() -> None:
    """An uneventful run expires when it is older than `days` and not among the latest runs of its site."""
    assert expired_ages([night(days) for days in (1, 50, 89, 91, 120, 400)]) == [91, 120, 400]


def test_latest_runs_of_each_site_are_kept() -> None:
    """The latest runs of every site are kept at any age, so a site that stopped running keeps its record."""
    other = [night(days, site="other") for days in (200, 300, 400)]
    assert expired_ages([night(1), night(2), night(150), *other]) == [150, 400]


@pytest.mark.parametrize(
    "eventful",
    [
        {"changes": ("create-mirror o/ghost",)},
        {"findings": (("red", "action", "x"),)},
        {"findings": (("red", "warning", "x"),)},
        {"findings": (("news", "info", "x"),)},
        *({"verdict": verdict} for verdict in STATES if verdict not in past_runs.UNEVENTFUL),
    ],
)
def test_eventful_runs_are_kept_by_default(eventful: dict[str, object]) -> None:
    """A run with changes, findings or an eventful verdict expires only with ``eventful_too``."""
    every = [night(1), night(2), night(200), night(300, **eventful), night(400)]
    assert expired_ages(every) == [200, 400]
    assert expired_ages(every, eventful_too=True) == [200, 300, 400]


@pytest.mark.parametrize("severity", ["info", "warning", "action"])
def test_repeated_finding_keeps_only_its_first_run(severity: str) -> None:
    """A finding of any severity that the previous run also had does not make a run eventful."""
    found = (("left", severity, "x"),)
    assert expired_ages([night(days, findings=found) for days in (1, 2, 200, 300, 400)]) == [200, 300]


@pytest.mark.parametrize("verdict", past_runs.LASTING)
def test_repeated_lasting_verdict_keeps_only_its_first_run(verdict: str) -> None:
    """Of consecutive runs with the same lasting verdict the first is kept, and each one with a new finding."""
    nights = [night(days, verdict=verdict) for days in (1, 2, 200, 300, 400)]
    assert expired_ages(nights) == [200, 300]
    nights[3] = night(300, verdict=verdict, findings=(("news", "warning", "x"),))
    assert expired_ages(nights) == [200]


@pytest.mark.parametrize("verdict", ["rolled-back", "rollback-failed", "interrupted"])
def test_every_rollback_is_kept(verdict: str) -> None:
    """Rollbacks and interrupted runs are kept even when consecutive runs have the same verdict."""
    assert expired_ages([night(days, verdict=verdict) for days in (1, 2, 200, 300)]) == []


def test_eventful_rehearsals_expire_only_on_request() -> None:
    """A rehearsal with changes is kept like any other run, unless the rule sets ``rehearsals``."""
    every = [night(days, rehearsal=True, changes=("enroll x",)) for days in (1, 2, 200)]
    assert expired_ages(every) == []
    assert expired_ages(every, rehearsals=True) == [200]


def test_prune_deletes_the_selected_folders(tmp_path: Path) -> None:
    """Pruning deletes exactly the runs it returns, ``pretend`` deletes nothing, and the index lists the rest."""
    for days in range(4):
        render(write(tmp_path, "unchanged", start=MIDNIGHT + timedelta(days=days)))
    kept = write(tmp_path, "withheld", start=MIDNIGHT - timedelta(days=9))
    render(kept)
    rule = Retention(days=1, last=1)
    selected = prune(tmp_path, rule, NOW, pretend=True)
    assert len(list((tmp_path / "runs").iterdir())) == 5
    assert [one.run for one in prune(tmp_path, rule, NOW)] == [one.run for one in selected]
    assert sorted(folder.name for folder in (tmp_path / "runs").iterdir()) == [
        kept.name,
        "20260605T001300Z-autonomic-health",
    ]
    write_index(tmp_path)
    assert (tmp_path / "index.html").read_text().count("/report.html") == 2


def test_green_since_is_the_first_green_after_the_latest_red() -> None:
    """A recipe is green since the first green after its latest red; a run without a verdict does not count."""
    marks = [True, None, True, False, True]
    every = [night(index, green={"ghost": mark}) for index, mark in enumerate(marks)]
    assert green_since(every, "ghost") == every[2].started
    assert green_since(every[3:], "ghost") is None
    assert green_since([night(1)], "ghost") is None


def test_history_lists_every_run(tmp_path: Path) -> None:
    """Every run has a row, latest first; each recipe has a strip with one mark for each run."""
    for day, state in enumerate(STATES):
        render(write(tmp_path, state, start=MIDNIGHT + timedelta(days=day)))
    page = (tmp_path / "index.html").read_text()
    runs = page.partition('class="plain runs"')[2]
    assert re.findall(r'<th scope="row"><a href="runs/([0-9]{8})', runs) == [
        f"202606{day:02d}" for day in range(len(STATES) + 1, 1, -1)
    ]
    strip = page.partition('aria-label="mumble: 6 green, 0 red in 12 runs"')[2].partition("</svg>")[0]
    assert re.findall(r'class="([gro])"', strip) == list("ggogoooogogg")
    assert "12 changes" in runs
    assert "6 pending" in runs
    cells = {
        verdict: rest.partition("</tr>")[0]
        for verdict, rest in re.findall(r'data-verdict="([a-z-]+)">(.*?</tr>)', runs)
    }
    assert "1 undone" in cells["recovered"], "a recovery does not say that it changed nothing"
    assert "25 failed" in cells["unreachable"]
    assert "polled unknown" in cells["unreachable"]
    assert "1 finding, 2 notices" in cells["converged"]
    assert "25 failed" not in cells["unchanged"]


def test_run_without_a_summary_is_listed_from_its_journal(tmp_path: Path) -> None:
    """A run killed before it wrote its summary is listed from its journal; an empty folder is not a run."""
    write(tmp_path, "interrupted")
    (tmp_path / "runs" / "empty").mkdir()
    (tmp_path / "runs" / "stray.txt").write_text("x")
    write_index(tmp_path)
    assert [one.verdict for one in list_runs(tmp_path)] == ["interrupted"]
    assert "Interrupted" in (tmp_path / "index.html").read_text()


def test_empty_history_says_so(tmp_path: Path) -> None:
    """The index of an empty folder says that there is no run yet."""
    write_index(tmp_path)
    assert "No run yet" in (tmp_path / "index.html").read_text()


def test_freshness_needs_a_finished_run_of_a_real_site(tmp_path: Path) -> None:
    """Only a finished apply or health check of the site counts: no rehearsal, plan or interrupted run."""
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
def test_freshness_command_exits_by_age(tmp_path: Path, age_h: float | None, code: int, word: str) -> None:
    """``python -m reports freshness --max 26h`` exits 0 for a recent run, 1 for an older run or for none."""
    if age_h is not None:
        render(write(tmp_path, "unchanged", start=datetime.now(UTC) - timedelta(hours=age_h)))
    done = subprocess.run(
        [sys.executable, "-m", "reports", "--root", str(tmp_path), "freshness", "--max", "26h"],
        cwd=PROJECT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout.split()[:2]) == (code, ["muster:", word])
