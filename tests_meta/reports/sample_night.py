"""How a made-up night is written: a clock that passes when told to, and one method for each thing that happens.

The lines are written by the real journal, so they are chained, synced and shaped as a real run's.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any
from unittest import mock

from fixtures.journal.finding_kinds import FindingKind
from fixtures.journal.writer import Journal

MIDNIGHT = datetime(2026, 6, 2, 0, 13, 0, tzinfo=UTC)
OLD = (
    *(
        "custom-html",
        "custom-html-tiny",
        "keycloak",
        "cryptpad",
        "matrix-synapse",
        "lasuite-docs",
        "lasuite-meet",
    ),
    *("n8n", "hedgedoc", "uptime-kuma"),
)
NEW = (
    *("bluesky-pds", "discourse", "ghost", "immich", "lasuite-drive", "mailu", "mattermost-lts", "mumble"),
    "plausible",
)
ROSTER = tuple(sorted([*OLD, *NEW]))
BIG_ROSTER = tuple(sorted([*ROSTER, *(f"recipe-{number:04d}" for number in range(981))]))
MISSING = ("lasuite-drive", "mailu", "mumble")
PROVEN = {"ghost": False, "immich": False, "mumble": True, "hedgedoc": True}
ORG = "recipe-maintainers"
FORGE = "https://forge.example.org"
DRONE = "https://drone.example.org"
PHASES = ("preflight", "mirrors", "suite", "enrollment", "deploy", "triggers", "resume")
EXITS = {
    "failed": 1,
    "drift": 1,
    "unreachable": 1,
    "planned": 10,
    "rolled-back": 11,
    "rollback-failed": 12,
    "withheld": 13,
}


def sha(seed: str) -> str:
    """A commit hash that is the same in every run."""
    return hashlib.sha1(seed.encode(), usedforsecurity=False).hexdigest()


class Clock:
    """Time that passes when it is told to."""

    def __init__(self, start: datetime) -> None:
        self.start, self.elapsed_s = start, 0.0

    def passes(self, seconds: float) -> None:
        self.elapsed_s += seconds

    def utc(self) -> str:
        at = self.start + timedelta(seconds=self.elapsed_s)
        return at.isoformat(timespec="milliseconds").replace("+00:00", "Z")

    def monotonic(self) -> float:
        return 1000.0 + self.elapsed_s

    @contextmanager
    def installed(self) -> Iterator[None]:
        """The journal's own clock, for the time of the block."""
        with (
            mock.patch("fixtures.journal.writer.utc_now", self.utc),
            mock.patch("fixtures.journal.writer.time", SimpleNamespace(monotonic=self.monotonic)),
        ):
            yield


class Night:
    """Writes one run; every method is one thing that happens in a night."""

    def __init__(self, journal: Journal, clock: Clock, recipes: Sequence[str], mode: str) -> None:
        self.journal, self.clock, self.recipes, self.mode = journal, clock, recipes, mode
        self.counts: dict[str, Any] = {}
        self.began = clock.elapsed_s

    def phase(self, number: int, body: Callable[[], None]) -> None:
        began = self.clock.elapsed_s
        self.counts = {"passed": 0, "failed": 0, "skipped": 0}
        self.journal.write("phase", phase=number, name=PHASES[number], event="start")
        body()
        took = round(self.clock.elapsed_s - began, 3)
        self.journal.write("phase", phase=number, name=PHASES[number], event="end", **self.counts, wall_s=took)

    def assertion(
        self,
        phase: int,
        test: str,
        title: str,
        *,
        recipe: str | None = None,
        outcome: str = "passed",
        **said: Any,
    ) -> None:
        self.counts[outcome] += 1
        self.clock.passes(0.02)
        name = f"phases/test_{phase}_{PHASES[phase]}.py::test_{test}" + (f"[{recipe}]" if recipe else "")
        told = {"what": title, "expected": "", "seen": "", "check": "", "message": "", "where": "", **said}
        self.journal.write(
            "assertion",
            nodeid=name,
            phase=phase,
            recipe=recipe,
            title=title,
            outcome=outcome,
            duration_s=0.02,
            **told,
        )

    def change(
        self,
        kind: str,
        target: str,
        *,
        before: Any,
        after: Any,
        by_hand: str,
        took_s: float,
        evidence: Any = None,
    ) -> None:
        with self.journal.change(kind, target, before=before, after=after, undo={}, by_hand=by_hand) as pending:
            self.clock.passes(took_s)
            pending.done(after=after, evidence=evidence)

    def wait(
        self, what: str, seconds: float, limit_s: float, *, result: str = "reached", last_seen: str = ""
    ) -> None:
        self.clock.passes(seconds)
        self.journal.write(
            "wait", what=what, seconds=seconds, limit_s=limit_s, result=result, last_seen=last_seen
        )

    def finding(
        self,
        name: str,
        kind: FindingKind,
        severity: str,
        what: str,
        *,
        where: str = "",
        do: str = "",
        recipe: str | None = None,
    ) -> None:
        self.journal.write(
            "finding", id=name, kind=kind, severity=severity, what=what, where=where, do=do, recipe=recipe
        )

    def end(self, verdict: str, *, stopped_by: str = "") -> None:
        spent = round(self.clock.elapsed_s - self.began, 3)
        self.journal.write(
            "request-counts",
            forge=2 * len(self.recipes) + 9,
            upstream=len(self.recipes),
            drone=4,
            host_sessions=2,
            host_connections=1,
        )
        exit_code = 2 if stopped_by else EXITS.get(verdict, 0)
        self.journal.write("end", exit=exit_code, verdict=verdict, wall_s=spent, stopped_by=stopped_by)


def roll(
    recipes: Sequence[str], *, wanting: Mapping[str, Sequence[str]], proven: Mapping[str, bool] | None = None
) -> dict[str, Any]:
    """A muster roll in which `wanting` names, for each column, who lacks it."""
    rows: dict[str, Any] = {}
    for recipe in recipes:
        head = sha(f"main {recipe}")
        lacks = {column for column, names in wanting.items() if recipe in names}
        mirrored: dict[str, Any] = {"ok": "mirrored" not in lacks, "evidence": {"answer": "404"}}
        if mirrored["ok"]:
            mirrored["evidence"] = {
                "repository": f"{ORG}/{recipe}",
                "repository_url": f"{FORGE}/{ORG}/{recipe}",
                "main": head,
                "upstream main": head,
            }
        covered_by = {
            "folder": f"tests/{recipe}/",
            "commit": sha("cc-ci"),
            "files": "recipe_meta.py, functional/, PARITY.md",
        }
        polled_by = {"task": "2y4celpytdav3qax56jszaokv", "line": f"bridge: watching {ORG}/{recipe}"}
        rows[recipe] = {
            "mirrored": mirrored,
            "covered": {
                "ok": "covered" not in lacks,
                "evidence": covered_by if "covered" not in lacks else {"folder": "missing"},
            },
            "polled": {
                "ok": "polled" not in lacks,
                "evidence": polled_by if "polled" not in lacks else {"POLL_REPOS": "not in it"},
            },
            "triggerable": {"ok": None, "evidence": {}},
            "green": {"ok": None, "evidence": {}, "since": None},
        }
        if proven and recipe in proven:
            rows[recipe]["triggerable"] = {
                "ok": True,
                "evidence": {"comment": "13902", "answered after": "16 s"},
            }
            since = "2026-05-28T10:14:00Z" if proven[recipe] else None
            rows[recipe]["green"] = {
                "ok": proven[recipe],
                "evidence": {"status": "cc-ci/testme"},
                "since": since,
            }
    return rows


def header(night: Night, run: str, *, rehearsal: bool, planned_tests: int) -> None:
    option = [] if night.mode == "apply" else [f"--{night.mode}"]
    night.journal.write(
        "run",
        durable=True,
        run=run,
        site="rehearsal" if rehearsal else "autonomic",
        mode=night.mode,
        rehearsal=rehearsal,
        version="0.1.0",
        target="7f3c9a51e2d84b60" if rehearsal else "0b8d5f2a61c3947e",
        user="operator",
        machine="ops.example.org",
        command=" ".join(["pytest phases/", *([] if rehearsal else ["--site site.toml"]), *option]),
        commit=sha("muster"),
        roster_digest=hashlib.sha256(b"roster").hexdigest(),
        site_digest=hashlib.sha256(b"site").hexdigest(),
        parts={"forge": "Gitea 1.24.2", "ci": "Drone 2.26", "ssh": "OpenSSH 9.2p1", "nix": "nix 2.8.0"},
        roster=list(night.recipes),
        newly_enrolled=[name for name in night.recipes if name in NEW],
        known_red={
            "ghost": {"reason": "backup restore: ci_marker table missing", "until": "2026-07-15"},
            "plausible": {"reason": "ClickHouse needs a newer image", "until": "2026-07-01"},
        },
        pace=0.1 if rehearsal else 1.0,
        fault=[],
        planned_tests=planned_tests,
        urls={"forge": FORGE, "drone": DRONE},
    )
