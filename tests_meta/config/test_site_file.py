"""The site file as a file: unreadable files, reading without side effects, and the documented example."""

from __future__ import annotations

import dataclasses
import os
import re
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from fixtures.config import site as site_module
from fixtures.config.reader import keys_of
from fixtures.config.secret_reference import FromEnvironment
from fixtures.config.site import Site, load_site
from tests_meta.config.site_files import MINIMAL, WRONG, assert_one_sentence, refusal, with_line, write

EXAMPLE = Path(site_module.__file__).with_name("site.example.toml")
SECTIONS = [field.name for field in dataclasses.fields(Site) if field.name != "name"]


def test_no_such_file(tmp_path: Path) -> None:
    """A site file that is not there is one sentence."""
    said = refusal(tmp_path / "site.toml")
    assert str(tmp_path / "site.toml") in said
    assert "there is no such file" in said
    assert_one_sentence(said)


def test_directory_is_refused(tmp_path: Path) -> None:
    """A directory is no site file."""
    assert "it is a directory" in refusal(tmp_path)


def test_fifo_does_not_block(tmp_path: Path) -> None:
    """A FIFO that nobody writes to is refused at once."""
    os.mkfifo(tmp_path / "site.toml")
    assert "it is not a regular file" in refusal(tmp_path / "site.toml")


def test_file_without_permission_is_refused(tmp_path: Path) -> None:
    """A file that this user may not read is one sentence."""
    path = write(tmp_path, MINIMAL)
    path.chmod(0)
    me = os.geteuid()
    try:
        if me == 0:  # root reads every file
            os.seteuid(65_534)
        said = refusal(path)
    finally:
        os.seteuid(me)
    assert "it may not be read by this user" in said
    assert_one_sentence(said)


def test_loop_of_links_is_refused(tmp_path: Path) -> None:
    """A loop of symbolic links is one sentence."""
    (tmp_path / "site.toml").symlink_to("site.toml")
    said = refusal(tmp_path / "site.toml")
    assert "must be a TOML file that can be read" in said
    assert_one_sentence(said)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b'name = "caf\xe9"\n', "UTF-8"),
        (b"\xff\xfen\x00a\x00", "UTF-8"),
        (b"name = \n", "valid TOML"),
        (b"name = 'a'\nname = 'b'\n", "valid TOML"),
        (b"\xef\xbb\xbfname = 'a'\n", "valid TOML"),
        (b"a = " + b"[" * 5000, "valid TOML"),
        (b"a = " + b"9" * 5000, "valid TOML"),
        (b"#" * 1_000_001, "larger than"),
    ],
    ids=["latin-1", "utf-16", "no value", "twice", "byte-order mark", "too deep", "too many digits", "too large"],
)
def test_content_that_is_no_settings_file_is_refused(content: bytes, says: str, tmp_path: Path) -> None:
    """A file that is not UTF-8, not TOML, or too large is one sentence."""
    said = refusal(write(tmp_path, content))
    assert says in said
    assert ", for example " in said or "can be read" in said
    assert_one_sentence(said)


def test_empty_file(tmp_path: Path) -> None:
    """An empty file is answered with every required key."""
    said = refusal(write(tmp_path, b""))
    assert re.findall(r": (\S+) is missing; expected is .*, for example .*", said) == [
        "name", "forge.url", "forge.org", "forge.token", "upstream.url",
        "host.address", "host.machine_id", "host.hostname", "host.root_device", "drone.url", "drone.token",
    ]  # fmt: skip


# --- nothing is contacted -----------------------------------------------------------------------------------

WATCH = """
import sys
events = []
WATCHED = ("socket.", "subprocess.", "os.exec", "os.posix_spawn", "os.system", "os.fork")
sys.addaudithook(lambda event, args: events.append(event) if event.startswith(WATCHED) else None)
from pathlib import Path
from fixtures.errors import BadSetting
from fixtures.config.site import load_site
events.clear()
refused = 0
for name in sys.argv[1:]:
    try:
        site = load_site(Path(name))
    except BadSetting:
        refused += 1
print(refused, events)
if refused == 0:
    import socket
    try:
        socket.create_connection(("127.0.0.1", int(site.host.port)))
    except OSError:
        pass
    for reference in site.secrets():
        reference.resolve()
    print(sorted(set(events)))
"""


def read_watched(*paths: Path) -> list[str]:
    words = [sys.executable, "-c", WATCH, *map(str, paths)]
    done = subprocess.run(words, capture_output=True, text=True, check=True, timeout=60)
    return done.stdout.splitlines()


def test_nothing_is_contacted(tmp_path: Path) -> None:
    """Reading a site file, good or bad, opens no connection and starts no program."""
    bad = []
    for number, (section, line, _) in enumerate(WRONG):
        bad.append(tmp_path / f"{number}.toml")
        bad[-1].write_text(with_line(section, line))
    assert read_watched(*bad) == [f"{len(bad)} []"]


def test_watch_sees_connections_and_commands(tmp_path: Path) -> None:
    """Positive control: the same audit hook sees a connection, and the command of a resolved secret."""
    marker = tmp_path / "ran"
    with socket.create_server(("127.0.0.1", 0)) as server:
        text = with_line("forge", f'token = {{ command = ["/bin/sh", "-c", "echo x; : > {marker}"] }}')
        text = text.replace('token = { env = "MUSTER_DRONE_TOKEN" }', 'token = { command = ["/bin/echo", "y"] }')
        text = text.replace("[host]\n", f"[host]\nport = {server.getsockname()[1]}\n")
        path = tmp_path / "site.toml"
        path.write_text(text)
        load_site(path)
        assert not marker.exists()
        first, second = read_watched(path)
    assert first == "0 []"
    assert "socket.connect" in second
    assert "subprocess.Popen" in second
    assert marker.exists()


# --- the example --------------------------------------------------------------------------------------------


def test_example_is_valid() -> None:
    """The documented example is a valid site with the real cc-ci's public values; its secrets stay unresolved."""
    site = load_site(EXAMPLE)
    assert site.name == "cc-ci"
    assert site.forge.url == "https://git.autonomic.zone"
    assert site.upstream.url == "https://git.coopcloud.tech"
    assert site.drone.url == "https://drone.ci.commoninternet.net"
    assert site.ccci.suite_proof == "recipe-pull-request"
    assert [reference.key for reference in site.secrets()] == ["forge.token", "drone.token"]
    assert all(isinstance(reference.source, FromEnvironment) for reference in site.secrets())


def test_example_explains_every_key() -> None:
    """The example has every key of a site, set or commented out, in its own section, and no other key."""
    sections = re.split(r"^\[(\w+)\]$", EXAMPLE.read_text(), flags=re.MULTILINE)
    shown = {
        name: set(re.findall(r"^(?:# )?(\w+) = ", body, flags=re.MULTILINE))
        for name, body in zip(sections[1::2], sections[2::2], strict=True)
    }
    expected = {
        section: {field.name for field in dataclasses.fields(getattr(site_module, section.capitalize()))}
        for section in SECTIONS
    }
    assert shown == expected


def test_example_shows_the_defaults(tmp_path: Path) -> None:
    """The example's values, apart from the required keys and the user, are the defaults."""
    example, minimal = load_site(EXAMPLE), load_site(write(tmp_path, MINIMAL))
    for name in ("ccci", "bridge", "verdicts", "limits"):
        assert getattr(example, name) == getattr(minimal, name)
    compared = dataclasses.replace(example.host, machine_id=minimal.host.machine_id, user=minimal.host.user)
    assert compared == minimal.host


def test_example_commented_defaults_are_the_defaults(tmp_path: Path) -> None:
    """The values of keys that the example comments out as defaults are the defaults."""
    keys = ("prefix", "log_command", "inspect_command", "watching_line")
    text = re.sub(rf"^# ({'|'.join(keys)}) = ", r"\1 = ", EXAMPLE.read_text(), flags=re.MULTILINE)
    assert text.count("\n# ") == EXAMPLE.read_text().count("\n# ") - len(keys)
    uncommented, example = load_site(write(tmp_path, text)), load_site(EXAMPLE)
    assert uncommented.host == example.host
    assert uncommented.bridge == example.bridge


def test_example_holds_no_address_of_the_machine() -> None:
    """The public address of the host is given inconsistently in the record, so it stays out."""
    addresses = re.findall(r"\d+\.\d+\.\d+\.\d+", EXAMPLE.read_text())
    assert set(addresses) <= {"127.0.0.1"}
    assert re.findall(r"\d+\.\d+\.\d+\.\d+", "91.98.47.73 is one") == ["91.98.47.73"], (
        "the search finds addresses"
    )


def test_site_is_frozen() -> None:
    """A site cannot be changed after it was read."""
    site = load_site(EXAMPLE)
    with pytest.raises(dataclasses.FrozenInstanceError):
        site.forge.url = "https://other.example.org"  # type: ignore[misc]


def test_example_marks_the_required_keys() -> None:
    """Exactly the keys that a site file must have are marked as required in the example."""
    marked, section = set(), ""
    for line in EXAMPLE.read_text().splitlines():
        if opening := re.fullmatch(r"\[(\w+)\]", line):
            section = f"{opening[1]}."
        elif line.endswith("# required"):
            marked.add(section + line.split(" = ")[0])
    required = {name for name, key in keys_of(site_module.Site).items() if key.required and not key.is_section}
    for table in SECTIONS:
        keys = keys_of(getattr(site_module, table.capitalize()))
        required |= {f"{table}.{name}" for name, key in keys.items() if key.required}
    assert marked == required


@pytest.mark.parametrize("mark", [b"\xef\xbb\xbf", b"\xff\xfe", b"\xfe\xff"])
def test_byte_order_mark_is_named(mark: bytes, tmp_path: Path) -> None:
    """A file that begins with a byte-order mark is refused by that name; line ends of Windows are not a problem."""
    said = refusal(write(tmp_path, mark + MINIMAL.encode()))
    assert "it begins with a byte-order mark" in said
    assert_one_sentence(said)
    load_site(write(tmp_path, MINIMAL.replace("\n", "\r\n").encode()))
