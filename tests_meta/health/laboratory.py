"""Where mutations are tried: one converged world, the record of a healthy night in it, and its usual findings."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests_meta.health.mutation import Mutation, When
from tests_meta.health.world import World
from tests_meta.muster_runs import Ran


@dataclass
class Laboratory:
    """A converged world, the record of a healthy night in it, and what each mode finds when all is well."""

    world: World
    record: Path
    folder: Path
    _usual: dict[str, frozenset[str]] = field(default_factory=dict)

    def run(self, mode: str, *more: str, env: Mapping[str, str] | None = None) -> Ran:
        """One run with the healthy record as its only history; `more` are further arguments."""
        reports = self.folder / "reports"
        shutil.rmtree(reports, ignore_errors=True)
        shutil.copytree(self.record, reports, symlinks=True)
        health = ["--health"] if mode == "health" else []
        return self.world.parallel.visit(*health, *more, reports=reports, env=env)

    def usual(self, mode: str) -> frozenset[str]:
        """The findings of a run in the healthy world; asserts that it is healthy."""
        if mode not in self._usual:
            ran = self.run(mode).demand(0)
            assert ran.failed == set()
            self._usual[mode] = frozenset(str(line["id"]) for line in ran.of("finding"))
        return self._usual[mode]

    def problems(self, mutation: Mutation, mode: str) -> list[str]:
        """Break the world, run, and restore the world; returns what was not as the mutation expects."""
        usual, world = self.usual(mode), self.world
        if mutation.when is When.OFFLINE:
            world.parallel.end()
        breaking = mutation.make(world)
        next(breaking)
        if mutation.when is When.OFFLINE:
            world.parallel.start()
        ran = self.run(mode)
        if mutation.restores and mode == "health" and mutation.when is When.LIVE:
            assert next(breaking, "restored") == "restored", "a mutation yields once"
        else:
            world.renew()
        problems = mutation.problems(ran, usual=usual, mode=mode)
        return problems + ([ran.output[-2500:]] if problems else [])


@pytest.fixture(scope="module")
def laboratory(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Laboratory]:
    folder = tmp_path_factory.mktemp("mutations")
    world = World(folder / "world")
    world.converge()
    record = folder / "record"
    world.parallel.visit("--health", reports=record).demand(0)
    yield Laboratory(world, record, folder)
    world.parallel.clear()
