"""The audit record of a finished run: ``report.html``, ``summary.json`` and the history page, from its journal.

`finish` is called once, when nothing more can be done about the run; `render` makes the same files from a journal
alone, also of a run that was killed. Neither raises for a full or read-only disk: that costs the report, never the exit
code or the undo.

Of `fixtures` this package imports `fixtures.journal` only, the format of the record.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from fixtures.journal import files
from fixtures.journal.files import Problem
from fixtures.journal.lines import FILE_NAME as JOURNAL
from fixtures.journal.load_record import load
from fixtures.journal.past_runs import root_of
from fixtures.journal.redaction import Redactor
from fixtures.journal.run_record import RunRecord
from reports import index_page, page, pytest_table, summary

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
    texts = {
        run_dir / summary.FILE_NAME: summary.text(record),
        run_dir / REPORT: page.report(record, table),
    }
    for path, text in texts.items():
        _attempt(problems, path, text)
    _let_read(run_dir / JUNIT)
    existing = [path for path in (*texts, run_dir / JUNIT, run_dir / JOURNAL) if path.is_file()]
    problems += files.scan(existing, redactor)
    problems += _publish(run_dir)
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


def _publish(run_dir: Path) -> list[Problem]:
    """Update the history; a run outside a folder ``runs`` belongs to none."""
    root = root_of(run_dir)
    if root is None:
        return []
    try:
        index_page.write_index(root)
        latest = max(
            (folder for folder in (root / "runs").iterdir() if folder.is_dir()),
            key=lambda folder: folder.name,
        )
        files.point(root / "latest", latest)
    except OSError as cause:
        return [Problem(root / "index.html", f"could not be updated: {cause.strerror}")]
    return []


__all__ = ["Problem", "Written", "finish", "render"]
