"""Wrong input to the command: a message, exit 4, no traceback, nothing half-written.

test_site, test_roster and test_secret_reference test each wrong line of a settings file; these tests run the
command. Sites that differ from their file are in test_wrong_site, full disks in test_no_room.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from tests_meta.clients.http_server import serving
from tests_meta.config.site_files import MINIMAL, with_line
from tests_meta.muster_runs import WorldPool, files_below, muster
from tests_meta.reference_night import prepare_initial_world
from tests_meta.world_view import WorldView

ROSTER = 'recipes = [\n  {{ name = {name}, enroll = true }},\n]\ncanaries = ["ghost"]\n'


# -- the site file -----------------------------------------------------------------------------------------


def _nothing(path: Path) -> None: ...


def _link_to_itself(path: Path) -> None:
    path.symlink_to(path)


def _text(text: str) -> Callable[[Path], object]:
    return lambda path: path.write_text(text)


SITES: dict[str, tuple[Callable[[Path], object], str]] = {
    "no file": (_nothing, "no such file"),
    "a folder": (lambda path: path.mkdir(), "directory"),
    "unreadable": (_link_to_itself, "can be read"),
    "no TOML": (_text("name = = 3\n"), "valid TOML"),
    "a wrong type": (_text(with_line("limits", 'http_s = "20"')), "limits.http_s"),
    "an unknown key": (_text(with_line("forge", 'urll = "https://x.example"')), "urll"),
    "plain http": (_text(with_line("forge", 'url = "http://git.example.org"')), "https"),
    "a secret in the file": (_text(with_line("forge", f'token = "{"a" * 40}"')), "forge.token"),
    "a variable that is not set": (_text(MINIMAL), "MUSTER_FORGE_TOKEN"),
    "a secret file that is not there": (
        _text(with_line("forge", 'token = { file = "none" }')),
        "forge.token",
    ),
    "a command that fails": (_text(with_line("forge", 'token = { command = ["false"] }')), "exit code 1"),
}


@pytest.mark.parametrize("name", SITES)
def test_wrong_site_file_is_refused(tmp_path: Path, name: str) -> None:
    """One sentence with the file and the expected value; exit 4; the folder of the record is not created."""
    make, words = SITES[name]
    site = tmp_path / "site.toml"
    make(site)
    said = muster("--site", str(site), reports=tmp_path / "reports").refused()
    assert words in said
    assert "site.toml" in said
    assert "a" * 40 not in said
    assert not (tmp_path / "reports").exists()


def test_secret_file_for_others_is_refused(tmp_path: Path) -> None:
    """The message about a token file of mode 0644 names the required mode and does not show the token."""
    site, secret = tmp_path / "site.toml", tmp_path / "token"
    secret.write_text("b" * 40)
    secret.chmod(0o644)
    site.write_text(with_line("forge", 'token = { file = "token" }'))
    said = muster("--site", str(site), reports=tmp_path / "reports").refused()
    assert "0644" in said
    assert "chmod 600" in said
    assert "b" * 40 not in said


def test_all_problems_are_reported_and_nothing_is_contacted(tmp_path: Path) -> None:
    """Each wrong key of the site file is reported at once; the server that the file names gets no connection."""
    with serving() as server:
        site = tmp_path / "site.toml"
        wrong = with_line("forge", f'url = "{server.url}"').replace("http_s = 20", "http_s = 0")
        site.write_text(wrong.replace('branch = "main"', "brunch = 1").replace('hostname = "nixos"\n', ""))
        output = muster("--site", str(site), reports=tmp_path / "reports").demand(4).output
        for problem in ("ccci.brunch is not a known key", "host.hostname is missing", "limits.http_s must be"):
            assert f"site.toml: {problem}" in output
        assert server.connections == 0


def test_site_from_the_environment(tmp_path: Path) -> None:
    """MUSTER_SITE counts as --site: a wrong file there is refused, and no rehearsal runs instead."""
    said = muster(reports=tmp_path / "reports", env={"MUSTER_SITE": str(tmp_path / "none.toml")}).refused()
    assert "none.toml" in said


# -- the roster --------------------------------------------------------------------------------------------

NAMES = ["a/b", "..", "a b", "Ghost", "$(id)", "<b>ghost</b>"]


@pytest.mark.parametrize("name", NAMES)
def test_wrong_recipe_name_is_refused(tmp_path: Path, name: str) -> None:
    """A recipe's name becomes a folder, a URL and a word of a command: other characters are refused."""
    roster = tmp_path / "roster.toml"
    shown = '"' + name.replace("\n", "\\n") + '"'
    roster.write_text(ROSTER.format(name=shown))
    said = muster("--roster", str(roster), reports=tmp_path / "reports").refused()
    assert "recipes[0].name" in said
    assert not (tmp_path / "reports").exists()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("recipes = []\ncanaries = []\n", "at least one recipe"),
        ('recipes = [{ name = "ghost" }, { name = "ghost" }]\ncanaries = ["ghost"]\n', "not listed yet"),
        ('recipes = [{ name = "ghost" }]\ncanaries = ["immich"]\n', "canaries"),
        ('recipes = [{ name = "ghost", enrol = true }]\ncanaries = ["ghost"]\n', "enrol"),
    ],
    ids=["empty", "twice", "an unknown canary", "a misspelled key"],
)
def test_wrong_roster_is_refused(tmp_path: Path, text: str, words: str) -> None:
    """A wrong roster is refused, above all an empty one: a retest was once green over an empty list."""
    roster = tmp_path / "roster.toml"
    roster.write_text(text)
    said = muster("--roster", str(roster), reports=tmp_path / "reports").refused()
    assert words in said
    assert "roster.toml" in said


# -- the command line --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--plan", "--health"), "exclude each other"),
        (("--site", "x.toml", "--world", "w"), "--world belongs to a rehearsal"),
        (("--site", "x.toml", "--fault", "red-build:ghost"), "--fault belongs to a rehearsal"),
        (("--pace", "0"), "--pace must be"),
        (("--fault", "no-such-fault"), "--fault must be"),
        (("--part", "ssh=telnet"), "--part must be"),
        (("--force-sync", "no-such-recipe"), "--force-sync no-such-recipe"),
    ],
    ids=" ".join,
)
def test_contradicting_options_are_refused(tmp_path: Path, arguments: tuple[str, ...], words: str) -> None:
    """The message names the option; exit 4; nothing is started."""
    ran = muster(*arguments, reports=tmp_path / "reports")
    assert words in ran.refused()
    assert files_below(tmp_path) == []


@pytest.mark.parametrize("arguments", [("--undo", "some"), ("--no-such-option",)], ids=" ".join)
def test_unknown_option_is_refused_by_pytest(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    """An unknown option or choice gets pytest's usage message and exit 4."""
    ran = muster(*arguments, reports=tmp_path / "reports").demand(4)
    assert "usage:" in ran.output


# -- the world's folder --------------------------------------------------------------------------------------


def _foreign(path: Path) -> None:
    path.mkdir()
    (path / "thesis.tex").write_text("years of work")


def _broken(path: Path) -> None:
    path.mkdir()
    (path / "world.json").write_text('{"pace": 1}')


def _half(path: Path) -> None:
    path.mkdir()
    (path / "world.json").write_text("{")


WORLDS: dict[str, tuple[Callable[[Path], object], str]] = {
    "a file": (lambda path: path.write_text("x"), "folder"),
    "other files": (_foreign, "other files"),
    "the world of another version": (_broken, "world.json"),
    "no JSON": (_half, "world.json"),
}


@pytest.mark.parametrize("name", WORLDS)
def test_folder_without_a_world_is_refused_and_not_changed(tmp_path: Path, name: str) -> None:
    """Exit 4; no file of the folder changes, and no record of a run is written."""
    make, words = WORLDS[name]
    folder = tmp_path / "world"
    make(folder)
    before = {path: path.read_bytes() for path in files_below(tmp_path)}
    said = muster("--world", str(folder), reports=tmp_path / "reports").refused()
    assert "--world" in said
    assert words in said
    assert {path: path.read_bytes() for path in files_below(tmp_path)} == before


def test_world_of_a_running_rehearsal_is_refused(night: WorldPool, tmp_path: Path) -> None:
    """The ports of the world are in use; the running rehearsal is not disturbed."""
    settings = (night.world / "world.json").read_bytes()
    said = muster("--world", str(night.world), reports=tmp_path / "reports").refused()
    assert "is in use" in said
    assert (night.world / "world.json").read_bytes() == settings
    assert WorldView(night.settings).api("/version")[0] == 200
    assert files_below(tmp_path) == []


def test_port_of_a_kept_world_in_use_is_refused(world_pool: WorldPool, tmp_path: Path) -> None:
    """The message names the port and its setting; the world is not changed."""
    prepare_initial_world(world_pool)
    settings = (world_pool.world / "world.json").read_bytes()
    with socket.create_server(("127.0.0.1", world_pool.settings.ci_port)):
        said = muster("--world", str(world_pool.world), reports=tmp_path / "reports").refused()
    assert f"port {world_pool.settings.ci_port} (ci_port) is in use" in said
    assert (world_pool.world / "world.json").read_bytes() == settings
