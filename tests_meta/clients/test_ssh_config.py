"""The route to the host: what ``ssh -G`` says where OpenSSH's client is installed, and paramiko's parser elsewhere."""

from __future__ import annotations

import getpass
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    load_ssh_private_key,
)

from fixtures.clients import ssh_config
from fixtures.clients.host import HostReader
from fixtures.clients.ssh_config import HostAddress, Route, find_route, find_ssh
from fixtures.errors import BadSetting, MusterError, Refused, Unreachable, WrongHost
from fixtures.rehearsal.host.sshd import find_sshd
from tests_meta.clients.ssh_server import RunningSshServer

LIMIT_S = 20.0
needs_ssh = pytest.mark.skipif(find_ssh() is None, reason="ssh is not installed here")


@pytest.fixture(params=["ssh", "paramiko"])
def parser(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """The program that evaluates the configuration."""
    kind = str(request.param)
    if kind == "paramiko":
        monkeypatch.setattr(ssh_config, "find_ssh", lambda: None)
    elif find_ssh() is None:
        pytest.skip("ssh is not installed here")
    return kind


@pytest.fixture
def without_ssh(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ssh_config, "find_ssh", lambda: None)


def route_of(folder: Path, config: str, *, address: str = "cc-ci", user: str = "", port: int = 0) -> Route:
    file, known = folder / "ssh_config", folder / "known_hosts"
    file.write_text(config)
    known.touch()
    return find_route(
        HostAddress(address=address, user=user, port=port, ssh_config=file, known_hosts=known, connect_s=5.0)
    )


@pytest.mark.usefixtures("parser")
def test_alias_supplies_name_port_user_and_keys(tmp_path: Path) -> None:
    """HostName, Port, User, IdentityFile, IdentitiesOnly, HostKeyAlias and BindAddress come from the Host block."""
    (tmp_path / "key").touch()
    route = route_of(
        tmp_path,
        f"Host cc-ci\n  HostName 192.0.2.7\n  Port 2222\n  User deploy\n  IdentityFile {tmp_path}/key\n"
        "  IdentitiesOnly yes\n  HostKeyAlias box\n  BindAddress 127.0.0.1\n  AddressFamily inet\n",
    )
    assert (route.name, route.port, route.user, route.known_as) == ("192.0.2.7", 2222, "deploy", "box")
    assert (route.identities, route.only_identities) == ((tmp_path / "key",), True)
    assert (route.bind_address, route.command) == ("127.0.0.1", "")


@pytest.mark.usefixtures("parser")
def test_check_host_ip_is_taken_over(tmp_path: Path) -> None:
    """CheckHostIP is followed where the configuration asks for it; newer versions of ssh do not by default."""
    assert route_of(tmp_path, "Host cc-ci\n  CheckHostIP yes\n").check_host_ip
    assert not route_of(tmp_path, "Host cc-ci\n  CheckHostIP no\n").check_host_ip


@pytest.mark.usefixtures("parser")
def test_site_file_takes_precedence(tmp_path: Path) -> None:
    """User and port of the site file replace those of the configuration, as ``ssh -l -p`` do."""
    config = "Host cc-ci\n  Port 2222\n  User deploy\n"
    route = route_of(tmp_path, config, user="root", port=2022)
    assert (route.user, route.port, route.known_as) == ("root", 2022, "[cc-ci]:2022")


@pytest.mark.usefixtures("parser")
def test_user_is_root_where_nothing_names_one(tmp_path: Path) -> None:
    """Without a user in the site file and in the configuration, muster logs in as root on port 22."""
    route = route_of(tmp_path, "")
    assert (route.user, route.port, route.name, route.known_as) == ("root", 22, "cc-ci", "cc-ci")


@pytest.mark.usefixtures("parser")
def test_proxy_command_has_its_tokens_replaced(tmp_path: Path) -> None:
    """%h, %p and %r of a ProxyCommand are the host's name, port and user; `none` is no ProxyCommand."""
    config = "Host cc-ci\n  HostName box\n  Port 2222\n  User deploy\n  ProxyCommand nc -x gate %h %p %r\n"
    assert route_of(tmp_path, config).command == "nc -x gate box 2222 deploy"
    assert route_of(tmp_path, "ProxyCommand none\n").command == ""


@needs_ssh
def test_include_and_match_are_evaluated_by_ssh(tmp_path: Path) -> None:
    """A Host block of an included file and a Match exec count as they do for ssh."""
    (tmp_path / "included").write_text("Host cc-ci\n  HostName 192.0.2.7\n")
    config = f'Include {tmp_path}/included\nMatch originalhost cc-ci exec "test 1 = 1"\n  Port 2222\n'
    route = route_of(tmp_path, config)
    assert (route.name, route.port) == ("192.0.2.7", 2222)


@needs_ssh
def test_known_hosts_files_of_the_configuration_are_used(tmp_path: Path) -> None:
    """Without known_hosts in the site file, UserKnownHostsFile and GlobalKnownHostsFile are read, where they exist."""
    for name in ("user", "global"):
        (tmp_path / name).touch()
    config = tmp_path / "config"
    config.write_text(
        f"UserKnownHostsFile {tmp_path}/user {tmp_path}/nowhere\nGlobalKnownHostsFile {tmp_path}/global\n"
    )
    route = find_route(HostAddress(address="cc-ci", ssh_config=config))
    assert route.known.files == (tmp_path / "user", tmp_path / "global")


@needs_ssh
def test_configuration_that_ssh_refuses_is_a_bad_setting(tmp_path: Path) -> None:
    """A configuration that ssh does not accept is refused with ssh's own words and the command that shows them."""
    with pytest.raises(BadSetting, match=r"line 1: Bad configuration option: nonsense") as caught:
        route_of(tmp_path, "Nonsense yes\n")
    assert "ssh -G -F" in caught.value.do


@pytest.mark.usefixtures("without_ssh")
@pytest.mark.parametrize(
    ("config", "named"),
    [
        ("Include FOLDER/includ*\n", "Include"),
        ('Match exec "true"\n  Port 1\n', "Match exec"),
        ("Match localnetwork 10.0.0.0/8\n  Port 1\n", "Match localnetwork"),
        ("match !tagged lan\n  Port 1\n", "Match tagged"),
        ("Match originalhost cc-ci host=x tagged=lan\n  Port 1\n", "Match tagged"),
        ("ProxyJump gate\n", "proxyjump"),
        ("CanonicalizeHostname yes\nCanonicalDomains example.org\n", "canonicalizehostname"),
    ],
)
def test_setting_that_only_ssh_evaluates_is_named(tmp_path: Path, config: str, named: str) -> None:
    """Without OpenSSH's client, a setting that its parser alone evaluates is an error that names it."""
    (tmp_path / "included").write_text("Port 1\n")
    with pytest.raises(BadSetting, match=named) as caught:
        route_of(tmp_path, config.replace("FOLDER", str(tmp_path)))
    assert "OpenSSH's client" in str(caught.value)


@pytest.mark.usefixtures("without_ssh")
def test_include_that_matches_no_file_needs_no_ssh(tmp_path: Path) -> None:
    """An Include of an empty folder, as in Debian's own configuration, changes nothing."""
    route = route_of(tmp_path, f"Include {tmp_path}/none/*.conf\nHostName box\n")
    assert route.name == "box"


@pytest.mark.usefixtures("without_ssh")
def test_plain_match_is_evaluated_without_ssh(tmp_path: Path) -> None:
    """Match with host, originalhost and user needs no ssh; a block for another host does not count."""
    config = "Match originalhost cc-ci\n  HostName box\nMatch host box user root\n  Port 2222\nMatch host y\n  Port 3\n"
    route = route_of(tmp_path, config, user="root")
    assert (route.name, route.port) == ("box", 2222)


@pytest.mark.usefixtures("parser")
@pytest.mark.parametrize(
    "line",
    [
        "KnownHostsCommand /bin/false",
        "RevokedHostKeys /etc/revoked",
        "PubkeyAuthentication no",
        "ProxyUseFdpass yes",
    ],
)
def test_setting_that_muster_cannot_follow_is_named(tmp_path: Path, line: str) -> None:
    """A setting that decides which key is trusted, or how to log in, and that muster cannot follow is an error."""
    with pytest.raises(BadSetting, match=line.split()[0].lower()):
        route_of(tmp_path, f"{line}\n")
    assert route_of(tmp_path, f"Host other\n  {line}\n").name == "cc-ci", (
        "the block of another host does not count"
    )


@pytest.mark.usefixtures("without_ssh")
def test_configuration_with_bytes_of_another_encoding_is_read(tmp_path: Path) -> None:
    """A comment in Latin-1 and a byte-order mark do not prevent the rest from being read."""
    (tmp_path / "known_hosts").touch()
    file = tmp_path / "config"
    file.write_bytes(b"\xef\xbb\xbf# Schl\xfcssel\r\nHost cc-ci\r\n  Port 2222\r\n")
    assert (
        find_route(HostAddress(address="cc-ci", ssh_config=file, known_hosts=tmp_path / "known_hosts")).port
        == 2222
    )


# -- over a real connection ----------------------------------------------------------------------------------


@pytest.fixture(scope="module", params=["paramiko", "openssh"])
def far(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningSshServer]:
    if request.param == "openssh" and find_sshd() is None:
        pytest.skip("sshd is not installed here")
    made = RunningSshServer(tmp_path_factory.mktemp(request.param), request.param)
    made.start()
    yield made
    made.close()


def visit(at: HostAddress) -> str:
    """The output of a command on the host."""
    reader = HostReader(at)
    try:
        return reader.probe("echo here", limit_s=LIMIT_S).stdout
    finally:
        reader.close()


def test_host_behind_an_include_and_an_alias_is_reached(far: RunningSshServer, tmp_path: Path) -> None:
    """A Host block in an included file with HostKeyAlias, Port, User and IdentityFile leads to the host."""
    if find_ssh() is None:
        pytest.skip("ssh is not installed here")
    included, known = tmp_path / "included", tmp_path / "known_hosts"
    included.write_text(
        f"Host box\n  HostName 127.0.0.1\n  Port {far.port}\n  User {getpass.getuser()}\n  HostKeyAlias cc-ci\n"
        f"  IdentityFile {far.folder}/id_ed25519\n  UserKnownHostsFile {known}\n"
    )
    (tmp_path / "config").write_text(f"Include {included}\n")
    at = HostAddress(address="box", user=getpass.getuser(), ssh_config=tmp_path / "config")
    known.write_text(far.known_hosts.read_text())
    with pytest.raises(WrongHost, match="looked up as cc-ci"):
        visit(at)
    known.write_text("cc-ci " + far.known_hosts.read_text().split(" ", 1)[1])
    assert visit(at) == "here\n"


def test_failing_proxy_command_is_named_with_its_words(far: RunningSshServer, tmp_path: Path) -> None:
    """If the ProxyCommand fails, the error has the command and what it printed on stderr."""
    config = tmp_path / "config"
    config.write_text("ProxyCommand sh -c 'echo no route today >&2; exit 3'\n")
    at = HostAddress(**{**vars(far.address), "ssh_config": config})
    with pytest.raises(Unreachable, match=r"no ssh connection .*ProxyCommand \(sh .*said: no route today"):
        visit(at)


@pytest.mark.parametrize("own", [True, False])
def test_unresolvable_name_is_named_as_such(far: RunningSshServer, tmp_path: Path, own: bool) -> None:
    """A name that does not resolve is an error about the name: of the site file, or of the ssh configuration."""
    (tmp_path / "config").write_text("" if own else "Host nowhere\n  HostName nowhere.invalid\n")
    values = {"address": "nowhere.invalid" if own else "nowhere", "ssh_config": tmp_path / "config"}
    with pytest.raises(Unreachable, match=r"The name nowhere\.invalid cannot be resolved") as caught:
        visit(HostAddress(**{**vars(far.address), **values}))
    assert ("host.address" in caught.value.do) is own


def _locked() -> bytes:
    lock = BestAvailableEncryption(b"secret")
    return Ed25519PrivateKey.generate().private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, lock)


def _change(change: Callable[[bytes], bytes]) -> Callable[[Path], object]:
    return lambda key: key.write_bytes(change(key.read_bytes()))


def _to_folder(key: Path) -> None:
    key.unlink()
    key.mkdir()


UNKNOWN = "is no RSA, ECDSA or Ed25519 key"
BAD_KEYS: dict[str, tuple[Callable[[Path], object], str]] = {
    "a public key": (_change(lambda _: b"ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIA me\n"), "is a public key"),
    "a key of PuTTY": (_change(lambda _: b"PuTTY-User-Key-File-3: ssh-ed25519\n"), "is a key of PuTTY"),
    "a passphrase": (_change(lambda _: _locked()), "has a passphrase and is not in ssh-agent: ssh-add"),
    "readable by others": (lambda key: key.chmod(0o644), "may be read by other users (mode 0644)"),
    "empty": (_change(lambda _: b""), "is no private key"),
    "binary": (_change(lambda _: b"\xff\x00"), "is no private key"),
    "cut off": (_change(lambda data: data[:120]), UNKNOWN),
    "malformed": (_change(lambda data: data.replace(b"b3Bl", b"AAAA")), UNKNOWN),
    "a directory": (_to_folder, "cannot be read"),
}


@pytest.mark.parametrize("case", BAD_KEYS)
def test_unusable_key_is_named_with_its_reason(far: RunningSshServer, tmp_path: Path, case: str) -> None:
    """A key file that cannot be used ends in one sentence with the file and the reason; the login is not tried."""
    spoil, words = BAD_KEYS[case]
    key = tmp_path / "key"
    key.write_bytes((far.folder / "id_ed25519").read_bytes())
    key.chmod(0o600)
    spoil(key)
    with pytest.raises(Refused, match="there is no usable key") as caught:
        visit(HostAddress(**{**vars(far.address), "identity_file": key}))
    assert words in caught.value.message
    assert str(key) in caught.value.message
    assert "\n" not in str(caught.value)


def test_agent_that_is_gone_is_named(
    far: RunningSshServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A socket of an agent that has ended is named in the refusal."""
    monkeypatch.setenv("SSH_AUTH_SOCK", str(tmp_path / "gone"))
    (tmp_path / "config").write_text("IdentityFile none\n")
    with pytest.raises(MusterError, match=r"ssh-agent at .*gone does not answer"):
        visit(HostAddress(**{**vars(far.address), "identity_file": None, "ssh_config": tmp_path / "config"}))


def test_key_with_a_passphrase_is_used_from_the_agent(
    far: RunningSshServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An identity file with a passphrase is no obstacle if ssh-agent holds its key; its public half says which."""
    if shutil.which("ssh-agent") is None:
        pytest.skip("ssh-agent is not installed here")
    place, key = tmp_path / "agent", tmp_path / "key"
    plain = load_ssh_private_key((far.folder / "id_ed25519").read_bytes(), None)
    assert isinstance(plain, Ed25519PrivateKey)
    lock = BestAvailableEncryption(b"secret")
    key.write_bytes(plain.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, lock))
    key.chmod(0o600)
    agent = subprocess.Popen(["ssh-agent", "-D", "-a", str(place)], stdout=subprocess.PIPE)
    try:
        assert agent.stdout is not None
        agent.stdout.readline()  # printed when it listens
        monkeypatch.setenv("SSH_AUTH_SOCK", str(place))
        subprocess.run(["ssh-add", "-q", str(far.folder / "id_ed25519")], check=True, capture_output=True)
        assert visit(HostAddress(**{**vars(far.address), "identity_file": key})) == "here\n"
    finally:
        agent.terminate()
        agent.communicate()
