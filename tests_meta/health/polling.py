"""Mutations of the poll set and of what polls it: git, the host's checkout, the running bridge."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager

from tests_meta.health.mutation import When, finding, mutation, test
from tests_meta.health.world import World, git
from tests_meta.world_view import POLL_FILE


@contextmanager
def _poll_file(world: World, old: str, new: str) -> Iterator[None]:
    """The poll file in git and in the checkout with a part replaced."""
    text = world.view.git("cc-ci", "show", f"main:{POLL_FILE}") + "\n"
    assert old in text, old
    with world.ccci({POLL_FILE: text.replace(old, new, 1)}):
        yield


@mutation(test("it is in the poll set: ghost"), apply=0)
def a_recipe_is_not_in_the_poll_file(world: World) -> Iterator[None]:
    """The poll set in git lacks a recipe of the roster."""
    with _poll_file(world, f",{world.org}/ghost", ""):
        yield


@mutation(test("the poll set could be updated"))
def a_recipe_is_in_the_poll_file_twice(world: World) -> Iterator[None]:
    """The poll set in git has a recipe twice."""
    with _poll_file(world, f",{world.org}/ghost", f",{world.org}/ghost,{world.org}/ghost"):
        yield


@mutation(test("the poll set could be updated"))
def an_unknown_recipe_is_in_the_poll_file(world: World) -> Iterator[None]:
    """The poll set in git has a repository that is not on the roster."""
    with _poll_file(world, f",{world.org}/ghost", f",{world.org}/ghost,{world.org}/wordpress"):
        yield


@mutation(test("the poll set is exactly the roster"))
def ccci_is_not_first_in_the_poll_file(world: World) -> Iterator[None]:
    """The poll set in git does not begin with cc-ci."""
    with _poll_file(world, f"{world.org}/cc-ci,{world.org}/keycloak", f"{world.org}/keycloak,{world.org}/cc-ci"):
        yield


@mutation(test("the poll set could be updated"))
def the_poll_file_is_deleted(world: World) -> Iterator[None]:
    """The file with the poll set is not in cc-ci any more."""
    with world.ccci({POLL_FILE: None}):
        yield


@mutation(test("the poll set could be updated"))
def the_poll_file_has_no_poll_set(world: World) -> Iterator[None]:
    """The file does not set the variable that holds the poll set."""
    with _poll_file(world, "POLL_REPOS=", "POLL_NOTHING="):
        yield


@mutation(test("three poll sets are equal"), apply=13, apply_named_by=finding("deploy-withheld"))
def the_checkouts_poll_file_is_another(world: World) -> Iterator[None]:
    """The poll set in the host's checkout is not git's."""
    with world.edited(world.host_folder / "root/cc-ci" / POLL_FILE, f",{world.org}/ghost", ""):
        yield


@mutation(test("three poll sets are equal"), apply=0, apply_named_by=finding("polled-by-hand"))
def the_bridge_polls_one_repository_more(world: World) -> Iterator[None]:
    """The running bridge polls a repository that is not in git's poll set."""
    world.deploy_bridge({f",{world.org}/ghost": f",{world.org}/ghost,{world.org}/mailu"})
    yield
    world.redeploy_bridge()


@mutation(
    test("it is polled: ghost"),
    also=(
        test("the bridge watches every recipe"),
        test("it has passed muster: ghost"),
        test("the deferred work is released: ghost: backup pull request 1"),
    ),
    apply=0,
)
def the_bridge_polls_one_repository_less(world: World) -> Iterator[None]:
    """The running bridge's poll set lacks a recipe; git and the checkout have it."""
    world.deploy_bridge({f",{world.org}/ghost": ""})
    yield
    world.redeploy_bridge()


@mutation(test("the bridge runs"), apply=1, restores=False)
def the_bridge_ends_at_once(world: World) -> Iterator[None]:
    """The bridge was deployed with settings on which it ends again and again."""
    world.deploy_bridge({"POLL_INTERVAL=30": "POLL_INTERVAL=soon"}, wait=False)
    world.await_failed_task()
    yield


@mutation(test("the checkout is the committed head"), also=(test("it was deployed or needed nothing"),), apply=0)
def the_checkout_is_behind(world: World) -> Iterator[None]:
    """cc-ci's main has a commit that the host's checkout lacks."""
    with world.ref("cc-ci", "refs/heads/main", world.commit("cc-ci", {"docs/notes.md": "notes\n"})):
        yield


@mutation(test("the checkout is the committed head"), apply=13)
def the_checkout_is_dirty(world: World) -> Iterator[None]:
    """The host's checkout has an uncommitted change."""
    file = world.host_folder / "root/cc-ci/flake.nix"
    with world.edited(file, "{", "{ # by hand\n"):
        yield


@mutation(test("the checkout is the committed head"), apply=13)
def the_checkout_has_a_commit_of_its_own(world: World) -> Iterator[None]:
    """The host's checkout has a commit that the forge does not have."""
    checkout = world.host_folder / "root/cc-ci"
    git(checkout, "commit", "--quiet", "--allow-empty", "--message", "by hand on the host")
    yield
    git(checkout, "reset", "--quiet", "--hard", "HEAD~1")


@mutation(test("the checkout is the committed head"), apply=13)
def the_checkout_is_missing(world: World) -> Iterator[None]:
    """The host has no checkout of cc-ci."""
    with world.without(world.host_folder / "root/cc-ci"):
        yield


@mutation(test("the checkout is the committed head"), apply=13)
def the_checkout_is_on_no_branch(world: World) -> Iterator[None]:
    """The host's checkout has a detached HEAD."""
    checkout = world.host_folder / "root/cc-ci"
    git(checkout, "checkout", "--quiet", "--detach")
    yield
    git(checkout, "checkout", "--quiet", "main")


@mutation(test("the checkout is the committed head"), apply=13)
def a_submodule_is_missing(world: World) -> Iterator[None]:
    """The submodule with the secrets is not in the host's checkout."""
    with world.without(world.host_folder / "root/cc-ci/secrets"):
        (world.host_folder / "root/cc-ci/secrets").mkdir()
        yield


@mutation(test("the checkout is the forges"), apply=13)
def the_checkout_is_on_another_branch(world: World) -> Iterator[None]:
    """The host's checkout is on another branch, at the committed head."""
    checkout = world.host_folder / "root/cc-ci"
    git(checkout, "checkout", "--quiet", "-b", "experiment")
    yield
    git(checkout, "checkout", "--quiet", "main")
    git(checkout, "branch", "--quiet", "-D", "experiment")


@mutation(test("the checkout is the forges"))
def the_checkouts_origin_is_another_server(world: World) -> Iterator[None]:
    """The host's checkout fetches from another server."""
    checkout = world.host_folder / "root/cc-ci"
    was = git(checkout, "remote", "get-url", "origin")
    git(checkout, "remote", "set-url", "origin", f"https://evil.example/{world.org}/cc-ci.git")
    yield
    git(checkout, "remote", "set-url", "origin", was)


@mutation(test("the checkout is the forges"))
def the_checkouts_origin_is_another_repository(world: World) -> Iterator[None]:
    """The host's checkout fetches from a fork on the same forge."""
    checkout = world.host_folder / "root/cc-ci"
    was = git(checkout, "remote", "get-url", "origin")
    git(checkout, "remote", "set-url", "origin", was.replace(world.org, "somebody"))
    yield
    git(checkout, "remote", "set-url", "origin", was)


@mutation(test("every stack is complete"), when=When.OFFLINE, restores=False)
def there_is_no_bridge(world: World) -> Iterator[None]:
    """The bridge's service was removed, and its unit does not deploy it any more."""
    file = world.host_folder / "var/lib/docker/swarm.json"
    swarm = json.loads(file.read_text())
    removed = swarm["services"].pop("ccci-bridge_app")["ID"]
    swarm["tasks"] = [task for task in swarm["tasks"] if task["ServiceID"] != removed]
    file.write_text(json.dumps(swarm))
    for script in world.host_folder.glob("nix/store/*-unit-script-deploy-bridge-start"):
        script.chmod(0o644)
        script.write_text("true\n")
    yield


@mutation(test("the file still evaluates"))
def the_poll_file_is_no_longer_valid(world: World) -> Iterator[None]:
    """The poll set can be read, and the rest of its file is not valid Nix."""
    text = world.view.git("cc-ci", "show", f"main:{POLL_FILE}")
    with world.ccci({POLL_FILE: f"{text}\n}}\n"}):
        yield
