"""The stand-in for nix says what nix says, for all that this project's files use, and refuses the rest."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from fixtures.rehearsal.initial_state.ccci_repository import nix_files, secrets_files

EXPRESSIONS = {
    "1 + 2 * 3 - 4 / 2": 5,
    "-1 - 1": -2,
    "7 / 2": 3,
    "7.0 / 2": 3.5,
    '"a" + "b" == "ab" && !false || throw "not evaluated"': True,
    'false -> throw "not evaluated"': True,
    "[ 1 2 ] ++ [ (1 + 2) ]": [1, 2, 3],
    "{ a = 1; b = 2; } // { b = 3; }": {"a": 1, "b": 3},
    "{ a.b = 1; a.c = 2; }.a": {"b": 1, "c": 2},
    "rec { a = 1; b = a + 1; }.b": 2,
    "let a = 1; in { inherit a; inherit ({ b = 2; }) b; }": {"a": 1, "b": 2},
    "let a = 1; in with { a = 2; b = 3; }; [ a b ]": [1, 3],
    "with { a = 1; }; with { a = 2; }; a": 2,
    "({ a, b ? a + 1, ... }@all: [ a b (all.c or 0) (all ? c) ]) { a = 1; c = 9; }": [1, 2, 9, True],
    "(x: y: x - y) 5 3": 2,
    "let f = { __functor = self: x: x + self.n; n = 3; }; in f 4": 7,
    'assert 1 < 2; if 1 >= 2 then "a" else "b"': "b",
    "{ a.b.c = 1; }.a.b.d or 7": 7,
    "{ a = 1; } ? b.c": False,
    '{ "x y" = 1; ${"z"} = 2; }': {"x y": 1, "z": 2},
    r'"tab\tnew\nquote\" dollar\${x}"': 'tab\tnew\nquote" dollar${x}',
    'let n = "v"; in "a${n}b${toString 3}"': "avb3",
    "''\n    one\n      two ${toString 2}\n\n    three\n  ''": "one\n  two 2\n\nthree\n",
    "''  same line''": "same line",
    "''\n  a ''${b} '''c''' $d\n''": "a ${b} ''c'' $d\n",
    "map (x: x * 2) (builtins.filter (x: x > 1) [ 1 2 3 ])": [4, 6],
    'builtins.concatStringsSep "," (builtins.attrNames { b = 1; a = 2; })': "a,b",
    "builtins.foldl' (a: b: a + b) 0 (builtins.genList (x: x) 5)": 10,
    "builtins.concatMap (x: [ x x ]) [ 1 2 ]": [1, 1, 2, 2],
    "builtins.mapAttrs (n: v: n + toString v) { a = 1; }": {"a": "a1"},
    'builtins.listToAttrs [ { name = "a"; value = 1; } { name = "a"; value = 2; } ]': {"a": 1},
    'removeAttrs { a = 1; b = 2; } [ "a" ]': {"b": 2},
    "builtins.intersectAttrs { a = 0; } { a = 1; b = 2; }": {"a": 1},
    'builtins.replaceStrings [ "a" "bc" ] [ "x" "y" ] "abca"': "xyx",
    'builtins.substring 1 2 "abcd"': "bc",
    'builtins.toJSON { a = [ 1 null true ]; b = "x"; }': '{"a":[1,null,true],"b":"x"}',
    'builtins.fromJSON "{\\"a\\":[1]}"': {"a": [1]},
    'map builtins.typeOf [ 1 1.5 "" null true [ ] { } (x: x) ./. ]': [
        *("int", "float", "string", "null", "bool", "list", "set", "lambda", "path"),
    ],
    'toString [ 1 true false null "x" ]': "1 1   x",
    "builtins.sort (a: b: a < b) [ 3 1 2 ]": [1, 2, 3],
    "builtins.elem { a = 1; } [ { a = 1; } ]": True,
    "baseNameOf ./some/file.nix": "file.nix",
    "(let x = { a = x; b = 1; }; in x.a.a.b)": 1,
    "builtins.isFunction (import ./function.nix) && import ./function.nix 2 == 3": True,
    "builtins.readFile ./text + toString (builtins.pathExists ./none)": "text\n",
}
REFUSED = {
    "x": "undefined variable 'x'",
    "{ a = 1; }.b": "attribute 'b' missing",
    "1 +": "syntax error",
    'throw "why"': "why",
    "assert false; 1": "failed",
    "let x = x; in x": "infinite recursion",
    "({ a }: a) { }": "without required argument 'a'",
    "({ a }: a) { a = 1; b = 2; }": "unexpected argument 'b'",
    '"${1}"': "cannot coerce",
    "{ a = 1; a = 2; }": "already defined",
}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a store and settings for either nix, and the files that the expressions name."""
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
    (folder / "function.nix").write_text("x: x + 1\n")
    (folder / "text").write_text("text\n")
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
    command = [sys.executable, "-m", "fixtures.rehearsal.host.nixlang", *words]
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


def together(expressions: list[str]) -> str:
    """All expressions in one list: one process instead of fifty."""
    return "[ " + " ".join(f"({one})" for one in expressions) + " ]"


def test_language_gives_the_values_that_it_defines(place: Path) -> None:
    """Every expression of the table has its value."""
    done = stand_in(place, "nix-instantiate", "--eval", "--strict", "--json", "-E", together(list(EXPRESSIONS)))
    assert done.returncode == 0, done.stderr
    for (expression, wanted), value in zip(EXPRESSIONS.items(), json.loads(done.stdout), strict=True):
        assert value == wanted, expression


@pytest.mark.skipif(shutil.which("nix-instantiate") is None, reason="nix is not installed here")
def test_table_is_what_nix_says(place: Path) -> None:
    """The real nix gives the same values for the same table, and refuses what is refused."""
    done = real(place, "nix-instantiate", "--eval", "--strict", "--json", "-E", together(list(EXPRESSIONS)))
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == list(EXPRESSIONS.values())
    for expression in REFUSED:
        assert real(place, "nix-instantiate", "--eval", "--strict", "-E", expression).returncode == 1, expression


@pytest.mark.parametrize("expression", REFUSED)
def test_what_is_wrong_is_refused(place: Path, expression: str) -> None:
    """An error ends with status 1, with nix's ``error:`` and the reason."""
    done = stand_in(place, "nix-instantiate", "--eval", "--strict", "-E", expression)
    assert done.returncode == 1
    assert done.stderr.startswith("error: ")
    assert REFUSED[expression] in done.stderr
    assert done.stdout == ""


def test_what_the_stand_in_does_not_know_is_refused(place: Path) -> None:
    """A part of the language that is not there is an error that says so, not a guess."""
    done = stand_in(place, "nix-instantiate", "--eval", "-E", "<nixpkgs>")
    assert done.returncode == 1
    assert "does not know" in done.stderr


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


def contents(system: str) -> dict[str, str]:
    """Every file of a system as text, with the hashes of store paths taken out."""
    texts = {}
    for path in sorted(Path(system).rglob("*")):
        if path.is_file():
            texts[str(path.relative_to(system))] = re.sub(r"/\S*/[0-9a-z]{32}-", "STORE/", path.read_text())
    return texts


@pytest.mark.skipif(shutil.which("nix") is None, reason="nix is not installed here")
def test_system_is_the_one_that_nix_builds(place: Path) -> None:
    """Stand-in and nix build a system of the same files with the same contents, from the same checkout."""
    flake = f"git+file://{checkout(place)}?submodules=1#nixosConfigurations.cc-ci.config.system.build.toplevel"
    built = []
    for done in (
        stand_in(place, "nix", "build", "--no-link", "--json", flake),
        real(place, "nix", "build", "--no-link", "--json", flake),
    ):
        assert done.returncode == 0, done.stderr
        built.append(contents(json.loads(done.stdout)[0]["outputs"]["out"]))
    assert built[0] == built[1]
    assert "recipe-maintainers/cc-ci" not in str(built[0])
    assert "etc/systemd/system/deploy-bridge.service" in built[0]


def test_dirty_checkout_is_taken_as_it_lies_there(place: Path) -> None:
    """An uncommitted edit is built, with a warning; an untracked file is not seen."""
    folder = checkout(place)
    reference = f"git+file://{folder}?submodules=1#nixosConfigurations.cc-ci.config.networking.hostName"
    host = folder / "nix" / "hosts" / "cc-ci-hetzner" / "default.nix"
    clean = host.read_text()
    try:
        host.write_text(clean.replace('hostName = "nixos"', 'hostName = "edited"'))
        done = stand_in(place, "nix", "eval", "--json", reference)
        assert json.loads(done.stdout) == "edited"
        assert f"warning: Git tree '{folder}' is dirty" in done.stderr
    finally:
        host.write_text(clean)
    (folder / "nix" / "modules" / "untracked.nix").write_text("{ }\n")
    told = stand_in(place, "nix", "eval", "--json", reference)
    assert (json.loads(told.stdout), told.stderr) == ("nixos", "")


def test_failing_builder_is_a_failing_build(place: Path) -> None:
    """A builder that fails leaves no path behind and ends the build with nix's words."""
    folder = checkout(place)
    (folder / "flake.nix").write_text(
        '{ outputs = { self }: { x = derivation { name = "x"; system = "x86_64-linux"; builder = "/bin/sh"; '
        'args = [ "-c" "echo broken >&2; exit 3" ]; }; }; }\n'
    )
    done = stand_in(place, "nix", "build", "--no-link", f"git+file://{folder}?submodules=1#x")
    subprocess.run(["git", "checkout", "--quiet", "flake.nix"], cwd=folder, check=True)
    assert done.returncode == 1
    assert "failed with exit code 3" in done.stderr
    assert "> broken" in done.stderr
