"""A twentieth recipe is one line of the roster; and a bridge that does not take it up is no deploy."""

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


def a_twentieth(world_pool: WorldPool, tmp_path: Path) -> Path:
    """Put a new recipe upstream and its suite into cc-ci; returns a roster with its one more line."""
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


def cover(world_pool: WorldPool, tmp_path: Path) -> None:
    """Somebody writes the suite of the twentieth recipe, in the image of custom-html's."""
    person = Person(world_pool, "cc-ci", tmp_path)  # who does not take it back
    template, suite = (person.folder / "tests" / name for name in ("custom-html", NEW_RECIPE))
    subprocess.run(["cp", "-r", str(template), str(suite)], check=True)
    person.push()


def test_a_bridge_that_was_not_replaced_is_red_and_rolled_back(
    world_pool: WorldPool, reference_night: ReferenceNight, tmp_path: Path
) -> None:
    """A twentieth recipe is enrolled, the switch succeeds, and the old task goes on polling nineteen: that is no
    deploy. The host goes back to its recorded generation, and git with it."""
    assert reference_night.applied.ran.exit == 0
    world_pool.lay(CONVERGED)
    roster = a_twentieth(world_pool, tmp_path)
    world_pool.start("bridge-not-replaced")
    cover(world_pool, tmp_path)
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


def test_a_twentieth_recipe_is_one_line(
    world_pool: WorldPool, reference_night: ReferenceNight, tmp_path: Path
) -> None:
    """Its mirror is created, it is enrolled, deployed and polled; the other nineteen are not touched."""
    assert reference_night.applied.ran.exit == 0
    world_pool.lay(CONVERGED)
    roster = a_twentieth(world_pool, tmp_path)
    assert len(set(roster.read_text().splitlines()) - set(world_pool.roster.read_text().splitlines())) == 1
    world_pool.start()
    cover(world_pool, tmp_path)
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
