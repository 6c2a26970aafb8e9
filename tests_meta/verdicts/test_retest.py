"""`--testme N`: oldest verdicts first, one at a time, bounded, resumed night after night from what Drone has built."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from fixtures.clients.git import advertised_refs
from fixtures.config.roster import LeftToPeople
from fixtures.errors import BadSetting
from fixtures.journal.earlier_runs import Memory
from fixtures.plugin.command_line import parse_testme
from fixtures.run.run import Run
from fixtures.triggers import fixture as triggers
from fixtures.verdicts import classes as standing
from fixtures.verdicts import retest as sweep
from fixtures.verdicts.retest import Swept
from fixtures.verdicts.scratch_pull import PREFIX
from tests_meta.muster_runs import muster
from tests_meta.rehearsal.ci_world import ORG, until
from tests_meta.suites.suite_world import SuiteWorld, kinds, suite_world
from tests_meta.verdicts.verdict_world import NIGHT, Planted, plant

NAMES = ("alpha", "beta", "gamma", "delta", "slow", "busy")
HANG = "import time\n\n\ndef test_hangs(live_app):\n    time.sleep(600)\n"


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SuiteWorld]:
    with suite_world(tmp_path_factory.mktemp("sweep"), NAMES) as made:
        made.commit({"tests/slow/recipe_meta.py": "", "tests/slow/functional/test_it.py": HANG}, branch="main")
        yield made


@pytest.fixture(autouse=True)
def past(world: SuiteWorld) -> None:
    """What was built before, as each test finds it: alpha is the oldest, then beta, gamma, delta and slow."""
    hours = {"alpha": 50, "beta": 40, "gamma": 30, "delta": 20, "slow": 10, "busy": 5}
    head = "a" * 40
    plant(
        world.world.settings,
        [
            Planted(number=10 + number, recipe=name, head=head, hours=hours[name], tests={})
            for number, name in enumerate(hours)
        ],
    )


def a_run(world: SuiteWorld, count: int, *recipes: str) -> Run:
    run = world.run({}, recipes=recipes or NAMES)
    object.__setattr__(run.context.options, "testme", count)
    return run


def swept(run: Run, memory: Memory | None = None) -> dict[str, Swept]:
    assert run.context.writer is not None
    return sweep.sweep(run, run.context.writer, memory or Memory())


def test_oldest_first_and_those_without_a_verdict_before_all(world: SuiteWorld) -> None:
    """The order is what Drone built, by time; a recipe of which nothing is known is first of all."""
    run = a_run(world, 1, "delta", "newcomer", "alpha", "gamma", "beta")
    assert sweep.order(run.context, run.surveys, run.excluded, Memory()) == [
        "newcomer",
        "alpha",
        "beta",
        "gamma",
        "delta",
    ]
    assert sweep.order(run.context, run.surveys, run.excluded, Memory(), but=["alpha"])[:2] == [
        "newcomer",
        "beta",
    ]


def test_one_that_was_asked_and_never_answered_does_not_keep_the_others_waiting(world: SuiteWorld) -> None:
    """The night that a record names counts like a verdict."""
    asked = {"asked_at": (NIGHT + timedelta(days=1)).isoformat()}
    run = a_run(world, 1, "alpha", "newcomer", "beta")
    assert sweep.order(run.context, run.surveys, run.excluded, Memory(NIGHT, {"newcomer": asked})) == [
        "alpha",
        "beta",
        "newcomer",
    ]


def test_a_sweep_goes_on_where_the_night_before_stopped(world: SuiteWorld) -> None:
    """Two a night: the two oldest, then the next two, without any memory but Drone's builds."""
    first = a_run(world, 2, "alpha", "beta", "gamma", "delta")
    outcomes = swept(first)
    assert list(outcomes) == ["alpha", "beta"]
    assert all(one.answered and one.verdict.green for one in outcomes.values())
    assert all(one.triggered_at for one in outcomes.values())
    second = a_run(world, 2, "alpha", "beta", "gamma", "delta")
    assert list(swept(second)) == ["gamma", "delta"]


def test_what_was_posted_is_gone_afterwards(world: SuiteWorld) -> None:
    """The comment is deleted; a pull request that was open stays as it was, and nothing new is open."""
    run = a_run(world, 1, "alpha")
    swept(run)
    assert kinds(run) == ["testme-comment"]
    comments = run.context.world.forge.comments(f"{ORG}/alpha", 1)
    assert [comment for comment in comments if comment.body == "!testme"] == []
    assert [pull.number for pull in run.context.world.forge.pulls(f"{ORG}/alpha")] == [1]


def test_a_pull_request_that_is_left_to_people_is_not_used(world: SuiteWorld) -> None:
    """A scratch one is opened instead, and closed and deleted when the verdict is in."""
    run = a_run(world, 1, "beta")
    object.__setattr__(
        run.context.roster, "left_to_people", (LeftToPeople(recipe="beta", pull=1, why="a person's"),)
    )
    outcome = swept(run)["beta"]
    assert outcome.verdict.reported
    assert kinds(run) == ["scratch-pull", "testme-comment"]
    assert [pull.number for pull in run.context.world.forge.pulls(f"{ORG}/beta")] == [1]
    refs = advertised_refs(run.context.world.mirrors, f"{ORG}/beta")
    assert refs is not None
    assert [branch for branch in refs.branches if branch.startswith(PREFIX)] == []


def test_one_that_is_being_built_is_left_alone(world: SuiteWorld) -> None:
    """The oldest has a build that runs: the next one is asked in its place, and the record says why."""
    plant(
        world.world.settings,
        [
            Planted(number=11, recipe="busy", head="a" * 40, hours=900, tests={}),
            Planted(number=15, recipe="busy", head="a" * 40, hours=901, tests={}),
            Planted(number=90, recipe="busy", head="a" * 40, hours=0, status="running", tests={}),
        ],
    )
    try:
        run = a_run(world, 1, "busy", "gamma")
        assert list(swept(run)) == ["gamma"]
        assert "busy is left alone, its build 90 is not done" in run.record.journal.path.read_text()
    finally:
        plant(world.world.settings, [Planted(number=90, recipe="busy", head="a" * 40, hours=0, tests={})])


def test_a_recipe_that_holds_the_runner_has_its_own_time_and_the_others_go_on(world: SuiteWorld) -> None:
    """It is reported by name with its build; when the runner is free again, the next one is answered."""
    plant(world.world.settings, [Planted(number=14, recipe="slow", head="a" * 40, hours=800, tests={})])
    run = a_run(world, 2, "slow", "delta")
    object.__setattr__(run.context.site.limits, "build_s", 3.0)
    outcomes: dict[str, Swept] = {}
    sweeping = threading.Thread(target=lambda: outcomes.update(swept(run)))
    sweeping.start()
    until(lambda: run.record.findings or None, within_s=60, what="slow reported")
    # cc-ci's own deadline would end it; here a person cancels it, once it was reported.
    build = run.record.verdicts["slow"].build
    object.__setattr__(run.context.site.limits, "build_s", 60.0)
    assert world.world.drone("DELETE", f"/repos/{ORG}/cc-ci/builds/{build}").status_code == 200
    sweeping.join(120)
    assert list(outcomes) == ["slow", "delta"]
    assert not outcomes["slow"].answered
    assert outcomes["delta"].verdict.reported
    (finding,) = run.record.findings
    assert (finding.id, finding.recipe) == ("testme-slow", "slow")
    assert finding.where.endswith(f"/{build}")


def test_the_nights_time_is_over_and_nothing_more_is_asked(world: SuiteWorld) -> None:
    """A build that is still running then is no failure: the next night reads what came of it."""
    known = Memory(NIGHT, {"alpha": {"asked_at": "9999-01-01T00:00:00+00:00"}})
    run = a_run(world, 3, "slow", "alpha")
    object.__setattr__(run.context.site.limits, "testme_s", 3.0)
    outcomes = swept(run, known)
    assert list(outcomes) == ["slow"]
    assert outcomes["slow"].cut
    assert outcomes["slow"].answered
    assert run.record.findings == []
    assert "1 asked; the 3 s of the night were used" in run.record.journal.path.read_text()
    for build in world.world.builds():
        if build["status"] in ("running", "pending"):
            world.world.drone("DELETE", f"/repos/{ORG}/cc-ci/builds/{build['number']}")


def test_the_answer_of_a_sweep_is_judged_and_remembered(world: SuiteWorld) -> None:
    """The standing is the new build's, and the record keeps when it was asked."""
    run = a_run(world, 1, "gamma")
    at = swept(run)["gamma"].triggered_at
    run.surveys.look_again()
    standings = triggers.take_stock(run.context, run.record, run.surveys, Memory(), {"gamma": at})
    assert standings["gamma"].kind == standing.GREEN
    assert standings["gamma"].newest
    assert standings["gamma"].newest.build == run.record.verdicts["gamma"].build
    assert at
    assert at in run.record.journal.path.read_text()


@pytest.mark.parametrize("mode", ["--plan", "--health", "--recover", "--apply=plan.json"])
def test_a_mode_that_posts_nothing_refuses_it(mode: str, tmp_path: Path) -> None:
    """One sentence, exit 4, before anything is contacted."""
    said = muster("--testme", "2", mode, reports=tmp_path / "reports").refused()
    assert mode.partition("=")[0] in said
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("count", ["0", "-1", "x", "1.5", ""])
def test_a_number_that_is_none_is_refused(count: str) -> None:
    """It says what was expected."""
    with pytest.raises(BadSetting, match="--testme 3"):
        parse_testme(count, [])
    assert parse_testme("19", []) == 19
