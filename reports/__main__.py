"""``python -m reports``: the record of a run, again or at last; the history; and what a timer asks.

==========================================  ==================================================================
``python -m reports RUN``                   make report.html and summary.json of a run from its journal, also
                                            after SIGKILL; RUN is a folder, a run's name, or ``latest``
``python -m reports history``               make reports/index.html again
``python -m reports freshness --max 26h``   exit 0 when a finished run of a real site is younger, 1 when not
``python -m reports prune --days 90``       let old, uneventful runs go; ``--pretend`` only says which
==========================================  ==================================================================

Exit 0: done, or fresh. 1: not fresh, or something could not be written. 2: wrong usage. 4: no such run.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

from fixtures.journal.lines import FILE_NAME as JOURNAL
from reports import history, machine, render
from reports.words import span

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
    prune.add_argument("--last", type=int, default=30, help="keep the newest N runs of each site (default 30)")
    prune.add_argument("--eventful-too", action="store_true", help="also runs with changes or findings")
    prune.add_argument("--rehearsals", action="store_true", help="also rehearsals with changes or findings")
    prune.add_argument("--pretend", action="store_true", help="only say which")
    return parser


def _render(chosen: argparse.Namespace) -> int:
    folder = _folder(chosen.run, chosen.root)
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
        print(machine.status_line(written.record))
    return 1 if written.problems else 0


def _folder(named: str, root: Path) -> Path | None:
    candidates = (Path(named), Path(named).parent, root / "runs" / named, root / named)
    return next((one.resolve() for one in candidates if (one / JOURNAL).is_file()), None)


def _history(chosen: argparse.Namespace) -> int:
    print(history.write_index(chosen.root))
    return 0


def _freshness(chosen: argparse.Namespace) -> int:
    of = chosen.site or "a real site"
    night = history.freshest(chosen.root, site=chosen.site)
    if night is None or night.finished is None:
        print(f"muster: STALE no run of {of} has ever finished")
        return 1
    age = datetime.now(UTC) - night.finished
    which = f"{night.run}, {night.verdict}, exit {night.exit}"
    told = f"the newest finished run of {of} is {span(age.total_seconds())} old ({which})"
    if age > chosen.max:
        print(f"muster: STALE {told}; at most {span(chosen.max.total_seconds())} are allowed")
        return 1
    print(f"muster: FRESH {told}")
    return 0


def _prune(chosen: argparse.Namespace) -> int:
    rule = history.Rule(chosen.days, chosen.last, chosen.eventful_too, chosen.rehearsals)
    gone = history.prune(chosen.root, rule, datetime.now(UTC), pretend=chosen.pretend)
    for night in gone:
        print(f"{'would go' if chosen.pretend else 'gone'}: {night.run} ({night.verdict})")
    print(f"{len(gone)} of the runs {'would go' if chosen.pretend else 'went'}")
    return 0


def _duration(said: str) -> timedelta:
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([mhd])", said)
    if not found:
        raise argparse.ArgumentTypeError(f"{said!r} is no duration; expected such as 26h, 90m or 2d")
    return timedelta(seconds=float(found[1]) * _UNITS[found[2]])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
