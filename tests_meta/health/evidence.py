"""Mutations of what vouches for a verdict: the results of the build, the suite that it ran with, and who started it."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from tests_meta.health.mutation import finding, mutation, test
from tests_meta.health.world import World

BORNE_OUT = test("its green build is borne out: keycloak")
CHANGED = finding("evidence-changed-keycloak")
UNPROVEN = finding("unproven-keycloak")
FOREIGN = finding("foreign-build-ghost")


def _results(world: World) -> Path:
    """The results of keycloak's latest build."""
    folders = (world.settings.ci_dir / "runs").glob("*/results.json")
    of_keycloak = [path for path in folders if json.loads(path.read_text())["recipe"] == "keycloak"]
    return max(of_keycloak, key=lambda path: int(path.parent.name))


def _rewrite(world: World, change: Callable[[dict[str, Any]], object]) -> Iterator[None]:
    file = _results(world)
    kept = file.read_text()
    document = json.loads(kept)
    change(document)
    file.write_text(json.dumps(document))
    yield
    file.write_text(kept)


def _set_rows(document: dict[str, Any], status: str, *, stages: tuple[str, ...] = ()) -> None:
    for stage in document["stages"]:
        for row in stage["tests"]:
            if not stages or stage["name"] in stages:
                row["status"] = status


@mutation(BORNE_OUT, also=(CHANGED,))
def every_test_of_a_green_failed(world: World) -> Iterator[None]:
    """The results of a green build say that all its tests failed."""
    yield from _rewrite(world, lambda document: _set_rows(document, "fail"))


@mutation(BORNE_OUT, also=(CHANGED,))
def one_test_of_a_green_failed(world: World) -> Iterator[None]:
    """The results of a green build say that one of its tests failed."""
    yield from _rewrite(world, lambda document: document["stages"][0]["tests"][0].update(status="fail"))


@mutation(BORNE_OUT, also=(CHANGED,))
def every_test_of_a_green_was_skipped(world: World) -> Iterator[None]:
    """The results of a green build say that all its tests were skipped."""
    yield from _rewrite(world, lambda document: _set_rows(document, "skip"))


@mutation(BORNE_OUT, also=(CHANGED,))
def a_green_ran_no_test(world: World) -> Iterator[None]:
    """The results of a green build list no test."""
    yield from _rewrite(world, lambda document: document.update(stages=[]))


@mutation(BORNE_OUT, also=(CHANGED,))
def a_green_ran_nothing_of_its_suite(world: World) -> Iterator[None]:
    """The results of a green build list the generic tests alone."""
    yield from _rewrite(world, lambda document: document["stages"].pop())


@mutation(UNPROVEN, also=(CHANGED,), health=0, apply=0)
def results_of_a_green_are_of_another_recipe(world: World) -> Iterator[None]:
    """The results of a green build are another recipe's."""
    yield from _rewrite(world, lambda document: document.update(recipe="n8n"))


@mutation(UNPROVEN, also=(CHANGED,), health=0, apply=0)
def results_of_a_green_are_of_another_head(world: World) -> Iterator[None]:
    """The results of a green build are of another commit of the recipe."""
    yield from _rewrite(world, lambda document: document.update(ref="f" * 40))


@mutation(UNPROVEN, also=(CHANGED,), health=0, apply=0)
def results_of_a_green_are_gone(world: World) -> Iterator[None]:
    """The results of a green build are not there any more."""
    file = _results(world)
    kept = file.rename(file.with_name("kept.json"))
    yield
    kept.rename(file)


@mutation(finding("stale-keycloak"), health=0, apply=0)
def a_suite_is_newer_than_its_green(world: World) -> Iterator[None]:
    """A recipe's suite changed after its latest green build."""
    name = "tests/keycloak/functional/test_health_check.py"
    text = world.view.git("cc-ci", "show", f"main:{name}")
    with world.ccci({name: f"{text}\n# tightened\n"}):
        yield


@mutation(finding("stale-keycloak"), health=0, apply=0)
def the_pipeline_is_newer_than_a_green(world: World) -> Iterator[None]:
    """The pipeline changed after the latest green build of every recipe."""
    text = world.view.git("cc-ci", "show", "main:.drone.yml")
    with world.ccci({".drone.yml": f"{text}\n# changed\n"}):
        yield


@mutation(FOREIGN, health=0, apply=0)
def a_stranger_starts_a_green_build(world: World) -> Iterator[None]:
    """A build that the bridge did not start says that a red recipe is green."""
    with world.build("ghost", status="success", sender="mallory"):
        yield


@mutation(FOREIGN, health=0, apply=0)
def a_green_build_is_of_another_branch(world: World) -> Iterator[None]:
    """A build of another branch of cc-ci says that a red recipe is green."""
    with world.build("ghost", status="success", target="suites-of-mine"):
        yield


@mutation(FOREIGN, health=0, apply=0)
def a_green_build_is_of_a_foreign_commit(world: World) -> Iterator[None]:
    """A build of a commit that cc-ci never had says that a red recipe is green."""
    with world.build("ghost", status="success", after="f" * 40):
        yield


@mutation(FOREIGN, health=0, apply=0)
def a_green_build_is_of_a_commit_beside_ccci(world: World) -> Iterator[None]:
    """A build of a commit that cc-ci has on no branch says that a red recipe is green."""
    with world.build("ghost", status="success", after=world.commit("cc-ci", {"tests/ghost/conftest.py": ""})):
        yield


@mutation(FOREIGN, health=0, apply=0)
def a_green_build_tested_a_foreign_commit(world: World) -> Iterator[None]:
    """A build that tested a commit which the mirror never had says that a red recipe is green."""
    with world.build("ghost", status="success", params={"RECIPE": "ghost", "REF": "f" * 40, "PR": "1"}):
        yield


@mutation(FOREIGN, health=0, apply=0)
def a_green_build_is_dated_in_the_future(world: World) -> Iterator[None]:
    """A build of next year says that a red recipe is green."""
    later = int(time.time()) + 31_536_000
    with world.build("ghost", status="success", created=later, started=later, finished=later):
        yield


@mutation(
    survives="A push to cc-ci makes Drone build it; such a build has no recipe, and is nobody's verdict.",
)
def a_push_build_of_ccci_failed(world: World) -> Iterator[None]:
    """The latest build is red, of a push to cc-ci."""
    with world.build("ghost", status="failure", event="push", params={}):
        yield
