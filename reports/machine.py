"""What machines read of a run: one line on stdout, a Prometheus textfile, a ping when it is over.

"Did not run" cannot be sent by what did not run. It shows by absence: the ping's receiver alarms when none came,
the metric ``muster_last_run_timestamp_seconds`` grows old, and ``python -m reports freshness`` exits 1.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path

import httpx

from fixtures.config.secret import Secret
from fixtures.errors import Unreachable
from fixtures.journal import files
from fixtures.journal.run_record import COLUMNS, RunRecord
from reports import summary
from reports.sections.todo import tasks
from reports.words import plural, span

PING_TIMEOUT_S = 10.0
_GOOD = (0,)


def status_line(record: RunRecord) -> str:
    """``muster: OK 19/19 mirrored, covered and polled; …`` in the manner of a monitoring check's one line.

    The first word is OK, PENDING, WITHHELD, ROLLED-BACK, FAILED, BROKEN or INTERRUPTED; a rehearsal says so.
    """
    total = record.expected
    least = min((record.count(column) for column in ("mirrored", "covered", "polled")), default=0)
    greens, reds = record.count("green"), sum(row.cells["green"].ok is False for row in record.roll)
    acts = sum(task.severity == "action" for task in tasks(record))
    parts = [f"{least}/{total} mirrored, covered and polled", f"{record.count('triggerable')} triggered"]
    parts.append(f"{greens} green" + (f", {reds} red" if reds else ""))
    pending = len(record.planned)
    parts.append(
        f"{plural(pending, 'change')} pending" if record.mode == "plan" else plural(len(record.changes), "change")
    )
    if acts:
        parts.append(f"{acts} to do")
    where = "REHEARSAL" if record.rehearsal else record.site
    return f"muster: {_status(record)} {'; '.join(parts)}; {where}, {record.verdict}, {span(record.wall_s)}"


def _status(record: RunRecord) -> str:
    words = {
        "converged": "OK",
        "unchanged": "OK",
        "planned": "PENDING" if record.exit else "OK",
        "withheld": "WITHHELD",
        "rolled-back": "ROLLED-BACK",
        "rollback-failed": "BROKEN",
        "interrupted": "INTERRUPTED",
    }
    word = words.get(record.verdict, "FAILED")
    return "FAILED" if word == "OK" and record.exit not in _GOOD else word


def write_textfile(path: Path, record: RunRecord) -> None:
    """The run as a Prometheus textfile (for node_exporter's textfile collector), written atomically.

    Raises OSError when it cannot be written; the caller decides what that costs.
    """
    files.write(path, metrics(record))


def metrics(record: RunRecord) -> str:
    """The text of the Prometheus textfile."""
    site = {"site": record.site, "mode": record.mode, "rehearsal": str(record.rehearsal).lower()}
    told = summary.summary(record)
    when = record.finished or record.last_seen
    lines = [
        *_metric(
            "muster_last_run_timestamp_seconds",
            "When the run ended, or was last heard of.",
            [(site, when.timestamp() if when else 0)],
        ),
        *_metric("muster_last_run_success", "1 when the run exited 0.", [(site, int(record.exit in _GOOD))]),
        *_metric(
            "muster_exit_code",
            "The run's exit code; -1 when it was interrupted.",
            [(site, -1 if record.exit is None else record.exit)],
        ),
        *_metric("muster_duration_seconds", "How long the run took.", [(site, round(record.wall_s, 3))]),
        *_metric("muster_recipes_expected", "Recipes in the roster.", [(site, record.expected)]),
        *_metric(
            "muster_recipes",
            "Recipes with a yes, by column of the roll.",
            [({**site, "column": c}, record.count(c)) for c in COLUMNS],
        ),
        *_metric("muster_changes", "Changes made, by what became of them.", _by_result(site, told["changes"])),
        *_metric(
            "muster_findings",
            "Findings, by severity.",
            [
                ({**site, "severity": s}, sum(one.severity == s for one in record.findings))
                for s in ("action", "warning", "info")
            ],
        ),
        *_metric(
            "muster_recipe_green",
            "1 green, 0 red; absent without a verdict.",
            [
                ({**site, "recipe": row.recipe}, int(ok))
                for row in record.roll
                if (ok := row.cells["green"].ok) is not None
            ],
        ),
    ]
    return "\n".join(lines) + "\n"


def _by_result(site: dict[str, str], changes: Iterable[dict[str, object]]) -> list[tuple[dict[str, str], float]]:
    listed = list(changes)
    undone = sum(bool(change["undone"]) for change in listed)
    return [({**site, "result": "standing"}, len(listed) - undone), ({**site, "result": "undone"}, undone)]


def _metric(name: str, meaning: str, samples: list[tuple[dict[str, str], float]]) -> list[str]:
    """One gauge in the text exposition format (prometheus.io/docs/instrumenting/exposition_formats)."""
    lines = [f"# HELP {name} {meaning}", f"# TYPE {name} gauge"]
    for labels, value in samples:
        pairs = ",".join(f'{key}="{_label(one)}"' for key, one in labels.items())
        lines.append(f"{name}{{{pairs}}} {value:g}" if value < 1e6 else f"{name}{{{pairs}}} {value:.3f}")
    return lines if samples else []


def _label(value: str) -> str:
    return value.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")


def ping(url: Secret, record: RunRecord) -> None:
    """Tell a dead man's switch how the run ended: POST to the URL on success, to URL/fail otherwise.

    That is the form of healthchecks.io and its kin; the body is the status line. The URL is the credential, so no
    error names it. Raises `Unreachable` when no 2xx came back.
    """
    target = url.reveal().rstrip("/") + ("" if record.exit in _GOOD else "/fail")
    _post(target, url.where, content=status_line(record).encode(), kind="text/plain; charset=utf-8")


def webhook(url: Secret, record: RunRecord, *, text: str, findings: Sequence[str]) -> None:
    """POST a short text as JSON, under the key ``text`` that chat servers show, with what programs may want.

    Raises `Unreachable` when no 2xx came back.
    """
    told = {
        "text": text,
        "run": record.run,
        "site": record.site,
        "mode": record.mode,
        "verdict": record.verdict,
        "exit": record.exit,
        "findings": list(findings),
    }
    _post(url.reveal(), url.where, content=json.dumps(told).encode(), kind="application/json")


def _post(target: str, where: str, *, content: bytes, kind: str) -> None:
    try:
        answer = httpx.post(target, content=content, headers={"content-type": kind}, timeout=PING_TIMEOUT_S)
    except (httpx.HTTPError, httpx.InvalidURL) as cause:
        # Not chained: httpx puts the URL, which is the secret, into its messages.
        raise Unreachable(
            f"The notification to the URL of {where} was not taken: {type(cause).__name__}."
        ) from None
    if not answer.is_success:
        raise Unreachable(
            f"The notification to the URL of {where} was answered {answer.status_code}, expected 2xx."
        )
