"""Newest verdicts: read and not asked for, judged against the roster and against what earlier nights saw."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from datetime import date, timedelta
from pathlib import Path

import pytest

from fixtures.config.roster import KnownRed
from fixtures.rehearsal.drone_embedded import model
from tests_meta.rehearsal.ci_world import ORG, World, running
from tests_meta.verdicts.verdict_world import NIGHT, SUITE, Nights, Planted, findings, plant

FAIL = {"restore/test_restore.py::test_marker": "fail", "functional/test_front.py::test_front": "pass"}
LIMIT = "Error response from daemon: toomanyrequests: You have reached your pull rate limit.\n"
CRASH = "plausible_app.1  task: non-zero exit (1)  Failed 3 minutes ago\nconnection refused\n"
GONE = "d" * 40
EXCUSE = KnownRed(reason="restore loses the table", until=date(2027, 6, 2))
ENDED = KnownRed(reason="restore loses the table", until=date(2026, 6, 1))
ROSTER: dict[str, KnownRed | None] = {
    "calm": None,
    "broken": None,
    "excused": EXCUSE,
    "ended": ENDED,
    "mended": EXCUSE,
    "waverer": None,
    "limited": None,
    "lost": None,
    "ancient": None,
    "remembered": None,
    "unasked": None,
    "running": None,
}
FIRST = {
    "calm": "green",
    "broken": "red-before",
    "excused": "known-red",
    "ended": "expired",
    "mended": "fixed",
    "waverer": "flaky",
    "limited": "environmental",
    "lost": "environmental",
    "ancient": "too-old",
    "remembered": "green",
    "unasked": "none",
    "running": "green",
}


def past(world: World) -> list[Planted]:
    main = {name: world.head(name) for name in ROSTER}
    change = world.head("excused", "change")
    red = {"status": model.FAILURE, "tests": FAIL}
    return [
        Planted(number=200, recipe="calm", head=main["calm"], hours=5),
        Planted(number=190, recipe="calm", head=main["calm"], hours=90, status=model.FAILURE, suite="4" * 40),
        Planted(number=201, recipe="broken", head=GONE, hours=6, log=CRASH, **red),  # type: ignore[arg-type]
        Planted(number=202, recipe="excused", head=change, hours=7, **red),  # type: ignore[arg-type]
        Planted(number=203, recipe="ended", head=main["ended"], hours=8, **red),  # type: ignore[arg-type]
        Planted(number=204, recipe="mended", head=main["mended"], hours=9),
        Planted(number=205, recipe="waverer", head=main["waverer"], hours=30),
        Planted(number=206, recipe="waverer", head=main["waverer"], hours=20, **red),  # type: ignore[arg-type]
        Planted(number=207, recipe="limited", head=main["limited"], hours=2, status=model.FAILURE, log=LIMIT),
        Planted(number=199, recipe="limited", head=main["limited"], hours=40),
        Planted(
            number=208, recipe="lost", head=main["lost"], hours=3, status=model.ERROR, error="the runner was lost"
        ),
        Planted(number=209, recipe="ancient", head=main["ancient"], hours=24 * 20),
        Planted(number=210, recipe="running", head=main["running"], hours=50),
        Planted(number=211, recipe="running", head=main["running"], hours=0.1, status=model.RUNNING),
    ]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with running(tmp_path_factory.mktemp("verdicts") / "world", {name: {} for name in ROSTER}) as started:
        Nights(started.settings, Path()).prepare()
        plant(started.settings, past(started))
        # Of this one only a status is left: the Drone that built it is gone.
        report(started, "remembered", number=153)
        yield started


def report(world: World, recipe: str, *, number: int, user: str = "", state: str = "success") -> None:
    body = {
        "state": state,
        "context": "cc-ci/testme",
        "target_url": f"{world.settings.ci_url}/{ORG}/cc-ci/{number}",
        "description": "level 4",
    }
    path = f"/repos/{ORG}/{recipe}/statuses/{world.head(recipe)}"
    who = {"user": user} if user else {}
    assert world.forge("POST", path, json=body, **who).status_code == 201


@pytest.fixture
def nights(world: World, tmp_path: Path) -> Nights:
    return Nights(world.settings, tmp_path)


def test_each_newest_verdict_gets_its_class(nights: Nights) -> None:
    """On the first night a red that stood before it, and is not in the roster, is nobody's news: it is no new red."""
    _, standings = nights.look(ROSTER)
    assert {name: one.kind for name, one in standings.items()} == FIRST


def test_a_standing_says_which_head_how_old_what_ran_and_with_which_suite(nights: Nights) -> None:
    """Main, an open pull request, or a commit that is no head any more; the failed test is named."""
    _, standings = nights.look(ROSTER)
    assert standings["calm"].about == "main as it is now"
    assert standings["excused"].about == "open pull request #1"
    assert standings["broken"].about == "a commit that is no head any more"
    calm, broken = standings["calm"].newest, standings["broken"].newest
    assert calm is not None
    assert broken is not None
    assert calm.suite_commit == SUITE
    assert calm.tests == (("custom::functional/test_front.py::test_front", "passed"),)
    assert "custom::restore/test_restore.py::test_marker" in standings["broken"].words
    assert standings["broken"].age_s == pytest.approx(6 * 3600 - 13 * 60)
    assert "build 201 is failure" in standings["broken"].words


def test_what_a_person_must_see_is_a_finding_with_a_name_that_stays(nights: Nights) -> None:
    """Class and recipe make its id; the machine's faults, wavering and age warn, and what fails asks for an act."""
    first, _ = nights.look(ROSTER)
    second, _ = nights.look(ROSTER, at=NIGHT + timedelta(days=1))
    wanted = {
        "red-before-broken": "action",
        "expired-ended": "action",
        "fixed-mended": "action",
        "flaky-waverer": "warning",
        "environmental-limited": "warning",
        "environmental-lost": "warning",
        "verdicts-too-old": "warning",
        "verdicts-missing": "info",
    }
    assert findings(first) == findings(second) == wanted
    told = {finding.id: finding for finding in first.record.findings}
    assert "pull limit" in told["environmental-limited"].what
    assert "take" in told["fixed-mended"].do.lower()
    assert told["red-before-broken"].where.endswith("/cc-ci/201")


def test_a_night_without_news_asks_for_nothing_more(nights: Nights) -> None:
    """Results and logs of a finished build are read once; what a status said, and a head asked in vain, too."""
    first, _ = nights.look(ROSTER)
    second, standings = nights.look(ROSTER, at=NIGHT + timedelta(days=1))
    # 10 results; steps and log of 5 reds (the sixth says by itself that its runner was lost); a status with its
    # results; main and the open pull request of the one that nobody ever asked.
    assert first.context.request_counts()["news"] == 10 + 2 * 5 + 2 + 2
    assert second.context.request_counts()["news"] == 0
    assert {name: one.kind for name, one in standings.items()} == FIRST
    assert standings["limited"].newest
    assert standings["limited"].newest.sign
    assert second.context.request_counts()["drone"] == 2


def test_a_red_after_the_first_look_is_new_until_it_is_green_or_in_the_roster(
    nights: Nights, world: World
) -> None:
    """It stays new every night and since when it is; a red of the machine's after it does not cover it up."""
    main = world.head("calm")
    roster: dict[str, KnownRed | None] = {"calm": None}
    kept = world.settings.ci_dir / "drone.sqlite"
    assert kept.exists()

    def night(day: int, *builds: Planted) -> str:
        if builds:
            plant(world.settings, builds)
        _, standings = nights.look(roster, at=NIGHT + timedelta(days=day), verdict_age_d=3650)
        return f"{standings['calm'].kind} {standings['calm'].since:%d}"

    assert night(0) == "green 01"
    red = Planted(
        number=300, recipe="calm", head=main, hours=-10, status=model.FAILURE, tests=FAIL, suite="6" * 40
    )
    assert night(1, red) == "new-red 02"
    assert night(2) == "new-red 02"
    machine = Planted(number=301, recipe="calm", head=main, hours=-60, status=model.FAILURE, log=LIMIT, tests={})
    assert night(3, machine) == "new-red 02"
    roster["calm"] = EXCUSE
    assert night(4) == "environmental 04"
    roster["calm"] = None
    green = Planted(number=302, recipe="calm", head=main, hours=-110, suite="7" * 40)
    assert night(5, green) == "green 06"


def test_a_red_that_the_machine_caused_does_not_make_a_recipe_flaky(nights: Nights, world: World) -> None:
    """Red by the registry's limit, then green at the same commit and suite: that is no wavering."""
    main = world.head("limited")
    roster: dict[str, KnownRed | None] = {"limited": None}
    _, before = nights.look(roster)
    assert before["limited"].kind == "environmental"
    plant(world.settings, [Planted(number=310, recipe="limited", head=main, hours=-2)])
    _, after = nights.look(roster, at=NIGHT + timedelta(days=1), verdict_age_d=3650)
    assert after["limited"].kind == "green"


def test_a_status_counts_only_from_the_bridges_account(nights: Nights, world: World) -> None:
    """Whoever may write to the mirror can claim a green; nobody believes it."""
    report(world, "unasked", number=400, user="alice")
    _, standings = nights.look({"unasked": None})
    assert standings["unasked"].kind == "none"


def test_results_of_another_recipe_under_the_same_number_are_not_taken(nights: Nights, world: World) -> None:
    """Numbers began anew when the server moved: run 153 of the dashboard is somebody else's."""
    folder = world.settings.ci_dir / "runs"
    shutil.copytree(folder / "200", folder / "153")
    _, standings = nights.look({"remembered": None})
    assert standings["remembered"].newest
    assert standings["remembered"].newest.tests == ()


def test_a_dashboard_that_is_silent_leaves_the_class_and_is_asked_again(nights: Nights, world: World) -> None:
    """What could not be read tonight is said, and read by the night after."""
    server = world.settings.ci_dir / "runs" / "204" / "results.json"
    kept = server.read_text()
    server.write_text("no json")
    roster: dict[str, KnownRed | None] = {"mended": None}
    first, standings = nights.look(roster)
    assert standings["mended"].kind == "green"
    assert findings(first) == {"verdicts-unread": "warning"}
    server.write_text(kept)
    second, _ = nights.look(roster, at=NIGHT + timedelta(days=1))
    assert findings(second) == {}
    assert second.context.request_counts()["news"] == 1


def test_another_world_is_not_remembered(nights: Nights, world: World) -> None:
    """Records of the same name and another machine or forge say nothing about this one."""
    nights.look({"broken": None})
    site = world.settings.root / "site.toml"
    kept = site.read_text()
    site.write_text(kept.replace("0" * 32, "1" * 32))
    run, _ = nights.look({"broken": None}, at=NIGHT + timedelta(days=1))
    site.write_text(kept)
    assert run.context.request_counts()["news"] == 3
