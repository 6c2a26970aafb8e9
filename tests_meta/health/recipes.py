"""Mutations of what a recipe needs besides its mirror: its suite, its line in the roster, its place in the plan."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from tests_meta.health.mutation import finding, mutation, test
from tests_meta.health.world import World


def _files(world: World, recipe: str) -> dict[str, str | None]:
    listed = world.view.git("cc-ci", "ls-tree", "-r", "--name-only", "main", f"tests/{recipe}/").splitlines()
    assert listed, recipe
    return dict.fromkeys(listed)


def _tests(world: World) -> list[str]:
    """The test files of ghost's suite."""
    return [name for name in _files(world, "ghost") if name.rpartition("/")[2].startswith("test_")]


@mutation(test("it is covered: ghost"))
def a_suite_is_deleted(world: World) -> Iterator[None]:
    """A recipe's suite is not in cc-ci any more."""
    with world.ccci(_files(world, "ghost")):
        yield


@mutation(test("it is covered: ghost"))
def a_suite_has_no_recipe_meta(world: World) -> Iterator[None]:
    """A recipe's suite lacks recipe_meta.py."""
    with world.ccci({"tests/ghost/recipe_meta.py": None}):
        yield


def _pipeline(world: World) -> str:
    return world.view.git("cc-ci", "show", "main:.drone.yml")


@mutation(test("the pipeline runs something"))
def the_pipeline_runs_nothing(world: World) -> Iterator[None]:
    """The only command of cc-ci's pipeline for builds of recipes is true."""
    with world.ccci({".drone.yml": _pipeline(world).replace("cc-ci-run runner/run_recipe_ci.py", "true")}):
        yield


@mutation(test("the pipeline runs something"))
def the_pipeline_is_deleted(world: World) -> Iterator[None]:
    """cc-ci has no .drone.yml any more."""
    with world.ccci({".drone.yml": None}):
        yield


@mutation(test("it is covered: ghost"))
def every_test_of_a_suite_is_skipped(world: World) -> Iterator[None]:
    """All test modules of a suite are skipped."""
    skip = "import pytest\n\npytestmark = pytest.mark.skip(reason='later')\n"
    with world.ccci(
        {name: f"{world.view.git('cc-ci', 'show', f'main:{name}')}\n{skip}" for name in _tests(world)}
    ):
        yield


@mutation(test("it is covered: ghost"))
def the_tests_of_a_suite_only_pass(world: World) -> Iterator[None]:
    """Each test of a suite has the body pass."""
    with world.ccci(dict.fromkeys(_tests(world), "def test_front():\n    pass\n")):
        yield


@mutation(test("it is covered: ghost"))
def a_conftest_ignores_its_suite(world: World) -> Iterator[None]:
    """The conftest of a suite lists its tests as files that are not collected."""
    with world.ccci({"tests/ghost/conftest.py": "collect_ignore_glob = ['functional/*']\n"}):
        yield


@mutation(test("it is covered: ghost"))
def a_conftest_deselects_every_test(world: World) -> Iterator[None]:
    """The conftest of a suite removes every test from those that were collected."""
    hook = "def pytest_collection_modifyitems(config, items):\n    items[:] = []\n"
    with world.ccci({"tests/ghost/conftest.py": hook}):
        yield


@mutation(test("it is covered: ghost"))
def the_conftest_of_all_suites_ignores_one(world: World) -> Iterator[None]:
    """The conftest above all suites lists one of them as not collected."""
    with world.ccci({"tests/conftest.py": "collect_ignore = ['ghost']\n"}):
        yield


@mutation(test("it is covered: ghost"))
def a_suite_does_not_parse(world: World) -> Iterator[None]:
    """One file of a suite is no Python, so pytest runs none of its tests."""
    with world.ccci({"tests/ghost/functional/test_broken.py": "def test_front(:\n"}):
        yield


@mutation(finding("hollow-tests-ghost"), health=0, apply=0)
def one_test_of_a_suite_is_hollow(world: World) -> Iterator[None]:
    """A suite has a test that cannot fail, beside others that can."""
    with world.ccci({"tests/ghost/functional/test_later.py": "def test_later():\n    pass\n"}):
        yield


@mutation(test("the carried suite is in ccci: hedgedoc"), apply=0)
def the_carried_suite_is_deleted(world: World) -> Iterator[None]:
    """The suite that muster brought is not in cc-ci any more."""
    with world.ccci(_files(world, "hedgedoc")):
        yield


@mutation(test("its known red entry is valid: ghost"))
def a_known_failure_has_expired(world: World) -> Iterator[None]:
    """The last day of a known failure in the roster has passed."""
    with world.edited(world.parallel.roster, "until = 9999-12-31", "until = 2020-01-01"):
        yield


@mutation(test("its known red entry is valid: keycloak"))
def a_known_failure_is_green(world: World) -> Iterator[None]:
    """The roster lists a recipe as known red that is green."""
    old = '{ name = "keycloak", enroll = false }'
    entry = 'known_red = { reason = "login", until = 9999-12-31 }'
    with world.edited(world.parallel.roster, old, f"{old[:-2]}, {entry} }}"):
        yield


@mutation(finding("red-before-ghost"), health=0, apply=0)
def a_red_recipe_is_not_in_the_roster(world: World) -> Iterator[None]:
    """A recipe was red before the first record, and its entry as a known failure was removed."""
    with world.edited(world.parallel.roster, ', known_red = { reason = "restore", until = 9999-12-31 }', ""):
        yield


@mutation(test("its latest verdict is not newly red: keycloak"))
def a_recipe_turned_red(world: World) -> Iterator[None]:
    """The latest nine builds of a recipe failed after one that was green; a single one would be flaky."""
    with contextlib.ExitStack() as builds:
        for _ in range(9):
            builds.enter_context(world.build("keycloak", status="failure"))
        yield


@mutation(test("upstream has the recipe: mumble"))
def a_recipe_of_the_roster_does_not_exist(world: World) -> Iterator[None]:
    """The roster has a recipe that neither upstream nor the forge has."""
    with world.edited(world.parallel.roster, "\n]", '\n  { name = "mumble", enroll = true },\n]'):
        yield


@mutation(test("a comment starts a build: keycloak"), also=(test("its outcome comes back: keycloak"),), apply=0)
def a_canary_was_never_triggered(world: World) -> Iterator[None]:
    """The roster names a canary that no comment has triggered since it was enrolled."""
    roster = world.parallel.roster
    with (
        world.edited(roster, '"keycloak", enroll = false', '"keycloak", enroll = true'),
        world.edited(roster, '"hedgedoc", enroll = false', '"hedgedoc", enroll = true'),
        world.edited(roster, 'canaries = ["ghost"]', 'canaries = ["keycloak"]'),
    ):
        yield
