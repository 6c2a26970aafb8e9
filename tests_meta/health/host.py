"""Mutations of the host: units, alerts, stacks, systems, checkout, bridge."""

from __future__ import annotations

from collections.abc import Iterator

from tests_meta.health.mutation import mutation, test
from tests_meta.health.world import World
from tests_meta.people import git


@mutation(test("the checkout is the committed head"), apply=13)
def the_checkout_is_dirty(world: World) -> Iterator[None]:
    """The host's checkout has an uncommitted change."""
    file = world.host_folder / "root/cc-ci/flake.nix"
    text = file.read_text()
    file.write_text(text + "# by hand\n")
    yield
    file.write_text(text)


@mutation(test("the checkout is the committed head"), apply=13)
def the_checkout_has_a_commit_of_its_own(world: World) -> Iterator[None]:
    """The host's checkout has a commit that the forge does not have."""
    checkout = world.host_folder / "root/cc-ci"
    git(checkout, "commit", "--quiet", "--allow-empty", "--message", "by hand on the host")
    yield
    git(checkout, "reset", "--quiet", "--hard", "HEAD~1")


@mutation(test("it is polled: ghost"), apply=0)
def the_bridge_polls_one_repository_less(world: World) -> Iterator[None]:
    """The running bridge's poll set lacks a recipe; git and the checkout have it."""
    world.deploy_bridge({f",{world.org}/ghost": ""})
    yield
    world.redeploy_bridge()
