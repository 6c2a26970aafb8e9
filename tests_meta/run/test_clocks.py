"""Clocks that are minutes apart: measured from the servers' answers, allowed for, and reported as findings.

The embedded servers are set seven minutes ahead or behind (``--fault clock-…``).
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fixtures.clients.clock_offset import ClockOffset
from fixtures.clients.drone_values import Build
from fixtures.clients.forge_values import Comment
from fixtures.clients.http import Http
from fixtures.journal.reader import Change
from fixtures.triggers.fixture import needs_trigger
from fixtures.verdicts import testme
from tests_meta.clients.http_server import Answer, serving
from tests_meta.muster_runs import Ran, muster
from tests_meta.parallel_worlds import ROSTER

NIGHT = datetime(2026, 6, 2, 0, 30, tzinfo=UTC)
SEVEN = timedelta(minutes=7)


def offset_of(ahead: timedelta) -> ClockOffset:
    clock = ClockOffset(grain_s=1.0)
    clock.note(NIGHT + ahead, sent=NIGHT, received=NIGHT)
    return clock


# -- measured ------------------------------------------------------------------------------------------------


@given(
    ahead_s=st.floats(-90_000, 90_000),
    readings=st.lists(st.tuples(st.floats(0, 5), st.floats(0, 5), st.floats(0, 100)), min_size=1, max_size=8),
)
def test_the_difference_lies_within_what_the_answers_allow(
    ahead_s: float, readings: list[tuple[float, float, float]]
) -> None:
    """However slow the answers were: wrong by no more than half of the quickest one's time and half a second."""
    clock = ClockOffset(grain_s=1.0)
    for there_s, back_s, after_s in readings:
        sent = NIGHT + timedelta(seconds=after_s)
        written = sent + timedelta(seconds=there_s)
        theirs = (written + timedelta(seconds=ahead_s)).replace(microsecond=0)
        clock.note(theirs, sent=sent, received=written + timedelta(seconds=back_s))
    quickest_s = min(there + back for there, back, _ in readings)
    assert abs(clock.seconds - ahead_s) <= (quickest_s + 1.0) / 2 + 0.001


def test_a_clock_that_was_set_is_measured_again() -> None:
    """Earlier measurements no longer count."""
    clock = offset_of(SEVEN)
    clock.note(NIGHT, sent=NIGHT, received=NIGHT)
    assert abs(clock.seconds) <= 1


@pytest.mark.parametrize("minutes", [-7, 7])
def test_a_servers_clock_is_read_from_its_answers(minutes: int) -> None:
    """The Date header of an answer, over a real connection."""
    with serving() as server:
        ahead = datetime.now(UTC) + timedelta(minutes=minutes)
        server.usual = Answer(headers={"Date": format_datetime(ahead, usegmt=True)})
        http = Http("drone", server.url, timeout_s=5)
        http.get("/")
        assert abs(http.clock.seconds - 60 * minutes) < 30
        assert abs((http.clock.ours(ahead) - datetime.now(UTC)).total_seconds()) < 30
        http.close()


# -- allowed for ---------------------------------------------------------------------------------------------


def is_triggered(
    built: datetime,
    enrolled: datetime,
    *,
    drone: timedelta,
    forge: timedelta,
    holders: frozenset[str] = frozenset(),
) -> bool:
    """Whether a canary is triggered, given the true times of its latest build and of the enrollment."""
    params = {"RECIPE": "ghost", "REF": "d" * 40}
    build = Build(7, "success", "custom", "c" * 40, "bot", params, built + drone, None, None, "")
    host = SimpleNamespace(poll_file_changed=enrolled + forge, poll_file_holders=holders)
    surveys = SimpleNamespace(now=SimpleNamespace(builds=(build,), host=host))
    context = SimpleNamespace(
        site=SimpleNamespace(
            drone=SimpleNamespace(recipe_parameter="RECIPE", head_parameter="REF", bridge_account=""),
            ccci=SimpleNamespace(branch="main"),
            limits=SimpleNamespace(clock_skew_s=30.0),
        ),
        world=SimpleNamespace(
            drone=SimpleNamespace(clock=offset_of(drone)),
            forge=SimpleNamespace(clock=offset_of(forge), bot="bot"),
        ),
    )
    return needs_trigger(cast(Any, context), cast(Any, surveys), "ghost")


@pytest.mark.parametrize("drone", [-SEVEN, timedelta(), SEVEN])
@pytest.mark.parametrize("forge", [-SEVEN, timedelta(), SEVEN])
def test_a_builds_age_does_not_depend_on_the_servers_clocks(drone: timedelta, forge: timedelta) -> None:
    """A build five minutes before the enrollment is too old, one five minutes after counts, by any clock."""
    five = timedelta(minutes=5)
    assert is_triggered(NIGHT - five, NIGHT, drone=drone, forge=forge)
    assert not is_triggered(NIGHT + five, NIGHT, drone=drone, forge=forge)


def test_a_build_of_a_commit_with_the_enrollment_counts_without_any_clock() -> None:
    """The history of cc-ci decides, because a clock that was set since the commit would be misleading."""
    for holders, triggered in ((frozenset[str](), True), (frozenset({"c" * 40}), False)):
        later = NIGHT + 2 * SEVEN
        assert is_triggered(NIGHT, later, drone=timedelta(), forge=timedelta(), holders=holders) is triggered


def test_without_the_correction_the_clocks_would_have_decided() -> None:
    """The control: seven minutes are enough to reverse the result."""
    five = timedelta(minutes=5)
    assert NIGHT - five + SEVEN > NIGHT > NIGHT + five - SEVEN


@pytest.mark.parametrize("ahead", [-SEVEN, timedelta(), SEVEN])
def test_a_lost_comment_is_found_by_its_number(ahead: timedelta) -> None:
    """Earlier comments are left alone, whatever the forge's clock says, after the run that posted one was killed."""

    def left(number: int, created: datetime, **undo: object) -> bool:
        change = cast(Change, SimpleNamespace(undo=undo, at=NIGHT.isoformat()))
        forge = SimpleNamespace(bot="bot", clock=offset_of(ahead))
        run = SimpleNamespace(site=SimpleNamespace(verdicts=SimpleNamespace(trigger="!testme")))
        comment = Comment(number, "bot", "!testme", created + ahead, "")
        return testme._left_by(cast(Any, run), cast(Any, SimpleNamespace(forge=forge)), comment, change)

    minute = timedelta(minutes=1)
    assert left(11, NIGHT - minute, newest_before=10)
    assert not left(10, NIGHT + minute, newest_before=10)
    # A record of an older muster has no number: then by time, each by its own clock.
    assert left(11, NIGHT + minute)
    assert not left(11, NIGHT - minute)


# -- a whole run ---------------------------------------------------------------------------------------------


def clocks_of(ran: Ran) -> list[str]:
    return sorted(one["id"] for one in ran.summary["findings"] if one["id"].startswith("clock-"))


def test_a_migration_between_clocks_minutes_apart_converges_and_says_so(tmp_path: Path) -> None:
    """Forge and host ahead, Drone behind; then the other way round, and nothing is triggered or changed again."""
    roster, world = tmp_path / "roster.toml", tmp_path / "world"
    roster.write_text(ROSTER)
    fixed = ("--roster", str(roster), "--world", str(world))

    def with_clocks(forge: str, drone: str, host: str) -> Ran:
        faults = (f"clock-forge-{forge}", f"clock-drone-{drone}", f"clock-host-{host}")
        return muster(*fixed, *(word for fault in faults for word in ("--fault", fault))).demand(0)

    first = with_clocks("ahead", "behind", "ahead")
    assert first.summary["verdict"] == "converged"
    assert clocks_of(first) == ["clock-drone", "clock-forge", "clock-host"]
    again = with_clocks("behind", "ahead", "behind")
    assert again.summary["verdict"] == "unchanged"
    assert again.summary["changes"] == []
    assert clocks_of(again) == ["clock-drone", "clock-forge", "clock-host"]
