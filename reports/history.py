"""All runs together: one page over every night, and the rule by which old nights are let go.

The page is made from the runs' summaries alone, so it can be rebuilt at any time (``python -m reports history``).
A run without a summary (it was killed, or its disk was full) is still listed, as what it is.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from fixtures.journal import files
from fixtures.journal.lines import FILE_NAME as JOURNAL
from fixtures.journal.reading import load
from fixtures.journal.run_record import INTERRUPTED, moment
from reports import summary

QUIET = ("converged", "unchanged", "planned")
# What says the same when it says it again the next night; a rollback or an interruption is an event each time.
LASTING = ("drift", "failed", "withheld")
NIGHTLY = ("health", "apply")


@dataclass(frozen=True)
class Night:
    """One run as its summary tells it; `green` maps a recipe to green, red or not asked."""

    folder: Path
    run: str
    site: str
    mode: str
    rehearsal: bool
    started: datetime | None
    wall_s: float
    verdict: str
    exit: int | None
    expected: int
    counts: Mapping[str, int]
    green: Mapping[str, bool | None]
    known_red: frozenset[str]
    changes: tuple[str, ...]
    findings: tuple[tuple[str, str, str], ...]
    planned: int = 0
    finished: datetime | None = field(default=None)

    @property
    def ok(self) -> bool:
        return self.exit == 0


@dataclass(frozen=True)
class Rule:
    """What is kept: everything of the last `days`, the newest `last` runs of each site, and what happened once.

    A run that changed or found something is kept whatever its age, unless `eventful_too`. One that ended as the run
    before it and found nothing that was not found then is no news and keeps nothing, however grave: a finding that
    nobody mends would otherwise fill the disk night by night. Rehearsals are runs like any other unless `rehearsals`
    lets the old ones go with their changes, which were made to a world that is gone.
    """

    days: int = 90
    last: int = 30
    eventful_too: bool = False
    rehearsals: bool = False


def root_of(run_dir: Path) -> Path | None:
    """The folder that holds ``runs/``, ``latest`` and ``index.html``; None for a run that lies elsewhere."""
    folder = run_dir.resolve()
    return folder.parent.parent if folder.parent.name == "runs" else None


def nights(root: Path) -> list[Night]:
    """Every run under ``root/runs``, newest first."""
    folders = [
        folder for folder in (root / "runs").glob("*") if folder.is_dir() and not folder.name.startswith(".")
    ]
    read = [night for folder in folders if (night := _night(folder))]
    return sorted(
        read, key=lambda night: (night.started or datetime.min.replace(tzinfo=UTC), night.run), reverse=True
    )


def write_index(root: Path) -> Path:
    """Write ``index.html`` over all runs."""
    from reports.index_page import index

    path = root / "index.html"
    files.write(path, index(nights(root), root))
    return path


def doomed(every: Sequence[Night], rule: Rule, now: datetime) -> list[Night]:
    """The runs that the rule lets go, oldest last; the caller deletes them."""
    oldest = now - timedelta(days=rule.days)
    by_site: dict[str, int] = {}
    going = []
    for index, night in enumerate(every):
        by_site[night.site] = by_site.get(night.site, 0) + 1
        fresh = night.started is None or night.started >= oldest or by_site[night.site] <= rule.last
        before = next((older for older in every[index + 1 :] if older.site == night.site), None)
        if not fresh and (rule.eventful_too or not _eventful(night, before, rule)):
            going.append(night)
    return going


def prune(root: Path, rule: Rule, now: datetime, *, pretend: bool = False) -> list[Night]:
    """Delete what the rule lets go and rebuild the index; with `pretend` only say what would go."""
    going = doomed(nights(root), rule, now)
    if pretend or not going:
        return going
    for night in going:
        shutil.rmtree(night.folder)
    write_index(root)
    return going


def freshest(root: Path, *, site: str = "") -> Night | None:
    """The newest run that came to its end; of a real site, unless `site` names another one.

    Only a run that looks at everything counts: somebody's ``--plan`` or ``--recover`` is no night.
    """
    for night in nights(root):
        chosen = night.site == site if site else not night.rehearsal
        if chosen and night.mode in NIGHTLY and night.verdict != INTERRUPTED and night.finished:
            return night
    return None


def green_since(every: Iterable[Night], recipe: str) -> datetime | None:
    """Since when the recipe has been green with no red in between; None when it is red or has no verdict.

    `every` is newest first and of one site.
    """
    since = None
    for night in every:
        verdict = night.green.get(recipe)
        if verdict is False:
            break
        if verdict is True:
            since = night.started
    return since


def _eventful(night: Night, before: Night | None, rule: Rule) -> bool:
    lasting = night.verdict in LASTING and before is not None and before.verdict == night.verdict
    if night.verdict not in QUIET and not lasting:
        return True
    known = {one[0] for one in before.findings} if before else set()
    told = any(name not in known for name, _, _ in night.findings)
    changed = bool(night.changes) and not (night.rehearsal and rule.rehearsals)
    return changed or (told and not (night.rehearsal and rule.rehearsals))


def _night(folder: Path) -> Night | None:
    """A run from its summary; from its journal where it has none; None where it has neither."""
    try:
        told = json.loads((folder / summary.FILE_NAME).read_text(encoding="utf-8"))
        return _from(folder, told) if isinstance(told, dict) else None
    except (OSError, ValueError):
        pass
    try:
        return _from(folder, summary.summary(load(folder / JOURNAL)))
    except OSError:
        return None


def _from(folder: Path, told: Mapping[str, Any]) -> Night:
    recipes: Mapping[str, Mapping[str, Any]] = told.get("recipes") or {}
    return Night(
        folder=folder,
        run=str(told.get("run") or folder.name),
        site=str(told.get("site") or "unknown site"),
        mode=str(told.get("mode") or "unknown"),
        rehearsal=bool(told.get("rehearsal")),
        started=moment(told.get("started")),
        wall_s=float(told.get("wall_s") or 0),
        verdict=str(told.get("verdict") or INTERRUPTED),
        exit=told.get("exit"),
        expected=int(told.get("expected") or 0),
        counts={
            name: int(told.get(name) or 0)
            for name in ("mirrored", "covered", "polled")
            if any(answers.get(name) is not None for answers in recipes.values())
        },
        green={name: answers.get("green") for name, answers in recipes.items()},
        known_red=frozenset(name for name, answers in recipes.items() if answers.get("known_red")),
        changes=tuple(f"{one.get('kind')} {one.get('target')}" for one in told.get("changes") or ()),
        findings=tuple(
            (str(one.get("id")), str(one.get("severity")), str(one.get("what")))
            for one in told.get("findings") or ()
        ),
        planned=len(told.get("planned") or ()),
        finished=moment(told.get("finished")),
    )
