"""A reachable system that differs from the site file is recognised, reported once, and not written to.

The world is that of 2026-06-02; each test uses its own site file with one mistake.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Callable
from pathlib import Path

import pytest

from fixtures.clients import nixos
from fixtures.clients.ssh_config import find_ssh
from fixtures.rehearsal.forge_embedded.store import Store
from fixtures.rehearsal.world import free_ports
from tests_meta.muster_runs import WorldPool
from tests_meta.world_view import WorldView


def other_site(world_pool: WorldPool, name: str, *changes: tuple[str, str], secret: str = "") -> Path:
    """A copy of the world's site file with lines replaced, and optionally with another forge token."""
    text = world_pool.site.read_text()
    for old, new in changes:
        assert old in text, text
        text = text.replace(old, new, 1)
    if secret:
        path = world_pool.world / "secrets" / name
        path.write_text(secret)
        path.chmod(0o600)
        text = text.replace("secrets/forge-token", f"secrets/{name}")
    site = world_pool.world / f"{name}.toml"
    site.write_text(text)
    return site


def narrow_token(world_pool: WorldPool) -> str:
    """A token of the bot that lacks one scope."""
    store, token = Store(world_pool.settings.forge_dir), secrets.token_hex(20)
    store.create_token(world_pool.settings.bot, token, "write:organization,write:repository,read:issue,read:user")
    store.close()
    return token


MISTAKES: dict[str, tuple[Callable[[WorldPool], Path], str, str]] = {
    "unknown organisation": (
        lambda world: other_site(world, "org", ('org = "recipe-maintainers"', 'org = "no-such-org"')),
        "the organisation can be read",
        "no-such-org",
    ),
    "token of another account": (
        lambda world: other_site(world, "alice", secret=(world.world / "secrets/stranger_token").read_text()),
        "the token is the bots",
        "alice",
    ),
    "invalid token": (
        lambda world: other_site(world, "nobody", secret="f" * 40),
        "the token is the bots",
        "401",
    ),
    "a token that may only read code": (
        lambda world: other_site(world, "reader", secret=world.settings.checkout_token),
        "the token has the scope: write:organization",
        "missing",
    ),
    "a token that lacks one scope": (
        lambda world: other_site(world, "narrow", secret=narrow_token(world)),
        "the token has the scope: write:issue",
        "missing",
    ),
    "no such cc-ci": (
        lambda world: other_site(world, "ccci", ("recipe-maintainers/cc-ci", "recipe-maintainers/cc-cd")),
        "the organisation can be read",
        "cc-cd",
    ),
    "no such upstream": (
        lambda world: other_site(world, "upstream", ('owner = "coop-cloud"', 'owner = "no-such-coop"')),
        "upstream has the recipe: ghost",
        "no-such-coop",
    ),
    "a Drone that knows nobody": (
        lambda world: other_site(world, "drone", ("secrets/drone-token", "secrets/forge-token")),
        "drone accepts the token",
        "drone",
    ),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_mistake_in_the_site_file_stops_the_run_in_phase_0(night: WorldPool, name: str) -> None:
    """The run ends with exit 1, the assertion shows what was seen, no later phase runs, and nothing is written."""
    make, title, words = MISTAKES[name]
    before = WorldView(night.settings).everything()
    ran = night.visit(site=make(night)).demand(1)
    assert title in ran.failed
    (assertion,) = [line for line in ran.of("assertion") if line["title"] == title]
    assert words in " ".join(str(assertion[key]) for key in ("what", "expected", "seen", "message"))
    assert {line["phase"] for line in ran.of("assertion") if line["outcome"] == "passed"} <= {0}
    assert ran.of("intent") == []
    assert WorldView(night.settings).everything() == before


HOSTS: dict[str, tuple[Callable[[WorldPool], tuple[str, str]], str]] = {
    "another machine-id": (
        lambda world: (re.findall(r'machine_id = "(\w+)"', world.site.read_text())[0], "0" * 32), "0" * 32),
    "another hostname": (lambda world: ('hostname = "nixos"', 'hostname = "nixos2"'), "nixos2"),
    "another root device": (lambda world: ("by-label/nixos", "by-label/other"), "by-label/other"),
}  # fmt: skip


@pytest.mark.parametrize("name", HOSTS)
def test_other_host_is_never_written_to(night: WorldPool, name: str) -> None:
    """The run is withheld (13) before it takes the lock; one message has both values, and the site check's advice."""
    change, words = HOSTS[name]
    before = WorldView(night.settings).everything()
    ran = night.visit(site=other_site(night, "host", change(night))).demand(13)
    assert words in ran.output
    assert nixos.identity_advice() in ran.output
    assert ran.of("end"), "the record has no end: the next run would take it for one that was killed"
    assert WorldView(night.settings).everything() == before


def test_host_with_an_unknown_key_is_never_written_to(night: WorldPool, tmp_path: Path) -> None:
    """A host without a key in known_hosts is rejected without a prompt; the next run has nothing to recover."""
    (night.world / "secrets/nobody").write_text("")
    site = other_site(night, "unpinned", ("secrets/known_hosts", "secrets/nobody"))
    before = WorldView(night.settings).everything()
    ran = night.visit(site=site, reports=tmp_path).demand(13)
    assert "known_hosts" in ran.output or "host key" in ran.output
    assert WorldView(night.settings).everything() == before
    again = night.visit("--plan", reports=tmp_path).demand(10)
    assert "was killed" not in again.output


def test_unreachable_forge_is_reported_in_phase_0(night: WorldPool) -> None:
    """With a wrong port, phase 0 reports an unreachable forge after a bounded number of attempts."""
    port = free_ports(1)[0]
    site = other_site(night, "away", (f":{night.settings.forge_port}", f":{port}"))
    ran = night.visit("--health", site=site).demand(1)
    assert "the forge answers" in ran.failed
    assert "could not connect" in ran.output


def test_ssh_configuration_that_ssh_refuses_ends_the_run(night: WorldPool) -> None:
    """The run ends with exit 4 and ssh's own words before anything is contacted, and its record says so."""
    if find_ssh() is None:
        pytest.skip("ssh is not installed here")
    (night.world / "secrets/odd_config").write_text("Nonsense yes\n")
    ran = night.visit(site=other_site(night, "odd", ("secrets/ssh_config", "secrets/odd_config"))).demand(4)
    assert "Bad configuration option: nonsense" in ran.output
    assert "Traceback" not in ran.output
    assert [line["exit"] for line in ran.of("end")] == [4]
