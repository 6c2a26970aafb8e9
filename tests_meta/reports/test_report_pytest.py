"""pytest-html's part of the record, by real pytest processes: complete, escaped, and never in the way."""

from __future__ import annotations

import json
import re
import resource
import signal
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

from fixtures.journal.reader import read
from reports import finish, pytest_table
from tests_meta.reports.report_suite import PROJECT, Suite

QUIET = "def test_fine(): pass\n"


def rows(page: str) -> dict[str, list[dict[str, object]]]:
    """The rows of pytest-html's table as its script reads them."""
    table = pytest_table.read(page)
    assert table is not None
    found: dict[str, list[dict[str, object]]] = table.data["tests"]
    return found


def test_both_parts_are_in_one_file(tmp_path: Path) -> None:
    """The finished page holds the record and pytest-html's own table with its script; junit.xml is beside it."""
    told = Suite(tmp_path, QUIET).run()
    assert told.exit == 0
    assert list(rows(told.page)) == ["test_0_preflight.py::test_fine"]
    assert 'id="todo"' in told.page
    assert "class DataManager" in told.page
    assert ElementTree.parse(told.run / "junit.xml").getroot().find("testsuite") is not None
    assert "only the raw part" not in told.page


def test_collect_only_overwrites_nothing(tmp_path: Path) -> None:
    """``--collect-only`` leaves the record of the last run as it is, byte for byte."""
    suite = Suite(tmp_path, QUIET)
    before = {path.name: path.read_bytes() for path in suite.run().run.iterdir()}
    suite.run("--collect-only")
    assert {path.name: path.read_bytes() for path in suite.run_dir.iterdir()} == before


INTERRUPTS = {
    "ctrl-c in a test": "def test_before(): pass\ndef test_cut(): raise KeyboardInterrupt\n",
    "ctrl-c in a fixture": """
        import pytest
        @pytest.fixture
        def slow(): raise KeyboardInterrupt
        def test_before(): pass
        def test_cut(slow): pass
        def test_never(): pass
    """,
    "pytest.exit": "import pytest\ndef test_before(): pass\ndef test_cut(): pytest.exit('no', returncode=2)\n",
}


@pytest.mark.parametrize("how", INTERRUPTS)
def test_the_interrupted_test_has_its_row(tmp_path: Path, how: str) -> None:
    """The test inside which the run was stopped is in the table, the record and junit.xml, as interrupted."""
    told = Suite(tmp_path, INTERRUPTS[how]).run()
    assert told.exit == 2
    cut = rows(told.page)["test_0_preflight.py::test_cut"]
    assert [(one["result"], "interrupted: the run was stopped" in str(one["log"])) for one in cut] == [
        ("Failed", True)
    ]
    lines = read(told.run / "journal.jsonl").of("assertion")
    assert [line["outcome"] for line in lines] == ["passed", "failed"]
    assert "test_cut" in (told.run / "junit.xml").read_text()
    assert "test_never" not in told.page.partition('id="pytest"')[2]


def test_signal_from_outside(tmp_path: Path) -> None:
    """SIGINT while a test waits: the row, the record and the page are there, and the exit code is pytest's 2."""
    process = Suite(
        tmp_path,
        # A shell starts its background jobs with SIGINT ignored, and children inherit that.
        "import signal, threading\ndef test_cut():\n    signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "    print('waiting', flush=True)\n    threading.Event().wait(60)",
    ).start("-s")
    assert process.stdout is not None
    for line in process.stdout:
        if "waiting" in line:
            break
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=60)
    assert process.returncode == 2
    page = (tmp_path / "runs" / "20260602T001300Z-tiny-apply" / "report.html").read_text()
    assert rows(page)["test_0_preflight.py::test_cut"][0]["result"] == "Failed"


def test_killed_in_a_test(tmp_path: Path) -> None:
    """After SIGKILL there is no page; it is made from the journal, which holds every finished assertion."""
    suite = Suite(
        tmp_path,
        "import os, signal\ndef test_before(): pass\ndef test_cut(): os.kill(os.getpid(), signal.SIGKILL)",
    )
    told = suite.run()
    assert told.exit == -signal.SIGKILL
    assert not (told.run / "report.html").exists()
    written = finish(told.run)
    assert written.record is not None
    assert written.record.interrupted
    assert "test_before" in told.page
    assert "The run ended before pytest-html wrote its table." in told.page


def test_ids_are_text(tmp_path: Path) -> None:
    """A test id, a metadata value and an HTML extra that hold a script are shown as text."""
    told = Suite(
        tmp_path,
        """
        import pytest, pytest_html
        @pytest.mark.parametrize("name", ["<script>one()</script>"])
        def test_id(name, extras):
            extras.append(pytest_html.extras.html("<script>two()</script>"))
            extras.append(pytest_html.extras.url("javascript:three()", name="<b>"))
        """,
    ).run("--metadata", "built", "<script>four()</script>")
    assert told.exit == 0
    table = pytest_table.read(told.page)
    assert table is not None
    blob = json.dumps([table.data["environment"], *table.data["tests"].values()])
    assert not re.findall(r"<script|javascript:|<b>", blob)
    assert len(re.findall(r"&lt;script&gt;", blob)) >= 3
    assert told.page.count("<script") == 2


def test_a_secret_in_an_id_stops_the_run(tmp_path: Path) -> None:
    """An id that holds a secret is a usage error before any test runs, and the message does not repeat it."""
    token = "f00dfacef00dfacef00dfacef00dface"
    told = Suite(
        tmp_path, f"import pytest\n@pytest.mark.parametrize('name', ['{token}'])\ndef test_id(name): pass"
    ).run(env={"PLANTED": json.dumps([token])})
    assert told.exit == 4
    assert "has an id that holds a secret" in told.printed
    assert token not in told.printed


def test_a_full_disk_costs_only_the_report(tmp_path: Path) -> None:
    """When neither pytest-html nor we can write the page, the exit code, the summary and the journal stand."""
    suite = Suite(tmp_path, QUIET)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (12_000, before[1]))
    try:
        process = suite.start()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    printed, _ = process.communicate(timeout=60)
    assert process.returncode == 0
    assert "report not written: File too large" in printed
    assert "problem: report.html: could not be written" in printed
    assert "muster: " in printed
    assert sorted(path.name for path in suite.run_dir.iterdir()) == ["journal.jsonl", "junit.xml", "summary.json"]
    assert read(suite.run_dir / "journal.jsonl").finished


def test_a_long_run_stays_usable(tmp_path: Path) -> None:
    """Above 600 tests the table has one row a module and the failures; the counts stay those of all tests."""
    told = Suite(
        tmp_path,
        """
        import pytest
        @pytest.mark.parametrize("n", range(1300))
        def test_many(n): assert n % 400 != 399, f"number {n}"
        """,
    ).run("-q", "--tb=line")
    found = rows(told.page)
    assert [key for key in found if "::" not in key] == ["test_0_preflight.py (1300 tests)"]
    assert len(found) == 1 + 3
    assert "1297 Passed" in told.page
    assert "3 Failed" in told.page


def test_rendering_again_keeps_the_table(tmp_path: Path) -> None:
    """A finished page read again gives the same page: nothing is escaped twice, nothing is lost."""
    told = Suite(
        tmp_path,
        """
        import pytest, pytest_html
        @pytest.mark.parametrize("name", ["<b>&amp;</b>", 'a"b'])
        def test_id(name, extras):
            extras.append(pytest_html.extras.html("<i>&lt;x&gt;</i>"))
            extras.append(pytest_html.extras.text("some text"))
            print("<u>&amp;</u>")
            assert name != "<i>"
        def test_bad(): assert {"a": "<b>"} == {}
        """,
    ).run()
    first = told.page
    finish(told.run)
    assert told.page == first
    assert "&amp;amp;amp;" not in json.dumps(rows(first))


def test_a_page_of_another_kind_is_no_table() -> None:
    """A page without pytest-html's data, or a torn one, gives no table instead of a wrong one."""
    for page in (
        "",
        "<p>hello",
        "<div id=data-container data-jsonblob='{'>",
        "<div id=data-container data-jsonblob='{}'>",
    ):
        assert pytest_table.read(page) is None


@pytest.mark.parametrize(
    ("arguments", "code"), [([], 2), (["no-such-run"], 4), (["freshness", "--max", "soon"], 2)]
)
def test_wrong_usage_is_told(arguments: list[str], code: int) -> None:
    """``python -m reports`` without a command, or with a wrong one, exits 2; an unknown run exits 4."""
    told = subprocess.run(
        [sys.executable, "-m", "reports", *arguments], cwd=PROJECT, capture_output=True, text=True, check=False
    )
    assert told.returncode == code
    assert told.stderr
    assert "Traceback" not in told.stderr
