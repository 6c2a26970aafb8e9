"""Nix modules with a poll set in every supported form, and the entries according to Nix."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

from fixtures.ccci.nix_eval import NOT_INSTALLED

NIX = shutil.which("nix-instantiate")
WITHOUT_NIX = NOT_INSTALLED
VARIABLE = "POLL_REPOS"

# Lines that mention the variable without setting it, a comment with a non-ASCII word, and another variable.
HEAD = """\
# POLL_REPOS=org/commented,org/out  (früher: modules/bridge.nix)
{ config, lib, pkgs, ... }:
let
  org = "recipe-maintainers"; # über alles
  other = { OTHER_POLL_REPOS = "org/other"; POLL_REPOS_FILE = "/run/x"; };
in
{
  environment = other;
  /* POLL_REPOS = "org/commented"; */
"""
TAIL = """\
  script = ''
    # POLL_REPOS=org/commented
    echo "$POLL_REPOS" "''${POLL_REPOS}" > /dev/null
  '';
}
"""

Entries = tuple[str, ...]


def csv(entries: Entries) -> str:
    return ",".join(entries)


def quoted(entries: Entries, between: str = " ") -> str:
    return between.join(f'"{entry}"' for entry in entries)


# name -> the attribute `value` of a module with these entries, which `judge` evaluates.
FORMS: dict[str, Callable[[Entries], str]] = {
    "attribute": lambda e: f'value.POLL_REPOS = "{csv(e)}";',
    "quoted attribute": lambda e: f'value = {{ "POLL_REPOS" = "{csv(e)}"; }};',
    "mkDefault": lambda e: f'value.POLL_REPOS = lib.mkDefault "{csv(e)}";',
    "mkForce in parentheses": lambda e: f'value.POLL_REPOS = (lib.mkForce ("{csv(e)}"));',
    "mkOverride": lambda e: f'value.POLL_REPOS = lib.mkOverride 50 "{csv(e)}"; # POLL_REPOS',
    "string of a list": lambda e: f'value = [ "A=1" "POLL_REPOS={csv(e)}" "B=2" ];',
    "line of a text": lambda e: f"value = ''\n    A=1\n    POLL_REPOS={csv(e)}\n    B=2\n  '';",
    "exported line": lambda e: f"value = ''\n    export POLL_REPOS=\"{csv(e)}\"\n  '';",
    "yaml item": lambda e: f"value = ''\n    environment:\n      - POLL_REPOS={csv(e)}\n      - B=2\n  '';",
    "yaml quoted item": lambda e: f"value = ''\n      - \"POLL_REPOS={csv(e)}\"\n  '';",
    "yaml mapping": lambda e: f"value = ''\n    env:\n      POLL_REPOS: \"{csv(e)}\"\n      B: 2\n  '';",
    "heredoc": lambda e: f"value = ''\n    cat > env <<EOF\n    POLL_REPOS={csv(e)}\n    EOF\n  '';",
    "list": lambda e: f"value.POLL_REPOS = [ {quoted(e)} ];",
    "joined list": lambda e: f'value.POLL_REPOS = lib.concatStringsSep "," [ {quoted(e)} ];',
    "joined list on lines": lambda e: (
        'value.POLL_REPOS = lib.mkForce (builtins.concatStringsSep "," [\n    # first\n    '
        + quoted(e, between=" # its own comment\n    ")
        + " # last\n    # end\n  ]);"
    ),
    "joined list in a string": lambda e: (
        f'value = [ "POLL_REPOS=${{lib.concatStringsSep "," [ {quoted(e)} ]}}" ];'
    ),
    "joined list in a text": lambda e: (
        "value = ''\n    POLL_REPOS=${builtins.concatStringsSep \",\" [\n      "
        + quoted(e, between="\n      ")
        + "\n    ]}\n    B=2\n  '';"
    ),
}


def module(form: str, entries: Entries, *, newline: str = "\n") -> bytes:
    """A module that sets POLL_REPOS once, in this form."""
    return (HEAD + "  " + FORMS[form](entries) + "\n" + TAIL).replace("\n", newline).encode()


_JUDGE = """
let
  lib = { mkDefault = x: x; mkForce = x: x; mkOverride = n: x: x; concatStringsSep = builtins.concatStringsSep; };
  value = file: (import file { inherit lib; pkgs = { }; config = { }; }).value;
in map (n: value (./. + "/${toString n}.nix")) (builtins.genList (n: n) COUNT)
"""


def judge(folder: Path, *sources: bytes) -> list[object]:
    """Evaluate the attribute `value` of each module with Nix; raises CalledProcessError if Nix rejects one."""
    own = folder / "nix"
    (own / "etc").mkdir(parents=True, exist_ok=True)
    (own / "etc" / "nix.conf").write_text("sandbox = false\nbuild-users-group =\nsubstituters =\n")
    for number, source in enumerate(sources):
        (folder / f"{number}.nix").write_bytes(source)
    (folder / "judge.nix").write_text(_JUDGE.replace("COUNT", str(len(sources))))
    environment = {
        "PATH": os.environ["PATH"], "HOME": str(own), "NIX_REMOTE": "", "NIX_CONF_DIR": str(own / "etc"),
        "NIX_STORE_DIR": str(own / "store"), "NIX_STATE_DIR": str(own / "state"), "NIX_LOG_DIR": str(own / "log"),
    }  # fmt: skip
    words = ["nix-instantiate", "--eval", "--strict", "--json", str(folder / "judge.nix")]
    done = subprocess.run(words, env=environment, capture_output=True, check=True, timeout=60)
    values: list[object] = json.loads(done.stdout)
    return values


def entries_of(value: object) -> Entries:
    """The poll set in an evaluated `value`: an attribute, a list of NAME=value, or a text."""
    if isinstance(value, dict):
        value = value[VARIABLE]
        if isinstance(value, list):
            return tuple(value)
    else:
        lines = value if isinstance(value, list) else str(value).splitlines()
        stripped = [line.strip().removeprefix("- ").removeprefix("export ").strip("\"'") for line in lines]
        (value,) = [line[len(VARIABLE) + 1 :].strip(" \"'") for line in stripped if line.startswith(VARIABLE)]
    assert isinstance(value, str)
    return tuple(value.split(",")) if value else ()
