"""Leftovers of a run whose record is gone are named, with the command that removes them; nothing is touched."""

from __future__ import annotations

import subprocess
from types import SimpleNamespace
from typing import Any

from fixtures.clients.git import Refs
from fixtures.preflight.leftovers import find_leftovers

REVERT = "muster-revert-20261128t0100-cc-ci-apply"
HOST = SimpleNamespace(address="cc-ci", path=lambda path: f"/prefix{path}")
CONTEXT: Any = SimpleNamespace(
    site=SimpleNamespace(forge=SimpleNamespace(url="https://forge"), host=HOST),
    world=SimpleNamespace(mirror=lambda recipe: f"org/{recipe}"),
)


def survey(branches: dict[str, list[str]], own_units: frozenset[str] = frozenset()) -> Any:
    refs = {name: Refs("main", dict.fromkeys(names, "0" * 40)) for name, names in branches.items()}
    return SimpleNamespace(mirrors=refs, host=SimpleNamespace(own_units=own_units))


def test_world_without_leftovers_has_no_finding() -> None:
    """Branches of people are none of muster's."""
    assert (
        list(find_leftovers(CONTEXT, survey({"ghost": ["main", "scratch-1"], "n8n": ["muster-scratch"]}))) == []
    )


def test_scratch_branches_are_named_with_their_deletion() -> None:
    """One finding for each mirror; a name of the forge's is one word of the command."""
    branches = ["main", "muster/scratch-b", "muster/scratch-$(id)"]
    (finding,) = find_leftovers(CONTEXT, survey({"ghost": branches, "n8n": ["main"]}))
    command = "git push https://forge/org/ghost.git --delete 'muster/scratch-$(id)' muster/scratch-b"
    assert finding.do.endswith(f"remove it: {command}")
    assert finding.recipe == "ghost"


def test_armed_revert_is_named_with_the_commands_that_remove_it() -> None:
    """Its units are stopped, and its script and roots are removed; the commands are shell."""
    own = frozenset({f"{REVERT}.timer", f"{REVERT}.sh", f"{REVERT}.roots", "muster-switch-1.service"})
    (finding,) = find_leftovers(CONTEXT, survey({}, own))
    assert f"{REVERT}.timer" in finding.what
    command = finding.do.partition("on the host: ")[2]
    assert command == (
        f"systemctl stop {REVERT}.timer muster-switch-1.service; "
        f"systemctl reset-failed {REVERT}.timer muster-switch-1.service 2>/dev/null; "
        f"rm -rf /prefix/run/{REVERT}.sh /prefix/nix/var/nix/gcroots/{REVERT}.roots"
    )
    subprocess.run(["sh", "-n", "-c", command], check=True)
