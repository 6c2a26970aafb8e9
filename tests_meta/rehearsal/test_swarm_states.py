"""The stand-in Swarm goes through the states that a real one shows; each is read as ``docker service ls`` prints it."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fixtures.clients.bridge import Replicas
from fixtures.rehearsal.swarm.compose import service_spec
from fixtures.rehearsal.swarm.services import Swarm

NAME = "extra_app"


class Watched(Swarm):
    """A Swarm that keeps every state that it was in, in order, and wakes whoever waits for one."""

    seen: list[str]
    changed: asyncio.Event

    def _save(self) -> None:
        super()._save()
        self.seen += [state for service in self.services.values() if (state := self.replicas(service))]
        self.changed.set()

    async def until(self, holds: Callable[[], bool]) -> None:
        """Wait for a change after which `holds` is true."""
        async with asyncio.timeout(30):
            while not holds():
                self.changed.clear()
                await self.changed.wait()


def swarm_in(folder: Path, program: list[str] | None = None) -> Watched:
    """A Swarm whose tasks are records, or processes of `program`; its waits are short."""
    made = Watched(folder, pace=0.001, hostname="nixos", program_of=lambda _: program, extra_environment={})
    made.seen, made.changed = [], asyncio.Event()
    return made


def spec(**deploy: Any) -> dict[str, Any]:
    return service_spec("extra", "app", {"image": "app:1", "deploy": deploy}, {"default": "n"})


def changed(**deploy: Any) -> dict[str, Any]:
    """The same service with another environment."""
    return service_spec(
        "extra", "app", {"image": "app:1", "environment": ["A=1"], "deploy": deploy}, {"default": "n"}
    )


@pytest.mark.parametrize(
    ("order", "between"), [("start-first", "2/1"), ("stop-first", "0/1")], ids=["start first", "stop first"]
)
def test_update_goes_through_the_state_of_its_order(tmp_path: Path, order: str, between: str) -> None:
    """A start-first update has two tasks for a moment, a stop-first update none."""

    async def update() -> list[str]:
        swarm = swarm_in(tmp_path)
        config = {"update_config": {"order": order}}
        swarm.apply(NAME, spec(**config))
        await swarm.until(lambda: "1/1" in swarm.seen)
        swarm.seen.clear()
        swarm.apply(NAME, changed(**config))
        await swarm.until(lambda: between in swarm.seen and swarm.seen[-1] == "1/1")
        await swarm.stop()
        return swarm.seen

    assert between in asyncio.run(update())


def test_job_limit_and_scale_are_printed_as_docker_does(tmp_path: Path) -> None:
    """Every form is one that muster's own parser reads; only the scaled service is incomplete."""

    async def states() -> list[str]:
        swarm, found = swarm_in(tmp_path), []
        swarm.apply(NAME, spec(placement={"max_replicas_per_node": 1}))
        await swarm.until(lambda: "1/1 (max 1 per node)" in swarm.seen)
        found.append(swarm.seen[-1])
        swarm.scale(swarm.services[NAME], 0)
        await swarm.until(lambda: "0/0 (max 1 per node)" in swarm.seen)
        found.append(swarm.seen[-1])
        swarm.remove(swarm.services[NAME])
        swarm.apply(NAME, spec(mode="replicated-job"))
        await swarm.until(lambda: "0/1 (1/1 completed)" in swarm.seen)
        found.append(swarm.seen[-1])
        await swarm.stop()
        return found

    parsed = [Replicas.parse(text) for text in asyncio.run(states())]
    assert [one.complete for one in parsed if one] == [True, False, True]


def test_crash_loop_keeps_its_history(tmp_path: Path) -> None:
    """Each task prints its line and dies; the next one is there at once as Ready, and five tasks are kept."""

    async def loop() -> list[tuple[str, str]]:
        swarm = swarm_in(
            tmp_path, [sys.executable, "-c", "print('watching', flush=True); import time; time.sleep(60)"]
        )
        swarm.dies_after = lambda _service: 3.0
        service, _ = swarm.apply(NAME, spec())
        await swarm.until(
            lambda: sum(task["Status"]["State"] == "failed" for task in swarm.tasks_of(service)) == 4
        )
        tasks = [(task["Status"]["State"], task["DesiredState"]) for task in swarm.tasks_of(service)]
        await swarm.stop()
        return tasks

    current, *earlier = asyncio.run(loop())
    assert current[0] in ("ready", "preparing", "starting", "running", "failed")
    assert earlier.count(("failed", "shutdown")) >= 3
    assert len(earlier) <= 4
