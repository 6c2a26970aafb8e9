"""A journal read back into a `RunRecord`: everything it says, and nothing from anywhere else.

A run that was killed has no ``end`` line, a run of an older version lacks line types, a power cut tears the
last line. The morning after is exactly when somebody wants to read such a record, so nothing here insists on a
complete one: what is missing stays None or empty, and `RunRecord.interrupted` says that the run never ended.
A journal that does not chain is read as far as its lines can be parsed and `RunRecord.broken` says so loudly.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from fixtures import journal
from fixtures.journal import FILE_NAME, JournalBroken, Line, Record
from reports.record import (
    COLUMNS,
    INTERRUPTED,
    PHASES,
    SEVERITIES,
    Assertion,
    Cell,
    Finding,
    Phase,
    Planned,
    RecordedChange,
    RollRow,
    RunRecord,
    Standing,
    Undo,
    Verdict,
    Wait,
    moment,
    stamp,
)


def load(run: Path, clean: Callable[[Any], Any] | None = None) -> RunRecord:
    """The record of a run, from its folder or from its journal file.

    `clean` is applied to every line before anything is made of it: that is where secrets are taken out.
    """
    path = run / FILE_NAME if run.is_dir() else run
    try:
        record, broken = journal.read(path), ""
    except JournalBroken as damage:
        record, broken = _read_what_parses(path), damage.message
    if clean:
        record = Record(record.path, tuple(clean(line) for line in record.lines), record.torn)
    return fold(record, broken=broken)


def _read_what_parses(path: Path) -> Record:
    """Every line of a damaged journal that is a JSON object with a type; only for showing it to a person."""
    lines = []
    for piece in path.read_bytes().split(b"\n"):
        try:
            line = json.loads(piece)
        except ValueError:
            continue
        if isinstance(line, dict) and isinstance(line.get("type"), str):
            lines.append(line)
    return Record(path, tuple(lines), torn=False)


def fold(record: Record, *, broken: str = "") -> RunRecord:
    """The value of a journal that was read; `broken` says what is wrong with its chain."""
    run = next(iter(record.of("run")), {})
    end = next(iter(reversed(record.of("end"))), None)
    times = [at for line in _own(record.lines) if (at := moment(line.get("at")))]
    assertions = tuple(map(_assertion, record.of("assertion")))
    verdicts = tuple(map(_verdict, record.of("verdict")))
    known_red = _map(run.get("known_red"))
    roll, has_final = _roll(record, run, verdicts, known_red)
    started, last = (times[0], times[-1]) if times else (None, None)
    spent = (last - started).total_seconds() if started and last else 0.0
    return RunRecord(
        run=_text(run.get("run")) or record.path.parent.name,
        site=_text(run.get("site")) or "unknown site",
        mode=_text(run.get("mode")) or "unknown",
        rehearsal=bool(run.get("rehearsal")),
        version=_text(run.get("version")),
        parts=_texts(run.get("parts")),
        pace=_number(run.get("pace")),
        fault=tuple(_text(name) for name in _list(run.get("fault"))),
        roster=tuple(_text(name) for name in _list(run.get("roster"))) or tuple(row.recipe for row in roll),
        planned_tests=_whole(run.get("planned_tests")),
        urls=_texts(run.get("urls")),
        started=started,
        finished=moment(end.get("at")) if end else None,
        last_seen=last,
        wall_s=_number(end.get("wall_s")) or spent if end else spent,
        exit=_whole(end.get("exit")) if end else None,
        verdict=_text(end.get("verdict")) if end else INTERRUPTED,
        settled_by=_text(end.get("settled_by")) if end else "",
        phases=_phases(record, assertions, last),
        assertions=assertions,
        changes=_changes(record),
        planned=tuple(map(_planned, record.of("planned"))),
        waits=tuple(map(_wait, record.of("wait"))),
        findings=_findings(record),
        verdicts=verdicts,
        roll=roll,
        has_final_roll=has_final,
        generations=_generations(record),
        diffs=tuple((_text(line.get("target")), _text(line.get("text"))) for line in record.of("diff")),
        notes=tuple(_text(line.get("text")) for line in record.of("note")),
        requests=_requests(record),
        regressions=tuple(
            (_text(line.get("what")), _text(line.get("recipe")) or None) for line in record.of("regression")
        ),
        undo_began=_undo_began(record),
        lines=len(record.lines),
        torn=record.torn,
        broken=broken,
        journal_head=_text(record.lines[-1].get("hash")) if record.lines else "",
        path=record.path,
    )


def _own(lines: Sequence[Line]) -> Sequence[Line]:
    """The lines that the run wrote itself: whoever settles it later begins its time, ``t``, anew."""
    before = 0.0
    for place, line in enumerate(lines):
        spent = _number(line.get("t"))
        if spent is not None and spent < before:
            return lines[:place]
        before = before if spent is None else spent
    return lines


def _phases(record: Record, assertions: tuple[Assertion, ...], last: datetime | None) -> tuple[Phase, ...]:
    starts: dict[int, Mapping[str, Any]] = {}
    ends: dict[int, Mapping[str, Any]] = {}
    for line in record.of("phase"):
        number = _whole(line.get("phase"))
        if number is not None:
            (starts if line.get("event") == "start" else ends)[number] = line
    numbers = sorted({*starts, *ends, *(one.phase for one in assertions if one.phase is not None)})
    return tuple(_phase(number, starts.get(number), ends.get(number), assertions, last) for number in numbers)


def _phase(
    number: int,
    start: Mapping[str, Any] | None,
    end: Mapping[str, Any] | None,
    assertions: tuple[Assertion, ...],
    last: datetime | None,
) -> Phase:
    """A phase that never ended is counted from its assertions and measured up to the last line there is."""
    told = end or {}

    def count(outcome: str) -> int:
        said = _whole(told.get(outcome))
        return said if said is not None else sum(a.phase == number and a.outcome == outcome for a in assertions)

    began, ended = moment((start or {}).get("at")), moment(told.get("at"))
    until = ended or last
    wall_s = _number(told.get("wall_s"))
    if wall_s is None:
        wall_s = (until - began).total_seconds() if began and until else 0.0
    name = _text(told.get("name")) or _text((start or {}).get("name")) or PHASES.get(number, f"phase {number}")
    return Phase(number, name, began, ended, count("passed"), count("failed"), count("skipped"), wall_s)


def _changes(record: Record) -> tuple[RecordedChange, ...]:
    outcomes = {_text(line.get("change")): line for line in record.of("outcome")}
    undos = {_text(line.get("change")): line for line in record.of("undo")}
    changes = []
    for intent in record.of("intent"):
        outcome = outcomes.get(_text(intent.get("change")), {})
        undo = undos.get(_text(intent.get("change")))
        changes.append(
            RecordedChange(
                id=_whole(intent.get("change")) or 0,
                kind=_text(intent.get("kind")),
                target=_text(intent.get("target")),
                before=intent.get("before"),
                after=outcome.get("after", intent.get("after")),
                evidence=outcome.get("evidence"),
                by_hand=_text(intent.get("by_hand")),
                at=moment(intent.get("at")),
                settled=moment(outcome.get("at")),
                result=_text(outcome.get("result")) or "open",
                error=_text(outcome.get("error")),
                undo=Undo(_text(undo.get("result")), _text(undo.get("why")), moment(undo.get("at")))
                if undo
                else None,
            )
        )
    return tuple(changes)


def _roll(
    record: Record, run: Mapping[str, Any], verdicts: tuple[Verdict, ...], known_red: Mapping[str, Any]
) -> tuple[tuple[RollRow, ...], bool]:
    rolls = {_text(line.get("moment")): _map(line.get("recipes")) for line in record.of("roll")}
    before, final = rolls.get("baseline", {}), rolls.get("final")
    shown = final if final is not None else before
    latest = {verdict.recipe: verdict for verdict in verdicts}
    stands = _standings(record)
    names = [_text(name) for name in _list(run.get("roster"))]
    names += sorted(name for name in shown if name not in set(names))
    fresh = {_text(name) for name in _list(run.get("newly_enrolled"))}
    rows = [
        RollRow(
            recipe=name,
            cells=_with_verdict(_cells(shown.get(name)), latest.get(name)),
            baseline=_cells(before.get(name)),
            known_red=_texts(known_red.get(name)) if name in known_red else None,
            newly_enrolled=name in fresh,
            standing=stands.get(name),
        )
        for name in names
    ]
    return tuple(rows), final is not None


def _standings(record: Record) -> dict[str, Standing]:
    """Every recipe's standing as the run last wrote it down; nothing for a run that never came to it."""
    line = next(iter(reversed(record.of("verdicts"))), {})
    return {name: _standing(name, _map(told)) for name, told in _map(line.get("recipes")).items()}


def _standing(recipe: str, told: Mapping[str, Any]) -> Standing:
    rows = [row for row in _list(told.get("tests")) if isinstance(row, list) and len(row) == 2]
    return Standing(
        recipe=recipe,
        kind=_text(told.get("class")),
        words=_text(told.get("words")),
        since=moment(told.get("since")),
        at=moment(told.get("at")),
        age_s=_number(told.get("age_s")),
        head=_text(told.get("head")),
        about=_text(told.get("about")),
        build=_whole(told.get("build")),
        build_url=_text(told.get("build_url")),
        suite_commit=_text(told.get("suite_commit")),
        tests=tuple((_text(name), _text(status)) for name, status in rows),
        why=_text(told.get("why")),
        sign=_text(told.get("sign")),
    )


def _undo_began(record: Record) -> datetime | None:
    """When the session's own undo began: with the last phase's end, if an undo came after it.

    Scratch objects are taken away inside their phase; that is no undo of the session.
    """
    places = [index for index, line in enumerate(record.lines) if line["type"] == "phase"]
    if not places or not any(line["type"] == "undo" for line in record.lines[places[-1] :]):
        return None
    return moment(record.lines[places[-1]].get("at"))


def _cells(answers: object) -> dict[str, Cell]:
    given = _map(answers)
    return {column: _cell(_map(given.get(column))) for column in COLUMNS}


def _cell(answer: Mapping[str, Any]) -> Cell:
    ok = answer.get("ok")
    loose = {key: value for key, value in answer.items() if key not in ("ok", "evidence", "since")}
    evidence = {**_texts(answer.get("evidence")), **_texts(loose)}
    since = stamp(moment(answer.get("since"))) or _text(answer.get("since"))
    return Cell(ok if isinstance(ok, bool) else None, evidence, since)


def _with_verdict(cells: dict[str, Cell], verdict: Verdict | None) -> dict[str, Cell]:
    """A verdict of this run fills what the roll leaves open, and adds where it can be looked at."""
    if verdict is None:
        return cells
    at = stamp(verdict.verdict_at)
    build = str(verdict.build) if verdict.build is not None else ""
    built = {"build": build, "build_url": verdict.build_url}
    asked = {**built, "comment_url": verdict.comment_url, "why": "" if verdict.triggerable else verdict.why}
    told = {**built, "why": verdict.why, "at": at, "head": verdict.head, "suite_commit": verdict.suite_commit}
    if verdict.tests:
        told["tests"] = ", ".join(f"{name} {status}" for name, status in verdict.tests)
    merged = dict(cells)
    for column, ok, facts in (("triggerable", verdict.triggerable, asked), ("green", verdict.green, told)):
        cell = cells[column]
        extra = {key: value for key, value in facts.items() if value and key not in cell.evidence}
        merged[column] = Cell(ok if cell.ok is None else cell.ok, {**cell.evidence, **extra}, cell.since)
    return merged


def _findings(record: Record) -> tuple[Finding, ...]:
    found = [
        Finding(
            id=_text(line.get("id")),
            severity=_text(line.get("severity")) if _text(line.get("severity")) in SEVERITIES else "warning",
            what=_text(line.get("what")),
            where=_text(line.get("where")),
            do=_text(line.get("do")),
            recipe=_text(line.get("recipe")) or None,
        )
        for line in record.of("finding")
    ]
    return tuple(sorted(found, key=lambda one: SEVERITIES.index(one.severity)))


def _assertion(line: Mapping[str, Any]) -> Assertion:
    recipe = line.get("recipe")
    return Assertion(
        nodeid=_text(line.get("nodeid")),
        phase=_whole(line.get("phase")),
        recipe=_text(recipe) if recipe else None,
        title=_text(line.get("title")),
        outcome=_text(line.get("outcome")),
        what=_text(line.get("what")),
        expected=_text(line.get("expected")),
        seen=_text(line.get("seen")),
        check=_text(line.get("check")),
        message=_text(line.get("message")),
        duration_s=_number(line.get("duration_s")) or 0.0,
        where=_text(line.get("where")),
    )


def _verdict(line: Mapping[str, Any]) -> Verdict:
    tests = tuple(
        (_text(_map(one).get("name")), _text(_map(one).get("status"))) for one in _list(line.get("tests"))
    )
    return Verdict(
        recipe=_text(line.get("recipe")),
        triggerable=_bool(line.get("triggerable")),
        reported=_bool(line.get("reported")),
        green=_bool(line.get("green")),
        verdict_at=moment(line.get("verdict_at")),
        build=_whole(line.get("build")),
        build_url=_text(line.get("build_url")),
        comment_url=_text(line.get("comment_url")),
        head=_text(line.get("head")),
        suite_commit=_text(line.get("suite_commit")),
        tests=tests,
        known_red=bool(line.get("known_red")),
        why=_text(line.get("why")),
    )


def _wait(line: Mapping[str, Any]) -> Wait:
    seconds = _number(line.get("seconds")) or 0.0
    at = moment(line.get("at"))
    started = datetime.fromtimestamp(at.timestamp() - seconds, UTC) if at else None
    return Wait(
        _text(line.get("what")),
        started,
        seconds,
        _number(line.get("limit_s")),
        _text(line.get("result")),
        _text(line.get("last_seen")),
    )


def _planned(line: Mapping[str, Any]) -> Planned:
    return Planned(
        kind=_text(line.get("kind")),
        target=_text(line.get("target")),
        before=line.get("before"),
        after=line.get("after"),
        why=_text(line.get("why")) or _text(line.get("detail")),
        certainty=_text(line.get("certainty")),
    )


def _generations(record: Record) -> tuple[Mapping[str, Any], Mapping[str, Any]] | None:
    line = next(iter(reversed(record.of("generations"))), None)
    return (_map(line.get("before")), _map(line.get("after"))) if line else None


def _requests(record: Record) -> dict[str, int]:
    line = next(iter(reversed(record.of("request-counts"))), {})
    kept = ("seq", "at", "t", "type", "prev", "hash")
    return {key: value for key, value in line.items() if key not in kept and isinstance(value, int)}


def _text(value: object) -> str:
    return "" if value is None else value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _map(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _list(value: object) -> Iterable[Any]:
    return value if isinstance(value, list) else ()


def _texts(value: object, as_text: Callable[[object], str] = _text) -> dict[str, str]:
    return {str(key): as_text(one) for key, one in _map(value).items() if one is not None}


def _bool(value: object) -> bool | None:
    return value if isinstance(value, bool) else None


def _whole(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _number(value: object) -> float | None:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None
