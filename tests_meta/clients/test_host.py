"""The host over a real ssh connection: what is repeated, what is done once, who is believed, and the probe script.

The other end is OpenSSH's sshd where it is installed, and paramiko's server side otherwise; the same tests run
against each that is there.
"""

from __future__ import annotations

import contextlib
import getpass
import os
import shlex
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fixtures.clients import probe_script as sections
from fixtures.clients.host import HostAddress, HostReader, HostWriter
from fixtures.errors import BadSetting, Refused, Unknown, Unreachable, WrongHost
from fixtures.rehearsal.host.keys import key_pair
from fixtures.rehearsal.host.sshd import find_sshd
from tests_meta.clients.ssh_server import Relay, RunningSshServer
from tests_meta.rehearsal.ci_world import until

LIMIT_S = 20.0


@pytest.fixture(scope="module", params=["paramiko", "openssh"])
def far(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningSshServer]:
    if request.param == "openssh" and find_sshd() is None:
        pytest.skip("sshd is not installed here")
    made = RunningSshServer(tmp_path_factory.mktemp(request.param), request.param)
    made.start()
    yield made
    made.close()


@pytest.fixture
def host(far: RunningSshServer) -> Iterator[HostWriter]:
    writer = HostWriter(far.address)
    yield writer
    writer.close()


# -- one command -------------------------------------------------------------------------------------------


def test_a_result_is_a_value(host: HostWriter) -> None:
    """Exit status, both outputs apart, and how long it took; a status that is not 0 is an answer."""
    result = host.probe("echo out; echo err >&2; exit 3", limit_s=LIMIT_S)
    assert (result.exit_status, result.stdout, result.stderr) == (3, "out\n", "err\n")
    assert 0 <= result.seconds < LIMIT_S


def test_many_commands_share_one_connection(host: HostWriter) -> None:
    """Each is a session of its own, and both are counted."""
    for number in range(5):
        assert host.probe(f"echo {number}", limit_s=LIMIT_S).stdout == f"{number}\n"
    assert (host.connections, host.sessions) == (1, 5)


@pytest.mark.parametrize(
    "text",
    ["it's", 'a "b" c', "$HOME `id` $(id)", "back\\slash", "two\nlines", "ünï ☃", "; exit 9 #", "*", "-n"],
)
def test_quoted_words_arrive_as_they_are(host: HostWriter, text: str) -> None:
    """Through our quoting, the login shell and /bin/sh, nothing is expanded that was quoted."""
    assert host.probe(f"printf %s {shlex.quote(text)}", limit_s=LIMIT_S).stdout == text


def test_much_on_both_streams_does_not_lock_up(host: HostWriter) -> None:
    """Reading one stream to its end first would wait for ever; both arrive whole."""
    script = "head -c 2000000 /dev/zero | tr '\\0' o & head -c 2000000 /dev/zero | tr '\\0' e >&2; wait"
    result = host.probe(script, limit_s=LIMIT_S)
    assert (result.stdout.count("o"), result.stderr.count("e")) == (2_000_000, 2_000_000)


def test_bytes_that_are_no_text_do_not_break_it(host: HostWriter) -> None:
    """What cannot be decoded is replaced; the rest is there."""
    assert host.probe("printf 'a\\377b'", limit_s=LIMIT_S).stdout == "a\ufffdb"


def test_a_command_has_no_input_to_wait_for(host: HostWriter) -> None:
    """A program that asks a question does not hold the night up: it is ended at its limit."""
    started = time.monotonic()
    with contextlib.suppress(Unreachable):
        host.probe("cat", limit_s=1)
    assert time.monotonic() - started < 15


def test_a_command_that_does_not_end_is_ended_on_the_host(host: HostWriter, far: RunningSshServer) -> None:
    """At its limit it is stopped there, not only given up here; what it did until then, nobody knows."""
    mark = far.folder / f"mark-{time.monotonic_ns()}"
    with pytest.raises(Unknown, match="did not end within its limit of 1 s"):
        host.act(f"echo $$ > {mark}; exec sleep 300", limit_s=1)
    pid = int(mark.read_text())
    until(lambda: not Path(f"/proc/{pid}").exists(), what="the command gone")


# -- a connection that is lost ---------------------------------------------------------------------------------


@pytest.fixture
def relay(far: RunningSshServer) -> Iterator[Relay]:
    made = Relay(far)
    yield made
    made.close()


@contextmanager
def cut_when(mark: Path, relay: Relay) -> Iterator[None]:
    """Cut the link as soon as the command has left its mark."""

    def cutting() -> None:
        until(mark.exists, what=str(mark))
        relay.cut()

    thread = threading.Thread(target=cutting)
    thread.start()
    yield
    thread.join()


def test_an_act_whose_end_was_not_seen_is_unknown_and_done_once(far: RunningSshServer, relay: Relay) -> None:
    """The connection goes away under it: nobody knows, so it is looked up and never started again."""
    host, mark = HostWriter(relay.address), far.folder / f"act-{time.monotonic_ns()}"
    with cut_when(mark, relay), pytest.raises(Unknown, match="connection was lost"):
        host.act(f"echo once >> {mark}; sleep 5", limit_s=LIMIT_S)
    assert host.probe("true", limit_s=LIMIT_S).exit_status == 0, "the next command opens a new connection"
    assert mark.read_text() == "once\n"
    host.close()


def test_a_probe_that_was_cut_off_is_repeated_once(far: RunningSshServer, relay: Relay) -> None:
    """A fresh connection, the same question; what it only reads may be read again."""
    host, mark = HostReader(relay.address), far.folder / f"probe-{time.monotonic_ns()}"
    script = f"if [ -e {mark} ]; then echo second; else echo x > {mark}; sleep 5; fi"
    with cut_when(mark, relay):
        assert host.probe(script, limit_s=LIMIT_S).stdout == "second\n"
    assert host.connections == 2
    host.close()


def test_an_idle_connection_that_died_is_replaced(relay: Relay) -> None:
    """A night is long; an act over a dead connection is not begun there, so it is not unknown."""
    host = HostWriter(relay.address)
    host.probe("true", limit_s=LIMIT_S)
    relay.cut()
    until(lambda: _dead(host), what="the end of the connection noticed")
    assert host.act("echo alive", limit_s=LIMIT_S).stdout == "alive\n"
    host.close()


def _dead(host: HostReader) -> bool:
    transport = host._client.get_transport() if host._client else None
    return transport is None or not transport.is_active()


def test_an_act_on_a_host_that_is_not_there_was_certainly_not_started(
    far: RunningSshServer, relay: Relay
) -> None:
    """Unreachable, not unknown: the caller may decide to wait."""
    relay.close()
    with pytest.raises(Unreachable):
        HostWriter(relay.address).act("true", limit_s=LIMIT_S)


def test_a_command_that_was_killed_there_never_looks_well(host: HostWriter) -> None:
    """Whatever the far end makes of it: a status that is not 0, or no status and so unknown."""
    with contextlib.suppress(Unknown):
        assert host.act("kill -9 $PPID; kill -9 $$", limit_s=LIMIT_S).exit_status != 0


def test_a_server_that_never_greets_is_unreachable_in_time(far: RunningSshServer) -> None:
    """A port that accepts and says nothing does not hold the run."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        (known := far.folder / "silent_known_hosts").write_text(
            far.known_hosts.read_text().replace(str(far.port), str(port))
        )
        reader = HostReader(replace(far.address, port=port, known_hosts=known, connect_s=0.5))
        started = time.monotonic()
        with pytest.raises(Unreachable):
            reader.probe("true", limit_s=LIMIT_S)
        assert time.monotonic() - started < 10


def test_fresh_proves_that_the_host_can_be_reached_now(host: HostWriter, far: RunningSshServer) -> None:
    """An open connection says nothing about the next login; `fresh` asks for one."""
    host.probe("true", limit_s=LIMIT_S)
    host.reconnect()
    host.probe("true", limit_s=LIMIT_S)
    assert host.connections == 2


# -- who is believed -------------------------------------------------------------------------------------------


def test_a_host_key_that_changed_is_the_wrong_host(far: RunningSshServer) -> None:
    """Nothing is run on it, and the message says what to compare."""
    other = key_pair(far.folder / "another_key")
    (known := far.folder / "changed").write_text(f"[127.0.0.1]:{far.port} {other}\n")
    host = HostWriter(replace(far.address, known_hosts=known))
    mark = far.folder / "must-not-be"
    with pytest.raises(WrongHost, match="not the one in") as caught:
        host.act(f"touch {mark}", limit_s=LIMIT_S)
    assert "muster never accepts a key by itself" in caught.value.do
    assert not mark.exists()


def test_a_host_key_that_nobody_pinned_is_the_wrong_host(far: RunningSshServer) -> None:
    """Unknown is not accepted either, and not added to the file."""
    (known := far.folder / "empty").write_text("")
    with pytest.raises(WrongHost, match="its host key is not in"):
        HostReader(replace(far.address, known_hosts=known)).probe("true", limit_s=LIMIT_S)
    assert known.read_text() == ""


def test_a_key_that_the_host_does_not_know_is_refused(far: RunningSshServer) -> None:
    """It says which setting to look at."""
    key_pair(stranger := far.folder / "stranger")
    with pytest.raises(Refused, match="ssh authentication failed") as caught:
        HostReader(replace(far.address, identity_file=stranger)).probe("true", limit_s=LIMIT_S)
    assert "host.user" in caught.value.do


@pytest.mark.parametrize("wrong", ["a folder", "nothing"])
def test_a_known_hosts_that_cannot_be_read_is_a_bad_setting(far: RunningSshServer, wrong: str) -> None:
    """Named by its key in the site file; nothing is contacted."""
    path = far.folder if wrong == "a folder" else far.folder / "no-such-file"
    reader = HostReader(replace(far.address, known_hosts=path))
    with pytest.raises(BadSetting, match=r"host\.known_hosts"):
        reader.probe("true", limit_s=LIMIT_S)


def test_the_operators_ssh_configuration_fills_what_the_site_leaves_open(far: RunningSshServer) -> None:
    """An alias with its port, user and key, as for ``ssh``."""
    config = far.folder / "ssh_config"
    config.write_text(
        f"Host cc-ci\n  HostName 127.0.0.1\n  Port {far.port}\n  User {getpass.getuser()}\n"
        f"  IdentityFile {far.folder / 'id_ed25519'}\n"
    )
    reader = HostReader(HostAddress(address="cc-ci", known_hosts=far.known_hosts, ssh_config=config))
    assert reader.probe("echo here", limit_s=LIMIT_S).stdout == "here\n"
    reader.close()


def test_a_proxy_command_is_used(far: RunningSshServer) -> None:
    """The way a site without an open ssh port is reached."""
    config, mark = far.folder / "proxied", far.folder / "proxy-used"
    relay = far.folder / "relay.py"
    relay.write_text(
        "import socket, sys, threading, os\n"
        f"open({str(mark)!r}, 'w').close()\n"
        "s = socket.create_connection((sys.argv[1], int(sys.argv[2])))\n"
        "def up():\n    while data := os.read(0, 65536):\n        s.sendall(data)\n"
        "threading.Thread(target=up, daemon=True).start()\n"
        "while data := s.recv(65536):\n    os.write(1, data)\n"
    )
    config.write_text(f"Host *\n  ProxyCommand {sys.executable} {relay} %h %p\n")
    reader = HostReader(replace(far.address, ssh_config=config))
    assert reader.probe("echo here", limit_s=LIMIT_S).stdout == "here\n"
    reader.close()
    assert mark.exists()


# -- a session that lasts as long as the run ---------------------------------------------------------------------


def test_what_is_held_ends_with_its_input(host: HostWriter, far: RunningSshServer) -> None:
    """The lock's holder lives and answers while we do, and ends when we let go."""
    held = host.hold("echo $$; exec cat")
    pid = int(held.first_line(limit_s=LIMIT_S))
    assert held.answers(limit_s=LIMIT_S)
    assert held.answers(limit_s=LIMIT_S)
    assert Path(f"/proc/{pid}").exists()
    held.end()
    until(lambda: not Path(f"/proc/{pid}").exists(), what="the holder gone")
    assert not held.answers(limit_s=LIMIT_S)


HOLDER = """
import sys
from pathlib import Path
from fixtures.clients.host import HostAddress, HostWriter
port, user, known, key = sys.argv[1:]
at = {"address": "127.0.0.1", "user": user, "port": int(port)}
host = HostWriter(HostAddress(**at, known_hosts=Path(known), identity_file=Path(key)))
held = host.hold("echo $$; exec cat >/dev/null")
print(held.first_line(limit_s=20), flush=True)
sys.stdin.read()
"""


def test_what_is_held_does_not_outlive_a_killed_run(far: RunningSshServer) -> None:
    """kill -9 here: the process there sees its input end, and a lock with it."""
    words = [str(far.port), getpass.getuser(), str(far.known_hosts), str(far.folder / "id_ed25519")]
    ours = subprocess.Popen(
        [sys.executable, "-c", HOLDER, *words], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert ours.stdout is not None
    pid = int(ours.stdout.readline())
    assert Path(f"/proc/{pid}").exists()
    os.kill(ours.pid, signal.SIGKILL)
    ours.communicate()
    until(lambda: not Path(f"/proc/{pid}").exists(), what="the holder gone")


def test_a_holder_that_says_nothing_is_unreachable_in_time(host: HostWriter) -> None:
    """Its first line has a deadline."""
    held = host.hold("exec cat >/dev/null")
    with pytest.raises(Unreachable):
        held.first_line(limit_s=0.3)
    held.end()


# -- one script, many answers ------------------------------------------------------------------------------------


def answered(host: HostReader, commands: dict[str, str]) -> dict[str, sections.Section]:
    said = host.probe(sections.script(commands), limit_s=LIMIT_S).stdout
    return sections.parse(said, commands, where="host")


def test_each_section_has_its_own_words_and_status(host: HostWriter) -> None:
    """A section that fails is a section with a status, never the end of the script."""
    found = answered(host, {
        "good": "printf 'one\\ntwo\\n'",
        "bad": "echo no such unit >&2; exit 4",
        "missing": "no-such-program-here",
        "killed": "kill -9 $$",
        "quiet": "true",
        "quoted": "echo \"it's $((1 + 1))\"",
    })  # fmt: skip
    assert (found["good"].lines, found["good"].ok) == (["one", "two"], True)
    assert (found["bad"].text, found["bad"].status) == ("no such unit\n", 4)
    assert found["missing"].status == 127
    assert found["killed"].status == 137
    assert (found["quiet"].text, found["quiet"].lines) == ("", [])
    assert found["quoted"].text == "it's 2\n"
    assert (host.sessions, host.connections) == (1, 1)


def test_a_section_cannot_change_the_ones_after_it(host: HostWriter) -> None:
    """cd, exit, set and variables end with their section."""
    found = answered(host, {"first": "cd /; FOO=bar; set -f; exit 0", "second": 'pwd; echo "$FOO"'})
    assert found["second"].lines[0] != "/"
    assert found["second"].text.endswith("\n\n")


@given(
    texts=st.lists(
        st.tuples(
            st.text(st.characters(blacklist_characters="\x1e\x1f", blacklist_categories=["Cs"])),
            st.integers(0, 255),
        ),
        min_size=1,
        max_size=4,
    ),
    data=st.data(),
)
def test_a_cut_answer_is_never_taken_for_a_whole_one(texts: list[tuple[str, int]], data: st.DataObject) -> None:
    """Whole: every section as it was said. Cut anywhere inside: unreachable, or at most the last status is shorter."""
    commands = {f"part-{number}": "" for number in range(len(texts))}
    pieces = [f"\x1e{name}\x1f{text}\x1f{status}" for name, (text, status) in zip(commands, texts, strict=True)]
    whole = "motd\n" + "".join(pieces)
    found = sections.parse(whole, commands, where="host")
    assert [(found[name].text, found[name].status) for name in commands] == texts
    cut = whole[: data.draw(st.integers(0, len(whole) - 1))]
    if len(whole) - len(cut) >= len(str(texts[-1][1])):
        with pytest.raises(Unreachable, match="was cut before"):
            sections.parse(cut, commands, where="host")
