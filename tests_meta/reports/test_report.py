"""The report from the journal: every state, every damage, every size; without a browser."""

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
from fixtures.journal.lines import FILE_NAME, Line
from fixtures.journal.load_record import fold, load
from fixtures.journal.reader import StoredJournal, read
from fixtures.journal.status_line import status_line
from fixtures.journal.to_do import tasks
from fixtures.journal.writer import Journal
from fixtures.notify.prometheus import metrics
from reports import finish, render, summary
from reports.html_safety import h, link, safe_url, text
from reports.page import report
from reports.sections.todo import todo
from tests_meta.reports.sample_night import BIG_ROSTER, Clock
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
    "interrupted": "Interrupted",
}


class _Text(HTMLParser):
    """The text a person reads without scripts, and the tags that were opened."""

    def __init__(self) -> None:
        super().__init__()
        self.said: list[str] = []
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
            self.said.append(data)


def words(page: str) -> str:
    """A page's text with single spaces; fails where elements are not properly nested."""
    reader = _Text()
    reader.feed(page)
    assert reader.open == []
    return re.sub(r"\s+", " ", "".join(reader.said))


@pytest.mark.parametrize("state", STATES)
def test_every_state_has_its_page(tmp_path: Path, state: str) -> None:
    """Each verdict stands on top in words, the page is well nested, and all nineteen recipes are on the roll."""
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
    "state", [state for state in STATES if state not in ("converged", "unchanged", "planned")]
)
def test_bad_news_ask_for_somebody(tmp_path: Path, state: str) -> None:
    """ "Nothing." never stands under what a person has to do when the verdict is not a good one."""
    folder = write(tmp_path, state)
    render(folder)
    section = re.search(r'<section id="todo">.*?</section>', (folder / "report.html").read_text(), re.DOTALL)
    assert section
    assert "Nothing." not in section[0]
    assert [task for task in tasks(load(folder)) if task.severity != "info"]


def test_worst_comes_first(tmp_path: Path) -> None:
    """A failed undo is the first thing to do, with the command that undoes it by hand."""
    found = tasks(load(write(tmp_path, "rollback-failed")))
    assert [task.severity for task in found] == sorted(task.severity for task in found)
    assert "Undoing change 12" in found[0].what
    assert found[0].command.startswith("nix-env -p /nix/var/nix/profiles/system --switch-generation 57")


def test_rehearsal_cannot_be_overlooked(tmp_path: Path) -> None:
    """A rehearsal says so in the band on top, as the site, and in the page's title; a real run never does."""
    rehearsed = write(tmp_path, "converged", rehearsal=True)
    real = write(tmp_path, "converged")
    for folder in (rehearsed, real):
        render(folder)
    page = (rehearsed / "report.html").read_text()
    assert '<div class="rehearsal"><strong>Rehearsal</strong>' in page
    assert "REHEARSAL" in page.partition("</title>")[0]
    assert "No real system was read or written." in page
    assert "ehearsal" not in words((real / "report.html").read_text())


def test_what_was_changed_can_be_undone_by_hand(tmp_path: Path) -> None:
    """Every change stands with before, after, evidence, what became of it, and its undo by hand."""
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


def test_interrupted_run_keeps_what_it_had(tmp_path: Path) -> None:
    """A run that was interrupted inside a change says INTERRUPTED, which change is open, and how to undo it."""
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
def test_what_was_settled_later_is_told_as_that(tmp_path: Path, state: str) -> None:
    """Hours later another run deals with what was left: this one took no longer for it, and nobody is asked to run the
    same command again, as before (positive control)."""
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
    settled = load(folder)
    assert (settled.last_seen, settled.wall_s) == (record.last_seen, record.wall_s)
    after = words(str(todo(settled)))
    assert "Run the same command again" not in after
    assert "tries it once more" not in after
    assert "was not taken back" not in after
    render(folder)
    assert "A later run has recovered what it left open" in words((folder / "report.html").read_text())
    assert "Recovered bya-later-run" in words((folder / "report.html").read_text())


def test_killed_process_is_rendered_afterwards(tmp_path: Path) -> None:
    """After SIGKILL in the middle of a change ``python -m reports RUN`` makes the whole page from the journal."""
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
def test_a_line_type_may_be_missing(tmp_path: Path, missing: str) -> None:
    """A journal without any one type of line still gives a page and a summary."""
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
    """The lines of an eventful run, of every type once or twice."""
    lines = read(write(tmp_path_factory.mktemp("ordinary"), "rolled-back") / FILE_NAME).lines
    kept: dict[str, list[Line]] = {}
    for line in lines:
        kept.setdefault(line["type"], []).append(line)
    return tuple(line for of_type in kept.values() for line in (of_type[0], of_type[-1]))


@given(data=st.data())
@settings(max_examples=60, deadline=None)
def test_no_value_breaks_the_page(ordinary: tuple[Line, ...], data: st.DataObject) -> None:
    """Whatever stands in whatever field of whatever line, there is a page and a summary: never an exception."""
    lines = [dict(line) for line in ordinary]
    for _ in range(data.draw(st.integers(1, 4))):
        line = data.draw(st.sampled_from(lines))
        key = data.draw(st.sampled_from(sorted(set(line) - {"type"})))
        line[key] = data.draw(ODD)
    record = fold(StoredJournal(Path(FILE_NAME), tuple(lines), torn=False))
    words(report(record, None))
    json.loads(summary.text(record))
    assert "\n" not in status_line(record)
    metrics(record)


@pytest.mark.parametrize(
    "content", [b"", b"\n", b"not json\n", b'{"type": 1}\n', b'{"seq": 0', b"\xff\xfe\n", b"[]\n"]
)
def test_a_journal_of_nothing(tmp_path: Path, content: bytes) -> None:
    """An empty or unreadable journal is an interrupted run that says so, never a good one, never a crash."""
    (tmp_path / FILE_NAME).write_bytes(content)
    written = render(tmp_path)
    assert written.record is not None
    assert written.record.interrupted
    assert "nothing was checked" in words((tmp_path / "report.html").read_text())


def test_an_edited_record_shows(tmp_path: Path) -> None:
    """A journal of which one line was altered still gives a page, and its top says that the chain is broken."""
    folder = write(tmp_path, "converged")
    path = folder / FILE_NAME
    path.write_text(path.read_text().replace("Fix the recipe's backup", "Nothing to see here"))
    written = render(folder)
    assert written.record is not None
    assert written.record.broken
    said = words((folder / "report.html").read_text())
    assert "The hash chain of this record is broken." in said
    assert json.loads((folder / "summary.json").read_text())["intact"] is False


def test_a_torn_last_line_is_told(tmp_path: Path) -> None:
    """A last line cut by a power cut is left out, and the page says so."""
    folder = write(tmp_path, "interrupted")
    with (folder / FILE_NAME).open("ab") as journal:
        journal.write(b'{"seq": 400, "type": "wai')
    render(folder)
    assert "last line is incomplete" in words((folder / "report.html").read_text())


def test_no_journal_is_told(tmp_path: Path) -> None:
    """Where there is no journal nothing is written, and the answer says what is missing."""
    written = finish(tmp_path)
    assert written.record is None
    assert [problem.path.name for problem in written.problems] == [FILE_NAME]
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def small_files() -> Iterator[int]:
    """This process may write files of at most 30,000 bytes: the kernel refuses the rest, as a full disk would."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (30_000, before[1]))
    yield 30_000
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_full_disk_costs_only_the_report(tmp_path: Path, request: pytest.FixtureRequest) -> None:
    """When the page does not fit, nothing is raised, what fits stands, no half file is left, and it is said."""
    folder = write(tmp_path, "converged")
    request.getfixturevalue("small_files")
    written = finish(folder)
    assert [problem.path.name for problem in written.problems] == ["report.html"]
    assert "could not be written" in str(written.problems[0])
    assert sorted(path.name for path in folder.iterdir()) == [FILE_NAME, "summary.json"]
    assert written.record is not None
    assert written.record.exit == 0


def test_files_are_whole_or_not_there(tmp_path: Path, request: pytest.FixtureRequest) -> None:
    """A write that fails leaves the old file, byte for byte, and nothing beside it."""
    path = tmp_path / "report.html"
    files.write(path, "old")
    request.getfixturevalue("small_files")
    with pytest.raises(OSError):
        files.write(path, "x" * 50_000)
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["report.html"]


def test_latest_points_to_the_newest(tmp_path: Path) -> None:
    """Rendering an older run again does not make it the newest."""
    old, new = write(tmp_path, "converged", rehearsal=True), write(tmp_path, "unchanged")
    for folder in (old, new, old):
        render(folder)
    assert (tmp_path / "latest").resolve().name == max(old.name, new.name)


@given(st.text())
def test_text_has_no_markup(value: str) -> None:
    """Whatever a text holds, on a page it is text: no tag, no quote, no control or direction character."""
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
def test_only_harmless_links(url: str) -> None:
    """An address that is not plain http or https is shown as text and never linked."""
    assert safe_url(url) == "#"
    assert "<a" not in link(url, "label")
    assert 'href="#"' in h("a", "x", href=url)


@pytest.mark.parametrize("attribute", ["onclick", "style", "onerror"])
def test_attributes_the_policy_blocks_are_refused(attribute: str) -> None:
    """Event handlers and style attributes cannot be written, because the page's policy would make them dead."""
    with pytest.raises(ValueError, match="not written"):
        h("p", "x", **{attribute: "alert(1)"})


def test_nineteen_recipes_fit_a_megabyte(tmp_path: Path) -> None:
    """The page of nineteen recipes is at most 1 MB."""
    folder = write(tmp_path, "converged")
    render(folder)
    assert (folder / "report.html").stat().st_size < 1_000_000


def test_a_thousand_recipes(tmp_path: Path) -> None:
    """1,000 recipes by six phases: at most 5 MB, every recipe and every assertion on it, made in seconds."""
    folder = write(tmp_path, "converged", recipes=BIG_ROSTER)
    record = load(folder)
    assert len(record.assertions) > 4000
    began = time.process_time()
    page = report(record, None)
    spent = time.process_time() - began
    assert len(page.encode()) < 5_000_000
    assert page.count('scope="row">') >= len(BIG_ROSTER) + len(record.assertions) - 40
    assert spent < 20, f"{spent:.1f} s of CPU to make the page"
