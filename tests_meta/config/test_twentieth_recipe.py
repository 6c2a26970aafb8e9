"""A twentieth recipe is one more line of the roster; a deploy after which the bridge does not poll it has failed."""

from __future__ import annotations

import subprocess
from pathlib import Path

from fixtures.rehearsal.forge_embedded.store import Store
from fixtures.rehearsal.initial_state import night
from tests_meta.muster_runs import CONVERGED, WorldPool
from tests_meta.people import Person, git
from tests_meta.reference_night import ReferenceNight
from tests_meta.world_view import WorldView

NEW_RECIPE = "gitea"


def add_recipe(world_pool: WorldPool, tmp_path: Path) -> Path:
    """Create a new recipe upstream; returns a roster with one more line for it."""
    settings = world_pool.settings
    template = WorldView(settings).bare("custom-html", upstream=True)
    bare = WorldView(settings).bare(NEW_RECIPE, upstream=True)
    store = Store(settings.upstream_dir)
    store.create_repo(settings.upstream_owner, NEW_RECIPE)
    git(bare, "fetch", "--quiet", str(template), "+refs/*:refs/*")
    store.note_pushed(settings.upstream_owner, NEW_RECIPE)
    store.close()
    roster = tmp_path / "roster.toml"
    line = f'  {{ name = "{NEW_RECIPE}", enroll = true }},\n]'
    roster.write_text(world_pool.roster.read_text().replace("\n]\n", f"\n{line}\n", 1))
    return roster


def push_suite(world_pool: WorldPool, tmp_path: Path) -> None:
    """A person pushes a suite for the twentieth recipe, a copy of custom-html's."""
    person = Person(world_pool, "cc-ci", tmp_path)
    template, suite = (person.folder / "tests" / name for name in ("custom-html", NEW_RECIPE))
    subprocess.run(["cp", "-r", str(template), str(suite)], check=True)
    person.push()


def test_bridge_that_was_not_replaced_is_rolled_back(
    world_pool: WorldPool, reference_night: ReferenceNight, tmp_path: Path
) -> None:
    """If the old task still polls nineteen recipes after a successful switch, the deploy has failed: the host returns
    to its recorded generation, and git to its recorded commit."""
    assert reference_night.applied.ran.exit == 0
    world_pool.lay(CONVERGED)
    roster = add_recipe(world_pool, tmp_path)
    world_pool.start("bridge-not-replaced")
    push_suite(world_pool, tmp_path)
    world_view = WorldView(world_pool.settings)
    before, polled, task = world_view.host(), world_view.running_poll_set(), world_view.poll_set()
    ran = world_pool.visit(roster=roster).demand(11)
    after, running, in_git = world_view.host(), world_view.running_poll_set(), world_view.poll_set()
    world_pool.end()
    assert "it was deployed or needed nothing" in ran.failed
    (said,) = [
        line["message"] for line in ran.of("assertion") if line["title"] == "it was deployed or needed nothing"
    ]
    assert "polls the old set" in said or "task was not replaced" in said
    assert ran.summary["verdict"] == "rolled-back"
    assert (running, in_git) == (polled, task)
    assert {name: after[name] for name in ("running", "boots", "generation")} == {
        name: before[name] for name in ("running", "boots", "generation")
    }


def test_twentieth_recipe_is_one_line(
    world_pool: WorldPool, reference_night: ReferenceNight, tmp_path: Path
) -> None:
    """One more line creates the mirror and enrolls, deploys and polls the recipe; the other nineteen do not change."""
    assert reference_night.applied.ran.exit == 0
    world_pool.lay(CONVERGED)
    roster = add_recipe(world_pool, tmp_path)
    assert len(set(roster.read_text().splitlines()) - set(world_pool.roster.read_text().splitlines())) == 1
    world_pool.start()
    push_suite(world_pool, tmp_path)
    world_view = WorldView(world_pool.settings)
    before = world_view.all_refs()
    ran = world_pool.visit(roster=roster).demand(0)
    assert world_view.running_poll_set()[-1] == f"{world_view.settings.org}/{NEW_RECIPE}"
    assert len(world_view.running_poll_set()) == 21
    assert world_view.refs(NEW_RECIPE) == world_view.refs(NEW_RECIPE, upstream=True) != {}
    assert {name: world_view.refs(name)["refs/heads/main"] for name in night.RECIPES} == {
        name: before[name]["refs/heads/main"] for name in night.RECIPES
    }
    world_pool.end()
    assert [ran.summary[key] for key in ("expected", "mirrored", "covered", "polled")] == [20] * 4
