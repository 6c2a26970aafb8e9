"""`--testme N`: oldest verdict first, one recipe at a time, within a time limit, continued the next night."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from fixtures.clients.git import advertised_refs
from fixtures.config.roster import LeftToPeople
from fixtures.errors import BadSetting
from fixtures.journal.kinds import Answer, VerdictClass
from fixtures.journal.memory import Memory
from fixtures.plugin.command_line import parse_testme
from fixtures.run.run import Run
from fixtures.triggers.fixture import read_and_classify
from fixtures.verdicts.retest import Retest, retest_oldest, retest_order
from fixtures.verdicts.scratch_pull import BRANCH_PREFIX
from tests_meta.muster_runs import muster
from tests_meta.rehearsal.ci_world import ORG, until
from tests_meta.suites.suite_world import SuiteWorld, kinds, suite_world
from tests_meta.verdicts.verdict_world import NIGHT, Planted, plant

NAMES = ("alpha", "beta", "gamma", "delta", "slow", "busy")
HANG = "import time\n\n\ndef test_hangs(live_app):\n    time.sleep(600)\n"
OWN = "def test_it(live_app):\n    assert live_app\n"


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SuiteWorld]:
    with suite_world(tmp_path_factory.mktemp("retest"), NAMES) as made:
        suites = {"slow": HANG, "gamma": OWN}
        made.commit(
            {f"tests/{name}/functional/test_it.py": text for name, text in suites.items()}
            | {f"tests/{name}/recipe_meta.py": "" for name in suites},
            branch="main",
        )
        yield made


@pytest.fixture(autouse=True)
def past(world: SuiteWorld) -> None:
    """The builds that each test starts with: alpha's is the oldest, then beta, gamma, delta and slow."""
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


def retest(run: Run, memory: Memory | None = None) -> dict[str, Retest]:
    assert run.context.writer is not None
    return retest_oldest(run, run.context.writer, memory or Memory())


def test_order_is_oldest_verdict_first_after_recipes_without_one(world: SuiteWorld) -> None:
    """Recipes are ordered by the time of their last build; a recipe without a known build comes first."""
    run = a_run(world, 1, "delta", "newcomer", "alpha", "gamma", "beta")
    assert retest_order(run.context, run.surveys, run.excluded, Memory()) == [
        "newcomer",
        "alpha",
        "beta",
        "gamma",
        "delta",
    ]
    assert retest_order(run.context, run.surveys, run.excluded, Memory(), without=["alpha"])[:2] == [
        "newcomer",
        "beta",
    ]


def test_a_recipe_that_never_reported_does_not_stay_the_oldest(world: SuiteWorld) -> None:
    """The recorded time of its last trigger counts like a verdict."""
    triggered = {"asked_at": (NIGHT + timedelta(days=1)).isoformat()}
    run = a_run(world, 1, "alpha", "newcomer", "beta")
    assert retest_order(run.context, run.surveys, run.excluded, Memory(NIGHT, {"newcomer": triggered})) == [
        "alpha",
        "beta",
        "newcomer",
    ]


def test_a_night_continues_where_the_night_before_stopped(world: SuiteWorld) -> None:
    """Two a night: the two oldest, then the next two, without any record but Drone's builds."""
    first = a_run(world, 2, "alpha", "beta", "gamma", "delta")
    outcomes = retest(first)
    assert list(outcomes) == ["alpha", "beta"]
    assert all(one.in_time and one.verdict.green is Answer.YES for one in outcomes.values())
    assert all(one.triggered_at for one in outcomes.values())
    second = a_run(world, 2, "alpha", "beta", "gamma", "delta")
    assert list(retest(second)) == ["gamma", "delta"]


def test_the_comment_is_deleted_afterwards(world: SuiteWorld) -> None:
    """The comment is deleted; a pull request that was open stays as it was, and nothing new is open."""
    run = a_run(world, 1, "alpha")
    retest(run)
    assert kinds(run) == ["testme-comment"]
    comments = run.context.world.forge.comments(f"{ORG}/alpha", 1)
    assert [comment for comment in comments if comment.body == "!testme"] == []
    assert [pull.number for pull in run.context.world.forge.pulls(f"{ORG}/alpha")] == [1]


def test_a_pull_request_that_is_left_to_people_is_not_used(world: SuiteWorld) -> None:
    """A scratch pull request is opened instead; it is closed and deleted when the verdict is known."""
    run = a_run(world, 1, "beta")
    object.__setattr__(
        run.context.roster, "left_to_people", (LeftToPeople(recipe="beta", pull=1, why="a person's"),)
    )
    outcome = retest(run)["beta"]
    assert outcome.verdict.reported is Answer.YES
    assert kinds(run) == ["scratch-pull", "testme-comment"]
    assert [pull.number for pull in run.context.world.forge.pulls(f"{ORG}/beta")] == [1]
    refs = advertised_refs(run.context.world.mirrors, f"{ORG}/beta")
    assert refs is not None
    assert [branch for branch in refs.branches if branch.startswith(BRANCH_PREFIX)] == []


def test_a_recipe_with_an_unfinished_build_is_skipped(world: SuiteWorld) -> None:
    """The next recipe is triggered in its place, and the record says why."""
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
        assert list(retest(run)) == ["gamma"]
        assert "busy is skipped, its build 90 is not finished" in run.record.journal.path.read_text()
    finally:
        plant(world.world.settings, [Planted(number=90, recipe="busy", head="a" * 40, hours=0, tests={})])


def test_a_recipe_that_blocks_the_runner_takes_only_its_own_time(world: SuiteWorld) -> None:
    """It is reported by name with its build; when the runner is free again, the next recipe gets its verdict."""
    plant(world.world.settings, [Planted(number=14, recipe="slow", head="a" * 40, hours=800, tests={})])
    run = a_run(world, 2, "slow", "delta")
    object.__setattr__(run.context.site.limits, "build_s", 3.0)
    outcomes: dict[str, Retest] = {}
    retesting = threading.Thread(target=lambda: outcomes.update(retest(run)))
    retesting.start()
    until(lambda: run.record.findings or None, within_s=60, what="slow reported")
    # cc-ci's own deadline would end it; here a person cancels it after the report.
    build = run.record.verdicts["slow"].build
    object.__setattr__(run.context.site.limits, "build_s", 60.0)
    assert world.world.drone("DELETE", f"/repos/{ORG}/cc-ci/builds/{build}").status_code == 200
    retesting.join(120)
    assert list(outcomes) == ["slow", "delta"]
    assert not outcomes["slow"].in_time
    assert outcomes["delta"].verdict.reported is Answer.YES
    (finding,) = run.record.findings
    assert (finding.id, finding.recipe) == ("testme-slow", "slow")
    assert finding.where.endswith(f"/{build}")


def test_nothing_is_triggered_after_the_nights_time(world: SuiteWorld) -> None:
    """A build that is still running then is no failure: the next night reads its verdict."""
    known = Memory(NIGHT, {"alpha": {"asked_at": "9999-01-01T00:00:00+00:00"}})
    run = a_run(world, 3, "slow", "alpha")
    object.__setattr__(run.context.site.limits, "testme_s", 3.0)
    outcomes = retest(run, known)
    assert list(outcomes) == ["slow"]
    assert outcomes["slow"].cut_short
    assert outcomes["slow"].in_time
    assert run.record.findings == []
    assert "1 triggered; the night's 3 s were used up" in run.record.journal.path.read_text()
    for build in world.world.builds():
        if build["status"] in ("running", "pending"):
            world.world.drone("DELETE", f"/repos/{ORG}/cc-ci/builds/{build['number']}")


def test_the_verdict_of_a_retest_is_classified_and_recorded(world: SuiteWorld) -> None:
    """The recipe's verdict is the new build's, and the record says when it was triggered."""
    run = a_run(world, 1, "gamma")
    at = retest(run)["gamma"].triggered_at
    run.surveys.look_again()
    recipes = read_and_classify(run.context, run.record, run.surveys, Memory(), {"gamma": at})
    assert recipes["gamma"].verdict_class is VerdictClass.GREEN
    assert recipes["gamma"].latest
    assert recipes["gamma"].latest.build == run.record.verdicts["gamma"].build
    assert at
    assert at in run.record.journal.path.read_text()


@pytest.mark.parametrize("mode", ["--plan", "--health", "--recover", "--apply=plan.json"])
def test_modes_that_post_nothing_refuse_testme(mode: str, tmp_path: Path) -> None:
    """One sentence, exit 4, before anything is contacted."""
    said = muster("--testme", "2", mode, reports=tmp_path / "reports").refused()
    assert mode.partition("=")[0] in said
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("count", ["0", "-1", "x", "1.5", ""])
def test_testme_refuses_what_is_no_positive_number(count: str) -> None:
    """The message shows an example."""
    with pytest.raises(BadSetting, match="--testme 3"):
        parse_testme(count, [])
    assert parse_testme("19", []) == 19
