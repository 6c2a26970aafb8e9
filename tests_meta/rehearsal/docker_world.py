"""A dockerd of its own, without the rest of a world: in the same name spaces, started by the same programs."""

from __future__ import annotations

import asyncio
import os
import secrets
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from fixtures.rehearsal.settings import WorldSettings, load
from fixtures.rehearsal.swarm_docker import control_groups
from fixtures.rehearsal.swarm_docker.cell import SYSTEM_PATH
from fixtures.rehearsal.swarm_docker.daemon import RealDocker
from fixtures.rehearsal.swarm_docker.layout import DockerPaths
from fixtures.rehearsal.swarm_docker.requirements import missing
from tests_meta.muster_runs import ROOT, processes_of

SKIP = "no dockerd can be started for a world here"
START_LIMIT_S = 120.0


def demand_docker() -> None:
    """Skip the test where a world cannot have a dockerd."""
    if lacking := missing():
        pytest.skip(f"{SKIP}: {lacking}")


@dataclass(frozen=True)
class DockerWorld:
    """A running dockerd; the process `pid` is outside of its name spaces, and all of it is below that."""

    settings: WorldSettings
    pid: int

    @property
    def paths(self) -> DockerPaths:
        return DockerPaths(self.settings.root)

    @property
    def environment(self) -> dict[str, str]:
        """Of a docker command outside of the name spaces: the socket is a file below the world."""
        address = f"unix://{self.paths.folder / 'docker.sock'}"
        return {
            "PATH": SYSTEM_PATH,
            "DOCKER_HOST": address,
            "DOCKER_CONFIG": str(self.settings.root),
            "DOCKER_BUILDKIT": "0",
        }

    def docker(self, *words: str, given: str = "") -> subprocess.CompletedProcess[str]:
        """One docker command."""
        return subprocess.run(
            ["docker", *words],
            env=self.environment,
            input=given,
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )

    def pids(self) -> dict[int, str]:
        """The processes below `process`, by their number outside, with their names."""
        found, pending = {}, [self.pid]
        while pending:
            for below in Path(f"/proc/{pending.pop()}/task").glob("*/children"):
                for pid in map(int, below.read_text().split()):
                    pending.append(pid)
                    found[pid] = Path(f"/proc/{pid}/comm").read_text().strip()
        return found

    def networks(self) -> set[str]:
        """The network name spaces of its processes."""
        return {os.readlink(f"/proc/{pid}/ns/net") for pid in self.pids()} - {os.readlink("/proc/self/ns/net")}


@contextmanager
def docker_world(root: Path) -> Iterator[DockerWorld]:
    """Start it with its Swarm and images, and end it at the end of the block."""
    drawn = dict.fromkeys(
        ("operator_token", "bridge_token", "drone_forge_token", "checkout_token", "drone_token"), "x"
    )
    ports = dict.fromkeys(("upstream_port", "ssh_port"), 1)
    ports |= dict(zip(("forge_port", "ci_port", "dashboard_port"), (20001, 20002, 20003), strict=True))
    settings = WorldSettings(root=root, pace=0.02, swarm="docker", **drawn, **ports)  # type: ignore[arg-type]
    settings.logs_dir.mkdir(parents=True, exist_ok=True)
    settings.save()
    with (root / "logs" / "host.log").open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "fixtures.rehearsal.swarm_docker", str(root), "tests_meta.rehearsal.docker_world"],
            cwd=ROOT, stdout=subprocess.PIPE, stderr=log, stdin=subprocess.DEVNULL,
        )  # fmt: skip
    assert process.stdout is not None
    try:
        said = process.stdout.readline()
        assert said == b"READY\n", (root / "logs" / "host.log").read_text()[-2000:]
        yield DockerWorld(settings, process.pid)
    finally:
        process.terminate()
        process.wait(30)
        process.stdout.close()


async def _serve(world: Path) -> None:
    stopped = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopped.set)
    docker = RealDocker(load(world))
    try:
        await docker.start()
        print("READY", flush=True)
        await stopped.wait()
    finally:
        await docker.stop()


@dataclass(frozen=True)
class Traces:
    """What a world could leave on the machine outside of its folder."""

    processes: tuple[str, ...]
    mounts: tuple[str, ...]
    networks: frozenset[str]
    rules: str
    control_groups: tuple[str, ...]

    @classmethod
    def none(cls, rules: str) -> Traces:
        """No trace, on a machine with these rules of its own."""
        return cls((), (), frozenset(), rules, ())


def traces(root: Path, networks: set[str]) -> Traces:
    """The traces of the world in `root`; `networks` are the network name spaces that it had."""
    mark = str(root)
    alive = {_network_of(pid) for pid in Path("/proc").glob("[0-9]*")}
    named = {f"net:[{place.stat().st_ino}]" for place in Path("/run/netns").glob("*")}
    mounts = [line for line in Path("/proc/self/mountinfo").read_text().splitlines() if mark in line]
    groups = control_groups.left(DockerPaths(root).control_group)
    return Traces(
        tuple(processes_of(mark)),
        tuple(mounts),
        frozenset(networks & (alive | named)),
        rules(),
        tuple(map(str, groups)),
    )


def rules() -> str:
    """This machine's iptables rules, links and routes."""
    commands = (["iptables-save"], ["iptables-legacy-save"], ["ip", "-o", "link"], ["ip", "route"])
    said = [subprocess.run(words, capture_output=True, text=True, check=False).stdout for words in commands]
    return "\n".join(line for line in "\n".join(said).splitlines() if not line.startswith("#"))


def _network_of(process: Path) -> str:
    try:
        return os.readlink(process / "ns" / "net")
    except OSError:
        return ""


def unique_name() -> str:
    return f"world-{secrets.token_hex(4)}"


if __name__ == "__main__":
    asyncio.run(_serve(Path(sys.argv[1])))
