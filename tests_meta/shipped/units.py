"""Read unit files and NixOS modules as plain values, and run a command under a unit's restrictions."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from tests_meta.muster_runs import ROOT

SCHEDULE = ROOT / "fixtures" / "shipped" / "schedule"
ALONE = Path(__file__).with_name("nixos_alone.nix")
STRANGER = 61234  # a user id that no account has, as a service manager may give one

# Make the file system read-only except the state folder; then become a user without name, home and capabilities.
CONFINED = """\
set -eu
source=$1 state=$2
shift 2
mount --bind "$state" "$state"
mount -o remount,bind,ro /
cd "$source"
exec unshare --user --map-user={user} --map-group={user} setpriv --no-new-privs -- env -i "$@"
"""

Settings = dict[tuple[str, str], list[str]]


def needs(program: str) -> str:
    """The program's path; skips the test if it is not installed."""
    found = shutil.which(program)
    if found is None:
        pytest.skip(f"{program} is not installed")
    return found


def settings_of(text: str) -> Settings:
    """A unit file's settings by section and key, in order, without comments."""
    found: Settings = {}
    section = ""
    for line in text.splitlines():
        if line.startswith("["):
            section = line.strip("[]")
        elif line and line[0] not in "#;":
            name, _, value = line.partition("=")
            found.setdefault((section, name), []).append(value)
    return found


def unit(name: str) -> Settings:
    return settings_of((SCHEDULE / name).read_text())


def here(text: str) -> str:
    """The unit file with the paths of this checkout and interpreter instead of those in /opt."""
    return text.replace("/opt/muster/.venv/bin/python", sys.executable).replace("/opt/muster", str(ROOT))


def nix_value(value: object) -> str:
    """A JSON value as a Nix expression."""
    return f"(builtins.fromJSON {json.dumps(json.dumps(value)).replace('${', chr(92) + '${')})"


def evaluated(module: Path, given: Mapping[str, object], *, pick: str = "") -> Any:
    """Evaluate a NixOS module with the options `given`; raises AssertionError with nix's message."""
    expression = f"(import {ALONE} {{ module = {module}; given = {nix_value(given)}; }}){pick}"
    done = subprocess.run(
        [needs("nix-instantiate"), "--eval", "--strict", "--json", "-E", expression],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def confined(state: Path) -> list[str]:
    """The command prefix that runs ``NAME=value … command`` under the restrictions of a hardened unit.

    Skips the test if this machine does not allow user namespaces.
    """
    words = [needs("unshare"), "--user", "--map-root-user", "--mount"]
    if subprocess.run([*words, "true"], capture_output=True).returncode != 0:
        pytest.skip("making a name space is not allowed here")
    return [*words, "sh", "-c", CONFINED.format(user=STRANGER), "confined", str(ROOT), str(state)]
