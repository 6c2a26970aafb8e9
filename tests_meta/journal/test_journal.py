"""The journal: on disk before the change, one chain, and readable after whatever ended the run."""

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


def one_change(journal: Journal, **said: Any) -> None:
    """A mirror that was created."""
    with journal.change(
        "create-mirror",
        "org/mumble",
        before=None,
        after={"private": True},
        undo={"full_name": "org/mumble"},
        by_hand="delete it",
    ) as change:
        change.done(**said)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / FILE_NAME


def written(path: Path) -> bytes:
    """A small finished record: a header, a change, a finding, the end."""
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
    """Run Python code that has `path`, `Journal` and `one_change`, in a process that it may kill or limit."""
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
    """When the block begins, its intent stands in the file and the file was synced after it was written."""
    synced: list[int] = []
    sync = os.fsync

    def noting(fd: int) -> None:
        sync(fd)
        synced.append(os.fstat(fd).st_size)

    monkeypatch.setattr(os, "fsync", noting)
    journal = Journal(path)
    with journal.change("enroll", "bridge.nix", before="a", after="b", undo={}, by_hand="revert") as change:
        last = json.loads(path.read_text().splitlines()[-1])
        assert (last["type"], last["kind"], last["before"], last["after"]) == ("intent", "enroll", "a", "b")
        assert synced[-1] == path.stat().st_size
        change.done()
    assert json.loads(path.read_text().splitlines()[-1])["type"] == "outcome"
    assert synced[-1] == path.stat().st_size


def only(path: Path) -> Change:
    (change,) = changes_of(read(path))
    return change


def test_a_confirmed_change_says_what_was_seen_after_it(path: Path) -> None:
    """What only the answer could tell is joined to what was intended; nothing is undone yet."""
    journal = Journal(path)
    one_change(journal, evidence="sha 1", after={"private": True, "id": 5}, number=5)
    change = only(path)
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
def test_what_a_change_raised_is_recorded_and_goes_on(path: Path, raised: Exception, result: str) -> None:
    """A lost answer is not a failure: nobody knows. Everything else that is raised is one."""
    journal = Journal(path)
    with (
        pytest.raises(type(raised)),
        journal.change("switch", "host", before=1, after=2, undo={}, by_hand="switch back"),
    ):
        raise raised
    assert only(path).result == result


def test_an_interrupt_in_the_middle_leaves_the_change_open(path: Path) -> None:
    """Ctrl-C during an act: whether it happened has to be looked up, so the record does not claim to know."""
    journal = Journal(path)
    with (
        pytest.raises(KeyboardInterrupt),
        journal.change("switch", "host", before=1, after=2, undo={}, by_hand="switch back"),
    ):
        raise KeyboardInterrupt
    assert only(path).result == "open"


def test_a_killed_run_leaves_an_intent_without_an_outcome(path: Path) -> None:
    """kill -9 in the middle of a change: the next run knows exactly what to look at."""
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


def test_an_undo_is_the_last_word_on_a_change(path: Path) -> None:
    """A change that was refused first and undone later is undone."""
    journal = Journal(path)
    one_change(journal)
    for result in ("refused", "undone"):
        journal.write("undo", durable=True, change=1, result=result, why="a regression")
    assert only(path).undone == "undone"


# -- one chain ---------------------------------------------------------------------------------------------


def test_lines_from_many_threads_are_one_chain(path: Path) -> None:
    """Mirrors are synced side by side; every line follows exactly one other."""
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


def test_a_journal_that_is_opened_again_goes_on(path: Path) -> None:
    """The run that settles a killed one adds to its record; numbers go on, the chain holds."""
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
def test_an_edited_record_shows(path: Path, edit: Callable[[list[bytes]], list[bytes]]) -> None:
    """Anything inside the record that was altered, removed, added or moved breaks the chain, at a named line."""
    lines = written(path).splitlines()
    read(path)
    path.write_bytes(b"\n".join(edit(lines)) + b"\n")
    with pytest.raises(JournalBroken, match=r"line \d+: expected a line that continues the chain"):
        read(path)


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One finished record, to be copied with something wrong."""
    path = tmp_path_factory.mktemp("sample") / FILE_NAME
    written(path)
    return path


@given(data=st.data())
def test_no_value_can_be_changed_unseen(sample: Path, data: st.DataObject) -> None:
    """Whichever byte is replaced by whichever other: the record is refused, or says what it said before."""
    original, copy = sample.read_bytes(), sample.with_name("changed.jsonl")
    at = data.draw(st.integers(0, len(original) - 1))
    byte = data.draw(st.integers(0, 255).filter(lambda value: value != original[at]))
    copy.write_bytes(original[:at] + bytes([byte]) + original[at + 1 :])
    try:
        record = read(copy)
    except JournalBroken:
        return
    said = read(sample).lines
    assert record.lines == (said[:-1] if record.torn else said), "a changed byte went unseen"
    assert not record.torn or at == len(original) - 1, "only the last newline can be taken for a torn line"


@given(data=st.data())
def test_a_record_cut_anywhere_keeps_its_whole_lines(sample: Path, data: st.DataObject) -> None:
    """A power cut leaves a torn last line: it is left out and said so, and the lines before it are all there."""
    original, copy = sample.read_bytes(), sample.with_name("cut.jsonl")
    size = data.draw(st.integers(0, len(original)))
    copy.write_bytes(original[:size])
    record = read(copy)
    assert len(record.lines) == original[:size].count(b"\n")
    assert record.torn is (not original[:size].endswith(b"\n") and size > 0)


def test_a_torn_line_is_cut_off_when_the_journal_is_opened_again(path: Path) -> None:
    """The next line must not be glued to half of one."""
    path.write_bytes(written(path)[:-20])
    again = Journal(path)
    again.write("end", durable=True, exit=2, verdict="interrupted")
    record = read(path)
    assert (record.torn, record.finished) == (False, True)


# -- a journal that cannot be written ------------------------------------------------------------------------


def test_no_change_is_made_without_a_record(path: Path) -> None:
    """The disk is full when the intent is to be written: the change's block never begins."""
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


def test_a_line_that_did_not_fit_leaves_nothing_of_itself(path: Path) -> None:
    """When there is room again (the undo wants to be recorded too), the record goes on and is whole."""
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
    assert only(path).undone == "undone"


@pytest.mark.parametrize("wrong", ["a folder", "no folder", "below a file"])
def test_a_journal_that_cannot_be_opened_says_so(tmp_path: Path, wrong: str) -> None:
    """One error of this project's own, which says that nothing was changed."""
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


def test_the_record_is_for_its_owner_only(path: Path) -> None:
    """Names of machines and people stand in it."""
    Journal(path).close()
    assert path.stat().st_mode & 0o777 == 0o600


def test_times_are_the_machines_in_utc(path: Path) -> None:
    """To the millisecond, with a Z; nobody types them."""
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
def test_a_person_can_read_it(path: Path, of: str) -> None:
    """`python -m fixtures.journal show RUN` names run, changes, how to undo by hand, findings and the end."""
    written(path)
    shown = show("show", str(path.parent if of == "folder" else path))
    assert shown.returncode == 0, shown.stderr
    for words in ("20260602T001300Z-test-apply", "#1", "create-mirror", "org/mumble", "[done]", "by hand  delete it",
                  "Söméthing <b>", "end: converged, exit 0"):  # fmt: skip
        assert words in shown.stdout


def test_a_killed_and_torn_record_is_called_that(path: Path) -> None:
    """No end line: INTERRUPTED; a torn line: said and left out."""
    lines = written(path).splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:-1]) + lines[-1][:-15])
    shown = show("show", str(path))
    assert (shown.returncode, "INTERRUPTED" in shown.stdout, "torn" in shown.stdout) == (0, True, True)


def test_an_edited_record_is_not_shown_as_if_it_were_one(path: Path) -> None:
    """Exit 1, with the line; no traceback."""
    path.write_bytes(written(path).replace(b"org/mumble", b"org/mailu!"))
    shown = show("show", str(path))
    assert (shown.returncode, shown.stdout) == (1, "")
    assert "continues the chain" in shown.stderr
    assert "Traceback" not in shown.stderr


@pytest.mark.parametrize(
    ("arguments", "status"), [((), 2), (("show",), 2), (("hide", "x"), 2), (("show", "/no/run"), 4)]
)
def test_a_wrong_command_line_is_explained(arguments: tuple[str, ...], status: int) -> None:
    """Usage, or which path was expected; no traceback."""
    shown = show(*arguments)
    assert (shown.returncode, shown.stdout) == (status, "")
    assert shown.stderr.strip()
    assert "Traceback" not in shown.stderr


def test_an_empty_record_is_not_taken_for_a_good_night(path: Path) -> None:
    """A file without a line is an interrupted run."""
    path.touch()
    assert "INTERRUPTED" in show("show", str(path)).stdout
