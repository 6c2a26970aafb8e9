"""The audit record of a finished run: ``report.html``, ``summary.json`` and the history page, from its journal.

`finish` is called once, when nothing more can be done about the run; `render` makes the same files from a journal
alone, also of a run that was killed. Neither raises for a full or read-only disk: that costs the report, never the exit
code or the undo.

Of `fixtures` this package imports `fixtures.journal` only, the format of the record.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from fixtures.journal import files
from fixtures.journal.files import Problem
from fixtures.journal.lines import FILE_NAME as JOURNAL
from fixtures.journal.load_record import load
from fixtures.journal.past_runs import Neighbours, PastRun, find_neighbours, list_runs, root_of
from fixtures.journal.redaction import Redactor
from fixtures.journal.run_record import RunRecord
from reports import index_page, page, pytest_table, summary
from reports.sections.nights import replace_links

REPORT = "report.html"
JUNIT = "junit.xml"


@dataclass(frozen=True)
class Written:
    """The files that exist now, the problems on the way, and the run as it was read back."""

    record: RunRecord | None
    paths: tuple[Path, ...]
    problems: tuple[Problem, ...]

    @property
    def leaked(self) -> bool:
        """Whether a secret had reached a file and had to be taken out of it."""
        return any(problem.leaked for problem in self.problems)


def finish(run_dir: Path, redactor: Redactor | None = None) -> Written:
    """Write summary.json and report.html from the journal, scan every file, and update latest and the history.

    pytest-html's file, when it stands at report.html, is taken in and replaced. Never raises for a file that
    cannot be read or written; `Written.problems` says which and why. `redactor` knows the secrets of the run; without
    one only what looks like a secret is taken out.
    """
    redactor = redactor or Redactor()
    problems: list[Problem] = []
    try:
        record = load(run_dir, redactor.clean_value)
    except OSError as cause:
        return Written(None, (), (Problem(run_dir / JOURNAL, f"cannot be read: {cause.strerror}"),))
    table = _table(run_dir / REPORT, redactor)
    _attempt(problems, run_dir / summary.FILE_NAME, summary.text(record))
    _let_read(run_dir / JUNIT)
    root = root_of(run_dir)
    every = list_runs(root) if root else []
    nights = find_neighbours(every, run_dir.resolve().name)
    _attempt(problems, run_dir / REPORT, page.report(record, table, nights))
    names = (summary.FILE_NAME, REPORT, JUNIT, JOURNAL)
    existing = [run_dir / name for name in names if (run_dir / name).is_file()]
    problems += files.scan(existing, redactor)
    if root:
        problems += _publish(root, every, nights)
    return Written(record, tuple(existing), tuple(problems))


def _let_read(path: Path) -> None:
    """Let those read pytest's own file who may read the run's folder; it was made with the umask's mode."""
    with suppress(OSError):
        path.chmod(files.file_mode(path.parent))


def render(run_dir: Path) -> Written:
    """The same, later and from the journal alone, from which the run itself has taken out its secrets."""
    return finish(run_dir)


def _table(path: Path, redactor: Redactor) -> pytest_table.PytestTable | None:
    """What pytest-html collected, from its own file or from a finished page, with secrets taken out."""
    try:
        table = pytest_table.read(path.read_text(encoding="utf-8", errors="replace"))
    except OSError:
        return None
    return replace(table, data=redactor.clean_value(table.data)) if table else None


def _attempt(problems: list[Problem], path: Path, text: str) -> None:
    """Write a file; where there is no room, delete the unfinished page in its place first."""
    try:
        files.write(path, text)
    except OSError:
        try:
            path.unlink(missing_ok=True)
            files.write(path, text)
        except OSError as cause:
            problems.append(Problem(path, f"could not be written: {cause.strerror}"))


def _publish(root: Path, every: Sequence[PastRun], nights: Neighbours | None) -> list[Problem]:
    """Update the history, and in the run before the link to this one."""
    try:
        if nights and nights.before:
            _link_forward(every, nights.before)
        index_page.write_index(root, every)
        latest = max(
            (folder for folder in (root / "runs").iterdir() if folder.is_dir()),
            key=lambda folder: folder.name,
        )
        files.point(root / "latest", latest)
    except OSError as cause:
        return [Problem(root / "index.html", f"could not be updated: {cause.strerror}")]
    return []


def _link_forward(every: Sequence[PastRun], before: PastRun) -> None:
    """Make the links in an earlier run's page anew; a run without a page keeps none."""
    path, nights = before.folder / REPORT, find_neighbours(every, before.folder.name)
    if nights and path.is_file():
        old = path.read_text(encoding="utf-8")
        if (new := replace_links(old, nights)) != old:
            files.write(path, new)


__all__ = ["Problem", "Written", "finish", "render"]
