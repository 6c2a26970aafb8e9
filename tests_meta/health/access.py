"""Mutations of what phase 0 asserts: servers, accounts, tokens, the machine, and the site file that names them."""

from __future__ import annotations

import re
from collections.abc import Iterator

from tests_meta.health.mutation import finding, mutation, test
from tests_meta.health.world import World

NOT_BEGUN = finding("not-begun")


@mutation(test("the forge answers"))
def the_forge_answers_with_errors(world: World) -> Iterator[None]:
    """The forge answers every question about its version with an error."""
    with world.parallel.breaking({"listener": "forge", "path": "/api/v1/version", "action": "status:404"}):
        yield


@mutation(test("the token is the bots"))
def the_token_is_somebody_elses(world: World) -> Iterator[None]:
    """The forge's token belongs to another account than the site file says."""
    with world.edited(world.parallel.site, 'bot = "autonomic-bot"', 'bot = "somebody-else"'):
        yield


@mutation(test("the token has the scope: read:user"))
def the_forges_token_is_revoked(world: World) -> Iterator[None]:
    """The forge does not accept the token."""
    file = world.settings.secrets_dir / "forge-token"
    with world.edited(file, file.read_text(), "0" * 40):
        yield


@mutation(test("drone accepts the token"))
def drones_token_is_revoked(world: World) -> Iterator[None]:
    """Drone does not accept the token."""
    file = world.settings.secrets_dir / "drone-token"
    with world.edited(file, file.read_text(), "0" * 32):
        yield


@mutation(test("the organisation can be read"))
def ccci_has_no_main(world: World) -> Iterator[None]:
    """cc-ci's branch main was deleted."""
    with world.ref("cc-ci", "refs/heads/main", ""):
        yield


@mutation(test("the organisation can be read"))
def ccci_was_renamed(world: World) -> Iterator[None]:
    """cc-ci answers under another name."""
    world.edit_repository("cc-ci", name="cc-ci-moved")
    yield
    world.edit_repository("cc-ci-moved", name="cc-ci")


def _site_line(world: World, name: str) -> str:
    found = re.search(rf'^{name} = ".*"$', world.parallel.site.read_text(), re.M)
    assert found is not None, name
    return found[0]


@mutation(test("the host is the configured one: machine_id"), apply=13, apply_named_by=NOT_BEGUN)
def the_machine_is_another(world: World) -> Iterator[None]:
    """The machine has another machine-id than the site file says."""
    with world.edited(world.parallel.site, _site_line(world, "machine_id"), f'machine_id = "{"0" * 32}"'):
        yield


@mutation(test("the host is the configured one: hostname"), apply=13, apply_named_by=NOT_BEGUN)
def the_hostname_is_another(world: World) -> Iterator[None]:
    """The machine has another hostname than the site file says."""
    with world.edited(world.parallel.site, 'hostname = "nixos"', 'hostname = "builder"'):
        yield


@mutation(test("the host is the configured one: root_device"), apply=13, apply_named_by=NOT_BEGUN)
def the_root_device_is_another(world: World) -> Iterator[None]:
    """The machine's root is another device than the site file says."""
    with world.edited(world.parallel.site, _site_line(world, "root_device"), 'root_device = "/dev/sdz9"'):
        yield


@mutation(finding("clock-host"), health=0, apply=0, restores=False)
def the_hosts_clock_is_wrong(world: World) -> Iterator[None]:
    """The host's clock is far from ours."""
    world.parallel.start("clock-host-ahead")
    yield


@mutation(
    finding("host-runs-another-system"), also=(test("no other system replaced it"),), apply=0, restores=False
)
def the_host_runs_an_older_generation_since_a_reboot(world: World) -> Iterator[None]:
    """The host was rebooted into an older generation."""
    world.parallel.start("host-on-older-generation")
    yield


@mutation(finding("host-runs-another-system"), also=(test("no other system replaced it"),), restores=False)
def the_host_runs_a_specialisation(world: World) -> Iterator[None]:
    """The host runs a specialisation, which somebody chose at the boot menu."""
    world.parallel.start("host-in-specialisation")
    yield
