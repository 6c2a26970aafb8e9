"""A run in numbers, for machines: ``summary.json``, schema 1, published beside this file as JSON Schema.

The schema is a promise to whoever reads these files by program: keys are added, never renamed or removed, until
the number changes.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import Any

from fixtures.journal.lines import SUMMARY_FILE_NAME as FILE_NAME
from fixtures.journal.run_record import (
    COLUMNS,
    LatestVerdict,
    RecordedChange,
    RollRow,
    RunRecord,
    Verdict,
    moment,
    stamp,
)
from fixtures.journal.to_do import tasks

SCHEMA = 1
__all__ = ["FILE_NAME", "SCHEMA", "schema", "summary", "text"]


def summary(record: RunRecord) -> dict[str, Any]:
    """The run as plain data that fits `schema`."""
    latest = {verdict.recipe: verdict for verdict in record.verdicts}
    return {
        "schema": SCHEMA,
        "run": record.run,
        "site": record.site,
        "mode": record.mode,
        "rehearsal": record.rehearsal,
        "version": record.version,
        "target": record.target,
        "origin": asdict(record.origin),
        "started": stamp(record.started) or None,
        "finished": stamp(record.finished) or None,
        "wall_s": round(record.wall_s, 3),
        "exit": record.exit,
        "verdict": record.verdict,
        "scope": {
            "whole": record.scope.whole,
            "words": record.scope.words,
            "complete": list(record.scope.complete),
            "left_out": record.scope.left_out,
            "first": list(record.scope.first),
        },
        "intact": not record.broken,
        "expected": record.expected,
        "mirrored": record.count("mirrored"),
        "covered": record.count("covered"),
        "polled": record.count("polled"),
        "triggered": [row.recipe for row in record.roll if row.cells["triggerable"].ok is True],
        "green": [row.recipe for row in record.roll if row.cells["green"].ok is True],
        "recipes": {row.recipe: _recipe(row, latest.get(row.recipe)) for row in record.roll},
        "verdicts": {row.recipe: _latest_verdict(row.latest) for row in record.roll if row.latest},
        "changes": [_change(change) for change in record.changes],
        "settled": [
            {
                "run": one.run,
                "why": one.why,
                "complete": one.complete,
                "changes": [asdict(change) for change in one.changes],
            }
            for one in record.settled
        ],
        "settled_by": record.settled_by or None,
        "stopped_by": record.stopped_by or None,
        "not_looked_at": [column for column in COLUMNS if not record.asked(column)],
        "to_do": [{**asdict(one), "consequences": list(one.consequences)} for one in tasks(record)],
        "findings": [asdict(one) for one in record.findings],
        "planned": [asdict(one) for one in record.planned],
        "regressions": [{"what": what, "recipe": recipe} for what, recipe in record.regressions],
        "generations": {"before": dict(record.generations[0]), "after": dict(record.generations[1])}
        if record.generations
        else None,
        "requests": dict(record.requests),
        "phases": [
            {
                "phase": phase.number,
                "name": phase.name,
                "passed": phase.passed,
                "failed": phase.failed,
                "skipped": phase.skipped,
                "wall_s": round(phase.wall_s, 3),
                "ended": phase.ended is not None,
            }
            for phase in record.phases
        ],
    }


def text(record: RunRecord) -> str:
    """The file's text."""
    return json.dumps(summary(record), ensure_ascii=False, indent=1) + "\n"


@cache
def schema() -> dict[str, Any]:
    """The published JSON Schema."""
    loaded: dict[str, Any] = json.loads(
        Path(__file__).with_name("summary.schema.json").read_text(encoding="utf-8")
    )
    return loaded


def _recipe(row: RollRow, verdict: Verdict | None) -> dict[str, Any]:
    answers: dict[str, Any] = {column: cell.ok for column, cell in row.cells.items()}
    return {
        **answers,
        "verdict_at": stamp(verdict.verdict_at if verdict else moment(row.cells["green"].since)) or None,
        "build": verdict.build if verdict else None,
        "green_since": row.cells["green"].since or None,
        "known_red": dict(row.known_red) if row.known_red else None,
        "newly_enrolled": row.newly_enrolled,
    }


def _latest_verdict(one: LatestVerdict) -> dict[str, Any]:
    return {
        "class": one.kind,
        "since": stamp(one.since) or None,
        "at": stamp(one.at) or None,
        "age_s": one.age_s,
        "head": one.head or None,
        "about": one.about or None,
        "build": one.build,
        "build_url": one.build_url or None,
        "suite_commit": one.suite_commit or None,
        "tests": {outcome: one.ran(outcome) for outcome in ("passed", "failed", "skipped")},
        "environmental": one.sign or None,
        "why": one.why or None,
    }


def _change(change: RecordedChange) -> dict[str, Any]:
    return {
        "id": change.id,
        "kind": change.kind,
        "target": change.target,
        "before": change.before,
        "after": change.after,
        "at": stamp(change.at) or None,
        "result": change.result,
        "undone": change.undone,
        "undo": change.undo.result if change.undo else None,
        "by_hand": change.by_hand,
    }
