"""From night to night: what changed since the run before, and the links between the runs of one system."""

from __future__ import annotations

import re
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

from fixtures.journal.past_runs import PastRun, find_neighbours, list_runs
from fixtures.journal.since import differences
from fixtures.journal.writer import Journal
from reports import render
from tests_meta.reports.sample_night import MIDNIGHT
from tests_meta.reports.sample_runs import write


def two_runs(root: Path, *states: str) -> list[PastRun]:
    """The runs of these states, a night apart, latest first."""
    for day, state in enumerate(states):
        render(write(root, state, start=MIDNIGHT + timedelta(days=day)))
    return list_runs(root)


def test_differences_name_recipes_findings_and_verdict(tmp_path: Path) -> None:
    """Verdict, recipes that were lost or gained, and findings that came or went are each one sentence."""
    now, before = (replace(one, complete=True) for one in two_runs(tmp_path, "drift", "failed"))
    said = differences(before, now)
    assert "The verdict was drift and is failed." in said
    assert "No longer mirrored: mailu, mumble." in said
    assert "Now mirrored: n8n." in said
    assert "Found now: The mirror of mailu stayed empty after the push." in said
    assert "Not found any more: The mirror of n8n is apart from upstream: somebody pushed to its main." in said
    assert "New: The mirror of n8n is apart from upstream: somebody pushed to its main." in differences(
        now, before
    )


def test_finding_that_was_not_checked_again_is_not_gone(tmp_path: Path) -> None:
    """A recovery, and a run that ended early, do not say that what the run before had found is gone."""
    now, before = two_runs(tmp_path, "withheld", "recovered")
    assert "Not checked again: 1 finding of the run before." in differences(before, now)
    assert not [one for one in differences(before, now) if one.startswith("Not found any more")]
    assert "Found now: The checkout `/root/cc-ci`" in " ".join(differences(now, before))
    page = (before.folder / "report.html").read_text()
    assert "<code>/root/cc-ci</code>" in page


def test_equal_runs_have_no_difference(tmp_path: Path) -> None:
    """Two runs that found the same have no difference; with another roster file they have one (positive control)."""
    now, before = two_runs(tmp_path, "unchanged", "unchanged")
    assert differences(before, now) == []
    changed = replace(now, origin={**now.origin, "roster_digest": "0" * 64})
    assert [one.partition(":")[0] for one in differences(before, changed)] == ["The roster file changed"]


def test_what_was_not_looked_at_is_no_difference(tmp_path: Path) -> None:
    """A column that only one of two runs looked at is no change of any recipe."""
    now, before = two_runs(tmp_path, "unchanged", "unchanged")
    silent = replace(now, answers={name: dict.fromkeys(row) for name, row in now.answers.items()})
    assert differences(before, silent) == differences(silent, before) == []


def test_runs_link_to_the_runs_around_them(tmp_path: Path) -> None:
    """Each report links to the history, the run before and, once there is one, the run after; each link leads there."""
    runs = two_runs(tmp_path, "unchanged", "drift", "unchanged")
    for place, run in enumerate(runs):
        page = (run.folder / "report.html").read_text()
        links = re.findall(r'href="([^"#]*\.html)"', page.partition('class="nights"')[2].partition("</nav>")[0])
        around = [one.folder.name for one in (*runs[place + 1 : place + 2], *runs[max(place - 1, 0) : place])]
        assert links == ["../../index.html", *(f"../{name}/report.html" for name in around)]
        assert all((run.folder / link).resolve().is_file() for link in links)
    assert "Nothing changed" not in (runs[0].folder / "report.html").read_text()


def test_rehearsals_of_two_worlds_are_no_neighbours(tmp_path: Path) -> None:
    """A rehearsal is compared only with runs in the same world, and a real site only with itself."""
    every = two_runs(tmp_path, "unchanged", "unchanged")
    other = [replace(every[0], target="another"), every[1]]
    found = find_neighbours(other, other[0].folder.name)
    assert found is not None
    assert (found.before, found.after) == (None, None)
    same = find_neighbours(every, every[0].folder.name)
    assert same is not None
    assert same.before == every[1]


def test_settled_run_links_to_the_run_that_settled_it(tmp_path: Path) -> None:
    """The report of a run that a later one settled links to that one."""
    folder = write(tmp_path, "interrupted")
    journal = Journal(folder / "journal.jsonl")
    journal.write("end", exit=2, verdict="interrupted", settled_by="20260603T001300Z-autonomic-recover")
    journal.close()
    render(folder)
    assert 'href="../20260603T001300Z-autonomic-recover/report.html"' in (folder / "report.html").read_text()
