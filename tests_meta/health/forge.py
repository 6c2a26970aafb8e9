"""Mutations of the forge and of upstream: mirrors, tags, branches, cc-ci's settings, pull requests."""

from __future__ import annotations

from collections.abc import Iterator

from tests_meta.health.mutation import mutation, test
from tests_meta.health.world import World


@mutation(test("its default branch is main: ghost"))
def the_default_branch_is_another(world: World) -> Iterator[None]:
    """The default branch of a mirror is not main."""
    with world.ref("ghost", "refs/heads/other", world.view.refs("ghost")["refs/heads/main"]):
        world.edit_repository("ghost", default_branch="other")
        yield
        world.edit_repository("ghost", default_branch="main")


@mutation(test("it is private like its siblings: ghost"))
def a_mirror_is_public(world: World) -> Iterator[None]:
    """A mirror can be read by everybody."""
    world.edit_repository("ghost", private=False)
    yield
    world.edit_repository("ghost", private=True)


@mutation(test("it was brought up to date: ghost"))
def a_mirror_has_commits_of_its_own(world: World) -> Iterator[None]:
    """A mirror's main holds a commit that upstream lacks."""
    with world.ref("ghost", "refs/heads/main", world.commit("ghost", {"own.txt": "own"})):
        yield
