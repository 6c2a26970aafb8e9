"""Small worlds for faulty runs, several at once, and their state as seen from outside.

The small roster makes a run take seconds; it has one recipe for each thing that a fault can affect. Each
`ParallelWorld` has its own folder and ports, and is restored for every run.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from fixtures.config.run_options import Parts
from fixtures.rehearsal import world as rehearsal_world
from fixtures.rehearsal.settings import WorldSettings
from tests_meta.muster_runs import PACE, Ran, WorldPool
from tests_meta.world_view import WorldView

WORLDS_AT_ONCE = 2
RECIPES = ("keycloak", "n8n", "hedgedoc", "ghost", "mailu", "mumble")
BRIDGE = "ccci-bridge_app"
SEEDED, MIRRORED = "seeded", "mirrored-and-covered"
T = TypeVar("T")

ROSTER = """\
recipes = [
  { name = "keycloak", enroll = false },
  { name = "n8n", enroll = false },
  { name = "hedgedoc", enroll = false },
  { name = "ghost", enroll = true, known_red = { reason = "restore", until = 9999-12-31 } },
  { name = "mailu", enroll = true },
  { name = "mumble", enroll = true },
]
canaries = ["ghost"]
deferred = [{ recipe = "ghost", item = "backup pull request 1" }]
"""


class ParallelWorld(WorldPool):
    """A `WorldPool` with a small roster."""

    def __init__(self, folder: Path, roster: str = ROSTER, parts: Parts | None = None) -> None:
        folder.mkdir(exist_ok=True)
        super().__init__(folder, parts)
        self.roster.write_text(roster)
        self.recipes = tuple(re.findall(r'name = "([^"]+)"', roster))

    def start(self, *faults: str) -> None:
        self.end()
        self.await_ports()
        self._running = rehearsal_world.start(
            folder=self.world, pace=PACE, faults=faults, parts=self.parts, recipes=self.recipes
        )

    @property
    def supervisor(self) -> int:
        """The process that owns the running world."""
        assert self._running is not None
        return self._running.pid

    def begin(self, state: str, *faults: str) -> None:
        """Restore the world in `state` (or seed a new one, for ""), and start it with `faults`."""
        if state:
            if not self.has(state):
                self._make(state)
            self.lay(state)
        else:
            self.clear()
        self.start(*faults)

    def _make(self, state: str) -> None:
        self.begin(SEEDED if state == MIRRORED else "")
        if state == MIRRORED:
            self.visit(phases=("phases/test_2_suites.py",)).demand(0)
        self.keep(state)

    def world_state(self) -> WorldState:
        return observe(self.settings)


@dataclass(frozen=True)
class WorldState:
    """The state of a world, read without muster's clients.

    `host`: running system, boot default and checkout. `poll_set`: in git's head. `served`: in the specification of the
    bridge's service. `left`: everything of muster's that a run must remove.
    """

    forge: dict[str, dict[str, str]]
    upstream: dict[str, dict[str, str]]
    discussions: dict[str, list[Any]]
    host: dict[str, str]
    poll_set: tuple[str, ...]
    served: tuple[str, ...]
    left: tuple[str, ...]
    org: str

    def polled(self, recipes: Iterable[str]) -> list[str]:
        return [name for name in recipes if f"{self.org}/{name}" in self.poll_set]

    @property
    def built(self) -> str:
        """The store path of the running system."""
        return os.path.realpath(self.host["running"])


def observe(settings: WorldSettings) -> WorldState:
    """Read the state of a world, running or stopped."""
    world_view = WorldView(settings)
    discussions = world_view.database()
    return WorldState(
        forge=world_view.all_refs(),
        upstream=world_view.all_refs(upstream=True),
        discussions=discussions,
        host=host_state(settings),
        poll_set=tuple(world_view.poll_set()),
        served=tuple(_served(settings).split(",")),
        left=tuple(leftovers(settings, world_view, discussions)),
        org=settings.org,
    )


def host_state(settings: WorldSettings) -> dict[str, str]:
    root = settings.host_dir
    profile, checkout = root / "nix/var/nix/profiles/system", root / "root/cc-ci"
    alerts = root / "var/lib/ci-warm/alerts"
    return {
        "running": os.path.realpath(root / "run/current-system"),
        "generation": os.readlink(profile),
        "boots": os.path.realpath(profile),
        "checkout": _git(checkout, "rev-parse", "HEAD"),
        "edits": _git(checkout, "status", "--porcelain"),
        "alerts": " ".join(sorted(path.name for path in alerts.iterdir())) if alerts.exists() else "",
    }


def _git(folder: Path, *words: str) -> str:
    if not (folder / ".git").exists():
        return "no checkout"
    done = subprocess.run(
        ["git", "-c", "safe.directory=*", "-C", str(folder), *words],
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.strip()


def _swarm(settings: WorldSettings) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((settings.host_dir / "var/lib/docker/swarm.json").read_text())
    return found


def _served(settings: WorldSettings) -> str:
    """POLL_REPOS in the specification of the bridge's service."""
    spec = _swarm(settings)["services"][BRIDGE]["Spec"]["TaskTemplate"]["ContainerSpec"]
    return next(str(e).partition("=")[2] for e in spec["Env"] if e.startswith("POLL_REPOS="))


def leftovers(settings: WorldSettings, world_view: WorldView, discussions: Mapping[str, list[Any]]) -> list[str]:
    """What a run must remove: scratch branches, scratch pull requests, trigger comments, units, files, a held lock."""
    left = [
        f"{name} {ref}"
        for name, refs in world_view.all_refs().items()
        for ref in refs
        if ref.startswith("refs/heads/muster/scratch-")
    ]
    left += [f"open pull request from {row[2]}" for row in discussions["pulls"]
             if str(row[2]).startswith("muster/scratch-") and row[4] == "open"]  # fmt: skip
    trigger = ("!testme", settings.bot)
    left += ["a trigger comment" for row in discussions["comments"] if row[1:] == trigger]
    left += muster_units(settings)
    files = [*settings.host_dir.glob("run/muster-*"), *settings.host_dir.glob("nix/var/nix/gcroots/muster-*")]
    left += [path.name for path in files]
    lock = settings.host_dir / "run/lock/muster.lock"
    if lock.exists() and subprocess.run(["flock", "--nonblock", str(lock), "true"]).returncode != 0:
        left.append(f"the lock {lock.name}")
    return left


def muster_units(settings: WorldSettings) -> list[str]:
    """muster's units according to the host's systemctl; empty if the host is stopped."""
    systemctl = settings.host_dir / "bin/systemctl"
    words = [str(systemctl), "list-units", "--all", "--no-legend", "--plain"]
    said = subprocess.run(words, capture_output=True, text=True).stdout
    return sorted(set(re.findall(r"muster-(?:revert|switch)-\S+", said)))


@dataclass(frozen=True)
class FaultRun:
    """One run with a fault: the world before, the run, and the world after."""

    before: WorldState
    ran: Ran
    after: WorldState


def differences_from_end_state(
    world_state: WorldState, recipes: Iterable[str], *, missing: str = ""
) -> list[str]:
    """The differences of the world from the end state for all `recipes` except `missing`."""
    wrong = []
    wanted = [f"{world_state.org}/{name}" for name in recipes if name != missing]
    polled = [entry for entry in world_state.poll_set if entry != f"{world_state.org}/{missing}"]
    if polled != [f"{world_state.org}/cc-ci", *wanted]:
        wrong.append(f"the poll set in git is {polled}")
    if world_state.served != world_state.poll_set:
        wrong.append(f"the bridge's service polls {world_state.served}")
    if world_state.host["running"] != world_state.host["boots"]:
        wrong.append("the host boots another system than it runs")
    if world_state.host["checkout"] != world_state.forge["cc-ci"]["refs/heads/main"]:
        wrong.append("the host's checkout is not at cc-ci's head")
    for name in recipes:
        mirror, upstream = world_state.forge.get(name, {}), world_state.upstream.get(name, {})
        tags = {ref: sha for ref, sha in upstream.items() if ref.startswith("refs/tags/")}
        whole = {"refs/heads/main": upstream.get("refs/heads/main"), **tags}
        if name != missing and {ref: mirror.get(ref) for ref in whole} != whole:
            wrong.append(f"the mirror of {name} is not its upstream")
    return wrong + [f"left behind: {one}" for one in world_state.left]


def live_differences(before: WorldState, after: WorldState) -> list[str]:
    """The differences of host and poll set from `before`, except alerts, which stay for people to see."""
    wrong = [f"{name}: {before.host[name]} -> {after.host[name]}" for name in before.host
             if after.host[name] != before.host[name] and name not in ("checkout", "alerts")]  # fmt: skip
    if after.poll_set != before.poll_set:
        wrong.append(f"the poll set in git is {after.poll_set}")
    if after.served != before.served:
        wrong.append(f"the bridge's service polls {after.served}")
    return wrong + [f"left behind: {one}" for one in after.left]


def in_parallel_worlds(
    folder: Path,
    jobs: Mapping[str, Callable[[ParallelWorld], T]],
    *,
    roster: str = ROSTER,
    parts: Parts | None = None,
    width: int = WORLDS_AT_ONCE,
) -> dict[str, Future[T]]:
    """Run all jobs, `width` at a time, each in a world of its own; exceptions stay in the futures."""
    folder.mkdir(exist_ok=True)
    parallel_worlds = [
        ParallelWorld(folder / f"world{number}", roster, parts) for number in range(min(width, len(jobs)) or 1)
    ]
    waiting = list(jobs)
    futures: dict[str, Future[T]] = {name: Future() for name in jobs}

    def drive(parallel_world: ParallelWorld) -> None:
        with closing(_Clear(parallel_world)):
            while waiting:
                try:
                    name = waiting.pop(0)
                except IndexError:
                    return
                try:
                    futures[name].set_result(jobs[name](parallel_world))
                except BaseException as failure:  # noqa: BLE001  # raised in the test that reads the result
                    futures[name].set_exception(failure)

    with ThreadPoolExecutor(len(parallel_worlds)) as pool:
        list(pool.map(drive, parallel_worlds))
    return futures


class _Clear:
    """Clears a world when it is closed."""

    def __init__(self, parallel_world: ParallelWorld) -> None:
        self._world = parallel_world

    def close(self) -> None:
        self._world.clear()
