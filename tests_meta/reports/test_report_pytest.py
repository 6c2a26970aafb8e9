"""pytest-html's table in the report, made by real pytest processes: complete and escaped."""

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
    """The rows of pytest-html's table by test id."""
    table = pytest_table.read(page)
    assert table is not None
    found: dict[str, list[dict[str, object]]] = table.data["tests"]
    return found


def test_page_holds_report_and_table(tmp_path: Path) -> None:
    """The finished page holds the report and pytest-html's table with its script; junit.xml is beside it."""
    done = Suite(tmp_path, QUIET).run()
    assert done.exit == 0
    assert list(rows(done.page)) == ["test_0_preflight.py::test_fine"]
    assert 'id="todo"' in done.page
    assert "class DataManager" in done.page
    assert ElementTree.parse(done.run / "junit.xml").getroot().find("testsuite") is not None
    assert "only the raw part" not in done.page


def test_collect_only_overwrites_nothing(tmp_path: Path) -> None:
    """``--collect-only`` does not change the files of the latest run."""
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
def test_interrupted_test_has_its_row(tmp_path: Path, how: str) -> None:
    """The test that was running at the interrupt is in the table, the journal and junit.xml as interrupted."""
    done = Suite(tmp_path, INTERRUPTS[how]).run()
    assert done.exit == 2
    cut = rows(done.page)["test_0_preflight.py::test_cut"]
    assert [(one["result"], "interrupted: the run was stopped" in str(one["log"])) for one in cut] == [
        ("Failed", True)
    ]
    lines = read(done.run / "journal.jsonl").of("assertion")
    assert [line["outcome"] for line in lines] == ["passed", "failed"]
    assert "test_cut" in (done.run / "junit.xml").read_text()
    assert "test_never" not in done.page.partition('id="pytest"')[2]


def test_sigint_writes_the_page(tmp_path: Path) -> None:
    """After SIGINT during a test the page has its row, and the exit code is pytest's 2."""
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


def test_killed_run_is_rendered_from_its_journal(tmp_path: Path) -> None:
    """After SIGKILL the page is made from the journal, which holds every finished assertion."""
    suite = Suite(
        tmp_path,
        "import os, signal\ndef test_before(): pass\ndef test_cut(): os.kill(os.getpid(), signal.SIGKILL)",
    )
    done = suite.run()
    assert done.exit == -signal.SIGKILL
    assert not (done.run / "report.html").exists()
    written = finish(done.run)
    assert written.record is not None
    assert written.record.interrupted
    assert "test_before" in done.page
    assert "The run ended before pytest-html wrote its table." in done.page


def test_scripts_in_ids_are_text(tmp_path: Path) -> None:
    """A test id, a metadata value and an HTML extra that hold a script are shown as text."""
    done = Suite(
        tmp_path,
        """
        import pytest, pytest_html
        @pytest.mark.parametrize("name", ["<script>one()</script>"])
        def test_id(name, extras):
            extras.append(pytest_html.extras.html("<script>two()</script>"))
            extras.append(pytest_html.extras.url("javascript:three()", name="<b>"))
        """,
    ).run("--metadata", "built", "<script>four()</script>")
    assert done.exit == 0
    table = pytest_table.read(done.page)
    assert table is not None
    blob = json.dumps([table.data["environment"], *table.data["tests"].values()])
    assert not re.findall(r"<script|javascript:|<b>", blob)
    assert len(re.findall(r"&lt;script&gt;", blob)) >= 3
    assert done.page.count("<script") == 2


def test_secret_in_a_test_id_is_a_usage_error(tmp_path: Path) -> None:
    """A test id that holds a secret is a usage error before any test runs; the message does not show it."""
    token = "f00dfacef00dfacef00dfacef00dface"
    done = Suite(
        tmp_path, f"import pytest\n@pytest.mark.parametrize('name', ['{token}'])\ndef test_id(name): pass"
    ).run(env={"PLANTED": json.dumps([token])})
    assert done.exit == 4
    assert "has an id that holds a secret" in done.printed
    assert token not in done.printed


def test_full_disk_loses_only_the_page(tmp_path: Path) -> None:
    """When the page cannot be written, the exit code does not change, and summary and journal are complete."""
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


def test_long_run_has_a_short_table(tmp_path: Path) -> None:
    """Above 600 tests the table has one row for each module and each failure; the counts include all tests."""
    done = Suite(
        tmp_path,
        """
        import pytest
        @pytest.mark.parametrize("n", range(1300))
        def test_many(n): assert n % 400 != 399, f"number {n}"
        """,
    ).run("-q", "--tb=line")
    found = rows(done.page)
    assert [key for key in found if "::" not in key] == ["test_0_preflight.py (1300 tests)"]
    assert len(found) == 1 + 3
    assert "1297 Passed" in done.page
    assert "3 Failed" in done.page


def test_rendering_again_keeps_the_table(tmp_path: Path) -> None:
    """Rendering a finished page again gives the same page."""
    done = Suite(
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
    first = done.page
    finish(done.run)
    assert done.page == first
    assert "&amp;amp;amp;" not in json.dumps(rows(first))


def test_page_without_table_data_gives_no_table() -> None:
    """A page without pytest-html's data, or with incomplete data, gives no table."""
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
def test_wrong_usage_is_explained(arguments: list[str], code: int) -> None:
    """``python -m reports`` without a command, or with a wrong one, exits 2; an unknown run exits 4."""
    done = subprocess.run(
        [sys.executable, "-m", "reports", *arguments], cwd=PROJECT, capture_output=True, text=True, check=False
    )
    assert done.returncode == code
    assert done.stderr
    assert "Traceback" not in done.stderr
