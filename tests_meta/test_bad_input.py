"""Everything that can be wrong before the work begins: one sentence, the right exit code, never a traceback,
nothing half-written.

What the settings files themselves may get wrong is tested line by line elsewhere (test_site_file, test_roster,
test_secret_reference); here it is the command that is judged.
"""

from __future__ import annotations

import os
import re
import resource
import shutil
import socket
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fixtures.rehearsal.world import free_ports
from tests_meta.eyes import Eyes
from tests_meta.little_server import serving
from tests_meta.rehearsals import NIGHT, Ran, Station, muster
from tests_meta.site_files import MINIMAL, with_line
from tests_meta.stories import lay_night

ROSTER = 'recipes = [\n  {{ name = {name}, enroll = true }},\n]\ncanaries = ["ghost"]\n'


def refused(ran: Ran, status: int = 4) -> str:
    """The one sentence of a run that was refused."""
    ran.demand(status)
    assert "Traceback" not in ran.output
    assert "INTERNALERROR" not in ran.output
    (said,) = re.findall(r"^ERROR: muster: (.+)$", ran.output, re.M)
    assert said.endswith((".", "!"))
    assert len(said) < 600
    return str(said)


def files_below(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


# -- the site file -----------------------------------------------------------------------------------------


def _nothing(path: Path) -> None: ...


def _link_to_itself(path: Path) -> None:
    path.symlink_to(path)


def _text(text: str) -> Callable[[Path], object]:
    return lambda path: path.write_text(text)


SITES: dict[str, tuple[Callable[[Path], object], str]] = {
    "no file": (_nothing, "no such file"),
    "a folder": (lambda path: path.mkdir(), "folder"),
    "unreadable": (_link_to_itself, "can be read"),
    "a pipe": (os.mkfifo, "not a regular file"),
    "empty": (_text(""), "name"),
    "no TOML": (_text("name = = 3\n"), "valid TOML"),
    "no text": (lambda path: path.write_bytes(b"\xff\xfe\x00"), "UTF-8"),
    "a wrong type": (_text(with_line("limits", 'http_s = "20"')), "limits.http_s"),
    "an unknown key": (_text(with_line("forge", 'urll = "https://x.example"')), "urll"),
    "an unknown table": (_text(MINIMAL + "[forgejo]\nurl = 1\n"), "forgejo"),
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
def test_a_site_file_that_is_wrong_is_refused(tmp_path: Path, name: str) -> None:
    """One sentence with the file and what was expected; exit 4; not even the folder for the record is made."""
    make, words = SITES[name]
    site = tmp_path / "site.toml"
    make(site)
    said = refused(muster("--site", str(site), reports=tmp_path / "reports"))
    assert words in said
    assert "site.toml" in said
    assert "a" * 40 not in said
    assert not (tmp_path / "reports").exists()


def test_a_secret_that_others_can_read_is_refused(tmp_path: Path) -> None:
    """A token file of mode 0644 is no secret any more; the mode that it needs is said, the token is not."""
    site, secret = tmp_path / "site.toml", tmp_path / "token"
    secret.write_text("b" * 40)
    secret.chmod(0o644)
    site.write_text(with_line("forge", 'token = { file = "token" }'))
    said = refused(muster("--site", str(site), reports=tmp_path / "reports"))
    assert "0644" in said
    assert "chmod 600" in said
    assert "b" * 40 not in said


def test_nothing_is_contacted_before_the_settings_are_right(tmp_path: Path) -> None:
    """A server that stands in the file hears nothing when another key of it is wrong."""
    with serving() as server:
        site = tmp_path / "site.toml"
        site.write_text(with_line("forge", f'url = "{server.url}"').replace("http_s = 20", "http_s = 0"))
        assert "limits.http_s" in refused(muster("--site", str(site), reports=tmp_path / "reports"))
        assert server.connections == 0


def test_the_site_can_be_named_by_the_environment_too(tmp_path: Path) -> None:
    """MUSTER_SITE counts as --site: what is wrong with it is not silently a rehearsal."""
    said = refused(muster(reports=tmp_path / "reports", env={"MUSTER_SITE": str(tmp_path / "none.toml")}))
    assert "none.toml" in said


# -- the roster --------------------------------------------------------------------------------------------

NAMES = ["a/b", "..", ".", "a b", "Ghost", "a;id", "$(id)", "<b>ghost</b>", "-rf", "ghost\n", ""]


@pytest.mark.parametrize("name", NAMES)
def test_a_recipe_name_that_is_none_is_refused(tmp_path: Path, name: str) -> None:
    """It becomes a folder, a URL and a word of a command: slashes, dots, spaces, capitals, shell and HTML are out."""
    roster = tmp_path / "roster.toml"
    shown = '"' + name.replace("\n", "\\n") + '"'
    roster.write_text(ROSTER.format(name=shown))
    said = refused(muster("--roster", str(roster), reports=tmp_path / "reports"))
    assert "recipes[0].name" in said
    assert not (tmp_path / "reports").exists()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("recipes = []\ncanaries = []\n", "at least one recipe"),
        ("", "recipes"),
        ('recipes = [{ name = "ghost" }, { name = "ghost" }]\ncanaries = ["ghost"]\n', "not listed yet"),
        ('recipes = [{ name = "ghost" }]\ncanaries = ["immich"]\n', "canaries"),
        ('recipes = [{ name = "ghost", enrol = true }]\ncanaries = ["ghost"]\n', "enrol"),
    ],
    ids=["empty", "no recipes", "twice", "a canary that is none", "a misspelt key"],
)
def test_a_roster_that_is_wrong_is_refused(tmp_path: Path, text: str, words: str) -> None:
    """An empty roster above all: a sweep was once green over an empty list."""
    roster = tmp_path / "roster.toml"
    roster.write_text(text)
    said = refused(muster("--roster", str(roster), reports=tmp_path / "reports"))
    assert words in said
    assert "roster.toml" in said


# -- the command line --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--plan", "--health"), "exclude each other"),
        (("--site", "x.toml", "--world", "w"), "--world belongs to a rehearsal"),
        (("--site", "x.toml", "--fault", "red-build:ghost"), "--fault belongs to a rehearsal"),
        (("--site", "x.toml", "--pace", "1"), "--pace belongs to a rehearsal"),
        (("--pace", "0"), "--pace must be"),
        (("--pace", "nan"), "--pace must be"),
        (("--pace", "-1"), "--pace must be"),
        (("--fault", "no-such-fault"), "--fault must be"),
        (("--fault", "red-build"), "--fault must be"),
        (("--part", "ssh=telnet"), "--part must be"),
        (("--part", "printer=laser"), "--part must be"),
        (("--force-sync", "no-such-recipe"), "--force-sync no-such-recipe"),
    ],
    ids=" ".join,
)
def test_a_contradiction_on_the_command_line_is_refused(
    tmp_path: Path, arguments: tuple[str, ...], words: str
) -> None:
    """Exit 4, the option is named, nothing is started."""
    ran = muster(*arguments, reports=tmp_path / "reports")
    assert words in refused(ran)
    assert files_below(tmp_path) == []


@pytest.mark.parametrize(
    "arguments", [("--undo", "some"), ("--pace", "fast"), ("--no-such-option",)], ids=" ".join
)
def test_an_option_that_is_none_is_pytests_to_refuse(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    """Its own usage message, and the same exit 4."""
    ran = muster(*arguments, reports=tmp_path / "reports").demand(4)
    assert "usage:" in ran.output
    assert "Traceback" not in ran.output


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
    "somebody's files": (_foreign, "other files"),
    "another version's world": (_broken, "world.json"),
    "no JSON": (_half, "world.json"),
}


@pytest.mark.parametrize("name", WORLDS)
def test_a_folder_that_is_no_world_is_refused_and_left_alone(tmp_path: Path, name: str) -> None:
    """Exit 4; not one file of it is touched, and no record of a run is left that was none."""
    make, words = WORLDS[name]
    folder = tmp_path / "world"
    make(folder)
    before = {path: path.read_bytes() for path in files_below(tmp_path)}
    said = refused(muster("--world", str(folder), reports=tmp_path / "reports"))
    assert "--world" in said
    assert words in said
    assert {path: path.read_bytes() for path in files_below(tmp_path)} == before


@pytest.fixture
def night(station: Station) -> Station:
    """A world in which nothing is done yet, running."""
    if not station.has(NIGHT):
        lay_night(station)
    return station.untouched(NIGHT)


def test_a_world_that_another_run_uses_is_refused(night: Station, tmp_path: Path) -> None:
    """Its ports are in use; the run that is there is not disturbed."""
    settings = (night.world / "world.json").read_bytes()
    said = refused(muster("--world", str(night.world), reports=tmp_path / "reports"))
    assert "is in use" in said
    assert (night.world / "world.json").read_bytes() == settings
    assert Eyes(night.settings).api("/version")[0] == 200
    assert files_below(tmp_path) == []


def test_a_kept_worlds_port_that_somebody_else_has_is_refused(station: Station, tmp_path: Path) -> None:
    """The port and what it is for are named; the world is as it was."""
    lay_night(station)
    settings = (station.world / "world.json").read_bytes()
    with socket.create_server(("127.0.0.1", station.settings.ci_port)):
        said = refused(muster("--world", str(station.world), reports=tmp_path / "reports"))
    assert f"port {station.settings.ci_port} (ci_port) is in use" in said
    assert (station.world / "world.json").read_bytes() == settings


# -- a site that answers, and is not what the file says ----------------------------------------------------------


def other_site(station: Station, name: str, *changes: tuple[str, str], secret: str = "") -> Path:
    """The world's own site file with lines replaced, and with another forge token where one is given."""
    text = station.site.read_text()
    for old, new in changes:
        assert old in text, text
        text = text.replace(old, new, 1)
    if secret:
        path = station.world / "secrets" / name
        path.write_text(secret)
        path.chmod(0o600)
        text = text.replace("secrets/forge-token", f"secrets/{name}")
    site = station.world / f"{name}.toml"
    site.write_text(text)
    return site


def demand_clean(ran: Ran) -> None:
    assert "Traceback" not in ran.output
    assert "INTERNALERROR" not in ran.output


MISTAKES: dict[str, tuple[Callable[[Station], Path], str, str]] = {
    "no such organisation": (
        lambda world: other_site(world, "org", ('org = "recipe-maintainers"', 'org = "no-such-org"')),
        "the organisation can be read",
        "no-such-org",
    ),
    "somebody else's token": (
        lambda world: other_site(world, "alice", secret=(world.world / "secrets/stranger_token").read_text()),
        "the token is the bots",
        "alice",
    ),
    "a token of nobody": (
        lambda world: other_site(world, "nobody", secret="f" * 40),
        "the token is the bots",
        "401",
    ),
    "a token that may only read": (
        lambda world: other_site(world, "reader", secret=world.settings.checkout_token),
        "the token has the scope: write:repository",
        "write:repository",
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
        "drone knows us",
        "drone",
    ),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_what_the_site_file_has_wrong_about_the_site_stops_in_phase_0(night: Station, name: str) -> None:
    """Exit 1; the assertion that is about it says what was seen; no later phase runs, and nothing was written."""
    make, title, words = MISTAKES[name]
    before = Eyes(night.settings).everything()
    ran = night.visit(site=make(night)).demand(1)
    demand_clean(ran)
    assert title in ran.failed
    (told,) = [line for line in ran.of("assertion") if line["title"] == title]
    assert words in " ".join(str(told[key]) for key in ("what", "expected", "seen", "message"))
    assert {line["phase"] for line in ran.of("assertion") if line["outcome"] == "passed"} <= {0}
    assert ran.of("intent") == []
    assert Eyes(night.settings).everything() == before


HOSTS: dict[str, tuple[Callable[[Station], tuple[str, str]], str]] = {
    "another machine-id": (
        lambda world: (re.findall(r'machine_id = "(\w+)"', world.site.read_text())[0], "0" * 32), "0" * 32),
    "another hostname": (lambda world: ('hostname = "nixos"', 'hostname = "nixos2"'), "nixos2"),
    "another root device": (lambda world: ("by-label/nixos", "by-label/other"), "by-label/other"),
}  # fmt: skip


@pytest.mark.parametrize("name", HOSTS)
def test_another_host_than_the_site_file_names_is_never_written_to(night: Station, name: str) -> None:
    """Withheld (13) before the lock is taken: expected and seen in one message, and a finished record."""
    change, words = HOSTS[name]
    before = Eyes(night.settings).everything()
    ran = night.visit(site=other_site(night, "host", change(night))).demand(13)
    demand_clean(ran)
    assert words in ran.output
    assert ran.of("end"), "the record has no end: the next run would take it for one that was killed"
    assert Eyes(night.settings).everything() == before


def test_a_host_that_nobody_pinned_is_never_written_to(night: Station, tmp_path: Path) -> None:
    """No key in known_hosts: not accepted, not asked about; the next run has nothing to settle."""
    (night.world / "secrets/nobody").write_text("")
    site = other_site(night, "unpinned", ("secrets/known_hosts", "secrets/nobody"))
    before = Eyes(night.settings).everything()
    ran = night.visit(site=site, reports=tmp_path).demand(13)
    demand_clean(ran)
    assert "known_hosts" in ran.output or "host key" in ran.output
    assert Eyes(night.settings).everything() == before
    again = night.visit("--plan", reports=tmp_path).demand(10)
    assert "was killed" not in again.output


def test_a_forge_that_is_not_there_is_one_sentence_per_question(night: Station) -> None:
    """A wrong port: phase 0 says that nothing answers; nothing is tried for ever."""
    port = free_ports(1)[0]
    site = other_site(night, "away", (f":{night.settings.forge_port}", f":{port}"))
    ran = night.visit("--health", site=site).demand(1)
    demand_clean(ran)
    assert "the forge answers" in ran.failed
    assert "could not connect" in ran.output


# -- no room for the record ----------------------------------------------------------------------------------


def in_a_small_disk(folder: Path, options: str) -> list[str]:
    """A command prefix that mounts a small file system at `folder`, for that command alone; a skip without root."""
    unshare = shutil.which("unshare")
    probe = [unshare or "unshare", "--mount", "sh", "-c", f"mount -t tmpfs -o size=64k tmpfs {folder}"]
    if unshare is None or subprocess.run(probe, capture_output=True, check=False).returncode != 0:
        pytest.skip("mounting a small file system needs root")
    script = f'mount -t tmpfs -o {options} tmpfs {folder} && "$@"; s=$?; find {folder} -type f -printf "LEFT %f %s\\n"; exit $s'
    return [unshare, "--mount", "sh", "-c", script, "sh"]


def left_in(ran: Ran) -> dict[str, int]:
    """What was on the small disk when the run had ended: names and sizes."""
    return {name: int(size) for name, size in re.findall(r"^LEFT (\S+) (\d+)$", ran.output, re.M)}


def run_where(night: Station, folder: Path, **options: Any) -> Ran:
    folder.mkdir()
    return night.visit(reports=folder, **options)


def test_a_disk_without_room_for_a_folder_is_refused(night: Station, tmp_path: Path) -> None:
    """Exit 4 before anything is contacted: the option that would help is named."""
    folder = tmp_path / "full"
    ran = run_where(night, folder, prefix=in_a_small_disk(tmp_path, "size=64k,nr_inodes=2"))
    assert "--reports" in refused(ran)


@pytest.mark.parametrize("below", ["a file", "no right to write"])
def test_a_place_for_records_that_is_none_is_refused(tmp_path: Path, below: str) -> None:
    """A file in its place, or a file system that cannot be written."""
    (tmp_path / "file").write_text("")
    reports = Path("/proc/muster") if below == "no right to write" else tmp_path / "file" / "reports"
    assert "--reports" in refused(muster("--health", reports=reports))
    assert files_below(tmp_path) == [tmp_path / "file"]


@pytest.mark.parametrize("size_kb", [16, 44, 64])
def test_a_disk_that_fills_up_stops_the_run_before_the_next_change(
    night: Station, tmp_path: Path, size_kb: int
) -> None:
    """In the header, in phase 0, in phase 1: said once and clearly; the world is as it was; no empty file is left."""
    before = Eyes(night.settings).everything()
    folder = tmp_path / "small"
    folder.mkdir()
    ran = night.visit(reports=folder, prefix=in_a_small_disk(folder, f"size={size_kb}k"))
    demand_clean(ran)
    assert ran.exit in (1, 2), ran.output[-3000:]
    assert "cannot be written: No space left on device" in ran.output
    assert Eyes(night.settings).everything() == before
    assert all(left_in(ran).values()), left_in(ran)


def test_a_disk_that_fills_up_among_the_changes_says_that_a_person_is_needed(
    station: Station, tmp_path: Path
) -> None:
    """Mirrors were created, their record is on disk, and no further change was made: exit 12; with room again, the
    next run reads that record and goes on."""
    lay_night(station)
    folder = tmp_path / "small"
    folder.mkdir()
    with station.live(NIGHT):
        limit = [160 * 1024]

        def limited() -> None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit[0], limit[0]))

        ran = station.visit(reports=folder, before=limited)
        demand_clean(ran)
        assert ran.exit == 12, ran.output[-3000:]
        intents = ran.of("intent")
        assert {line["kind"] for line in intents} >= {"create-mirror"}
        assert "switch" not in {line["kind"] for line in intents}
        assert station.visit(reports=folder).demand(0).summary["verdict"] == "converged"


def test_a_full_disk_at_the_very_end_does_not_change_the_exit(night: Station, tmp_path: Path) -> None:
    """The journal fits and the report does not: the run's own judgement stands, and what is missing is said."""
    folder = tmp_path / "small"
    folder.mkdir()
    ran = night.visit("--plan", reports=folder, prefix=in_a_small_disk(folder, "size=288k"))
    demand_clean(ran)
    assert ran.exit == 10, ran.output[-3000:]
    assert "No space left on device" in ran.output
    assert all(left_in(ran).values()), left_in(ran)
    assert "journal.jsonl" in left_in(ran)

