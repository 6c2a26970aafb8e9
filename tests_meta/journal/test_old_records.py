"""Records that version 0.1.0 wrote before its modules were moved are still read, shown, rendered and grouped.

``data/`` holds journal and summary of two rehearsals: one that converged, and one with ``--fault switch-fails --fault
mirror-diverged``, which was rolled back.
"""

from __future__ import annotations

import gzip
import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from fixtures.journal import __main__ as command
from fixtures.journal.finding_kinds import FindingKind, kind_of_id
from fixtures.journal.kinds import ChangeKind, ChangeResult, RunVerdict, UndoResult
from fixtures.journal.lines import FILE_NAME, SUMMARY_FILE_NAME, JournalBroken
from fixtures.journal.load_record import load
from fixtures.journal.past_runs import list_runs
from fixtures.journal.reader import read
from fixtures.journal.status_line import status_line
from fixtures.notify.grouping import group_findings
from reports import render
from reports.summary import summary

DATA = Path(__file__).with_name("data")


@dataclass(frozen=True)
class OldRun:
    """One record, and the results of the version that wrote it."""

    name: str
    verdict: RunVerdict
    exit: int
    changes: int
    undone: int
    status_line: str
    groups: tuple[tuple[str, str], ...]

    def unpack(self, root: Path) -> Path:
        folder = root / "runs" / self.name
        folder.mkdir(parents=True)
        for name in (FILE_NAME, SUMMARY_FILE_NAME):
            (folder / name).write_bytes(gzip.decompress((DATA / self.name / f"{name}.gz").read_bytes()))
        return folder


CONVERGED = OldRun(
    "20261128T073615358Z-rehearsal-apply",
    RunVerdict.CONVERGED,
    exit=0,
    changes=27,
    undone=6,
    status_line="muster: OK 19/19 mirrored, covered and polled; 4 triggerable; 10 green, 3 red; 27 changes; REHEARSAL, "
    "converged, 32 s",
    groups=(("left-bluesky-pds", "info"), ("verdicts-missing", "info")),
)
ROLLED_BACK = OldRun(
    "20261128T074009302Z-rehearsal-apply",
    RunVerdict.ROLLED_BACK,
    exit=11,
    changes=20,
    undone=4,
    status_line="muster: ROLLED-BACK 10/19 mirrored, covered and polled; 1 triggerable; 1 green; 20 changes; 5 to do; "
    "REHEARSAL, rolled-back, 35 s",
    groups=(
        ("deploy-all", "action"),
        ("deploy-failed", "action"),
        ("mirror-n8n", "action"),
        ("covered-but-unpolled", "warning"),
        ("upstream-release-n8n", "info"),
    ),
)


@pytest.fixture(params=[CONVERGED, ROLLED_BACK], ids=["converged", "rolled-back"])
def old(request: pytest.FixtureRequest) -> OldRun:
    found: OldRun = request.param
    return found


@pytest.fixture
def folder(old: OldRun, tmp_path: Path) -> Path:
    return old.unpack(tmp_path)


def written_summary(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / SUMMARY_FILE_NAME).read_text(encoding="utf-8"))
    return found


def known_keys(new: Any, old: Any) -> Any:
    """`new` without the keys that `old` lacks, at any depth: a later version may add keys."""
    if isinstance(new, dict) and isinstance(old, dict):
        return {key: known_keys(new[key], old[key]) for key in old}
    if isinstance(new, list) and isinstance(old, list) and len(new) == len(old):
        return [known_keys(one, other) for one, other in zip(new, old, strict=True)]
    return new


def test_kind_of_an_old_finding_is_the_longest_word_of_its_id() -> None:
    """Ids of old findings began with their kind; an id of no kind is about the run."""
    assert kind_of_id("mirror-behind-ghost") is FindingKind.MIRROR_BEHIND
    assert kind_of_id("mirror-n8n") is FindingKind.MIRROR
    assert kind_of_id("verdicts-missing") is FindingKind.VERDICTS_MISSING
    assert kind_of_id("mirrored") is FindingKind.RUN


def test_old_record_loads(old: OldRun, folder: Path) -> None:
    """The chain of an old record is intact, and this version knows each of its kinds and results."""
    record = load(folder)
    assert (record.broken, record.torn) == ("", False)
    assert (record.verdict, record.exit, len(record.changes)) == (old.verdict, old.exit, old.changes)
    assert {one.kind for one in record.changes} <= set(ChangeKind)
    assert {one.result for one in record.changes} <= set(ChangeResult)
    assert {one.undo.result for one in record.changes if one.undo} <= set(UndoResult)
    assert sum(one.undone for one in record.changes) == old.undone
    assert len(record.assertions) == record.planned_tests


def test_altered_line_is_detected(folder: Path) -> None:
    """An altered line breaks the chain (positive control)."""
    path = folder / FILE_NAME
    path.write_bytes(path.read_bytes().replace(b'"seq": 7, "at": "2026', b'"seq": 7, "at": "2027'))
    with pytest.raises(JournalBroken, match="line 8"):
        read(path)
    assert "line 8" in load(folder).broken


def test_old_summary_is_reproduced(folder: Path) -> None:
    """A summary made again from the journal has the same value for every key that the old one has."""
    old = written_summary(folder)
    new = json.loads(json.dumps(summary(load(folder))))
    assert known_keys(new, old) == old


def test_old_record_renders(old: OldRun, folder: Path) -> None:
    """Report, summary and history are written without a problem, and the report names each kind of change."""
    before = written_summary(folder)
    written = render(folder)
    assert written.problems == ()
    assert written.record is not None
    assert status_line(written.record) == old.status_line
    again = written_summary(folder)
    assert known_keys(again, before) == before
    page = (folder / "report.html").read_text(encoding="utf-8")
    assert all(ChangeKind(one.kind).label.replace("'", "&#x27;") in page for one in written.record.changes)
    assert old.name in (folder.parents[1] / "index.html").read_text(encoding="utf-8")


def test_past_run_is_the_same_from_summary_and_journal(folder: Path, tmp_path: Path) -> None:
    """A past run listed from its journal equals the one listed from its summary."""
    (from_summary,) = list_runs(tmp_path)
    (folder / SUMMARY_FILE_NAME).unlink()
    (from_journal,) = list_runs(tmp_path)
    assert replace(from_journal, started=None, finished=None, wall_s=0) == replace(
        from_summary, started=None, finished=None, wall_s=0
    )
    assert from_journal.started is not None
    assert from_summary.started == from_journal.started.replace(microsecond=0)
    assert from_journal.wall_s == pytest.approx(from_summary.wall_s, abs=0.001)


def test_show_prints_an_old_record(old: OldRun, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """``python -m fixtures.journal show`` prints each change and the end."""
    assert command.main(["show", str(folder)]) == 0
    shown = capsys.readouterr().out
    assert all(f"\n#{number}  " in shown for number in range(1, old.changes + 1))
    assert f"end: {old.verdict}, exit {old.exit}" in shown


def test_old_findings_keep_their_issue_markers(old: OldRun, folder: Path) -> None:
    """A finding has the same issue marker as in the version that opened its issue."""
    groups = group_findings(load(folder), severity="info")
    assert tuple((one.id, str(one.severity)) for one in groups) == old.groups
