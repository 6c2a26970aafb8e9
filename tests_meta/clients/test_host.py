"""The host client over a real ssh connection: repeated probes, acts made once, host keys, and the probe script.

The same tests run against paramiko's server, and against OpenSSH's sshd if it is installed.
"""

from __future__ import annotations

import base64
import contextlib
import getpass
import os
import re
import shlex
import shutil
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
from fixtures.clients.host import HostReader, HostWriter, shell_command
from fixtures.clients.ssh_config import HostAddress
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


def test_result_has_status_outputs_and_duration(host: HostWriter) -> None:
    """A result has the exit status, both outputs and the duration; a status other than 0 raises nothing."""
    result = host.probe("echo out; echo err >&2; exit 3", limit_s=LIMIT_S)
    assert (result.exit_status, result.stdout, result.stderr) == (3, "out\n", "err\n")
    assert 0 <= result.seconds < LIMIT_S


def test_commands_share_one_connection(host: HostWriter) -> None:
    """Each command is a session on the same connection; both are counted."""
    for number in range(5):
        assert host.probe(f"echo {number}", limit_s=LIMIT_S).stdout == f"{number}\n"
    assert (host.connections, host.sessions) == (1, 5)


@pytest.mark.parametrize(
    "text",
    ["it's", 'a "b" c', "$HOME `id` $(id)", "back\\slash", "two\nlines", "ünï ☃", "; exit 9 #", "*", "-n"],
)
def test_quoted_words_arrive_unchanged(host: HostWriter, text: str) -> None:
    """Quoted text passes our quoting, the login shell and /bin/sh without any expansion."""
    assert host.probe(f"printf %s {shlex.quote(text)}", limit_s=LIMIT_S).stdout == text


def test_large_output_on_both_streams_does_not_deadlock(host: HostWriter) -> None:
    """Large outputs on stdout and stderr arrive completely."""
    script = "head -c 2000000 /dev/zero | tr '\\0' o & head -c 2000000 /dev/zero | tr '\\0' e >&2; wait"
    result = host.probe(script, limit_s=LIMIT_S)
    assert (result.stdout.count("o"), result.stderr.count("e")) == (2_000_000, 2_000_000)


def test_undecodable_output_is_replaced(host: HostWriter) -> None:
    """Bytes that are not UTF-8 are replaced; the rest of the output is kept."""
    assert host.probe("printf 'a\\377b'", limit_s=LIMIT_S).stdout == "a\ufffdb"


def test_command_that_waits_for_input_ends_at_its_limit(host: HostWriter) -> None:
    """A command that reads from standard input ends at its time limit."""
    started = time.monotonic()
    with contextlib.suppress(Unreachable):
        host.probe("cat", limit_s=1)
    assert time.monotonic() - started < 15


def test_command_is_killed_on_the_host_at_its_limit(host: HostWriter, far: RunningSshServer) -> None:
    """At its time limit a command is killed on the host, and an act raises `Unknown`."""
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


def test_act_with_a_lost_connection_is_unknown_and_not_repeated(far: RunningSshServer, relay: Relay) -> None:
    """If the connection is lost during an act, it raises `Unknown` and is not started again."""
    host, mark = HostWriter(relay.address), far.folder / f"act-{time.monotonic_ns()}"
    with cut_when(mark, relay), pytest.raises(Unknown, match="connection was lost"):
        host.act(f"echo once >> {mark}; sleep 5", limit_s=LIMIT_S)
    assert host.probe("true", limit_s=LIMIT_S).exit_status == 0, "the next command opens a new connection"
    assert mark.read_text() == "once\n"
    host.close()


def test_probe_with_a_lost_connection_is_repeated_once(far: RunningSshServer, relay: Relay) -> None:
    """If the connection is lost during a probe, the probe is repeated over a new connection."""
    host, mark = HostReader(relay.address), far.folder / f"probe-{time.monotonic_ns()}"
    script = f"if [ -e {mark} ]; then echo second; else echo x > {mark}; sleep 5; fi"
    with cut_when(mark, relay):
        assert host.probe(script, limit_s=LIMIT_S).stdout == "second\n"
    assert host.connections == 2
    host.close()


def test_dead_idle_connection_is_replaced(relay: Relay) -> None:
    """An act does not start over a dead connection; it connects again and succeeds."""
    host = HostWriter(relay.address)
    host.probe("true", limit_s=LIMIT_S)
    relay.cut()
    until(lambda: _dead(host), what="the end of the connection noticed")
    assert host.act("echo alive", limit_s=LIMIT_S).stdout == "alive\n"
    host.close()


def _dead(host: HostReader) -> bool:
    return host._connection is None or not host._connection.alive


def test_act_on_an_unreachable_host_was_not_started(far: RunningSshServer, relay: Relay) -> None:
    """An act on an unreachable host raises `Unreachable`, not `Unknown`, because it was not started."""
    relay.close()
    with pytest.raises(Unreachable):
        HostWriter(relay.address).act("true", limit_s=LIMIT_S)


def test_killed_command_is_never_a_success(host: HostWriter) -> None:
    """A command killed on the host has a status other than 0, or raises `Unknown`."""
    with contextlib.suppress(Unknown):
        assert host.act("kill -9 $PPID; kill -9 $$", limit_s=LIMIT_S).exit_status != 0


def test_server_without_a_greeting_is_unreachable_in_time(far: RunningSshServer) -> None:
    """A port that accepts and stays silent raises `Unreachable` within the time limit."""
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


def test_reconnect_needs_a_new_login(host: HostWriter, far: RunningSshServer) -> None:
    """After `reconnect` the next session makes a new connection and fails if the host is unreachable."""
    host.probe("true", limit_s=LIMIT_S)
    host.reconnect()
    host.probe("true", limit_s=LIMIT_S)
    assert host.connections == 2


# -- who is believed -------------------------------------------------------------------------------------------


def test_changed_host_key_is_the_wrong_host(far: RunningSshServer) -> None:
    """A changed host key raises `WrongHost` with a remedy, and nothing is run."""
    other = key_pair(far.folder / "another_key")
    (known := far.folder / "changed").write_text(f"[127.0.0.1]:{far.port} {other}\n")
    host = HostWriter(replace(far.address, known_hosts=known))
    mark = far.folder / "must-not-be"
    with pytest.raises(WrongHost, match="not the one in") as caught:
        host.act(f"touch {mark}", limit_s=LIMIT_S)
    assert "muster never accepts a key by itself" in caught.value.do
    assert not mark.exists()


def test_unknown_host_key_is_the_wrong_host(far: RunningSshServer) -> None:
    """An unknown host key raises `WrongHost` and is not added to known_hosts."""
    (known := far.folder / "empty").write_text("")
    with pytest.raises(WrongHost, match="its host key is not in"):
        HostReader(replace(far.address, known_hosts=known)).probe("true", limit_s=LIMIT_S)
    assert known.read_text() == ""


def test_unauthorised_key_is_refused(far: RunningSshServer) -> None:
    """A key that the host does not accept raises `Refused` and names the setting to check."""
    key_pair(stranger := far.folder / "stranger")
    with pytest.raises(Refused, match="ssh authentication failed") as caught:
        HostReader(replace(far.address, identity_file=stranger)).probe("true", limit_s=LIMIT_S)
    assert "host.user" in caught.value.do


@pytest.mark.parametrize("wrong", ["a folder", "nothing"])
def test_unreadable_known_hosts_is_a_bad_setting(far: RunningSshServer, wrong: str) -> None:
    """An unreadable known_hosts raises `BadSetting` with its key in the site file; nothing is contacted."""
    path = far.folder if wrong == "a folder" else far.folder / "no-such-file"
    reader = HostReader(replace(far.address, known_hosts=path))
    with pytest.raises(BadSetting, match=r"host\.known_hosts"):
        reader.probe("true", limit_s=LIMIT_S)


def test_ssh_configuration_completes_the_site_file(far: RunningSshServer) -> None:
    """An alias of the operator's ssh configuration supplies port, user and key, as for ``ssh``."""
    config = far.folder / "ssh_config"
    config.write_text(
        f"Host cc-ci\n  HostName 127.0.0.1\n  Port {far.port}\n  User {getpass.getuser()}\n"
        f"  IdentityFile {far.folder / 'id_ed25519'}\n"
    )
    reader = HostReader(HostAddress(address="cc-ci", known_hosts=far.known_hosts, ssh_config=config))
    assert reader.probe("echo here", limit_s=LIMIT_S).stdout == "here\n"
    reader.close()


def test_proxy_command_is_used(far: RunningSshServer) -> None:
    """The connection is made by the ProxyCommand of the ssh configuration."""
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


def test_held_script_ends_when_its_input_is_closed(host: HostWriter, far: RunningSshServer) -> None:
    """A held script answers while it is held, and ends after `end`."""
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
from fixtures.clients.host import HostWriter
from fixtures.clients.ssh_config import HostAddress
port, user, known, key = sys.argv[1:]
at = {"address": "127.0.0.1", "user": user, "port": int(port)}
host = HostWriter(HostAddress(**at, known_hosts=Path(known), identity_file=Path(key)))
held = host.hold("echo $$; exec cat >/dev/null")
print(held.first_line(limit_s=20), flush=True)
sys.stdin.read()
"""


def test_held_script_ends_when_the_run_is_killed(far: RunningSshServer) -> None:
    """After SIGKILL of the local process the held script on the host ends too."""
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


def test_silent_held_script_is_unreachable_in_time(host: HostWriter) -> None:
    """The first line of a held script has a time limit."""
    held = host.hold("exec cat >/dev/null")
    with pytest.raises(Unreachable):
        held.first_line(limit_s=0.3)
    held.end()


# -- one script, many answers ------------------------------------------------------------------------------------


def answered(host: HostReader, commands: dict[str, str]) -> dict[str, sections.Section]:
    said = host.probe(sections.script(commands), limit_s=LIMIT_S).stdout
    return sections.parse(said, commands, where="host")


def test_each_section_has_its_own_output_and_status(host: HostWriter) -> None:
    """A failing section has its status, and the following sections still run."""
    found = answered(host, {
        "good": "printf 'one\\ntwo\\n'",
        "bad": "echo no such unit >&2; exit 4",
        "missing": "no-such-program-here",
        "killed": "kill -9 $$",
        "quiet": "true",
        "quoted": "echo \"it's $((1 + 1))\"",
    })  # fmt: skip
    assert (found["good"].lines, found["good"].ok) == (["one", "two"], True)
    assert (found["bad"].text, found["bad"].error, found["bad"].status) == ("", "no such unit\n", 4)
    assert found["missing"].status == 127
    assert found["killed"].status == 137
    assert (found["quiet"].text, found["quiet"].lines) == ("", [])
    assert found["quoted"].text == "it's 2\n"
    assert (host.sessions, host.connections) == (1, 1)


def test_sections_do_not_affect_each_other(host: HostWriter) -> None:
    """cd, exit, set and variables of a section do not affect the next one."""
    found = answered(host, {"first": "cd /; FOO=bar; set -f; exit 0", "second": 'pwd; echo "$FOO"'})
    assert found["second"].lines[0] != "/"
    assert found["second"].text.endswith("\n\n")


def test_a_warning_on_stderr_is_no_part_of_the_answer(host: HostWriter) -> None:
    """Docker's client warns with every command and works: the answer on stdout is whole."""
    found = answered(host, {"docker": "echo 'WARNING: Error loading config file' >&2; echo '[{}]'"})
    assert (found["docker"].text, found["docker"].ok) == ("[{}]\n", True)
    assert found["docker"].error == "WARNING: Error loading config file\n"


def test_every_byte_passes_through_a_section(host: HostWriter) -> None:
    """A log holds control characters, NUL, invalid UTF-8 and even the text of a section's line."""
    everything = "".join(f"\\{byte:03o}" for byte in range(256))
    found = answered(
        host,
        {"bytes": f"printf '{everything}'", "forged": "printf '\\n@section after MA== .\\n'", "after": "echo 1"},
    )
    assert found["bytes"].data == bytes(range(256))
    assert found["after"].text == "1\n"


def test_a_greeting_before_the_answer_is_ignored() -> None:
    """root's .bashrc greets every session on stdout, without a line break at its end."""
    said = "Welcome to nixos, 3 updates pending" + _line("part", b"text", b"", 0)
    assert sections.parse(said, {"part": ""}, where="host")["part"].text == "text"


def _line(name: str, out: bytes, error: bytes, status: int) -> str:
    encoded = (base64.b64encode(one).decode() for one in (out + b" %d" % status, error))
    return f"\n@section {name} {' '.join(encoded)} .\n"


@given(
    texts=st.lists(st.tuples(st.binary(), st.binary(), st.integers(0, 255)), min_size=1, max_size=4),
    data=st.data(),
)
def test_truncated_probe_output_is_rejected(texts: list[tuple[bytes, bytes, int]], data: st.DataObject) -> None:
    """Truncated output raises `Unreachable`; complete output is parsed."""
    commands = {f"part-{number}": "" for number in range(len(texts))}
    whole = "motd\n" + "".join(_line(name, *parts) for name, parts in zip(commands, texts, strict=True))
    found = sections.parse(whole, commands, where="host")
    seen = [(found[name].data, found[name].error, found[name].status) for name in commands]
    assert seen == [(out, error.decode(errors="replace"), status) for out, error, status in texts]
    cut = whole[: data.draw(st.integers(0, len(whole) - 2))]
    with pytest.raises(Unreachable, match="was cut before"):
        sections.parse(cut, commands, where="host")


def test_what_a_login_shell_prints_is_no_output_of_a_command(far: RunningSshServer) -> None:
    """What a login shell prints before and after a command, on both streams, is no part of the command's output."""
    session = far.paths.libexec / "session"
    quiet = session.read_text()
    talking = quiet.replace("exec ", "")
    session.write_text(
        f"printf 'Welcome, 3 updates pending'; echo 'last login: today' >&2\n{talking}\nleft=$?\n"
        "echo 'good bye'; echo 'logged out' >&2; exit $left\n"
    )
    reader = HostReader(far.address)
    try:
        result = reader.probe("echo answer; echo warning >&2; exit 7", limit_s=LIMIT_S)
        held = HostWriter(far.address).hold("echo '@own held'; exec cat >/dev/null")
        first = held.first_line(limit_s=LIMIT_S, marker="@own ")
        held.end()
    finally:
        reader.close()
        session.write_text(quiet)
    assert (result.stdout, result.stderr, result.exit_status) == ("answer\n", "warning\n", 7)
    assert first == "held"


def test_output_with_any_bytes_is_whole(host: HostWriter) -> None:
    """NUL bytes, a line of a megabyte, invalid UTF-8 and text that looks like a frame are output like any other."""
    found = answered(host, {
        "nul": "printf 'a\\000b'",
        "long": "head -c 1000000 /dev/zero | tr '\\0' x; echo; echo end",
        "broken": "printf '\\377\\376 \\303'",
        "framed": "printf '\\n@section nul AAAA AAAA .\\n@muster-begin\\n\\036'",
        "after": "echo after",
    })  # fmt: skip
    assert found["nul"].data == b"a\0b"
    assert [len(line) for line in found["long"].lines] == [1_000_000, 3]
    assert found["broken"].data == b"\xff\xfe \xc3"
    assert found["framed"].data == b"\n@section nul AAAA AAAA .\n@muster-begin\n\x1e"
    assert found["after"].lines == ["after"]
    assert host.probe("printf 'a\\000b\\n@muster-0\\n'", limit_s=LIMIT_S).stdout == "a\0b\n@muster-0\n"


SCRIPT = """printf '%s\\n' "it's" 'back\\slash' '\\' "\\\\" '!!' 'ünï'; exit 3"""


@pytest.mark.parametrize("shell", ["sh", "bash", "dash", "zsh", "fish", "tcsh", "busybox"])
def test_script_means_the_same_under_any_login_shell(shell: str) -> None:
    """What a login shell sees of a script has no sign that shells read differently; those that are here agree on it."""
    command = shell_command(SCRIPT)
    assert re.fullmatch(r"""/bin/sh -c 'eval "\$\(echo [A-Za-z0-9+/=]+ \| base64 -d\)"'""", command)
    if program := shutil.which(shell):
        words = [program, "sh", "-c"] if shell == "busybox" else [program, "-c"]
        done = subprocess.run([*words, command], capture_output=True, check=False)
        expected = ["it's", "back\\slash", "\\", "\\", "!!", "ünï"]
        assert (done.stdout.decode().splitlines(), done.returncode) == (expected, 3), done.stderr
