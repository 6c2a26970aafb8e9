"""The report made from a journal, without a browser: every verdict, damaged journals, large rosters."""

from __future__ import annotations

import json
import os
import re
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import timedelta
from html.parser import HTMLParser
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fixtures.journal import files
from fixtures.journal.__main__ import main as show_journal
from fixtures.journal.lines import FILE_NAME, Line
from fixtures.journal.load_record import fold, load
from fixtures.journal.reader import StoredJournal, read
from fixtures.journal.status_line import status_line
from fixtures.journal.to_do import tasks
from fixtures.journal.writer import Journal
from fixtures.notify.prometheus import metrics
from reports import finish, render, summary
from reports.__main__ import main as render_command
from reports.html_safety import h, link, safe_url, text
from reports.page import report
from reports.sections.todo import todo
from tests_meta.reports.sample_night import BIG_ROSTER, MIDNIGHT, Clock
from tests_meta.reports.sample_runs import STATES, write

PROJECT = Path(__file__).parents[2]
HEADLINES = {
    "converged": "Converged",
    "unchanged": "Unchanged",
    "planned": "Changes pending",
    "drift": "Drift",
    "failed": "Failed",
    "rolled-back": "Rolled back",
    "rollback-failed": "Rollback failed",
    "withheld": "Withheld",
    "recovered": "Recovered",
    "interrupted": "Interrupted",
    "unreachable": "Unreachable",
    "partial": "Partial",
}


class _Text(HTMLParser):
    """Collects the visible text of a page and the stack of open tags."""

    def __init__(self) -> None:
        super().__init__()
        self.pieces: list[str] = []
        self.open: list[str] = []
        self.skipping = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag in ("script", "style"):
            self.skipping = tag
        elif tag not in ("meta", "input", "br", "img", "source"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag == self.skipping:
            self.skipping = ""
        else:
            assert self.open.pop() == tag, f"</{tag}> closes something else"

    def handle_data(self, data: str) -> None:
        if not self.skipping:
            self.pieces.append(data)


def words(page: str) -> str:
    """A page's text with single spaces; fails where elements are not properly nested."""
    reader = _Text()
    reader.feed(page)
    assert reader.open == []
    return re.sub(r"\s+", " ", "".join(reader.pieces))


@pytest.mark.parametrize("state", STATES)
def test_every_verdict_has_its_page(tmp_path: Path, state: str) -> None:
    """Each page starts with its verdict, is well nested, and has all nineteen recipes in its status table."""
    written = render(write(tmp_path, state))
    assert written.problems == ()
    page = (written.paths[1]).read_text(encoding="utf-8")
    said = words(page)
    assert HEADLINES[state] in said[:200]
    assert re.search(rf'<body class="(good|plan|warn|bad)">.*<h1>.*{HEADLINES[state]}', page, re.DOTALL)
    assert len(re.findall(r'<th scope="row">[a-z0-9-]+', page.partition('id="changes"')[0])) == 19
    assert written.record is not None
    assert written.record.verdict == state


@pytest.mark.parametrize(
    "state", [state for state in STATES if state not in ("converged", "unchanged", "planned", "recovered")]
)
def test_bad_verdict_has_a_task(tmp_path: Path, state: str) -> None:
    """A run with a bad verdict has at least one task above severity info; "Nothing." is not shown."""
    folder = write(tmp_path, state)
    render(folder)
    section = re.search(r'<section id="todo">.*?</section>', (folder / "report.html").read_text(), re.DOTALL)
    assert section
    assert "Nothing." not in section[0]
    assert [task for task in tasks(load(folder)) if task.severity != "info"]


def test_tasks_are_sorted_by_severity(tmp_path: Path) -> None:
    """A failed undo is the first task, with the command that undoes the change by hand."""
    found = tasks(load(write(tmp_path, "rollback-failed")))
    assert [task.severity for task in found] == sorted(task.severity for task in found)
    assert "Undoing change 12" in found[0].what
    assert found[0].command.startswith("nix-env -p /nix/var/nix/profiles/system --switch-generation 57")


def test_rehearsal_is_marked(tmp_path: Path) -> None:
    """A rehearsal is marked in the top band, as the site and in the title; the report of a real run is not."""
    rehearsed = write(tmp_path, "converged", rehearsal=True)
    real = write(tmp_path, "converged")
    for folder in (rehearsed, real):
        render(folder)
    page = (rehearsed / "report.html").read_text()
    assert '<div class="rehearsal"><strong>Rehearsal</strong>' in page
    assert "REHEARSAL" in page.partition("</title>")[0]
    assert "No real system was read or written." in page
    assert "ehearsal" not in words((real / "report.html").read_text())


def test_change_shows_how_to_undo_it_by_hand(tmp_path: Path) -> None:
    """Every change is shown with before, after, evidence, time and its undo by hand."""
    folder = write(tmp_path, "converged")
    render(folder)
    section = (folder / "report.html").read_text().partition('id="changes"')[2].partition('id="timeline"')[0]
    for change in load(folder).changes:
        shown = section.partition(f'id="change-{change.id}" class="change">')[2].partition("</details>")[0]
        assert str(text(change.by_hand)) in section
        assert all(f"<dt>{name}<" in shown for name in ("Before", "After", "Evidence", "When", "By hand"))
    assert '<ins class="add">' in section
    assert "recipe-maintainers/plausible</mark>" in section
    assert section.count("nixos-system-nixos-24.11") >= 2


def test_interrupted_run_shows_its_open_change(tmp_path: Path) -> None:
    """The report of a run interrupted inside a change names the open change and how to undo it."""
    folder = write(tmp_path, "interrupted")
    written = render(folder)
    assert written.record is not None
    assert (written.record.exit, written.record.finished) == (None, None)
    said = words((folder / "report.html").read_text())
    assert (
        "was begun, and the run ended before its outcome was known: it is not known whether it was made" in said
    )
    assert "Interrupted" in said
    assert "git revert" in said


@pytest.mark.parametrize("state", ["interrupted", "rollback-failed"])
def test_recovery_by_a_later_run_is_reported(tmp_path: Path, state: str) -> None:
    """A recovery hours later does not change the duration of the run, and the report no longer says to run the same
    command again; before the recovery it does (positive control)."""
    folder = write(tmp_path, state)
    record, before = load(folder), words(str(todo(load(folder))))
    assert ("Run the same command again" in before) is record.interrupted
    assert ("tries it again before anything else" in before) is not record.interrupted
    assert record.last_seen is not None
    later = Clock(record.last_seen + timedelta(hours=9))
    with later.installed():
        journal = Journal(folder / FILE_NAME)
        for change in journal.changes():
            if change.result != "done" or change.undone == "refused":
                journal.write("undo", change=change.id, result="undone", why="recovered by a-later-run")
        journal.write("end", exit=record.exit or 2, verdict=state, settled_by="a-later-run")
        journal.close()
    recovered = load(folder)
    assert (recovered.last_seen, recovered.wall_s) == (record.last_seen, record.wall_s)
    after = words(str(todo(recovered)))
    assert "Run the same command again" not in after
    assert "tries it once more" not in after
    assert "was not taken back" not in after
    render(folder)
    assert "A later run has recovered what it left open" in words((folder / "report.html").read_text())
    assert "Recovered bya-later-run" in words((folder / "report.html").read_text())


def test_killed_run_is_rendered_afterwards(tmp_path: Path) -> None:
    """After SIGKILL during a change, ``python -m reports render RUN`` makes the whole page from the journal."""
    folder = tmp_path / "runs" / "20260602T001300Z-killed-apply"
    folder.mkdir(parents=True)
    victim = subprocess.Popen(
        [sys.executable, "-c", _VICTIM, str(folder / FILE_NAME)], cwd=PROJECT, stdout=subprocess.PIPE, text=True
    )
    assert victim.stdout is not None
    assert victim.stdout.readline() == "in the middle\n"
    victim.send_signal(signal.SIGKILL)
    victim.wait()
    victim.stdout.close()
    shown = subprocess.run(
        [sys.executable, "-m", "reports", "--root", str(tmp_path), "render", folder.name],
        cwd=PROJECT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert shown.returncode == 0, shown.stderr
    assert shown.stdout.splitlines()[-1].startswith("muster: INTERRUPTED ")
    assert "Create mirror" in words((folder / "report.html").read_text())
    assert (tmp_path / "latest").resolve() == folder
    assert "Interrupted" in words((tmp_path / "index.html").read_text())


_VICTIM = """
import sys, time
from pathlib import Path
from fixtures.journal.writer import Journal
journal = Journal(Path(sys.argv[1]))
journal.write("run", run="20260602T001300Z-killed-apply", site="killed", mode="apply", roster=["mumble"])
journal.write("phase", phase=1, name="mirrors", event="start")
with journal.change("create-mirror", "org/mumble", before=None, after={}, undo={}, by_hand="delete it"):
    print("in the middle", flush=True)
    time.sleep(600)
"""


@pytest.mark.parametrize(
    "missing",
    [
        "run",
        "phase",
        "assertion",
        "intent",
        "outcome",
        "undo",
        "wait",
        "finding",
        "verdict",
        "roll",
        "generations",
        "diff",
        "end",
    ],
)
def test_missing_line_type_still_renders(tmp_path: Path, missing: str) -> None:
    """A journal that lacks one type of line still gives a page and a summary."""
    lines = [
        line
        for line in read(write(tmp_path / "whole", "rolled-back") / FILE_NAME).lines
        if line["type"] != missing
    ]
    journal = Journal(tmp_path / FILE_NAME)
    for line in lines:
        fields = {
            key: value for key, value in line.items() if key not in ("seq", "at", "t", "type", "prev", "hash")
        }
        journal.write(line["type"], **fields)
    journal.close()
    written = render(tmp_path)
    assert written.problems == ()
    words((tmp_path / "report.html").read_text())
    assert json.loads((tmp_path / "summary.json").read_text())["schema"] == 1


NUMBERS = st.integers(-(10**12), 10**12) | st.floats(allow_nan=False)
SCALARS = st.none() | st.booleans() | NUMBERS | st.text(max_size=8)
LISTS = st.lists(SCALARS | st.lists(SCALARS, max_size=2), max_size=3)
ODD = SCALARS | LISTS | st.dictionaries(st.text(max_size=5), SCALARS | LISTS, max_size=3)


@pytest.fixture(scope="module")
def ordinary(tmp_path_factory: pytest.TempPathFactory) -> tuple[Line, ...]:
    """The first and the last line of each type from an eventful run."""
    lines = read(write(tmp_path_factory.mktemp("ordinary"), "rolled-back") / FILE_NAME).lines
    kept: dict[str, list[Line]] = {}
    for line in lines:
        kept.setdefault(line["type"], []).append(line)
    return tuple(line for of_type in kept.values() for line in (of_type[0], of_type[-1]))


@pytest.mark.parametrize("seconds", [7e10, 1e300, float("nan"), -1e300])
def test_wait_of_impossible_length_has_no_start(seconds: float) -> None:
    """A wait that began before the year 1, or at no time at all, is shown without its start."""
    line = {"type": "wait", "at": "2026-06-02T00:13:27.100Z", "seconds": seconds}
    (wait,) = fold(StoredJournal(Path(FILE_NAME), (line,), torn=False)).waits
    assert wait.started is None


@given(data=st.data())
@settings(max_examples=60, deadline=None)
def test_unexpected_values_still_render(ordinary: tuple[Line, ...], data: st.DataObject) -> None:
    """Any value in any field of any line gives a page and a summary, never an exception."""
    lines = [dict(line) for line in ordinary]
    for _ in range(data.draw(st.integers(1, 4))):
        line = data.draw(st.sampled_from(lines))
        key = data.draw(st.sampled_from(sorted(set(line) - {"type"})))
        line[key] = data.draw(ODD)
    record = fold(StoredJournal(Path(FILE_NAME), tuple(lines), torn=False))
    words(report(record, None))
    json.loads(summary.text(record))
    assert "\n" not in status_line(record)
    metrics(record, record.finished)


@pytest.mark.parametrize(
    "content", [b"", b"\n", b"not json\n", b'{"type": 1}\n', b'{"seq": 0', b"\xff\xfe\n", b"[]\n"]
)
def test_unreadable_journal_is_an_interrupted_run(tmp_path: Path, content: bytes) -> None:
    """An empty or unreadable journal is reported as an interrupted run in which nothing was checked."""
    (tmp_path / FILE_NAME).write_bytes(content)
    written = render(tmp_path)
    assert written.record is not None
    assert written.record.interrupted
    assert "nothing was checked" in words((tmp_path / "report.html").read_text())


def test_edited_journal_is_reported(tmp_path: Path) -> None:
    """A journal with one altered line still gives a page, which says that the hash chain is broken."""
    folder = write(tmp_path, "converged")
    path = folder / FILE_NAME
    path.write_text(path.read_text().replace("Fix the recipe's backup", "Nothing to see here"))
    written = render(folder)
    assert written.record is not None
    assert written.record.broken
    said = words((folder / "report.html").read_text())
    assert "The hash chain of this record is broken." in said
    assert json.loads((folder / "summary.json").read_text())["intact"] is False


def test_torn_last_line_is_reported(tmp_path: Path) -> None:
    """An incomplete last line is left out, and the page says so."""
    folder = write(tmp_path, "interrupted")
    with (folder / FILE_NAME).open("ab") as journal:
        journal.write(b'{"seq": 400, "type": "wai')
    render(folder)
    assert "last line is incomplete" in words((folder / "report.html").read_text())


def test_missing_journal_is_reported(tmp_path: Path) -> None:
    """Without a journal nothing is written, and the result names the missing file."""
    written = finish(tmp_path)
    assert written.record is None
    assert [problem.path.name for problem in written.problems] == [FILE_NAME]
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def small_files() -> Iterator[int]:
    """Limits files that this process writes to 50,000 bytes, to simulate a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, before[1]))
    yield 50_000
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_full_disk_loses_only_the_report(tmp_path: Path, request: pytest.FixtureRequest) -> None:
    """When the page does not fit, nothing is raised, no partial file is left, and the problem is reported."""
    folder = write(tmp_path, "converged")
    request.getfixturevalue("small_files")
    written = finish(folder)
    assert [problem.path.name for problem in written.problems] == ["report.html"]
    assert "could not be written" in str(written.problems[0])
    assert sorted(path.name for path in folder.iterdir()) == [FILE_NAME, "summary.json"]
    assert written.record is not None
    assert written.record.exit == 0


def test_failed_write_keeps_the_old_file(tmp_path: Path, request: pytest.FixtureRequest) -> None:
    """A failed write leaves the old file unchanged and no temporary file."""
    path = tmp_path / "report.html"
    files.write(path, "old")
    request.getfixturevalue("small_files")
    with pytest.raises(OSError):
        files.write(path, "x" * 90_000)
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["report.html"]


def test_latest_points_to_the_latest_run(tmp_path: Path) -> None:
    """Rendering an older run again does not move the ``latest`` link to it."""
    old, new = write(tmp_path, "converged", rehearsal=True), write(tmp_path, "unchanged")
    for folder in (old, new, old):
        render(folder)
    assert (tmp_path / "latest").resolve().name == max(old.name, new.name)


def test_latest_is_the_run_that_was_killed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """After SIGKILL the link still points to the run before; both commands then show the killed run."""
    before = write(tmp_path, "unchanged")
    render(before)
    killed = write(tmp_path, "interrupted", start=MIDNIGHT + timedelta(days=1))
    assert (tmp_path / "latest").resolve().name == before.name
    assert show_journal(["show", str(tmp_path / "latest")]) == 0
    assert f"run {killed.name} " in capsys.readouterr().out
    assert render_command(["--root", str(tmp_path), "render", "latest"]) == 0
    assert "muster: INTERRUPTED" in capsys.readouterr().out
    assert (tmp_path / "latest").resolve().name == killed.name


@given(st.text())
def test_text_has_no_markup(value: str) -> None:
    """Text on a page never holds a tag, a quote, or a control or direction character."""
    shown = text(value)
    assert not set(shown) & set("<>\"'\x00\x1b\x7f\u202e\u2066")
    shown.encode("utf-8")


@pytest.mark.parametrize(
    "url",
    [
        "javascript:alert(1)",
        "JAVASCRIPT:alert(1)",
        " javascript:x",
        "data:text/html,x",
        "//evil.example/x",
        "https://u:p@h/",
        "vbscript:x",
        "file:///etc/passwd",
        "http://",
        "https://a\\b",
        "http://[",
        "java\nscript:x",
    ],
)
def test_only_http_addresses_are_linked(url: str) -> None:
    """An address that is not plain http or https is shown as text, not as a link."""
    assert safe_url(url) == "#"
    assert "<a" not in link(url, "label")
    assert 'href="#"' in h("a", "x", href=url)


@pytest.mark.parametrize("attribute", ["onclick", "style", "onerror"])
def test_attributes_the_policy_blocks_are_refused(attribute: str) -> None:
    """Event handlers and style attributes are refused, because the page's policy would block them."""
    with pytest.raises(ValueError, match="not written"):
        h("p", "x", **{attribute: "alert(1)"})


def test_nineteen_recipes_fit_a_megabyte(tmp_path: Path) -> None:
    """The page of nineteen recipes is at most 1 MB."""
    folder = write(tmp_path, "converged")
    render(folder)
    assert (folder / "report.html").stat().st_size < 1_000_000


def test_a_thousand_recipes_fit_five_megabytes(tmp_path: Path) -> None:
    """The page of 1,000 recipes in six phases is at most 5 MB, has every assertion, and is made in seconds."""
    folder = write(tmp_path, "converged", recipes=BIG_ROSTER)
    record = load(folder)
    assert len(record.assertions) > 4000
    began = time.process_time()
    page = report(record, None)
    spent = time.process_time() - began
    assert len(page.encode()) < 5_000_000
    assert page.count('scope="row">') >= len(BIG_ROSTER) + len(record.assertions) - 40
    assert spent < 20, f"{spent:.1f} s of CPU to make the page"
