"""Mutations of the forge and of upstream: mirrors, tags, branches, cc-ci's settings, pull requests."""

from __future__ import annotations

import shutil
from collections.abc import Iterator

from tests_meta.health.mutation import finding, mutation, test
from tests_meta.health.world import World
from tests_meta.people import git

MAIN = "refs/heads/main"


@mutation(
    test("it exists: ghost"),
    also=(test("it has upstreams tags: ghost"), test("its head is upstreams head: ghost")),
    apply=0,
    restores=False,
)
def a_mirror_is_deleted(world: World) -> Iterator[None]:
    """A mirror is not there."""
    world.api("DELETE", f"/repos/{world.org}/ghost")
    yield


@mutation(test("it exists: ghost"))
def a_mirror_is_renamed(world: World) -> Iterator[None]:
    """A mirror answers under another name."""
    world.edit_repository("ghost", name="ghost-moved")
    yield
    world.edit_repository("ghost-moved", name="ghost")


@mutation(test("it is not empty: ghost"), apply=0, restores=False)
def a_mirror_is_empty(world: World) -> Iterator[None]:
    """A mirror has no commit."""
    world.api("DELETE", f"/repos/{world.org}/ghost")
    world.api("POST", f"/orgs/{world.org}/repos", {"name": "ghost", "private": True})
    yield


@mutation(test("its default branch is main: ghost"))
def the_default_branch_is_another(world: World) -> Iterator[None]:
    """The default branch of a mirror is not main."""
    with world.ref("ghost", "refs/heads/other", world.view.refs("ghost")[MAIN]):
        world.edit_repository("ghost", default_branch="other")
        yield
        world.edit_repository("ghost", default_branch="main")


@mutation(test("its head is upstreams head: ghost"), apply=0)
def a_mirror_has_no_main(world: World) -> Iterator[None]:
    """A mirror's main was deleted."""
    with world.ref("ghost", "refs/heads/kept", world.view.refs("ghost")[MAIN]), world.ref("ghost", MAIN, ""):
        yield


@mutation(test("nobody moved its main: ghost"), apply=0)
def a_mirror_was_set_back(world: World) -> Iterator[None]:
    """A mirror's main names an older commit than in the last healthy record, and upstream did not move."""
    older = world.view.git("ghost", "rev-parse", f"{MAIN}~1")
    with world.ref("ghost", MAIN, older):
        yield


@mutation(finding("mirror-behind-ghost"), health=0, apply=0)
def upstream_pushed_an_old_commit(world: World) -> Iterator[None]:
    """Upstream's main moved a moment ago, to a commit that is nine days old."""
    made = world.commit("ghost", {"new.txt": "new"}, upstream=True, days_ago=9)
    with world.ref("ghost", MAIN, made, upstream=True):
        yield


@mutation(test("it was brought up to date: ghost"))
def a_mirror_has_commits_of_its_own(world: World) -> Iterator[None]:
    """A mirror's main holds a commit that upstream lacks."""
    with world.ref("ghost", MAIN, world.commit("ghost", {"own.txt": "own"})):
        yield


@mutation(test("it was brought up to date: ghost"))
def a_mirror_has_another_history(world: World) -> Iterator[None]:
    """A mirror's main was overwritten with an unrelated commit."""
    with world.ref("ghost", MAIN, world.commit("ghost", {"own.txt": "own"}, orphan=True)):
        yield


@mutation(test("its tags are upstreams own: ghost"), apply=0)
def a_tag_was_deleted_in_the_mirror(world: World) -> Iterator[None]:
    """A mirror lacks a release tag that it had in the last healthy record."""
    with world.ref("ghost", world.tag("ghost"), ""):
        yield


@mutation(test("its tags are upstreams own: ghost"))
def a_tag_was_moved_in_the_mirror(world: World) -> Iterator[None]:
    """A release tag of a mirror names another commit than in the last healthy record."""
    with world.ref("ghost", world.tag("ghost"), world.commit("ghost", {"evil.txt": "evil"})):
        yield


@mutation(test("its tags are upstreams own: ghost"))
def a_tag_was_added_in_the_mirror(world: World) -> Iterator[None]:
    """A mirror has a release tag that upstream never had."""
    with world.ref("ghost", "refs/tags/99.0.0+9.9.9", world.view.refs("ghost")[MAIN]):
        yield


@mutation(finding("tags-moved-ghost"), health=0, apply=0)
def a_tag_was_moved_upstream(world: World) -> Iterator[None]:
    """Upstream moved a release tag; the mirror names the commit of before."""
    with world.ref(
        "ghost", world.tag("ghost"), world.commit("ghost", {"a.txt": "a"}, upstream=True), upstream=True
    ):
        yield


@mutation(finding("tags-deleted-ghost"), health=0, apply=0)
def a_tag_was_deleted_upstream(world: World) -> Iterator[None]:
    """Upstream deleted a release tag that the mirror has."""
    with world.ref("ghost", world.tag("ghost"), "", upstream=True):
        yield


@mutation(test("its objects can be read: ghost"))
def the_objects_of_a_mirror_are_lost(world: World) -> Iterator[None]:
    """The objects of a mirror are gone from the forge's disk; its refs still answer."""
    objects = world.bare("ghost") / "objects"
    kept = objects.rename(objects.with_name("objects-kept"))
    for name in ("info", "pack"):
        (objects / name).mkdir(parents=True)
    # The advertisement reads the commits that tags name; only the trees and files are lost.
    for kind in ("commit", "tag"):
        world.copy_objects(kept, "ghost", kind)
    yield
    shutil.rmtree(objects)
    kept.rename(objects)


@mutation(test("it can be pushed to: ghost"))
def a_mirror_is_archived(world: World) -> Iterator[None]:
    """A mirror is archived: nobody can push to it."""
    world.edit_repository("ghost", archived=True)
    yield
    world.edit_repository("ghost", archived=False)


@mutation(test("it is private like its siblings: ghost"))
def a_mirror_is_public(world: World) -> Iterator[None]:
    """A mirror can be read by everybody."""
    world.edit_repository("ghost", private=False)
    yield
    world.edit_repository("ghost", private=True)


@mutation(test("ccci can be pushed to"))
def ccci_is_archived(world: World) -> Iterator[None]:
    """cc-ci is archived: nobody can push to it."""
    world.edit_repository("cc-ci", archived=True)
    yield
    world.edit_repository("cc-ci", archived=False)


@mutation(test("ccci is as private as before"))
def ccci_is_public(world: World) -> Iterator[None]:
    """cc-ci was private in the last healthy record, and can be read by everybody."""
    world.edit_repository("cc-ci", private=False)
    yield
    world.edit_repository("cc-ci", private=True)


@mutation(test("no branch of a proposal is left"))
def a_branch_of_a_proposal_is_left(world: World) -> Iterator[None]:
    """cc-ci has a branch of muster's without a pull request."""
    with world.ref("cc-ci", "refs/heads/muster/suite-ghost", world.view.refs("cc-ci")[MAIN]):
        yield


@mutation(test("no scratch pull request is left"))
def a_scratch_branch_is_left_in_a_mirror(world: World) -> Iterator[None]:
    """A mirror has a scratch branch of a run that is over."""
    with world.ref("ghost", "refs/heads/muster/scratch-20260602t001300z", world.view.refs("ghost")[MAIN]):
        yield


@mutation(test("no scratch pull request is left"))
def a_scratch_branch_is_left_in_ccci(world: World) -> Iterator[None]:
    """cc-ci has a scratch branch of a run that is over."""
    with world.ref("cc-ci", "refs/heads/muster/scratch-20260602t001300z", world.view.refs("cc-ci")[MAIN]):
        yield


@mutation(test("the register of deferred work can be read"))
def the_register_is_deleted(world: World) -> Iterator[None]:
    """DEFERRED.md is not in cc-ci any more."""
    with world.ccci({"machine-docs/DEFERRED.md": None}):
        yield


@mutation(test("the register of deferred work can be read"))
def the_register_has_a_malformed_entry(world: World) -> Iterator[None]:
    """An entry of DEFERRED.md has not the register's form."""
    text = world.view.git("cc-ci", "show", "main:machine-docs/DEFERRED.md")
    with world.ccci({"machine-docs/DEFERRED.md": f"{text}\n- [ ] **What:** an entry without a title\n"}):
        yield


@mutation(test("upstream has the recipe: ghost"))
def upstream_has_no_main(world: World) -> Iterator[None]:
    """Upstream's main was deleted."""
    kept = world.view.refs("ghost", upstream=True)[MAIN]
    with world.ref("ghost", "refs/heads/kept", kept, upstream=True), world.ref("ghost", MAIN, "", upstream=True):
        yield


@mutation(test("upstream has the recipe: ghost"))
def upstream_does_not_have_the_repository(world: World) -> Iterator[None]:
    """Upstream answers 404 for a recipe."""
    with world.parallel.breaking({"listener": "upstream", "path": "/ghost\\.git/", "action": "status:404"}):
        yield


@mutation(finding("upstream-head-ghost"), health=0, apply=0)
def upstreams_head_is_another_branch(world: World) -> Iterator[None]:
    """Upstream's HEAD names another branch than main."""
    bare = world.bare("ghost", upstream=True)
    with world.ref("ghost", "refs/heads/develop", world.view.refs("ghost", upstream=True)[MAIN], upstream=True):
        git(bare, "symbolic-ref", "HEAD", "refs/heads/develop")
        yield
        git(bare, "symbolic-ref", "HEAD", MAIN)


@mutation(finding("mirror-behind-ghost"), health=0, apply=0)
def a_mirror_is_behind_for_a_minute(world: World) -> Iterator[None]:
    """Upstream's main moved a moment ago."""
    with world.ref("ghost", MAIN, world.commit("ghost", {"new.txt": "new"}, upstream=True), upstream=True):
        yield


@mutation(survives="People push branches of their own to mirrors; muster manages main and the tags.")
def a_person_pushed_a_branch_to_a_mirror(world: World) -> Iterator[None]:
    """A mirror has a branch that upstream lacks."""
    with world.ref("ghost", "refs/heads/feature", world.commit("ghost", {"feature.txt": "x"})):
        yield


@mutation(survives="A branch of cc-ci that is not muster's is somebody's work.")
def a_person_pushed_a_branch_to_ccci(world: World) -> Iterator[None]:
    """cc-ci has a branch of a person's."""
    with world.ref("cc-ci", "refs/heads/feature", world.commit("cc-ci", {"notes.txt": "x"})):
        yield


@mutation(
    survives="Anybody may open a pull request, and it is none of muster's until it is merged.", restores=False
)
def a_person_opened_a_pull_request(world: World) -> Iterator[None]:
    """A mirror has an open pull request of a person's."""
    world.set_ref("ghost", "refs/heads/feature", world.commit("ghost", {"feature.txt": "x"}))
    world.api(
        "POST", f"/repos/{world.org}/ghost/pulls", {"head": "feature", "base": "main", "title": "A feature"}
    )
    yield
