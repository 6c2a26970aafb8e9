"""A twentieth recipe is one line of the roster; and a bridge that does not take it up is no deploy."""

from __future__ import annotations

import subprocess
from pathlib import Path

from fixtures.rehearsal.forge_embedded.store import Store
from fixtures.rehearsal.initial_state import night
from tests_meta.eyes import Eyes
from tests_meta.people import Person, git
from tests_meta.rehearsals import CONVERGED, Station
from tests_meta.stories import Story

NEW_RECIPE = "gitea"


def a_twentieth(station: Station, tmp_path: Path) -> Path:
    """Put a new recipe upstream and its suite into cc-ci; returns a roster with its one more line."""
    settings = station.settings
    template = Eyes(settings).bare("custom-html", upstream=True)
    bare = Eyes(settings).bare(NEW_RECIPE, upstream=True)
    store = Store(settings.upstream_dir)
    store.create_repo(settings.upstream_owner, NEW_RECIPE)
    git(bare, "fetch", "--quiet", str(template), "+refs/*:refs/*")
    store.note_pushed(settings.upstream_owner, NEW_RECIPE)
    store.close()
    roster = tmp_path / "roster.toml"
    line = f'  {{ name = "{NEW_RECIPE}", enroll = true }},\n]'
    roster.write_text(station.roster.read_text().replace("\n]\n", f"\n{line}\n", 1))
    return roster


def cover(station: Station, tmp_path: Path) -> None:
    """Somebody writes the suite of the twentieth recipe, in the image of custom-html's."""
    person = Person(station, "cc-ci", tmp_path)  # who does not take it back
    template, suite = (person.folder / "tests" / name for name in ("custom-html", NEW_RECIPE))
    subprocess.run(["cp", "-r", str(template), str(suite)], check=True)
    person.push()


def test_a_bridge_that_was_not_replaced_is_red_and_rolled_back(
    station: Station, story: Story, tmp_path: Path
) -> None:
    """A twentieth recipe is enrolled, the switch succeeds, and the old task goes on polling nineteen: that is no
    deploy. The host goes back to its recorded generation, and git with it."""
    assert story.applied.ran.exit == 0
    station.lay(CONVERGED)
    roster = a_twentieth(station, tmp_path)
    station.start("bridge-not-replaced")
    cover(station, tmp_path)
    eyes = Eyes(station.settings)
    before, polled, task = eyes.host(), eyes.running_poll_set(), eyes.poll_set()
    ran = station.visit(roster=roster).demand(11)
    after, running, in_git = eyes.host(), eyes.running_poll_set(), eyes.poll_set()
    station.end()
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


def test_a_twentieth_recipe_is_one_line(station: Station, story: Story, tmp_path: Path) -> None:
    """Its mirror is created, it is enrolled, deployed and polled; the other nineteen are not touched."""
    assert story.applied.ran.exit == 0
    station.lay(CONVERGED)
    roster = a_twentieth(station, tmp_path)
    assert len(set(roster.read_text().splitlines()) - set(station.roster.read_text().splitlines())) == 1
    station.start()
    cover(station, tmp_path)
    eyes = Eyes(station.settings)
    before = eyes.all_refs()
    ran = station.visit(roster=roster).demand(0)
    assert eyes.running_poll_set()[-1] == f"{eyes.settings.org}/{NEW_RECIPE}"
    assert len(eyes.running_poll_set()) == 21
    assert eyes.refs(NEW_RECIPE) == eyes.refs(NEW_RECIPE, upstream=True) != {}
    assert {name: eyes.refs(name)["refs/heads/main"] for name in night.RECIPES} == {
        name: before[name]["refs/heads/main"] for name in night.RECIPES
    }
    station.end()
    assert [ran.summary[key] for key in ("expected", "mirrored", "covered", "polled")] == [20] * 4
