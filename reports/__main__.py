"""``python -m reports``: make a run's record, rebuild the history, check freshness, delete old runs.

==========================================  ==================================================================
``python -m reports RUN``                   make report.html and summary.json of a run from its journal, also
                                            after SIGKILL; RUN is a folder, the name of a run, or ``latest``
``python -m reports history``               rebuild reports/index.html
``python -m reports freshness --max 26h``   exit 0 when a finished run of a real site is younger, 1 when not
``python -m reports prune --days 90``       delete old runs without news; ``--pretend`` only lists them
==========================================  ==================================================================

Exit 0: done, or fresh. 1: not fresh, or something could not be written. 2: wrong usage. 4: no such run.
"""

from __future__ import annotations

import argparse
import re
import signal
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

from fixtures.journal.past_runs import Retention, find_run, latest_finished, prune
from fixtures.journal.status_line import status_line
from fixtures.journal.words import plural, span
from reports import render
from reports.index_page import write_index

HOME = Path(__file__).parent
_UNITS = {"m": 60, "h": 3600, "d": 86400}


def main(arguments: list[str]) -> int:
    commands: dict[str, Callable[[argparse.Namespace], int]] = {
        "render": _render,
        "history": _history,
        "freshness": _freshness,
        "prune": _prune,
    }
    if arguments and arguments[0] not in commands and not arguments[0].startswith("-"):
        arguments = ["render", *arguments]
    chosen = _parser().parse_args(arguments)
    return commands[chosen.command](chosen)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m reports", description="the audit record of muster's runs")
    parser.add_argument("--root", type=Path, default=HOME, help="the folder that holds runs/ (default: reports/)")
    commands = parser.add_subparsers(dest="command", required=True)
    one = commands.add_parser("render", help="make a run's report from its journal (also: python -m reports RUN)")
    one.add_argument("run", help="a run's folder or name, or latest")
    commands.add_parser("history", help="make index.html over all runs")
    fresh = commands.add_parser("freshness", help="exit 1 unless a run ended recently")
    fresh.add_argument(
        "--max", type=_duration, default=timedelta(hours=26), help="such as 26h, 90m or 2d (default 26h)"
    )
    fresh.add_argument("--site", default="", help="of this site (default: any that is not the rehearsal)")
    prune = commands.add_parser("prune", help="delete old runs in which nothing changed and nothing was found")
    prune.add_argument("--days", type=int, default=90, help="keep every run of the last N days (default 90)")
    prune.add_argument("--last", type=int, default=30, help="keep the latest N runs of each site (default 30)")
    prune.add_argument("--eventful-too", action="store_true", help="also runs with changes or findings")
    prune.add_argument("--rehearsals", action="store_true", help="also rehearsals with changes or findings")
    prune.add_argument("--pretend", action="store_true", help="only list them")
    return parser


def _render(chosen: argparse.Namespace) -> int:
    folder = find_run(chosen.run, chosen.root)
    if not folder:
        print(
            f"no journal in {chosen.run}; expected a run's folder or name under {chosen.root / 'runs'}",
            file=sys.stderr,
        )
        return 4
    written = render(folder)
    for path in written.paths:
        print(path)
    for problem in written.problems:
        print(problem, file=sys.stderr)
    if written.record:
        print(status_line(written.record))
    return 1 if written.problems else 0


def _history(chosen: argparse.Namespace) -> int:
    print(write_index(chosen.root))
    return 0


def _freshness(chosen: argparse.Namespace) -> int:
    of = chosen.site or "a real site"
    run = latest_finished(chosen.root, site=chosen.site)
    if run is None or run.finished is None:
        print(f"muster: STALE no run of {of} has ever finished")
        return 1
    age = datetime.now(UTC) - run.finished
    which = f"{run.run}, {run.verdict}, exit {run.exit}"
    said = f"the latest finished run of {of} is {span(age.total_seconds())} old ({which})"
    if age > chosen.max:
        print(f"muster: STALE {said}; at most {span(chosen.max.total_seconds())} are allowed")
        return 1
    print(f"muster: FRESH {said}")
    return 0


def _prune(chosen: argparse.Namespace) -> int:
    rule = Retention(chosen.days, chosen.last, chosen.eventful_too, chosen.rehearsals)
    expired = prune(chosen.root, rule, datetime.now(UTC), pretend=chosen.pretend)
    for run in expired:
        print(f"{'would delete' if chosen.pretend else 'deleted'}: {run.run} ({run.verdict})")
    if expired and not chosen.pretend:
        write_index(chosen.root)
    print(f"{plural(len(expired), 'run')} {'would be deleted' if chosen.pretend else 'deleted'}")
    return 0


def _duration(said: str) -> timedelta:
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([mhd])", said)
    if not found:
        raise argparse.ArgumentTypeError(f"{said!r} is no duration; expected such as 26h, 90m or 2d")
    return timedelta(seconds=float(found[1]) * _UNITS[found[2]])


if __name__ == "__main__":
    # End quietly when a pipe is closed, as in ``… | head``.
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    sys.exit(main(sys.argv[1:]))
