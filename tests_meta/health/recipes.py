"""Mutations of what a recipe needs besides its mirror: its suite, its line in the roster, its place in the plan."""

from __future__ import annotations

from collections.abc import Iterator

from tests_meta.health.mutation import finding, mutation, test
from tests_meta.health.world import World


def _files(world: World, recipe: str) -> dict[str, str | None]:
    listed = world.view.git("cc-ci", "ls-tree", "-r", "--name-only", "main", f"tests/{recipe}/").splitlines()
    assert listed, recipe
    return dict.fromkeys(listed)


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
    """The latest three builds of a recipe failed; a single one beside a green of the same commit is flaky."""
    failed = {"status": "failure"}
    with world.build("keycloak", **failed), world.build("keycloak", **failed), world.build("keycloak", **failed):
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
