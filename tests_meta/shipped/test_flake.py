"""The flake beside the NixOS module, evaluated by nix with a stand-in for nixpkgs and without a network."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest

from tests_meta.muster_runs import ROOT
from tests_meta.shipped.units import SCHEDULE, evaluated, needs

FOLDER = "fixtures/shipped/schedule"
# What the flake uses of nixpkgs. `withPackages` answers a path with the names of the chosen packages.
PACKAGES = """\
rec {
  names = [ NAMES ];
  packages = builtins.listToAttrs (map (name: { inherit name; value = name; }) names)
    // { tree-sitter-grammars.tree-sitter-nix = "tree-sitter-nix"; };
  python3.withPackages = choose: "/nix/store/python:" + builtins.concatStringsSep ":" (choose packages) + ":";
  git = "/nix/store/git"; openssh = "/nix/store/openssh";
  writeShellScriptBin = name: text: "/nix/store/script-${name}:${text}";
}
"""
NIXPKGS = """\
{ outputs = _: { legacyPackages = builtins.listToAttrs (map (name: { inherit name; value = PACKAGES; })
  [ "x86_64-linux" "aarch64-linux" ]); }; }
"""
MODULE = """\
module: let made = module { lib.mkDefault = value: value; pkgs = PACKAGES; };
in { inherit (made.services) muster; imports = map toString made.imports; }
"""


def dependencies() -> set[str]:
    """The project's dependencies by their names in nixpkgs; httpx[socks] is two of them."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    names = {re.split(r"[>=<\[]", line)[0] for line in project["dependencies"]}
    return names | {"socksio"}


@pytest.fixture(scope="module")
def flake(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The flake's app and module, of a checkout that has only this folder."""
    here = tmp_path_factory.mktemp("flake")
    checkout, nixpkgs, own = here / "muster", here / "nixpkgs", here / "nix"
    shutil.copytree(SCHEDULE, checkout / FOLDER)
    for folder in (nixpkgs, own):
        folder.mkdir()
    # Of a git repository, nix takes the files that git knows, and a folder in it by `dir`.
    for git in (["init", "--quiet"], ["add", "."]):
        subprocess.run(["git", "-C", str(checkout), *git], check=True)
    names = sorted(dependencies() - {"tree-sitter-nix"})
    packages = PACKAGES.replace("NAMES", " ".join(f'"{name}"' for name in names))
    (nixpkgs / "flake.nix").write_text(NIXPKGS.replace("PACKAGES", packages))

    def output(name: str, *arguments: str) -> dict[str, Any]:
        words = ["--json", "--no-write-lock-file", "--offline", "--override-input", "nixpkgs", f"path:{nixpkgs}"]
        done = subprocess.run(
            [needs("nix"), "--extra-experimental-features", "nix-command flakes", "eval", *words,
             f"git+file://{checkout}?dir={FOLDER}#{name}", *arguments],
            env={
                "PATH": os.environ["PATH"], "HOME": str(own), "XDG_CACHE_HOME": str(own / "cache"), "NIX_REMOTE": "",
                "NIX_STORE_DIR": str(own / "store"), "NIX_STATE_DIR": str(own / "state"),
                "NIX_LOG_DIR": str(own / "log"), "NIX_CONF_DIR": str(own),
            },
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        made: dict[str, Any] = json.loads(done.stdout)
        return made

    module = output("nixosModules.default", "--apply", MODULE.replace("PACKAGES", packages))
    return {**module, "apps": output("apps")}


def test_flake_runs_muster_with_one_line(flake: dict[str, Any]) -> None:
    """On each system the app starts the command of the flake's own checkout, with git and ssh."""
    assert set(flake["apps"]) == {"x86_64-linux", "aarch64-linux"}
    assert flake["apps"]["aarch64-linux"]["default"]["type"] == "app"
    script = flake["apps"]["x86_64-linux"]["default"]["program"]
    assert re.search(r"exec \S*python:\S+/bin/python \S+/store/\S+/fixtures/shipped/command \"\$@\"", script)
    assert "/nix/store/git/bin:/nix/store/openssh/bin" in script


def test_flake_schedules_muster_with_one_line(flake: dict[str, Any]) -> None:
    """With nothing but ``enable``, the module makes the nightly unit: the flake's checkout and its interpreter."""
    (module,) = flake["imports"]
    assert module.endswith(f"{FOLDER}/muster.nix")
    services = evaluated(SCHEDULE / "muster.nix", {"services": {"muster": {"enable": True, **flake["muster"]}}})
    unit = services["systemd"]["services"]["muster"]["serviceConfig"]
    assert re.match(r'"\S*python:\S+/bin/python" "-m" "pytest" "phases/" "--health"', unit["ExecStart"])
    assert unit["WorkingDirectory"] == flake["muster"]["source"]
    assert services["systemd"]["timers"]["muster"]["timerConfig"]["OnCalendar"] == "*-*-* 02:17:00"


def test_flake_has_the_dependencies_of_the_project(flake: dict[str, Any]) -> None:
    """The interpreter has exactly the packages that pyproject.toml names."""
    named = flake["muster"]["python"].removesuffix("/bin/python").split(":")[1:-1]
    assert set(named) == dependencies()
    assert len(named) == len(set(named)) > 10


def test_command_works_from_a_checkout_that_cannot_be_written_to(tmp_path: Path) -> None:
    """The folder of the command runs without an installation, as the flake's script runs it."""
    command = [sys.executable, str(ROOT / "fixtures/shipped/command")]
    shown = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert shown.returncode == 0, shown.stderr
    assert shown.stdout.startswith("muster: a pytest suite that is also a migration")
