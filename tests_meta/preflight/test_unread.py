"""The site check concludes nothing from what the host did not show: it says what could not be read, and why."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

import pytest

from fixtures.clients.probe_script import Section
from fixtures.clients.world import SiteSecrets, open_read_world
from fixtures.config.secret import Secret
from fixtures.config.site import load_site
from fixtures.preflight.site_check.checks import Result, State
from fixtures.preflight.site_check.clocks import Clocks
from fixtures.preflight.site_check.host import HostChecks
from tests_meta.config.site_files import MINIMAL, write

DOWN = Section("", 1, "Cannot connect to the Docker daemon at unix:///var/run/docker.sock.\n")
DENIED = Section("", 1, "cat: .gitmodules: Permission denied\n")
BUS = Section("", 1, "Failed to connect to bus: Connection refused\n")
EMPTY = Section("", 1)
YES, NOTHING = Section("yes\n", 0), Section("", 0)
SYSTEM = f"/nix/store/{'0' * 32}-nixos"
RUNNING = Section(f"{SYSTEM}\n", 0)
PROFILE = Section(f"system-42-link\n{SYSTEM}\n", 0)

UNREAD: dict[str, tuple[Callable[[HostChecks], str | Result], dict[str, Section], str]] = {
    "the bridge without docker": (
        HostChecks._bridge, {"bridge-task": EMPTY, "services": DOWN}, "Cannot connect to the Docker daemon"),
    "the stacks without docker": (
        HostChecks._stacks, {"stack-traefik": DOWN, "services": DOWN}, "Cannot connect to the Docker daemon"),
    "a unit without systemd": (HostChecks._unit, {"bridge-unit": BUS}, "Failed to connect to bus"),
    "the failed units without systemd": (
        HostChecks._system, {"failed-units": BUS, "running": RUNNING, "profile": PROFILE}, "Failed to connect to bus"),
    "submodules that may not be read": (
        HostChecks._submodules, {"submodule-files": DENIED, "has-submodules": YES, "submodule-remotes": NOTHING},
        "Permission denied"),
    "a flake that may not be read": (
        HostChecks._flake, {"flake-file": Section("", 2, "grep: flake.nix: Permission denied\n")}, "Permission denied"),
}  # fmt: skip


@pytest.mark.parametrize("case", UNREAD)
def test_nothing_is_concluded_from_what_could_not_be_read(case: str, tmp_path: Path) -> None:
    """A check whose command failed says that it could not be read, with the command's own words."""
    check, found, words = UNREAD[case]
    site = load_site(write(tmp_path, MINIMAL))
    token = Secret("x", where="nowhere")
    world = open_read_world(site, SiteSecrets(forge=token, drone=token, upstream=None))
    result = check(
        HostChecks(site, world, Clocks(30), lambda: "", evaluate=False, found=defaultdict(lambda: NOTHING, found))
    )
    world.close()
    assert isinstance(result, Result)
    assert (result.state, "could not be read from the host" in result.saw) == (State.WRONG, True)
    assert words in result.saw
