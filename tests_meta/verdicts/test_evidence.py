"""A green build counts only with results that bear it out, and builds that agree are not flaky."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from fixtures.ccci.suites import META, Suite
from fixtures.clients.drone_values import Build, Results, TestRow
from fixtures.journal.kinds import Doubt
from fixtures.verdicts.classes import is_flaky
from fixtures.verdicts.evidence import digest, find_doubt
from fixtures.verdicts.latest import LatestVerdict, VerdictSource

HEAD, OTHER = "a" * 40, "b" * 40
FILE = "functional/test_front.py"
SUITE = Suite("ghost", {META: "0", FILE: "1"}, {FILE: ("test_front", "test_login")})
PASSED = TestRow("custom", f"{FILE}::test_front", "passed")
FAILED = TestRow("custom", f"{FILE}::test_login", "failed")
SKIPPED = TestRow("custom", f"{FILE}::test_front", "skipped")
GENERIC = TestRow("install", "_generic/test_generic_install.py::test_serves", "passed")


def results(*rows: TestRow, recipe: str = "ghost", head: str = HEAD) -> Results:
    return Results(recipe, head, rows)


@pytest.mark.parametrize(
    ("found", "doubt"),
    [
        (results(GENERIC, PASSED), None),
        (results(PASSED, head=""), None),
        (results(GENERIC, TestRow("custom", "test_front", "passed")), None),
        (None, Doubt.MISSING),
        (results(PASSED, recipe="immich"), Doubt.FOREIGN),
        (results(PASSED, head=OTHER), Doubt.FOREIGN),
        (results(), Doubt.EMPTY),
        (results(SKIPPED), Doubt.SKIPPED),
        (results(GENERIC, PASSED, FAILED), Doubt.FAILED),
        (results(FAILED), Doubt.FAILED),
        (results(GENERIC), Doubt.NOT_OWN),
        (results(GENERIC, SKIPPED), Doubt.NOT_OWN),
    ],
)
def test_green_needs_results_of_its_own_that_passed(found: Results | None, doubt: Doubt | None) -> None:
    """Results that are missing, foreign, empty, skipped, failed, or without the suite's own tests prove no green."""
    assert find_doubt(found, recipe="ghost", head=HEAD, suite=SUITE) is doubt


def test_tests_that_did_not_run_are_named() -> None:
    """Each test of the suite that can fail and has no row is named."""
    assert SUITE.not_run([PASSED.name]) == [f"{FILE}::test_login"]
    assert SUITE.not_run([PASSED.name, f"{FILE}::test_login[de]"]) == []


def test_digest_changes_with_what_the_results_say() -> None:
    """The order of the rows does not matter; an outcome, a head and a missing file do."""
    every = {digest(one) for one in (None, results(PASSED), results(SKIPPED), results(PASSED, head=OTHER))}
    assert len(every) == 4
    assert digest(results(PASSED, GENERIC)) == digest(results(GENERIC, PASSED))


@pytest.mark.parametrize(
    ("outcomes", "flaky"),
    [
        ("gr", True),
        ("rg", True),
        ("rrg", True),
        ("grgr", True),
        ("rrrg", False),
        ("rrrrrrrrrg", False),
        ("gggr", False),
        ("gg", False),
        ("rr", False),
    ],
)
def test_flaky_is_an_alternation_with_a_bound(outcomes: str, flaky: bool) -> None:
    """Latest first, green and red in turn are flaky; as soon as the last three agree, they are not."""
    started = datetime(2026, 6, 2, tzinfo=UTC)
    builds = tuple(
        Build(
            number=100 - index,
            status={"g": "success", "r": "failure"}[outcome],
            event="custom",
            commit="c" * 40,
            sender="bot",
            params={"RECIPE": "ghost", "REF": HEAD},
            created=started - timedelta(hours=index),
            started=None,
            finished=None,
            error="",
        )
        for index, outcome in enumerate(outcomes)
    )
    latest = LatestVerdict(
        "ghost",
        green=outcomes[0] == "g",
        at=started,
        head=HEAD,
        source=VerdictSource.DRONE,
        suite_commit="c" * 40,
        builds=builds,
    )
    assert is_flaky(latest) is flaky
