"""Mutations that leave every service running and every ref answering: what a glance at the system does not show."""

from __future__ import annotations

from collections.abc import Iterator

from tests_meta.health.mutation import mutation, test
from tests_meta.health.world import World, git


@mutation(test("the bridge has the settings of its unit"))
def the_bridge_runs_another_image(world: World) -> Iterator[None]:
    """The bridge's service was updated to another image; the system and the settings are the same."""
    world.deploy_bridge({"cc-ci-bridge:": "cc-ci-bridge:patched-"})
    yield
    world.redeploy_bridge()


@mutation(test("the bridge has the settings of its unit"))
def the_bridge_runs_twice(world: World) -> Iterator[None]:
    """The bridge's service was scaled to two replicas, so each comment is answered twice."""
    world.deploy_bridge({'"replicas":1': '"replicas":2'}, wait=False)
    yield
    world.redeploy_bridge()


@mutation(test("every stack is complete"))
def a_stack_was_removed(world: World) -> Iterator[None]:
    """Every service of a stack was removed."""
    stack = next(world.host_folder.glob("nix/store/*-backups-stack.json"))
    world.on_host("docker service rm $(docker service ls --format '{{.Name}}' | grep ^backups_)")
    yield
    world.on_host(f"docker stack deploy --detach=true --compose-file {stack} backups")


@mutation(test("the checkout is the forges"))
def ccci_was_set_back(world: World) -> Iterator[None]:
    """cc-ci's main and the host's checkout are at an older commit than in the last healthy record."""
    checkout = world.host_folder / "root/cc-ci"
    was, older = (git(checkout, "rev-parse", name) for name in ("HEAD", "HEAD~1"))
    with world.ref("cc-ci", "refs/heads/main", older):
        git(checkout, "reset", "--quiet", "--hard", older)
        yield
        git(checkout, "reset", "--quiet", "--hard", was)


@mutation(test("no alert was written"))
def the_folder_of_the_alerts_is_gone(world: World) -> Iterator[None]:
    """The folder into which services write their alerts is not there any more."""
    with world.without(world.host_folder / "var/lib/ci-warm/alerts"):
        yield


@mutation(test("no branch of a proposal is left"), restores=False)
def a_proposal_is_left_open(world: World) -> Iterator[None]:
    """A pull request of a run that is over still proposes a suite."""
    world.set_ref("cc-ci", "refs/heads/muster/suite-ghost", world.commit("cc-ci", {"tests/ghost/notes.md": "x"}))
    body = {"head": "muster/suite-ghost", "base": "main", "title": "A suite for ghost"}
    world.api("POST", f"/repos/{world.org}/cc-ci/pulls", body)
    yield


@mutation(test("it can be pushed to: ghost"), also=(test("ccci can be pushed to"),))
def the_bot_may_no_longer_write(world: World) -> Iterator[None]:
    """The bot's team in the organisation was set to read only."""
    with world.database() as db:
        was = db.execute("SELECT org_id, user_id, access FROM members").fetchall()
        db.execute("UPDATE members SET access = 'read'")
    yield
    with world.database() as db:
        db.executemany("UPDATE members SET access = ?3 WHERE org_id = ?1 AND user_id = ?2", was)
