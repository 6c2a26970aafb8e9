"""Worlds with one defect: the run fails in the test about that defect and in no other.

Each test starts from a world in which a run is green (see test_whole_rehearsal), makes one defect with git, HTTP or a
file, as a person would, and starts a run.
"""

from __future__ import annotations

import contextlib
from dataclasses import replace
from pathlib import Path

import httpx
import pytest

from fixtures.clients.world import open_read_world, resolve_secrets
from fixtures.config.roster import load_roster
from fixtures.config.site import load_site
from fixtures.journal.load_record import load
from fixtures.journal.to_do import TaskKind, tasks
from fixtures.rehearsal.initial_state import night
from fixtures.survey import take
from tests_meta.muster_runs import NIGHT, Ran, WorldPool
from tests_meta.people import Person, deploy_bridge_without, deploy_by_hand, git
from tests_meta.reference_night import prepare_initial_world
from tests_meta.world_view import POLL_FILE, WorldView

RESTARTED = "1 host systemctl restart deploy-bridge.service"


def others_passed(ran: Ran, recipe: str) -> bool:
    """Whether every other recipe passed all phases."""
    passed = ran.titles("passed")
    return all(f"it has passed muster: {name}" in passed for name in night.RECIPES if name != recipe)


# -- mirrors -----------------------------------------------------------------------------------------------


def test_unrelated_mirror_fails_and_is_not_written(converged: WorldPool, tmp_path: Path) -> None:
    """A mirror with an unrelated history fails with a finding and is not overwritten, and the other recipes pass."""
    with Person(converged, "cryptpad", tmp_path) as person:
        git(person.folder, "checkout", "--quiet", "--orphan", "elsewhere")
        head = person.push()
        ran = converged.visit().demand(1)
        assert WorldView(converged.settings).refs("cryptpad")["refs/heads/main"] == head
    assert "it was brought up to date: cryptpad" in ran.failed
    assert all(title.endswith(": cryptpad") for title in ran.failed), ran.failed
    assert ran.summary["recipes"]["cryptpad"]["mirrored"] is False
    assert others_passed(ran, "cryptpad")
    assert [f["recipe"] for f in ran.of("finding") if f["id"] == "mirror-cryptpad"] == ["cryptpad"]
    assert ran.of("intent") == []


def test_renamed_mirror_is_reported_and_not_created_again(converged: WorldPool) -> None:
    """A mirror whose name redirects to a new one fails with its new name in a finding and in each failed test; nothing
    is written, and the other recipes pass."""
    settings = converged.settings
    repositories, moved = f"{settings.forge_url}/api/v1/repos/{settings.org}", "cryptpad-moved"
    header = {"Authorization": f"token {settings.operator_token}"}
    with httpx.Client(headers=header, timeout=30, trust_env=False) as forge:
        forge.patch(f"{repositories}/cryptpad", json={"name": moved}).raise_for_status()
        try:
            ran = converged.visit().demand(1)
        finally:
            forge.patch(f"{repositories}/{moved}", json={"name": "cryptpad"}).raise_for_status()
    assert "it exists: cryptpad" in ran.failed
    assert all(title.endswith(": cryptpad") for title in ran.failed), ran.failed
    assert others_passed(ran, "cryptpad")
    answer = f"it answers as {settings.org}/{moved}"
    (found,) = [f for f in ran.of("finding") if f["id"] == "mirror-cryptpad"]
    assert answer in found["what"]
    assert ran.output.count(answer) > len(ran.failed)
    assert ran.of("intent") == []


@pytest.mark.parametrize("recipe", ["hedgedoc", "ghost"])
def test_recipe_without_an_upstream_fails_alone(converged: WorldPool, recipe: str) -> None:
    """Only the recipe whose upstream is missing fails (one with a carried suite, one canary); the others pass all
    phases."""
    with converged.breaking({"listener": "upstream", "path": f"/{recipe}\\.git/", "action": "status:404"}):
        ran = converged.visit("--health").demand(1)
    assert f"upstream has the recipe: {recipe}" in ran.failed
    assert all(title.endswith(f": {recipe}") for title in ran.failed), ran.failed
    assert others_passed(ran, recipe)
    rows = ran.summary["recipes"]
    assert [name for name, row in rows.items() if row["mirrored"] is not True] == [recipe]


def test_missing_upstream_is_missing_in_the_survey_alone(converged: WorldPool) -> None:
    """When one upstream is missing, a survey lacks exactly that upstream; shown for each recipe."""
    site, roster = load_site(converged.site), load_roster(converged.roster)
    world = open_read_world(site, resolve_secrets(site))
    for recipe in roster.names:
        with converged.breaking({"listener": "upstream", "path": f"/{recipe}\\.git/", "action": "status:404"}):
            survey = take(world, roster)
        assert set(roster.names) - set(survey.upstreams) == {recipe}
        assert survey.problems == {}
        assert len(survey.mirrors) == 19
    world.close()


def test_migration_without_one_upstream_converges_the_others(world_pool: WorldPool) -> None:
    """When mumble's upstream is missing, the other recipes are mirrored and polled; mumble fails by name, and is
    neither created nor enrolled."""
    prepare_initial_world(world_pool)
    with world_pool.live(NIGHT), world_pool.breaking(
        {"listener": "upstream", "path": "/mumble\\.git/", "action": "status:404"}
    ):  # fmt: skip
        ran = world_pool.visit().demand(1)
        world_view = WorldView(world_pool.settings)
        assert f"{world_view.settings.org}/mumble" not in world_view.running_poll_set()
        assert len(world_view.running_poll_set()) == len(set(world_view.running_poll_set())) == 19
        assert world_view.poll_set() == world_view.running_poll_set()
        assert world_view.refs("mumble") == {}
        for recipe in set(night.MIRROR_MISSING) - {"mumble"}:
            assert world_view.refs(recipe) == world_view.refs(recipe, upstream=True)
    assert all(title.endswith(": mumble") for title in ran.failed), ran.failed
    assert others_passed(ran, "mumble")
    assert {key: ran.summary[key] for key in ("mirrored", "polled")} == {"mirrored": 18, "polled": 18}
    assert ran.summary["verdict"] == "failed"


# -- the poll set ------------------------------------------------------------------------------------------


def test_repository_missing_from_the_committed_poll_set_is_drift(converged: WorldPool, tmp_path: Path) -> None:
    """A repository removed from bridge.nix is drift in a health check, with the change that fixes it."""
    org = converged.settings.org
    with Person(converged, "cc-ci", tmp_path) as person:
        person.edit_poll_set(f",{org}/plausible", "")
        ran = converged.visit("--health").demand(1)
    assert ran.summary["verdict"] == "drift"
    planned = ran.summary["planned"]
    assert [step["target"] for step in planned if step["kind"] == "enroll"] == [f"{org}/cc-ci: {POLL_FILE}"]
    assert {"it is in the poll set: plausible", "the poll set is exactly the roster"} <= ran.failed
    assert {title for title in ran.failed if ": " in title} == {"it is in the poll set: plausible"}
    assert "it is in the poll set: ghost" in ran.titles("passed")
    assert [one for one in ran.titles("skipped") if "verdict" in one] == [], (
        "drift does not stop the other checks"
    )
    assert ran.folder is not None
    (task,) = [one for one in tasks(load(ran.folder)) if one.kind is TaskKind.PENDING]
    assert task.what.startswith(
        f"Drift in {len(ran.failed)} assertions, the first: it is in the poll set: plausible."
    )
    assert "without `--health`" in task.do


def test_repository_missing_from_the_running_bridge_is_restored(converged: WorldPool, tmp_path: Path) -> None:
    """A repository that only the running task's environment lacks is not polled: a health check fails by the recipe's
    name, and an apply restarts the bridge's deploy unit once, also when the response is lost."""
    stack, world_view = deploy_bridge_without(converged, "plausible"), WorldView(converged.settings)
    lost, names = {"MUSTER_BREAK": "lost", "MUSTER_BREAK_AT": RESTARTED}, tmp_path / "calls"
    try:
        checked = converged.visit("--health").demand(1)
        assert len(world_view.running_poll_set()) == 19
        ran = converged.visit(
            "-p", "tests_meta.run.broken_calls_plugin", env={"MUSTER_CALLS": str(names), **lost}
        ).demand(0)
        assert len(world_view.running_poll_set()) == 20
    finally:
        deploy_by_hand(converged, stack)
    assert "it is polled: plausible" in checked.failed
    assert checked.summary["verdict"] == "drift"
    assert "it is polled: ghost" in checked.titles("passed")
    assert {step["kind"] for step in checked.summary["planned"]} == {"restart-bridge", "switch"}
    assert [line["kind"] for line in ran.of("intent")] == ["restart-bridge"]
    assert names.read_text().count(RESTARTED.partition(" ")[2]) == 1


@pytest.mark.parametrize(
    ("entry", "says"), [("n8n", "n8n stands twice"), ("wordpress", "wordpress, which is not on the roster")]
)
def test_an_entry_that_is_not_wanted_is_red_and_left_alone(
    converged: WorldPool, tmp_path: Path, entry: str, says: str
) -> None:
    """One that stands twice, one that nobody knows: muster does not tidy up what it did not write; it names the entry
    and what a person has to do."""
    org = converged.settings.org
    with Person(converged, "cc-ci", tmp_path) as person:
        head = person.edit_poll_set(f",{org}/n8n", f",{org}/n8n,{org}/{entry}")
        ran = converged.visit().demand(1)
        assert WorldView(converged.settings).refs("cc-ci")["refs/heads/main"] == head
    assert "the poll set could be updated" in ran.failed
    (finding,) = [line for line in ran.of("finding") if line["id"] == "enrollment"]
    assert says in finding["what"]
    assert finding["do"]
    assert ran.of("intent") == []


# -- the host ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["diverged", "dirty"])
def test_diverged_or_dirty_checkout_withholds_the_deploy(converged: WorldPool, tmp_path: Path, kind: str) -> None:
    """When the checkout cannot be brought to the new head, the run exits 13 with a finding and does not switch."""
    checkout, world_view = converged.settings.host_dir / "root/cc-ci", WorldView(converged.settings)
    found = git(checkout, "rev-parse", "HEAD")
    with Person(converged, "cc-ci", tmp_path) as person:
        person.push()
        if kind == "diverged":
            git(checkout, "commit", "--quiet", "--allow-empty", "--message", "by hand on the host")
        else:
            with (checkout / "flake.nix").open("a") as stream:
                stream.write("# by hand\n")
        before = world_view.host()
        try:
            ran = converged.visit().demand(13)
            after = world_view.host()
        finally:
            git(checkout, "reset", "--quiet", "--hard", found)
    assert after == before
    assert ran.summary["verdict"] == "withheld"
    assert ran.failed == {"it was deployed or needed nothing", "gate"}
    (finding,) = [line for line in ran.of("finding") if line["id"] == "deploy-withheld"]
    assert "/root/cc-ci cannot be brought to the committed head" in finding["what"]
    assert finding["do"]
    assert "switch" not in {line["kind"] for line in ran.of("intent")}


# -- verdicts ----------------------------------------------------------------------------------------------


def test_suite_is_not_merged_on_an_old_verdict(world_pool: WorldPool) -> None:
    """A suite is not merged when its head has only a green status from before and no new build reports."""
    prepare_initial_world(world_pool)
    world_pool.lay(NIGHT)
    # The bridge leaves the stale status itself, and no suite has been merged in this world yet.
    replace(world_pool.settings, seeded_with=("stale-green",)).save()
    world_pool.start("stale-green")
    with contextlib.ExitStack() as ending:
        ending.callback(world_pool.end)
        ran = world_pool.visit(phases=["phases/test_2_suites.py"]).demand(1)
        world_view = WorldView(world_pool.settings)
        assert world_view.git("cc-ci", "ls-tree", "main", "tests/hedgedoc/") == ""
        _, pull = world_view.api(f"/repos/{world_view.settings.org}/cc-ci/pulls/1")
        _, statuses = world_view.api(f"/repos/{world_view.settings.org}/cc-ci/statuses/{pull['head']['sha']}")
    assert pull["merged"] is False
    assert "success" in [s["status"] for s in statuses if s["context"] == "cc-ci/testme"], "nothing tempted it"
    assert "the carried suite is in ccci: hedgedoc" in ran.failed
    assert ran.summary["recipes"]["hedgedoc"]["covered"] is False
    assert ran.summary["recipes"]["hedgedoc"]["green"] is not True


def test_unreachable_forge_is_neither_drift_nor_a_pass(converged: WorldPool) -> None:
    """A maintenance page in the forge's place: the verdict says that it could not be read, and nothing is said to be
    gone."""
    with converged.breaking({"listener": "forge", "path": "^/api/", "times": None, "action": "html"}):
        ran = converged.visit("--health").demand(1)
    assert ran.summary["verdict"] == "unreachable"
    failed = [line for line in ran.of("assertion") if line["outcome"] == "failed"]
    assert {line["reason"] for line in failed if line["title"] != "gate"} == {"unread"}
    assert "missing" not in " ".join(line["seen"] for line in failed)
    assert ran.output.count("muster: UNREACHABLE") == 1
