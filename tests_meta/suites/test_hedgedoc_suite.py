"""The suite for hedgedoc passes on a working HedgeDoc and fails on a broken one.

Each run is the shipped suite in a separate process, over TLS, against a stand-in app. To run it against a real
HedgeDoc: ``pytest fixtures/shipped/payload/hedgedoc --app-url https://…``.
"""

from __future__ import annotations

import ast
import json
import runpy
import shutil
import sys
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest

from fixtures.rehearsal.apps.hedgedoc import FLAWS, SWITCHES
from tests_meta.suites.hedgedoc_apps import SUITE, Servers, SuiteRun, run_suite

AT_MOST_S = 15.0
LIVE_APP = """
import os
import pytest

@pytest.fixture(scope="session")
def live_app():
    return os.environ["CCCI_APP_DOMAIN"]
"""


def functions(tree: ast.Module) -> Iterator[ast.FunctionDef]:
    """The tests of one file."""
    for node in tree.body:
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
            yield node


ALL_TESTS = frozenset(
    test.name for path in SUITE.glob("functional/test_*.py") for test in functions(ast.parse(path.read_text()))
)
HEALTH = {
    "test_health_says_ready",
    "test_status_counts_come_from_the_database",
    "test_unknown_note_is_hedgedocs_own_404",
}
NOTES = {
    "test_note_comes_back_byte_for_byte",
    "test_note_opens_in_the_editor",
    "test_note_has_information",
    "test_note_has_its_first_revision",
    "test_note_is_published",
    "test_note_is_a_slide_show",
}
BUNDLED = {"test_bundled_document_goes_through_the_database"}
EDIT = {"test_edit_reaches_the_other_writer_and_the_database"}
SOCKETS = EDIT | {
    "test_document_comes_over_the_socket",
    "test_socket_refuses_visitor_without_session",
    "test_websocket_carries_frames_both_ways",
}
UPLOADS = {"test_picture_is_kept", "test_what_is_no_picture_is_refused"}
ACCOUNT = {"test_visitor_registers_signs_in_writes_and_leaves"}
CONFIG = {"test_configuration_is_of_this_domain_and_version"}
COOKIE = {"test_session_cookie_is_secure"}

CAUGHT_BY: dict[str, set[str]] = {
    "saved-front-page": HEALTH | NOTES | BUNDLED | SOCKETS | UPLOADS | ACCOUNT | CONFIG | COOKIE
    | {"test_front_page_is_hedgedocs"},
    "database-dead": (HEALTH - {"test_health_says_ready"}) | NOTES | BUNDLED | SOCKETS
    - {"test_socket_refuses_visitor_without_session"} | ACCOUNT,
    "wrong-domain": {"test_front_page_names_its_public_address"} | CONFIG | NOTES | EDIT | ACCOUNT
    | {"test_picture_is_kept"},
    "sockets-refused": SOCKETS,
    "uploads-lost": {"test_picture_is_kept"},
    "says-200-to-everything": HEALTH | NOTES | BUNDLED | SOCKETS | UPLOADS | ACCOUNT | CONFIG
    | {"test_front_end_is_built", "test_logo_is_served"},
    "other-product": set(ALL_TESTS),
    "websockets-blocked": {"test_websocket_carries_frames_both_ways"},
    "edits-lost": EDIT,
    "text-mangled": {"test_note_comes_back_byte_for_byte", "test_note_has_its_first_revision"}
    | {"test_note_is_published"},
    "https-hidden": COOKIE | ACCOUNT | (SOCKETS - {"test_socket_refuses_visitor_without_session"}),
    "front-end-missing": {"test_front_end_is_built"},
}  # fmt: skip
"""For each broken app, exactly the tests that must fail on it."""

SCENARIOS: dict[str, dict[str, Any]] = {
    **{flaw: {"flaw": flaw} for flaw in FLAWS},
    "1.9.9": {"version": "1.9.9"},
    "1.10.8": {"version": "1.10.8"},
    "guests off": {"guests": False},
    "uploads off": {"uploads": False},
    **{f"{switch} off": {"off": [switch]} for switch in SWITCHES},
}
"""The apps that the suite runs against, by name, with the options of `make_app`."""


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Servers]:
    """The servers of the stand-in apps, with a private certificate authority."""
    made = Servers(tmp_path_factory.mktemp("tls"))
    yield made
    made.close()


@pytest.fixture(scope="module")
def on(servers: Servers, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Future[SuiteRun]]]:
    """The suite's run on each app, several at a time, because most of a run is waiting."""

    def run(options: dict[str, Any]) -> SuiteRun:
        with servers.hedgedoc(**options) as domain:
            return run_suite(domain, ca=servers.files.ca, report=tmp_path_factory.mktemp("report") / "junit.xml")

    pool = ThreadPoolExecutor(max_workers=4)
    yield {name: pool.submit(run, options) for name, options in SCENARIOS.items()}
    pool.shutdown(cancel_futures=True)


@pytest.fixture(scope="module")
def in_a_row(servers: Servers, tmp_path_factory: pytest.TempPathFactory) -> list[SuiteRun]:
    """Four consecutive runs against one newly started HedgeDoc."""
    reports = tmp_path_factory.mktemp("in-a-row")
    with servers.hedgedoc(busy_s=1.0) as domain:
        return [run_suite(domain, ca=servers.files.ca, report=reports / f"{n}.xml") for n in range(4)]


def test_every_broken_app_has_a_list_of_failing_tests() -> None:
    """Every broken app has a list of the tests that must fail, and the lists name existing tests only."""
    assert set(CAUGHT_BY) == set(FLAWS)
    assert set().union(*CAUGHT_BY.values()) <= ALL_TESTS


def test_healthy_app_passes_three_times_in_a_row(in_a_row: list[SuiteRun]) -> None:
    """Three runs in a row pass completely and in time, in spite of rate limits for notes and log-ins."""
    for result in in_a_row[:3]:
        assert result.passed == ALL_TESTS, result.output
        assert result.seconds <= AT_MOST_S, f"a run took {result.seconds:.1f} s"


@pytest.mark.parametrize("version", ["1.10.3", "1.12.0"])
def test_no_account_and_no_session_is_left(version: str, servers: Servers, tmp_path: Path) -> None:
    """After a run no account and no online user remains, which would delay a stop of HedgeDoc."""
    with servers.hedgedoc(version=version) as domain:
        before = json.loads(servers.get(domain, "/status")[2])
        result = run_suite(domain, ca=servers.files.ca, report=tmp_path / "junit.xml")
        after = json.loads(servers.get(domain, "/status")[2])
    assert result.passed == ALL_TESTS, result.output
    assert before["notesCount"] < after["notesCount"], "the counts stand still"
    assert [after[name] for name in ("registeredUsers", "onlineUsers", "onlineNotes")] == [0, 0, 0]


def test_account_check_is_skipped_beyond_the_rate_limit(in_a_row: list[SuiteRun]) -> None:
    """A fourth run within five minutes skips the account check and names the limit; all other tests run."""
    result = in_a_row[3]
    assert set(result.skipped) == ACCOUNT, result.output
    assert "10 log-ins and registrations in 5 minutes" in "".join(result.skipped.values())
    assert result.passed == ALL_TESTS - ACCOUNT, result.output


@pytest.mark.parametrize("flaw", FLAWS)
def test_broken_app_fails_the_listed_tests(flaw: str, on: dict[str, Future[SuiteRun]]) -> None:
    """On a broken app exactly the listed tests fail, and none of them is skipped."""
    result = on[flaw].result()
    assert result.names == ALL_TESTS, result.output
    assert (sorted(result.failed), result.skipped) == (sorted(CAUGHT_BY[flaw]), {}), result.output


@pytest.mark.parametrize("version", ["1.9.9", "1.10.8"])
def test_older_versions_pass(version: str, on: dict[str, Future[SuiteRun]]) -> None:
    """The suite passes on versions with the older socket protocol, and on those without rate limits."""
    result = on[version].result()
    assert result.passed == ALL_TESTS, result.output


def test_skips_without_guests_name_the_setting(on: dict[str, Future[SuiteRun]]) -> None:
    """If guests may not write, the tests that need a guest are skipped with the setting; all others pass."""
    result = on["guests off"].result()
    assert set(result.skipped) == NOTES | EDIT | UPLOADS, result.output
    assert all("CMD_ALLOW_ANONYMOUS=false" in reason for reason in result.skipped.values()), result.skipped
    assert result.passed == ALL_TESTS - set(result.skipped), result.output


def test_skips_without_uploads_name_the_setting(on: dict[str, Future[SuiteRun]]) -> None:
    """If guests may not upload, only the uploads are skipped."""
    result = on["uploads off"].result()
    assert set(result.skipped) == UPLOADS, result.output
    assert all("CMD_ENABLE_UPLOADS" in reason for reason in result.skipped.values()), result.skipped
    assert result.passed == ALL_TESTS - UPLOADS, result.output


@pytest.mark.parametrize(
    ("switch", "skipped"),
    [
        ("statistics", {"test_status_counts_come_from_the_database"}),
        ("email", ACCOUNT),
        ("registration", ACCOUNT),
        ("note-creation", NOTES | EDIT | ACCOUNT),
    ],
)
def test_disabled_feature_is_skipped_with_its_setting(
    switch: str, skipped: set[str], on: dict[str, Future[SuiteRun]]
) -> None:
    """Tests of a disabled feature are skipped with the name of the setting; all others pass."""
    result = on[f"{switch} off"].result()
    assert set(result.skipped) == skipped, result.output
    assert all(SWITCHES[switch] in reason for reason in result.skipped.values()), result.skipped
    assert result.passed == ALL_TESTS - skipped, result.output


def test_secrets_are_not_in_the_output(on: dict[str, Future[SuiteRun]], servers: Servers) -> None:
    """The output of failing runs has neither passwords nor session cookies, in any encoding."""
    with servers.hedgedoc() as domain:
        sent = servers.get(domain, "/")[1] + urlencode({"email": "somebody", "password": "something"})
    printed = "".join(run.result().output for run in on.values())
    assert "https://localhost:" in printed
    for trace in ("connect.sid=s", "s%3A", "password="):
        assert trace in sent, f"{trace} is not how a secret is sent: this test would find none"
        assert trace not in printed


@pytest.mark.parametrize("mode", ["prepend", "importlib"])
def test_suite_is_collected_in_cc_cis_layout(mode: str, servers: Servers, tmp_path: Path) -> None:
    """As tests/hedgedoc/ below another conftest, every test is found and passes, in both import modes."""
    tests = tmp_path / "tests"
    shutil.copytree(SUITE, tests / "hedgedoc", ignore=shutil.ignore_patterns("__pycache__"))
    (tests / "conftest.py").write_text(LIVE_APP)
    with servers.hedgedoc() as domain:
        result = run_suite(
            domain,
            ca=servers.files.ca,
            report=tmp_path / "junit.xml",
            suite=tests / "hedgedoc",
            arguments=(f"--import-mode={mode}", f"--rootdir={tmp_path}"),
        )
    assert result.passed == ALL_TESTS, result.output


def test_suite_needs_only_pytest_and_live_app() -> None:
    """The suite imports only the standard library, pytest and its own modules; its tests use one fixture."""
    neighbours = {path.stem for path in SUITE.glob("functional/*.py")}
    known = sys.stdlib_module_names | neighbours | {"pytest"}
    for path in SUITE.rglob("*.py"):
        tree = ast.parse(path.read_text())
        assert {module.split(".")[0] for module in imported(tree)} <= known, path
        for test in functions(tree):
            assert [argument.arg for argument in test.args.args] == ["live_app"], f"{path}: {test.name}"


def imported(tree: ast.Module) -> Iterator[str]:
    """The modules that a file imports; fails the test for a relative import, which does not work in cc-ci."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "a relative import needs a package, and tests/<recipe>/ is none"
            yield node.module or ""


def test_health_path_depends_on_the_database(servers: Servers) -> None:
    """HEALTH_PATH answers as HEALTH_OK says, with and without guests, and differently without the database."""
    meta = runpy.run_path(str(SUITE / "recipe_meta.py"))
    healthy: tuple[dict[str, Any], ...] = ({}, {"guests": False})
    for options in healthy:
        with servers.hedgedoc(**options) as domain:
            assert servers.get(domain, meta["HEALTH_PATH"])[0] in meta["HEALTH_OK"]
    with servers.hedgedoc(flaw="database-dead") as domain:
        assert servers.get(domain, meta["HEALTH_PATH"])[0] not in meta["HEALTH_OK"]
