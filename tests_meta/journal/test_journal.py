"""The journal: written before each change, one hash chain, readable after any end of the run."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fixtures.errors import Conflict, Unknown
from fixtures.journal.lines import FILE_NAME, JournalBroken
from fixtures.journal.reader import Change, changes_of, read
from fixtures.journal.writer import Journal
from tests_meta.muster_runs import ROOT, environment


def one_change(journal: Journal, **values: Any) -> None:
    """Record one created mirror."""
    with journal.change(
        "create-mirror",
        "org/mumble",
        before=None,
        after={"private": True},
        undo={"full_name": "org/mumble"},
        by_hand="delete it",
    ) as change:
        change.done(**values)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / FILE_NAME


def written(path: Path) -> bytes:
    """Write a small finished journal (header, change, finding, end) and return its bytes."""
    journal = Journal(path)
    journal.write("run", durable=True, run="20260602T001300Z-test-apply", site="test", mode="apply")
    one_change(journal, evidence="sha 1")
    journal.write(
        "finding", id="x", severity="action", what="Söméthing <b>", where="here", do="Look.", recipe=None
    )
    journal.write("end", durable=True, exit=0, verdict="converged")
    journal.close()
    return path.read_bytes()


def in_a_process(code: str, path: Path) -> subprocess.CompletedProcess[str]:
    """Run code that uses `path`, `Journal` and `one_change` in a process of its own."""
    start = (
        "import os, resource, signal, sys\nfrom pathlib import Path\nfrom fixtures.journal.writer import *\n"
        "from tests_meta.journal.test_journal import one_change\npath = Path(sys.argv[1])\n"
    )
    return subprocess.run(
        [sys.executable, "-c", start + textwrap.dedent(code), str(path)],
        cwd=ROOT,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


# -- before and after a change -------------------------------------------------------------------------------


def test_the_intent_is_on_disk_before_the_change_is_made(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """When the block of a change begins, its intent is in the file and the file is synced."""
    synced: list[int] = []
    sync = os.fsync

    def record_sync(fd: int) -> None:
        sync(fd)
        synced.append(os.fstat(fd).st_size)

    monkeypatch.setattr(os, "fsync", record_sync)
    journal = Journal(path)
    with journal.change("enroll", "bridge.nix", before="a", after="b", undo={}, by_hand="revert") as change:
        last = json.loads(path.read_text().splitlines()[-1])
        assert (last["type"], last["kind"], last["before"], last["after"]) == ("intent", "enroll", "a", "b")
        assert synced[-1] == path.stat().st_size
        change.done()
    assert json.loads(path.read_text().splitlines()[-1])["type"] == "outcome"
    assert synced[-1] == path.stat().st_size


def only_change(path: Path) -> Change:
    (change,) = changes_of(read(path))
    return change


def test_confirmed_change_has_the_values_seen_after_it(path: Path) -> None:
    """The values of the response are merged into the intent; the change is not undone."""
    journal = Journal(path)
    one_change(journal, evidence="sha 1", after={"private": True, "id": 5}, number=5)
    change = only_change(path)
    assert (change.id, change.result, change.undone, change.evidence) == (1, "done", None, "sha 1")
    assert change.after == {"private": True, "id": 5}
    assert change.undo == {"full_name": "org/mumble", "number": 5}


@pytest.mark.parametrize(
    ("raised", "result"),
    [
        (Unknown("the answer is lost"), "unknown"),
        (Conflict("somebody was faster"), "failed"),
        (KeyError("x"), "failed"),
    ],
)
def test_exception_of_a_change_is_recorded_and_raised(path: Path, raised: Exception, result: str) -> None:
    """`Unknown` records an unknown result, any other exception a failure; both are raised again."""
    journal = Journal(path)
    with (
        pytest.raises(type(raised)),
        journal.change("switch", "host", before=1, after=2, undo={}, by_hand="switch back"),
    ):
        raise raised
    assert only_change(path).result == result


def test_interrupt_during_a_change_leaves_it_open(path: Path) -> None:
    """Ctrl-C during a change leaves it open, because it is not known whether the change was made."""
    journal = Journal(path)
    with (
        pytest.raises(KeyboardInterrupt),
        journal.change("switch", "host", before=1, after=2, undo={}, by_hand="switch back"),
    ):
        raise KeyboardInterrupt
    assert only_change(path).result == "open"


def test_killed_run_leaves_an_intent_without_an_outcome(path: Path) -> None:
    """After SIGKILL during a change, the journal has its intent and no outcome."""
    killed = in_a_process(
        """
        journal = Journal(path)
        one_change(journal)
        with journal.change("switch", "host", before=1, after=2, undo={}, by_hand="switch back"):
            os.kill(os.getpid(), signal.SIGKILL)
        """,
        path,
    )
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert [change.result for change in changes_of(read(path))] == ["done", "open"]
    assert not read(path).finished


def test_latest_undo_of_a_change_counts(path: Path) -> None:
    """A change whose undo was refused first and made later is undone."""
    journal = Journal(path)
    one_change(journal)
    for result in ("refused", "undone"):
        journal.write("undo", durable=True, change=1, result=result, why="a regression")
    assert only_change(path).undone == "undone"


# -- one chain ---------------------------------------------------------------------------------------------


def test_lines_from_many_threads_are_one_chain(path: Path) -> None:
    """Lines written by several threads at once form one chain without gaps."""
    journal = Journal(path)

    def work(number: int) -> None:
        for _ in range(20):
            one_change(journal, number=number)
            journal.write("note", text=str(number))

    threads = [threading.Thread(target=work, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    record = read(path)
    assert [line["seq"] for line in record.lines] == list(range(6 * 20 * 3))
    assert sorted(change.id for change in changes_of(record)) == list(range(1, 121))
    assert {change.result for change in changes_of(record)} == {"done"}


def test_reopened_journal_continues_its_chain(path: Path) -> None:
    """A reopened journal continues the numbers of changes and lines."""
    first = Journal(path)
    one_change(first)
    first.close()
    second = Journal(path)
    one_change(second)
    assert [change.id for change in second.changes()] == [1, 2]
    assert [line["seq"] for line in read(path).lines] == [0, 1, 2, 3]


def _edit_value(lines: list[bytes]) -> list[bytes]:
    return [line.replace(b"org/mumble", b"org/mailu!") for line in lines]


def _edit_outcome(lines: list[bytes]) -> list[bytes]:
    return [*lines[:2], lines[2].replace(b'"done"', b'"open"'), *lines[3:]]


EDITS: dict[str, Callable[[list[bytes]], list[bytes]]] = {
    "a value": _edit_value,
    "an outcome": _edit_outcome,
    "a line less": lambda lines: lines[:1] + lines[2:],
    "the first line less": lambda lines: lines[1:],
    "a line twice": lambda lines: [*lines[:2], lines[1], *lines[2:]],
    "two lines exchanged": lambda lines: [lines[0], lines[2], lines[1], *lines[3:]],
    "an empty line": lambda lines: [lines[0], b"", *lines[1:]],
    "a line of text": lambda lines: [*lines, b"and then all was well"],
    "a line of JSON": lambda lines: [*lines, b'{"type": "end", "exit": 0}'],
    "a list": lambda lines: [*lines, b"[]"],
    "no UTF-8": lambda lines: [*lines, b"\xff\xfe"],
}


@pytest.mark.parametrize("edit", EDITS.values(), ids=EDITS)
def test_edited_journal_is_refused(path: Path, edit: Callable[[list[bytes]], list[bytes]]) -> None:
    """A line that was altered, removed, added or moved raises `JournalBroken` with its number."""
    lines = written(path).splitlines()
    read(path)
    path.write_bytes(b"\n".join(edit(lines)) + b"\n")
    with pytest.raises(JournalBroken, match=r"line \d+: expected a line that continues the chain"):
        read(path)


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished journal, of which tests make damaged copies."""
    path = tmp_path_factory.mktemp("sample") / FILE_NAME
    written(path)
    return path


@given(data=st.data())
def test_every_changed_byte_is_detected(sample: Path, data: st.DataObject) -> None:
    """With any one byte replaced, the journal is refused, or it has the same lines as before."""
    original, copy = sample.read_bytes(), sample.with_name("changed.jsonl")
    at = data.draw(st.integers(0, len(original) - 1))
    byte = data.draw(st.integers(0, 255).filter(lambda value: value != original[at]))
    copy.write_bytes(original[:at] + bytes([byte]) + original[at + 1 :])
    try:
        record = read(copy)
    except JournalBroken:
        return
    lines = read(sample).lines
    assert record.lines == (lines[:-1] if record.torn else lines), "a changed byte went unseen"
    assert not record.torn or at == len(original) - 1, "only the last newline can be taken for a torn line"


@given(data=st.data())
def test_truncated_journal_keeps_its_whole_lines(sample: Path, data: st.DataObject) -> None:
    """A torn last line is reported and left out; all lines before it are read."""
    original, copy = sample.read_bytes(), sample.with_name("cut.jsonl")
    size = data.draw(st.integers(0, len(original)))
    copy.write_bytes(original[:size])
    record = read(copy)
    assert len(record.lines) == original[:size].count(b"\n")
    assert record.torn is (not original[:size].endswith(b"\n") and size > 0)


def test_reopened_journal_drops_its_torn_line(path: Path) -> None:
    """Opening a journal again removes its torn last line."""
    path.write_bytes(written(path)[:-20])
    again = Journal(path)
    again.write("end", durable=True, exit=2, verdict="interrupted")
    record = read(path)
    assert (record.torn, record.finished) == (False, True)


# -- a journal that cannot be written ------------------------------------------------------------------------


def test_text_that_no_encoding_takes_is_escaped_visibly(path: Path) -> None:
    """A lone surrogate, as half of an emoji or an undecodable file name leaves it, is recorded as visible text."""
    journal = Journal(path)
    journal.write("note", text="caf\udce9", deep=[{"name": "\ud83d"}])
    journal.write("note", text="\N{GRINNING FACE}")
    journal.close()
    notes = read(path).of("note")
    assert [note["text"] for note in notes] == [r"caf\udce9", "\N{GRINNING FACE}"]
    assert notes[0]["deep"] == [{"name": r"\ud83d"}]


def test_no_change_is_made_without_a_record(path: Path) -> None:
    """When the intent cannot be written, the block of the change does not begin."""
    done = in_a_process(
        """
        journal = Journal(path)
        one_change(journal)
        resource.setrlimit(resource.RLIMIT_FSIZE, (path.stat().st_size + 40, resource.RLIM_INFINITY))
        try:
            with journal.change("switch", "host", before=1, after=2, undo={}, by_hand="switch back"):
                print("CHANGED")
        except JournalBroken as problem:
            print(f"stopped: {problem}")
        """,
        path,
    )
    assert done.stdout.startswith("stopped: The journal "), done.stdout + done.stderr
    assert "CHANGED" not in done.stdout
    assert "cannot be written" in done.stdout
    record = read(path)
    assert [change.result for change in changes_of(record)] == ["done"]


def test_line_that_does_not_fit_leaves_no_part(path: Path) -> None:
    """After a failed write the journal has no partial line, and goes on when there is room again."""
    done = in_a_process(
        """
        journal = Journal(path)
        one_change(journal)
        soft, hard = path.stat().st_size + 40, resource.RLIM_INFINITY
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        journal.write("note", text="x" * 200)
        print("did not fit" if journal.broken else "fitted")
        resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
        journal.write("undo", durable=True, change=1, result="undone", why="no room")
        """,
        path,
    )
    assert done.stdout == "did not fit\n", done.stdout + done.stderr
    assert only_change(path).undone == "undone"


@pytest.mark.parametrize("wrong", ["a folder", "no folder", "below a file"])
def test_journal_that_cannot_be_opened_is_an_error(tmp_path: Path, wrong: str) -> None:
    """The error is `JournalBroken` and says that nothing was changed."""
    (tmp_path / "file").touch()
    (tmp_path / "folder").mkdir()
    place = {
        "a folder": "folder",
        "no folder": "nowhere/journal.jsonl",
        "below a file": "file/journal.jsonl",
    }[wrong]
    with pytest.raises(JournalBroken, match="cannot be opened") as caught:
        Journal(tmp_path / place)
    assert "nothing was changed" in caught.value.do


def test_journal_is_readable_by_its_owner_only(path: Path) -> None:
    """The file mode is 0600, because the journal has names of machines and people."""
    Journal(path).close()
    assert path.stat().st_mode & 0o777 == 0o600


def test_times_are_in_utc(path: Path) -> None:
    """Times are in UTC, to the millisecond, with a Z."""
    journal = Journal(path)
    journal.write("note", text="now")
    (line,) = read(path).lines
    assert line["at"].endswith("Z")
    assert len(line["at"]) == len("2026-06-02T00:13:00.000Z")


# -- shown to a person ---------------------------------------------------------------------------------------


def show(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "fixtures.journal", *arguments],
        cwd=ROOT,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.parametrize("of", ["folder", "file"])
def test_show_prints_the_whole_record(path: Path, of: str) -> None:
    """`python -m fixtures.journal show RUN` prints run, changes, undo by hand, findings and the end."""
    written(path)
    shown = show("show", str(path.parent if of == "folder" else path))
    assert shown.returncode == 0, shown.stderr
    for words in ("20260602T001300Z-test-apply", "#1", "create-mirror", "org/mumble", "[done]", "by hand  delete it",
                  "Söméthing <b>", "end: converged, exit 0"):  # fmt: skip
        assert words in shown.stdout


def test_show_reports_interrupted_and_torn(path: Path) -> None:
    """A journal without an end line is shown as INTERRUPTED, and a torn line is reported."""
    lines = written(path).splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:-1]) + lines[-1][:-15])
    shown = show("show", str(path))
    assert (shown.returncode, "INTERRUPTED" in shown.stdout, "torn" in shown.stdout) == (0, True, True)


def test_show_ends_quietly_when_the_pipe_is_closed(path: Path) -> None:
    """A reader that closes its pipe, such as ``head``, ends the command by SIGPIPE, without a message."""
    written(path)
    reading, writing = os.pipe()
    os.close(reading)
    command = [sys.executable, "-m", "fixtures.journal", "show", str(path)]
    ended = subprocess.run(command, cwd=ROOT, stdout=writing, stderr=subprocess.PIPE, text=True, check=False)
    os.close(writing)
    assert (ended.returncode, ended.stderr) == (-signal.SIGPIPE, "")


def test_show_refuses_an_edited_journal(path: Path) -> None:
    """The command exits 1 and names the line, without a traceback."""
    path.write_bytes(written(path).replace(b"org/mumble", b"org/mailu!"))
    shown = show("show", str(path))
    assert (shown.returncode, shown.stdout) == (1, "")
    assert "continues the chain" in shown.stderr
    assert "Traceback" not in shown.stderr


@pytest.mark.parametrize(
    ("arguments", "status"), [((), 2), (("show",), 2), (("hide", "x"), 2), (("show", "/no/run"), 4)]
)
def test_wrong_command_line_is_explained(arguments: tuple[str, ...], status: int) -> None:
    """A wrong command line prints the usage or the expected path, without a traceback."""
    shown = show(*arguments)
    assert (shown.returncode, shown.stdout) == (status, "")
    assert shown.stderr.strip()
    assert "Traceback" not in shown.stderr


def test_empty_journal_is_interrupted(path: Path) -> None:
    """A journal without a line is shown as INTERRUPTED."""
    path.touch()
    assert "INTERRUPTED" in show("show", str(path)).stdout
