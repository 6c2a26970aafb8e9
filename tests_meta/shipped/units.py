"""Unit files and NixOS modules read back as plain values, and a run inside of what such a unit would be given."""

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

# All of the file system read-only but the state folder; then a user without a name, a home, or a capability.
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
    """The program's path; the test is skipped where it is not installed."""
    found = shutil.which(program)
    if found is None:
        pytest.skip(f"{program} is not installed")
    return found


def settings_of(text: str) -> Settings:
    """A unit file's settings by section and key, in order; comments are left out."""
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
    """A unit file of this checkout and this interpreter instead of those in /opt."""
    return text.replace("/opt/muster/.venv/bin/python", sys.executable).replace("/opt/muster", str(ROOT))


def nix_value(value: object) -> str:
    """JSON's values are Nix's, but for the signs between them."""
    return f"(builtins.fromJSON {json.dumps(json.dumps(value)).replace('${', chr(92) + '${')})"


def evaluated(module: Path, given: Mapping[str, object], *, pick: str = "") -> Any:
    """What a NixOS module makes of `given`, by a real evaluation; raises AssertionError with nix's own words."""
    expression = f"(import {ALONE} {{ module = {module}; given = {nix_value(given)}; }}){pick}"
    done = subprocess.run(
        [needs("nix-instantiate"), "--eval", "--strict", "--json", "-E", expression],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def confined(state: Path) -> list[str]:
    """The words to put before ``NAME=value … command``, which then runs as in a hardened unit.

    Skipped where a process may not make itself name spaces.
    """
    words = [needs("unshare"), "--user", "--map-root-user", "--mount"]
    if subprocess.run([*words, "true"], capture_output=True).returncode != 0:
        pytest.skip("making a name space is not allowed here")
    return [*words, "sh", "-c", CONFINED.format(user=STRANGER), "confined", str(ROOT), str(state)]
