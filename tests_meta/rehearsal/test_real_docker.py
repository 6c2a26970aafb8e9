"""``--part swarm=docker``: a dockerd of the world's own, the night on it, and nothing left of it afterwards."""

from __future__ import annotations

import os
import re
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from fixtures.errors import BadSetting
from fixtures.rehearsal.faults.effects import Needs
from fixtures.rehearsal.faults.table import needing
from fixtures.rehearsal.parts import choose, demand_docker, refuse_faults
from fixtures.rehearsal.swarm_docker import control_groups, requirements
from tests_meta.muster_runs import Ran, WorldPool
from tests_meta.rehearsal import docker_world as alone
from tests_meta.rehearsal.docker_world import DockerWorld, Traces, docker_world, traces
from tests_meta.rehearsal.host_world import until

BRIDGE = "ccci-bridge_app"


# -- what it needs -----------------------------------------------------------------------------------------


def test_without_dockerd_the_run_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """The sentence names each program that is missing, and what installs it."""
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(requirements, "SYSTEM_PATH", "/nowhere")
    with pytest.raises(
        BadSetting, match=r"dockerd, docker, .* not found in /nowhere \(on Debian: apt-get install"
    ):
        choose(["swarm=docker"])


def test_without_root_the_run_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """An unprivileged account is told that root is needed."""
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(BadSetting, match="it needs root, and this is user 1000"):
        choose(["swarm=docker"])


def test_a_world_below_run_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """The world's host has a /run of its own, which would hide the world's folder."""
    monkeypatch.setattr("fixtures.rehearsal.parts.missing", lambda: "")
    demand_docker(Path("/tmp/world"))  # no file is made
    with pytest.raises(BadSetting, match="would be in /run/user/0/world"):
        demand_docker(Path("/run/user/0/world"))


@pytest.mark.parametrize("fault", sorted(needing(Needs.SWARM_BRIDGE)))
def test_a_fault_of_the_stand_in_is_refused_with_a_real_swarm(fault: str) -> None:
    """Before anything is looked for, with both options named; other faults of the host are not refused."""
    with pytest.raises(BadSetting, match=f"--fault {fault} .* or --part swarm=docker"):
        choose(["swarm=docker"], faults=[fault])
    refuse_faults(forge="", ci="", bridge="", swarm="docker", faults=["switch-hangs"])


# -- the night ---------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def world_pool_on_docker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WorldPool]:
    alone.demand_docker()
    world_pool = WorldPool(tmp_path_factory.mktemp("docker"), choose(["swarm=docker"]))
    yield world_pool
    world_pool.clear()


@pytest.fixture(scope="module")
def night_on_docker(world_pool_on_docker: WorldPool) -> list[Ran]:
    """Apply, apply again and health, in one world with a real Swarm that is kept between them."""
    world_pool, part = world_pool_on_docker, ("--part", "swarm=docker")
    return [world_pool.run(*part), world_pool.run(), world_pool.run(*part, "--health")]


def test_night_is_migrated_on_a_real_swarm(night_on_docker: list[Ran]) -> None:
    """Everything is mirrored, covered and polled; the record names the version of the real part."""
    applied = night_on_docker[0].demand(0)
    counts = [applied.summary[column] for column in ("mirrored", "covered", "polled")]
    assert counts == [19, 19, 19]
    assert re.fullmatch(r"Docker \d+\.\d+\.\d+\S*", applied.of("run")[0]["parts"]["swarm"])


def test_second_night_on_a_real_swarm_changes_nothing(night_on_docker: list[Ran]) -> None:
    """The kept world comes up again with its services; nothing is changed, and health holds."""
    _, again, health = night_on_docker
    assert again.demand(0).summary["changes"] == []
    assert again.summary["verdict"] == "unchanged"
    assert health.demand(0).failed == set()


# -- two of them, and their end ------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DockerWorld]:
    """Another world's dockerd with a container, an overlay network and a published port of its own."""
    alone.demand_docker()
    with docker_world(tmp_path_factory.mktemp("docker") / alone.unique_name()) as world:
        words = ("--detach=false", "--quiet", "--name", "extra_app", "--network", "proxy", "--publish", "8080")
        made = world.docker("service", "create", *words, "traefik:v3.3.4")
        assert made.returncode == 0, made.stderr
        yield world


def test_two_worlds_run_at_the_same_time_and_a_killed_supervisor_leaves_nothing(
    night_on_docker: list[Ran], world_pool_on_docker: WorldPool, other: DockerWorld
) -> None:
    """Each Swarm has its own services only; when one world's supervisor is killed, the other runs on."""
    before = alone.rules()
    world_pool_on_docker.start()
    root, supervisor = world_pool_on_docker.world, world_pool_on_docker.running_pid
    mine = DockerWorld(world_pool_on_docker.settings, supervisor)
    assert BRIDGE in mine.docker("service", "ls").stdout
    assert "extra_app" not in mine.docker("service", "ls").stdout
    assert other.docker("service", "ls", "--format", "{{.Name}} {{.Replicas}}").stdout == "extra_app 1/1\n"
    networks = mine.networks()
    had = traces(root, networks)
    assert had.processes
    assert had.networks == networks
    assert had.control_groups
    os.kill(supervisor, signal.SIGKILL)
    until(lambda: traces(root, networks) == Traces.none(before), "the world to be gone")
    assert other.docker("service", "ls", "--format", "{{.Name}} {{.Replicas}}").stdout == "extra_app 1/1\n"


def test_killed_dockerd_is_started_again(other: DockerWorld) -> None:
    """As docker.service does on the real host; the service is complete again, with another container."""
    before = other.docker("ps", "--quiet", "--no-trunc").stdout
    [dockerd] = [pid for pid, name in other.pids().items() if name == "dockerd"]
    os.kill(dockerd, signal.SIGKILL)

    def has_another() -> bool:
        now = other.docker("ps", "--quiet", "--no-trunc").stdout
        complete = other.docker("service", "ls", "--format", "{{.Replicas}}").stdout == "1/1\n"
        return bool(now) and now != before and complete

    until(has_another, "dockerd to run the service again", limit_s=60)


def test_world_whose_outermost_process_is_killed_leaves_nothing(other: DockerWorld) -> None:
    """Mounts, links and rules of the world are in its name spaces, and end with the processes in them."""
    root, networks, before = other.settings.root, other.networks(), alone.rules()
    [dockerd] = [pid for pid, name in other.pids().items() if name == "dockerd"]
    inside = ["nsenter", "--target", str(dockerd), "--net", "iptables-save", "--table", "nat"]
    assert "DOCKER" in subprocess.run(inside, capture_output=True, text=True, check=True).stdout
    assert str(root) in Path(f"/proc/{dockerd}/mountinfo").read_text()
    os.kill(other.pid, signal.SIGKILL)
    until(lambda: not traces(root, networks).processes, "its processes to end")
    # The control groups are removed by the world's supervisor, or when the world is started again.
    control_groups.remove(other.paths.control_group, limit_s=10)
    assert traces(root, networks) == Traces.none(before)
