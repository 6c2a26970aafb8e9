"""Which host keys are trusted: known_hosts as OpenSSH reads it, and the same decision as OpenSSH's own client.

The lines are made by hand; the certificates by ``ssh-keygen``'s format through the cryptography library.
"""

from __future__ import annotations

import base64
import getpass
import hmac
import subprocess
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    SSHCertificateBuilder,
    SSHCertificateType,
)

from fixtures.clients.host import HostReader
from fixtures.clients.known_hosts import read_known_host
from fixtures.clients.ssh_config import HostAddress, find_ssh
from fixtures.errors import MusterError, WrongHost
from fixtures.rehearsal.host.sshd import OpenSsh, find_sshd
from tests_meta.clients.ssh_server import RunningSshServer

NAME, PORT = "127.0.0.1", 2222
HOST = f"[{NAME}]:{PORT}"
KEY, OTHER, AUTHORITY = (Ed25519PrivateKey.generate() for _ in range(3))
DAY_S = 86_400


def public(key: Ed25519PrivateKey) -> str:
    """``ssh-ed25519 AAAA…``."""
    return key.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode()


def blob(text: str) -> bytes:
    return base64.b64decode(text.split()[1])


def hashed(name: str) -> str:
    salt = b"s" * 20
    digest = hmac.digest(salt, name.encode(), "sha1")
    return f"|1|{base64.b64encode(salt).decode()}|{base64.b64encode(digest).decode()}"


def certificate(
    *names: str,
    key: Ed25519PrivateKey = KEY,
    kind: SSHCertificateType = SSHCertificateType.HOST,
    after_s: float = -DAY_S,
    before_s: float = DAY_S,
    signer: Ed25519PrivateKey = AUTHORITY,
) -> bytes:
    """A certificate for `key` in wire format, signed by the authority."""
    now = time.time()
    builder = (
        SSHCertificateBuilder()
        .public_key(key.public_key())
        .type(kind)
        .serial(1)
        .key_id(b"host")
        .valid_after(int(now + after_s))
        .valid_before(int(now + before_s))
    )
    builder = (
        builder.valid_principals([name.encode() for name in names])
        if names
        else builder.valid_for_all_principals()  # type: ignore[no-untyped-call]
    )
    return blob(builder.sign(signer).public_bytes().decode())


def judge(
    folder: Path, lines: str | bytes, shown: bytes, *, port: int = PORT, alias: str = "", name: str = NAME
) -> str:
    """The refusal of `shown` with this known_hosts file; empty if it is trusted."""
    file = folder / "known_hosts"
    file.write_bytes(lines if isinstance(lines, bytes) else lines.encode())
    try:
        read_known_host([file], name, port, alias=alias).demand_trusted(shown, where="host x")
    except WrongHost as wrong:
        return wrong.message
    return ""


GOOD = f"{HOST} {public(KEY)}\n"
TRUSTED: dict[str, str | bytes] = {
    "the host's line": GOOD,
    "a line of another host with broken base64": "build ssh-rsa AAAAB3NzaC1yc2EAAAADAQABx\n" + GOOD,
    "a line of another host that is cut off": "build ssh-ed25519 AAAAC3N\n" + GOOD,
    "a line of another host with a malformed key": f"build ecdsa-sha2-nistp256 {public(OTHER).split()[1]}\n{GOOD}",
    "a line with too few words, and an empty one": "build\n\n   \n" + GOOD,
    "a comment that is not UTF-8": b"# Schl\xfcssel\n" + GOOD.encode(),
    "another host's line with bytes that no encoding takes": b"\xfc\xff\x00 ssh-ed25519 \xff\n" + GOOD.encode(),
    "an authority of other hosts": f"@cert-authority *.example.org {public(OTHER)}\n{GOOD}",
    "a revoked key of another host": f"@revoked *.example.org {public(KEY)}\n{GOOD}",
    "another key that is revoked": f"@revoked * {public(OTHER)}\n{GOOD}",
    "a marker that nobody knows": f"@trusted {HOST} {public(OTHER)}\n{GOOD}",
    "two markers on one line": f"@revoked @cert-authority * {public(KEY)}\n{GOOD}",
    "several keys of the host": f"{HOST} {public(OTHER)}\n{GOOD}",
    "several names on the line": f"build,{HOST},10.0.0.1 {public(KEY)} a comment\n",
    "a hashed name": f"{hashed(HOST)} {public(KEY)}\n",
    "hashes that are malformed": f"|1|xx|yy {public(OTHER)}\n|2|a|b {public(OTHER)}\n{GOOD}",
    "a wildcard": f"[127.0.?.*]:{PORT} {public(KEY)}\n",
    "a negation of another host": f"![127.0.0.2]:{PORT},[127.*]:{PORT} {public(KEY)}\n",
    "a name without a port": f"{NAME} {public(KEY)}\n",
    "tabs and a carriage return": f"\t{HOST}\t{public(KEY)}\r\n",
}


@pytest.mark.parametrize("case", TRUSTED)
def test_key_is_trusted_as_openssh_trusts_it(tmp_path: Path, case: str) -> None:
    """A key is trusted by any line that OpenSSH would trust it by; another key is not."""
    assert judge(tmp_path, TRUSTED[case], blob(public(KEY))) == ""
    assert judge(tmp_path, TRUSTED[case], blob(public(AUTHORITY))) != ""


REFUSED = {
    "an empty file": ("", "is not in"),
    "another key": (f"{HOST} {public(OTHER)}\n", "is not the one in"),
    "a key of the port, and ours for every port": (
        f"{NAME} {public(KEY)}\n{HOST} {public(OTHER)}\n",
        "is not the one in",
    ),
    "revoked, then listed": (f"@revoked * {public(KEY)}\n{GOOD}", "is revoked"),
    "listed, then revoked": (f"{GOOD}@revoked * {public(KEY)}\n", "is revoked"),
    "a negated pattern": (f"[127.0.0.*]:{PORT},!{HOST} {public(KEY)}\n", "is not in"),
    "a hash of another name": (f"{hashed('build')} {public(KEY)}\n", "is not in"),
    "another port": (f"[{NAME}]:2223 {public(KEY)}\n", "is not in"),
    "a type that is not the key's": (f"{HOST} ssh-rsa {public(KEY).split()[1]}\n", "is not in"),
    "a marker that nobody knows": (f"@trusted {GOOD}", "is not in"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_key_is_refused_with_its_reason(tmp_path: Path, case: str) -> None:
    """A key that is unknown, changed or revoked is refused, and the sentence says which."""
    lines, words = REFUSED[case]
    said = judge(tmp_path, lines, blob(public(KEY)))
    assert words in said
    assert "SHA256:" in said


def test_revocation_names_the_file_and_the_line(tmp_path: Path) -> None:
    """The refusal of a revoked key names the line that revokes it."""
    said = judge(tmp_path, f"{GOOD}@revoked * {public(KEY)}\n", blob(public(KEY)))
    assert f"{tmp_path / 'known_hosts'}:2 marks" in said


def test_alias_replaces_name_and_port(tmp_path: Path) -> None:
    """With a HostKeyAlias only the alias is looked up, without a port."""
    shown = blob(public(KEY))
    assert judge(tmp_path, f"cc-ci {public(KEY)}\n", shown, alias="cc-ci") == ""
    assert "looked up as cc-ci" in judge(tmp_path, GOOD, shown, alias="cc-ci")


ADDRESS = "192.0.2.7"


@pytest.mark.parametrize(
    ("line", "changed"),
    [
        ("", False),
        (f"[{ADDRESS}]:{PORT} {public(KEY)}", False),
        (f"[{ADDRESS}]:{PORT} {public(OTHER)}", True),
        (f"{ADDRESS} {public(OTHER)}", True),
        (f"{hashed(ADDRESS)} {public(OTHER)}", True),
        (f"[{ADDRESS}]:{PORT} {public(OTHER)}\n[{ADDRESS}]:{PORT} {public(KEY)}", False),
        ("192.0.2.8 " + public(OTHER), False),
    ],
    ids=[
        "none",
        "same",
        "other",
        "other for any port",
        "other, hashed",
        "other, then same",
        "of another address",
    ],
)
def test_check_host_ip_compares_the_key_of_the_address(tmp_path: Path, line: str, changed: bool) -> None:
    """With CheckHostIP a key that is right for the name and another one than the address's is refused."""
    file = tmp_path / "known_hosts"
    file.write_text(f"[cc-ci.example.org]:{PORT} {public(KEY)}\n{line}\n")
    known, shown = read_known_host([file], "cc-ci.example.org", PORT), blob(public(KEY))
    known.demand_trusted(shown, where="host x")
    for address in ("127.0.0.1", "::1", "2001:db8::7"):
        known.demand_unchanged_at(address, PORT, shown, where="host x")
    if not changed:
        known.demand_unchanged_at(ADDRESS, PORT, shown, where="host x")
        return
    with pytest.raises(WrongHost, match=f"CheckHostIP: {ADDRESS}: its host key .* is not the one in"):
        known.demand_unchanged_at(ADDRESS, PORT, shown, where="host x")
    aliased = read_known_host([file], "cc-ci.example.org", PORT, alias="cc-ci")
    aliased.demand_unchanged_at(ADDRESS, PORT, shown, where="host x")


CA = f"@cert-authority {HOST} {public(AUTHORITY)}\n"
CERTIFIED = {
    "for the host's name": (CA, certificate(NAME)),
    "for several names": (CA, certificate("build", NAME)),
    "for every name": (CA, certificate()),
    "by an authority for every port": (f"@cert-authority {NAME} {public(AUTHORITY)}\n", certificate(NAME)),
    "expired, but its key is known": (CA + GOOD, certificate(NAME, before_s=-1)),
    "of a foreign authority, but its key is known": (CA + GOOD, certificate(NAME, signer=OTHER)),
}


@pytest.mark.parametrize("case", CERTIFIED)
def test_certificate_of_a_known_authority_is_trusted(tmp_path: Path, case: str) -> None:
    """A host certificate is trusted by its authority's line, or by its own key's."""
    lines, shown = CERTIFIED[case]
    assert judge(tmp_path, lines, shown) == ""


FOREIGN = certificate(NAME, signer=OTHER)
DOUBTED = {
    "of another authority": (CA, FOREIGN, "is signed by"),
    "for another name": (CA, certificate("build"), "is for build, not for 127.0.0.1"),
    "for a pattern": (CA, certificate("127.*"), "is for 127.*, not for 127.0.0.1"),
    "expired": (CA, certificate(NAME, before_s=-1), "was valid until"),
    "not valid yet": (CA, certificate(NAME, after_s=DAY_S / 2), "is valid from"),
    "of a user": (CA, certificate(NAME, kind=SSHCertificateType.USER), "is a user's"),
    "altered": (CA, certificate(NAME)[:-1] + b"\0", "has no valid signature"),
    "whose authority is revoked": (f"{CA}@revoked * {public(AUTHORITY)}\n", certificate(NAME), "the authority that"),
    "whose key is revoked": (f"{CA}@revoked * {public(KEY)}\n", certificate(NAME), "is revoked"),
    "cut off": (CA, certificate(NAME)[:-40], "is not in"),
    "by a key that is listed as the host's": (f"{HOST} {public(AUTHORITY)}\n", certificate(NAME), "is not the one in"),
}  # fmt: skip


@pytest.mark.parametrize("case", DOUBTED)
def test_certificate_is_refused_with_its_reason(tmp_path: Path, case: str) -> None:
    """A certificate that does not hold for this host now is refused, and the sentence says why."""
    lines, shown, words = DOUBTED[case]
    assert words in judge(tmp_path, lines, shown)


# -- the same decision as ssh's ------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def far(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningSshServer]:
    if find_sshd() is None or find_ssh() is None:
        pytest.skip("OpenSSH's server and client are not installed here")
    made = RunningSshServer(tmp_path_factory.mktemp("far"), "openssh")
    made.start()
    yield made
    made.close()


def both(
    far: RunningSshServer, lines: bytes, config: str = "", *, address: str = NAME, port: bool = True
) -> tuple[bool, bool]:
    """Whether muster, and whether ssh, log in with this known_hosts file and this ssh_config."""
    known, file = far.folder / "known", far.folder / "config"
    known.write_bytes(lines)
    file.write_text(config)
    key, user = far.folder / "id_ed25519", getpass.getuser()
    at = HostAddress(address=address, user=user, known_hosts=known, ssh_config=file, identity_file=key)
    reader = HostReader(replace(at, port=far.port if port else 0))
    try:
        ours = reader.probe("echo here", limit_s=20).stdout == "here\n"
    except MusterError:
        ours = False
    finally:
        reader.close()
    options = ["BatchMode=yes", "StrictHostKeyChecking=yes", f"UserKnownHostsFile={known}", f"IdentityFile={key}"]
    words = ["ssh", "-F", str(file), *(word for option in options for word in ("-o", option)), "-l", user]
    words += ["-p", str(far.port)] if port else []
    done = subprocess.run([*words, address, "echo here"], capture_output=True, check=False)
    return ours, done.returncode == 0


def real_lines(far: RunningSshServer, case: str) -> bytes:
    """The lines of a case for the key and port of a running server."""
    lines = {**TRUSTED, **{name: text for name, (text, _) in REFUSED.items()}}[case]
    data = lines if isinstance(lines, bytes) else lines.encode()
    real = f"[{NAME}]:{far.port}"
    theirs = far.known_hosts.read_text().split(" ", 1)[1].strip()
    data = data.replace(hashed(HOST).encode(), hashed(real).encode())
    return data.replace(public(KEY).encode(), theirs.encode()).replace(str(PORT).encode(), str(far.port).encode())


SAME_AS_SSH = ["the host's line", "a line of another host with a malformed key", "a hashed name", "a wildcard",
               "a name without a port", "another host's line with bytes that no encoding takes",
               "two markers on one line", "listed, then revoked", "a negated pattern",
               "a key of the port, and ours for every port"]  # fmt: skip


@pytest.mark.parametrize("case", SAME_AS_SSH)
def test_known_hosts_lead_to_the_decision_of_ssh(far: RunningSshServer, case: str) -> None:
    """With the same known_hosts file, muster and ssh both log in, or neither does."""
    ours, theirs = both(far, real_lines(far, case))
    assert (ours, theirs) == ((True, True) if case in TRUSTED else (False, False))


class CertifiedSshd(OpenSsh):
    """An sshd that shows the certificate beside its host key."""

    def _config(self, *, penalties: bool) -> str:
        return super()._config(penalties=penalties) + f"HostCertificate {self._host_key}-cert.pub\n"


def test_certificate_of_an_authority_leads_to_the_decision_of_ssh(tmp_path: Path) -> None:
    """A real sshd with a host certificate is trusted by muster and by ssh, without a line for its key."""
    if find_sshd() is None or find_ssh() is None:
        pytest.skip("OpenSSH's server and client are not installed here")
    far = RunningSshServer(tmp_path, "openssh")
    signer, key = tmp_path / "authority", far.host_key
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(signer)], check=True)
    words = ["ssh-keygen", "-q", "-s", str(signer), "-I", "host", "-h", "-n", NAME, f"{key}.pub"]
    Path(f"{key}.pub").write_text(far.known_hosts.read_text().split(" ", 1)[1])
    subprocess.run(words, check=True, capture_output=True)
    far.server = CertifiedSshd(far.paths, port=far.port, host_key=key)
    far.start()
    trusted = f"@cert-authority [{NAME}]:{far.port} {Path(f'{signer}.pub').read_text()}"
    try:
        assert both(far, trusted.encode()) == (True, True)
        assert both(far, trusted.replace(NAME, "127.0.0.2").encode()) == (False, False)
    finally:
        far.close()
