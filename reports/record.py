"""One run as a value: what `reports.reading` makes of a journal, and all that any page or summary is made from.

Every field may be empty or None: a run that was killed, a run of an older version and a damaged journal are read
too, and whoever shows a record says what is missing instead of guessing it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from fixtures.journal import FILE_NAME

COLUMNS = ("mirrored", "covered", "polled", "triggerable", "green")
PHASES = {0: "preflight", 1: "mirrors", 2: "suite", 3: "enrollment", 4: "deploy", 5: "triggers", 6: "resume"}
SEVERITIES = ("action", "warning", "info")
INTERRUPTED = "interrupted"


@dataclass(frozen=True)
class Phase:
    """One phase; `ended` is None when the run stopped inside it. Counts are of tests, times in seconds."""

    number: int
    name: str
    started: datetime | None
    ended: datetime | None
    passed: int
    failed: int
    skipped: int
    wall_s: float


@dataclass(frozen=True)
class Assertion:
    """One test's outcome, as a sentence with what was expected, what was seen and how to look again."""

    nodeid: str
    phase: int | None
    recipe: str | None
    title: str
    outcome: str
    what: str
    expected: str
    seen: str
    check: str
    message: str
    duration_s: float
    where: str

    @property
    def test(self) -> str:
        """The test without its parameter: ``phases/test_1_mirrors.py::test_mirrored``."""
        return self.nodeid.partition("[")[0]

    @property
    def drifted(self) -> bool:
        """Whether a health check failed here over what a run would mend; the word is `fixtures.expectation`'s."""
        return self.message.startswith("drift: ")


@dataclass(frozen=True)
class Undo:
    """What became of taking one change back: undone, refused, failed or not-needed."""

    result: str
    why: str
    at: datetime | None


@dataclass(frozen=True)
class RecordedChange:
    """One write to the outside; `state` is done, failed, unknown, open, or the undo's result."""

    id: int
    kind: str
    target: str
    before: Any
    after: Any
    evidence: Any
    by_hand: str
    at: datetime | None
    settled: datetime | None
    result: str
    error: str
    undo: Undo | None

    @property
    def undone(self) -> bool:
        return self.undo is not None and self.undo.result == "undone"

    @property
    def state(self) -> str:
        return self.undo.result if self.undo and self.undo.result != "not-needed" else self.result

    @property
    def stands(self) -> bool:
        """Whether the outside still shows this change, as far as the record knows."""
        return self.result != "failed" and not self.undone


@dataclass(frozen=True)
class Planned:
    """One change that a read-only run would have made; `certainty` is how sure that is, in the run's own word."""

    kind: str
    target: str
    before: Any
    after: Any
    why: str
    certainty: str


@dataclass(frozen=True)
class Wait:
    what: str
    started: datetime | None
    seconds: float
    limit_s: float | None
    result: str
    last_seen: str


@dataclass(frozen=True)
class Finding:
    """Something a person must look at; `severity` is action (worst), warning or info."""

    id: str
    severity: str
    what: str
    where: str
    do: str
    recipe: str | None


@dataclass(frozen=True)
class Verdict:
    """One ``!testme`` outcome, tied to the comment that asked for it."""

    recipe: str
    triggerable: bool | None
    reported: bool | None
    green: bool | None
    verdict_at: datetime | None
    build: int | None
    build_url: str
    comment_url: str
    head: str
    suite_commit: str
    tests: tuple[tuple[str, str], ...]
    known_red: bool
    why: str


@dataclass(frozen=True)
class Standing:
    """Where a recipe's newest verdict stands: its class (`fixtures.standing`), that in words, and since when.

    `age_s` is the verdict's age by the run's own clock, `about` what its head was then; empty without a verdict.
    """

    recipe: str
    kind: str
    words: str
    since: datetime | None
    at: datetime | None
    age_s: float | None
    head: str
    about: str
    build: int | None
    build_url: str
    suite_commit: str
    tests: tuple[tuple[str, str], ...]
    why: str
    sign: str

    def ran(self, outcome: str) -> int:
        return sum(status == outcome for _, status in self.tests)


@dataclass(frozen=True)
class Cell:
    """One answer of the muster roll: yes, no, or not asked (None), with what proves it."""

    ok: bool | None
    evidence: Mapping[str, str]
    since: str = ""


@dataclass(frozen=True)
class RollRow:
    """One recipe's five answers, at the end and (where the record has it) before the first write."""

    recipe: str
    cells: Mapping[str, Cell]
    baseline: Mapping[str, Cell]
    known_red: Mapping[str, str] | None
    newly_enrolled: bool
    standing: Standing | None = None


@dataclass(frozen=True)
class RunRecord:
    """The whole night. `exit` and `finished` are None when the run was interrupted.

    `last_seen` is the time of the last line that the run wrote itself, `wall_s` the time up to there; `settled_by` is
    the later run that dealt with what this one left.
    """

    run: str
    site: str
    mode: str
    rehearsal: bool
    version: str
    parts: Mapping[str, str]
    pace: float | None
    fault: tuple[str, ...]
    roster: tuple[str, ...]
    planned_tests: int | None
    urls: Mapping[str, str]
    started: datetime | None
    finished: datetime | None
    last_seen: datetime | None
    wall_s: float
    exit: int | None
    verdict: str
    settled_by: str
    phases: tuple[Phase, ...]
    assertions: tuple[Assertion, ...]
    changes: tuple[RecordedChange, ...]
    planned: tuple[Planned, ...]
    waits: tuple[Wait, ...]
    findings: tuple[Finding, ...]
    verdicts: tuple[Verdict, ...]
    roll: tuple[RollRow, ...]
    has_final_roll: bool
    generations: tuple[Mapping[str, Any], Mapping[str, Any]] | None
    diffs: tuple[tuple[str, str], ...]
    notes: tuple[str, ...]
    requests: Mapping[str, int]
    regressions: tuple[tuple[str, str | None], ...]
    undo_began: datetime | None
    lines: int
    torn: bool
    broken: str = ""
    journal_head: str = ""
    path: Path = field(default=Path(FILE_NAME), compare=False)

    @property
    def interrupted(self) -> bool:
        return self.verdict == INTERRUPTED

    @property
    def expected(self) -> int:
        return len(self.roster)

    def asked(self, column: str) -> bool:
        """Whether anybody looked at all: a column of nothing but unasked answers is not a zero."""
        return any(row.cells[column].ok is not None for row in self.roll)

    def count(self, column: str) -> int:
        """How many recipes of the roster have a yes in this column of the roll."""
        return sum(1 for row in self.roll if row.cells[column].ok is True)


def moment(value: object) -> datetime | None:
    """A journal's time as an aware UTC datetime, or None where it is missing or unreadable."""
    if not isinstance(value, str) or not value:
        return None
    try:
        read = datetime.fromisoformat(value.replace("Z", "+00:00"))
    except ValueError:
        return None
    return read.astimezone(UTC) if read.tzinfo else read.replace(tzinfo=UTC)


def stamp(at: datetime | None) -> str:
    """``2026-06-02T00:13:00Z``, or nothing."""
    return at.strftime("%Y-%m-%dT%H:%M:%SZ") if at else ""
