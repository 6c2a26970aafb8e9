"""Verdicts of the embedded CI are earned: red for the real reason, and green for tests that ran."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from fixtures.rehearsal.drone_embedded import results
from fixtures.rehearsal.drone_embedded.history import seed_history
from fixtures.rehearsal.settings import WorldSettings
from tests_meta.rehearsal.ci_world import (
    NO_SUCH_COMMIT,
    ORG,
    World,
    ccci_tree,
    functional_tests,
    git,
    running,
    until,
)

BUILDS = f"/repos/{ORG}/cc-ci/builds"
RECIPES: dict[str, dict[str, str]] = {
    "ghost": {},
    "plausible": {},
    "newcomer": {},
    "immich": {"compose.yml": 'version: "3.8"\nx: backupbot.backup.pre-hook=pg_dump\n'},
}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with running(tmp_path_factory.mktemp("ci") / "world", RECIPES) as started:
        yield started


def run_of(world: World, recipe: str, **query: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Build a recipe at its main; its results and its finished build."""
    number = world.trigger(recipe, world.head(recipe), **query)["number"]
    build = world.finished(number)
    return world.results(number), build


def names(run: dict[str, Any]) -> set[str]:
    return {test["name"] for stage in run["stages"] for test in stage["tests"]}


def red(run: dict[str, Any]) -> set[tuple[str, str]]:
    """(tier, test) of everything that failed."""
    return {
        (stage["name"], test["name"])
        for stage in run["stages"]
        for test in stage["tests"]
        if test["status"] == "fail"
    }


def test_ghost_is_red_because_its_restore_loses_the_database(world: World) -> None:
    """ghost's backup holds no dump, so the marker is gone after the restore, and only that is red."""
    run, build = run_of(world, "ghost")
    assert build["status"] == "failure"
    assert red(run) == {("restore", "test_restore.py::test_marker_survives")}
    assert "no such table: ci_marker" in world.log(build["number"])
    assert run["level"] == 2


def test_a_dump_hook_turns_it_green(world: World) -> None:
    """immich has the same suite; with a dump hook in its compose file it is green."""
    run, build = run_of(world, "immich")
    assert build["status"] == "success"
    assert "test_restore.py::test_marker_survives" in names(run)


def test_plausible_is_red_on_clickhouse(world: World) -> None:
    """plausible's ClickHouse is down, and its suite says so by name."""
    run, build = run_of(world, "plausible")
    assert red(run) == {("custom", "functional/test_events.py::test_stores_are_up")}
    assert "clickhouse: error" in world.log(build["number"])


def test_recipe_without_suite_gets_the_generic_floor(world: World) -> None:
    """A recipe without a folder is green on the generic tiers, and the run says that no test of its own ran."""
    run, build = run_of(world, "newcomer")
    assert build["status"] == "success"
    assert {stage["name"]: stage["status"] for stage in run["stages"]} == {
        "install": "pass",
        "upgrade": "pass",
        "backup": "pass",
        "restore": "pass",
        "custom": "skip",
    }
    assert run["level"] == 3


def test_suite_that_collects_nothing_is_red(world: World) -> None:
    """Test files that cannot be imported, or hold no test, are a failed tier and never a skipped one."""
    commit = world.push("broken-suite", {"tests/newcomer/functional/test_x.py": "from . import nothing\n"})
    run, build = run_of(world, "newcomer", branch="broken-suite", commit=commit)
    assert build["status"] == "failure"
    assert red(run) == {("custom", "functional/test_x.py")}
    hollow = results.stages("", recipe="newcomer", has_custom_files=True)
    assert [stage.status for stage in hollow if stage.name == "custom"] == ["fail"]


def test_unknown_ref_is_red(world: World) -> None:
    """A REF that the mirror does not have fails the build and leaves no results to be mistaken for some."""
    number = world.trigger("ghost", NO_SUCH_COMMIT)["number"]
    assert world.finished(number)["status"] == "failure"
    assert "does not resolve in the mirror" in world.log(number)
    missing = httpx.get(f"{world.settings.dashboard_url}/runs/{number}/results.json", trust_env=False)
    assert missing.status_code == 404


# -- push builds ------------------------------------------------------------------------------------------------


def test_pushes_are_red_until_the_lint_is_fixed(world: World) -> None:
    """main's push build fails at lint and skips the rest; a branch whose long lines are gone is green."""
    first = [build for build in world.builds(per_page=100) if build["event"] == "push"][-1]
    done = world.finished(first["number"])
    assert done["status"] == "failure"
    assert [step["status"] for step in done["stages"][0]["steps"]] == ["success", "failure", "skipped"]
    assert "E501" in world.log(first["number"])
    context = "continuous-integration/drone/push"
    assert context in {status["context"] for status in world.statuses("cc-ci", first["after"])}

    mended: dict[str, str | Path | None] = {
        path: "" for path, source in ccci_tree().items() if path.endswith(".py") and has_lint(source)
    }
    assert mended
    sha = world.push("mended", mended)
    build = until(
        lambda: next((build for build in world.builds() if build["after"] == sha), None), what="push build"
    )
    assert build["ref"] == "refs/heads/mended"
    steps = world.finished(build["number"])["stages"][0]["steps"]
    assert [step["status"] for step in steps] == [
        "success",
        "success",
        "failure",
    ]  # the unit tests' files are empty


def has_lint(source: str | Path) -> bool:
    text = source.read_text() if isinstance(source, Path) else source
    return any(len(line) > 100 or line != line.rstrip() for line in text.splitlines())


# -- history and faults -----------------------------------------------------------------------------------------


def test_history_is_as_misleading_as_the_real_one(tmp_path: Path) -> None:
    """#7 is custom-html's, #153 is on the dashboard with custom=skip and not in Drone, the next build is #113."""
    given: list[Any] = []

    def prepare(settings: WorldSettings) -> None:
        repos = settings.forge_dir / "repos" / ORG
        heads = {name: git(repos / f"{name}.git", "rev-parse", "main") for name in ("custom-html", "hedgedoc")}
        main = git(repos / "cc-ci.git", "rev-parse", "main")
        given.extend(seed_history(settings, heads=heads, suite_commit=main))

    with running(tmp_path / "world", {"custom-html": {}, "hedgedoc": {}}, prepare=prepare) as world:
        assert [(status.recipe, status.target_url.rsplit("/", 1)[1]) for status in given] == [
            ("hedgedoc", "153"),
            ("hedgedoc", "154"),
            ("custom-html", "7"),
        ]
        assert world.build(7)["params"]["RECIPE"] == "custom-html"
        assert functional_tests("custom-html") <= names(world.results(7))
        assert world.drone("GET", f"{BUILDS}/153").status_code == 404
        custom = [stage for stage in world.results(153)["stages"] if stage["name"] == "custom"]
        assert custom == [{"name": "custom", "status": "skip", "tests": []}]
        pushed = until(lambda: [b for b in world.builds() if b["number"] > 112], what="the next build")
        assert [build["number"] for build in pushed] == [113]


def test_red_build_and_stranger(tmp_path: Path) -> None:
    """A recipe named red is red because its app answers 502; a stranger's green has the stranger as its creator."""
    with running(tmp_path / "red", {"newcomer": {}, "mumble": {}}, faults=("red-build:mumble",)) as world:
        run, build = run_of(world, "mumble")
        assert build["status"] == "failure"
        assert run["level"] == 0
        assert "HTTP 502" in world.log(build["number"])
        assert run_of(world, "newcomer")[1]["status"] == "success"
    with running(tmp_path / "stranger", {"mumble": {}}, faults=("stranger-verdict",)) as world:
        world.settings.secrets_dir.mkdir()
        (world.settings.secrets_dir / "stranger_token").write_text(world.members["alice"])
        head = world.head("mumble")
        build = world.trigger("mumble", head)
        [claim] = world.statuses("mumble", head)
        assert (claim["status"], claim["context"]) == ("success", "cc-ci/testme")
        assert claim["creator"]["login"] == "alice"
        assert world.build(build["number"])["status"] == "pending"
