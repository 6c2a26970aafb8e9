"""The stand-in for nix builds the system that nix builds, and refuses what it does not know."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from fixtures.rehearsal.initial_state.ccci_repository import nix_files, secrets_files
from fixtures.rehearsal.initial_state.seed import SYSTEMD_BRIDGE


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a store and settings for either nix."""
    folder = tmp_path_factory.mktemp("nix")
    for name in ("etc", "store", "home"):
        (folder / name).mkdir()
    (folder / "etc" / "nix.conf").write_text(
        "experimental-features = nix-command flakes\nsandbox = false\nbuild-users-group =\nsubstituters =\n"
        "system = x86_64-linux\n"
    )
    (folder / "home" / ".gitconfig").write_text(
        '[user]\nname = x\nemail = x@x\n[protocol "file"]\nallow = always\n[init]\ndefaultBranch = main\n'
    )
    return folder


def environment(place: Path, store: Path) -> dict[str, str]:
    return {
        "PATH": os.environ["PATH"],
        "HOME": str(place / "home"),
        "XDG_CACHE_HOME": str(store / "cache"),
        "NIX_STORE_DIR": str(store),
        "NIX_STATE_DIR": str(store / "var"),
        "NIX_LOG_DIR": str(store / "log"),
        "NIX_CONF_DIR": str(place / "etc"),
        "NIX_REMOTE": "",
        "GIT_CONFIG_GLOBAL": str(place / "home" / ".gitconfig"),
        "GIT_CONFIG_NOSYSTEM": "1",
        "PYTHONPATH": str(Path(__file__).resolve().parents[2]),
    }


def stand_in(place: Path, *words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "fixtures.rehearsal.host.nix_standin", *words]
    return subprocess.run(
        command,
        cwd=place,
        env=environment(place, place / "store"),
        capture_output=True,
        text=True,
        check=False,
    )


def real(place: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        words, cwd=place, env=environment(place, place / "real"), capture_output=True, text=True, check=False
    )


def checkout(place: Path) -> Path:
    """A checkout of the cc-ci repository's Nix part, with its submodule."""
    folder = place / "cc-ci"
    if folder.exists():
        return folder
    git = ["git", "-c", "protocol.file.allow=always"]
    run = {"env": environment(place, place / "store"), "check": True, "capture_output": True}
    for name, files in {"secrets": secrets_files(), "cc-ci": nix_files(forge_url="", org="")}.items():
        files.pop(".gitmodules", None)
        for path, text in files.items():
            (place / name / path).parent.mkdir(parents=True, exist_ok=True)
            (place / name / path).write_bytes(text)
        subprocess.run([*git, "init", "--quiet"], cwd=place / name, **run)  # type: ignore[call-overload]
        if name == "cc-ci":
            words = ["submodule", "--quiet", "add", f"file://{place / 'secrets'}", "secrets"]
            subprocess.run([*git, *words], cwd=folder, **run)  # type: ignore[call-overload]
        subprocess.run([*git, "add", "--all"], cwd=place / name, **run)  # type: ignore[call-overload]
        subprocess.run([*git, "commit", "--quiet", "-m", "x"], cwd=place / name, **run)  # type: ignore[call-overload]
    return folder


STORE_PATH = re.compile(r"/\S*/[0-9a-z]{32}-([\w.-]+)")


def contents(system: str) -> dict[str, str]:
    """Every file of a system as text, and every file that one of these names, with the hashes taken out."""
    texts, waiting = (
        {},
        {str(path.relative_to(system)): path for path in Path(system).rglob("*") if path.is_file()},
    )
    while waiting:
        name, path = waiting.popitem()
        text = path.read_text()
        texts[name] = STORE_PATH.sub(r"STORE/\1", text)
        waiting |= {found[1]: Path(found[0]) for found in STORE_PATH.finditer(text) if found[1] not in texts}
    return texts


FLAKE = "git+file://{folder}?submodules=1#nixosConfigurations.{attribute}.config"
TOPLEVEL = FLAKE + ".system.build.toplevel"
WHOSE = 'c: { hostname = c.networking.hostName; root_device = c.fileSystems."/".device; }'
BUILD = ("nix", "build", "--no-link", "--json")


@pytest.fixture
def edit(place: Path) -> Iterator[Callable[[str, str, str], None]]:
    """Replace a text in a file of the checkout; taken back at the end."""
    folder = checkout(place)

    def replace(name: str, old: str, new: str) -> None:
        text = (folder / name).read_text()
        assert old in text
        (folder / name).write_text(text.replace(old, new))

    yield replace
    subprocess.run(["git", "checkout", "--quiet", "."], cwd=folder, check=True)


@pytest.mark.skipif(shutil.which("nix") is None, reason="nix is not installed here")
@pytest.mark.parametrize("bridge", ["swarm", "systemd"])
@pytest.mark.parametrize("attribute", ["cc-ci", "cc-ci-incus"])
def test_system_is_the_one_that_nix_builds(
    place: Path, edit: Callable[[str, str, str], None], attribute: str, bridge: str
) -> None:
    """Stand-in and nix build a system of the same files with the same contents, from the same checkout."""
    folder = checkout(place)
    if bridge == "systemd":
        (folder / "nix/modules/bridge.nix").write_bytes(SYSTEMD_BRIDGE.read_bytes())
    edit("nix/modules/bridge.nix", 'uptime-kuma"', 'uptime-kuma,recipe-maintainers/ghost"')
    flake = TOPLEVEL.format(folder=folder, attribute=attribute)
    built = []
    for done in (stand_in(place, *BUILD, flake), real(place, *BUILD, flake)):
        assert done.returncode == 0, done.stderr
        built.append(contents(json.loads(done.stdout)[0]["outputs"]["out"]))
    assert built[0] == built[1]
    assert f"etc/systemd/system/{'ccci' if bridge == 'systemd' else 'deploy'}-bridge.service" in built[0]
    assert "recipe-maintainers/ghost" in str(built[0])


def test_dirty_checkout_is_taken_as_it_lies_there(place: Path, edit: Callable[[str, str, str], None]) -> None:
    """An uncommitted edit is built, with a warning; an untracked file is not seen."""
    folder = checkout(place)
    whose = ("nix", "eval", "--json", FLAKE.format(folder=folder, attribute="cc-ci"), "--apply", WHOSE)
    (folder / "nix" / "modules" / "untracked.nix").write_text("{ }\n")
    clean = stand_in(place, *whose)
    assert (json.loads(clean.stdout)["hostname"], clean.stderr) == ("nixos", "")
    edit("nix/hosts/cc-ci-hetzner/default.nix", 'hostName = "nixos"', 'hostName = "edited"')
    edited = stand_in(place, *whose)
    assert json.loads(edited.stdout)["hostname"] == "edited"
    assert f"warning: Git tree '{folder}' is dirty" in edited.stderr


def test_failing_builder_is_a_failing_build(place: Path, edit: Callable[[str, str, str], None]) -> None:
    """A builder that fails leaves no path behind and ends the build with nix's words."""
    edit("nix/lib/build-toplevel.sh", "set -e\n", "echo broken >&2; exit 3\n")
    before = set((place / "store").glob("*-nixos-system-*"))
    done = stand_in(place, *BUILD, TOPLEVEL.format(folder=checkout(place), attribute="cc-ci"))
    assert done.returncode == 1
    assert "failed with exit code 3" in done.stderr
    assert "> broken" in done.stderr
    assert set((place / "store").glob("*-nixos-system-*")) == before


@pytest.mark.parametrize(
    ("name", "old", "new", "why"),
    [
        ("nix/modules/bridge.nix", "services.app = {", "services.app = ", "does not parse"),
        ("nix/modules/bridge.nix", "POLL_REPOS=", "POLLED=", "POLL_REPOS"),
        ("nix/hosts/cc-ci-hetzner/default.nix", "networking.hostName", "networking.name", "does not evaluate"),
    ],
)
def test_a_checkout_without_the_values_does_not_build(
    place: Path, edit: Callable[[str, str, str], None], name: str, old: str, new: str, why: str
) -> None:
    """A file that does not parse, or does not say what the system is made of, ends with status 1 and the reason."""
    edit(name, old, new)
    done = stand_in(place, *BUILD, TOPLEVEL.format(folder=checkout(place), attribute="cc-ci"))
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.splitlines()[-1].startswith("error: ") or "error: " in done.stderr
    assert why in done.stderr


@pytest.mark.parametrize(
    "words",
    [
        ("nix", "eval", "--json", "{flake}", "--apply", "c: c.networking"),
        ("nix", "eval", "--json", "{flake}"),
        ("nix", "flake", "show"),
        ("nix-store", "--gc"),
        ("nix-env", "--upgrade"),
    ],
)
def test_what_the_stand_in_does_not_know_is_refused(place: Path, words: tuple[str, ...]) -> None:
    """An expression, a command or an option that the stand-in does not know is an error that says so, not a guess."""
    flake = FLAKE.format(folder=checkout(place), attribute="cc-ci")
    done = stand_in(place, *(word.replace("{flake}", flake) for word in words))
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("error: ")
