"""`python -m fixtures check`: one thing wrong at a time, and what the check says about exactly that.

The world is the night's, running; each site file is its own. The checks of one part run in this process.
"""

from __future__ import annotations

import re
import secrets
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from fixtures.preflight.site_check.command import check
from fixtures.rehearsal.forge_embedded.store import Store
from fixtures.rehearsal.host.keys import key_pair
from fixtures.rehearsal.tls import ensure
from fixtures.rehearsal.world import free_ports
from tests_meta.clients.http_server import Answer, HttpServer, serving
from tests_meta.muster_runs import ROOT, WorldPool, environment
from tests_meta.world_view import WorldView

Change = tuple[str, str]
FORGE_TOKEN, DRONE_TOKEN = 'token = { file = "secrets/forge-token" }', 'token = { file = "secrets/drone-token" }'


def site_with(world_pool: WorldPool, name: str, *changes: Change) -> Path:
    """The world's own site file with pieces replaced."""
    text = world_pool.site.read_text()
    for old, new in changes:
        assert old in text, (old, text)
        text = text.replace(old, new, 1)
    site = world_pool.world / f"{name}.toml"
    site.write_text(text)
    return site


def checked(world_pool: WorldPool, site: Path, *parts: str) -> tuple[int, str]:
    """The exit code and all that was said."""
    said: list[str] = []
    code = check(site, world_pool.roster, evaluate=False, parts=parts or ("forge",), out=said.append)
    return code, "\n".join(said)


def told(output: str, setting: str) -> str:
    """What was said about one setting, with what to do."""
    found = re.search(rf"^\S+ +{re.escape(setting)} (?!\([a-z]+\)).*(?:\n {{30,}}.*)*", output, re.M)
    assert found, f"nothing about {setting}:\n{output}"
    return found[0]


def wrong_ones(output: str) -> list[str]:
    return re.findall(r"^WRONG +(\S+(?: \([^)]*\))?)", output, re.M)


def token_with(world_pool: WorldPool, scopes: str, *, of: str = "") -> str:
    """A new token in a file of the world; returns the reference for the site file."""
    store, token = Store(world_pool.settings.forge_dir), secrets.token_hex(20)
    store.create_token(of or world_pool.settings.bot, token, scopes)
    store.close()
    return private(world_pool, token)


def private(world_pool: WorldPool, content: str) -> str:
    path = world_pool.world / "secrets" / f"test-{secrets.token_hex(4)}"
    path.write_text(content)
    path.chmod(0o600)
    return f'token = {{ file = "{path}" }}'


# -- all is well ---------------------------------------------------------------------------------------------


def test_a_site_file_that_is_right_passes_and_nothing_is_written(night: WorldPool) -> None:
    """Exit 0, from the command line; every server's requests were reads; the world is as it was."""
    world_view = WorldView(night.settings)
    before, since = world_view.everything(), len(world_view.requests())
    ran = subprocess.run(
        [sys.executable, "-m", "fixtures", "check", str(night.site), "--roster", str(night.roster)],
        cwd=ROOT, env=environment(), capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert wrong_ones(ran.stdout) == []
    assert "0 wrong" in ran.stdout
    assert "waits" not in ran.stdout
    assert world_view.everything() == before
    assert world_view.writes_by("muster", since=since) == []
    for setting in ("forge.token (scopes)", "ccci.poll_file", "drone.results_url", "verdicts.context",
                    "host.checkout", "bridge.log_command", "clock of host"):  # fmt: skip
        assert told(ran.stdout, setting).startswith("ok")
    for secret in (night.settings.operator_token, night.settings.drone_token):
        assert secret not in ran.stdout + ran.stderr


def test_the_attribute_is_evaluated_when_it_is_asked_for(night: WorldPool) -> None:
    """Only then: it adds to the host's Nix store. The wrong attribute is told by the host it is for."""
    lines: list[str] = []
    site = site_with(night, "attribute", ("[bridge]", 'attribute = "cc-ci-incus"\n\n[bridge]'))
    code = check(site, night.roster, evaluate=True, parts=("host",), out=lines.append)
    assert code == 1
    assert wrong_ones("\n".join(lines)) == ["host.attribute"]
    assert "not evaluated" in told(checked(night, night.site, "host")[1], "host.attribute")


# -- the file ------------------------------------------------------------------------------------------------


def test_every_wrong_key_of_the_file_is_told_at_once(night: WorldPool) -> None:
    """Exit 4; not one after the other in as many runs; nothing is contacted."""
    world_view = WorldView(night.settings)
    since = len(world_view.requests())
    site = site_with(night, "keys", ("[forge]", "[forge]\ncolour = 3"), ('hostname = "nixos"', 'hostname = "a b"'),
                     ("http_s = 10.0", "http_s = -1"), ("[upstream]", "[upstream]\nproxy = 7"))  # fmt: skip
    code, said = checked(night, site, "forge", "host")
    assert code == 4
    for key in ("forge.colour", "host.hostname", "limits.http_s", "upstream.proxy"):
        assert key in said
    assert "4 wrong" in said
    assert len(world_view.requests()) == since


@pytest.mark.parametrize("text", [None, "name = ", b"\xff\xfe"])
def test_a_file_that_is_none_is_one_sentence(night: WorldPool, text: str | bytes | None) -> None:
    """Exit 4."""
    site = night.world / "broken.toml"
    site.unlink(missing_ok=True)
    if text is not None:
        site.write_bytes(text if isinstance(text, bytes) else text.encode())
    code, said = checked(night, site)
    assert (code, said.count("WRONG")) == (4, 1)


# -- one thing wrong -----------------------------------------------------------------------------------------

Mistake = tuple[str, Callable[[WorldPool], list[Change]], str, str]
"""The part; what to change in the file; the setting that must be told wrong; words that must stand there."""

MISTAKES: dict[str, Mistake] = {
    "a token that is nowhere": (
        "forge", lambda w: [(FORGE_TOKEN, 'token = { env = "MUSTER_NO_SUCH_TOKEN" }')],
        "forge.token (secret)", "MUSTER_NO_SUCH_TOKEN to be set"),
    "a token of nobody": (
        "forge", lambda w: [(FORGE_TOKEN, private(w, "f" * 40))], "forge.token", "401"),
    "somebody else's token": (
        "forge", lambda w: [(FORGE_TOKEN, token_with(w, "all", of="alice"))], "forge.token", 'bot = "alice"'),
    "a token without read:user": (
        "forge", lambda w: [(FORGE_TOKEN, token_with(w, "write:repository,write:issue,write:organization"))],
        "forge.token", "scope read:user"),
    "a name that nobody knows": (
        "forge", lambda w: [(w.settings.forge_url, "https://no-such-host.invalid")], "forge.url (name)", "resolved"),
    "a port that nobody listens at": (
        "forge", lambda w: [(f":{w.settings.forge_port}", f":{free_ports(1)[0]}")],
        "forge.url (connection)", "no connection"),
    "a server that is no forge": (
        "forge", lambda w: [(w.settings.forge_url, w.settings.dashboard_url)], "forge.url", "404"),
    "no TLS where https was said": (
        "forge", lambda w: [(w.settings.forge_url, w.settings.forge_url.replace("http:", "https:"))],
        "forge.url (connection)", "TLS"),
    "no such organisation": (
        "forge", lambda w: [('org = "recipe-maintainers"', 'org = "no-such-org"')], "forge.org", "no-such-org"),
    "no such cc-ci": (
        "forge", lambda w: [("recipe-maintainers/cc-ci", "recipe-maintainers/cc-cd")],
        "ccci.repository", "is not there"),
    "no such branch": (
        "forge", lambda w: [("[ccci]", '[ccci]\nbranch = "trunk"')], "ccci.branch", 'branch = "main"'),
    "the poll file is elsewhere": (
        "forge", lambda w: [("[ccci]", '[ccci]\npoll_file = "modules/bridge.nix"')],
        "ccci.poll_file", 'poll_file = "nix/modules/bridge.nix"'),
    "another variable": (
        "forge", lambda w: [("[ccci]", '[ccci]\npoll_variable = "POLL_SET"')], "ccci.poll_file", "POLL_SET"),
    "no tests there": (
        "forge", lambda w: [("[ccci]", '[ccci]\ntests_dir = "nix"')], "ccci.tests_dir", "no suite in nix/"),
    "no such template": (
        "forge", lambda w: [("[ccci]", '[ccci]\ntemplate = "no-such-recipe"')], "ccci.template", "no-such-recipe"),
    "another layout": (
        "forge", lambda w: [("[ccci]", '[ccci]\nsuite_layout = "custom"')],
        "ccci.template", 'suite_layout = "functional"'),
    "a proxy that is not there": (
        "forge", lambda w: [("[forge]", f'[forge]\nproxy = "socks5h://127.0.0.1:{free_ports(1)[0]}"')],
        "forge.proxy", "no connection"),
    "a guest of Drone": (
        "drone", lambda w: [(DRONE_TOKEN, private(w, "0" * 32))], "drone.token", "guest"),
    "no such repository in Drone": (
        "drone", lambda w: [('repository = "recipe-maintainers/cc-ci"\nresults', 'repository = "a/b"\nresults')],
        "drone.repository", "shows no a/b"),
    "another parameter": (
        "drone", lambda w: [("[drone]", '[drone]\nrecipe_parameter = "APP"')], "drone.recipe_parameter", "RECIPE"),
    "another head parameter": (
        "drone", lambda w: [("[drone]", '[drone]\nhead_parameter = "SHA"')], "drone.recipe_parameter", "REF"),
    "no dashboard there": (
        "drone", lambda w: [(w.settings.dashboard_url, f"http://127.0.0.1:{free_ports(1)[0]}")],
        "drone.results_url (connection)", "no connection"),
    "another owner upstream": (
        "upstream", lambda w: [('owner = "coop-cloud"', 'owner = "no-such-coop"')],
        "upstream.owner", "no-such-coop"),
    "a port without ssh": (
        "host", lambda w: [(f"port = {w.settings.ssh_port}", f"port = {w.settings.forge_port}")],
        "host.known_hosts", "no key for"),
    "a key that nobody pinned": (
        "host", lambda w: [("secrets/known_hosts", _made(w, "secrets/nobody", ""))],
        "host.known_hosts", "ssh-keyscan"),
    "another key than the pinned one": (
        "host", lambda w: [("secrets/known_hosts", _other_host_key(w))], "host.user", "not the one in"),
    "a key that is not let in": (
        "host", lambda w: [("secrets/id_ed25519", _stranger(w))], "host.user", "authorized_keys"),
    "another machine": (
        "host", lambda w: [(_machine_id(w), "0" * 32)], "host.machine_id", "machine_id = "),
    "another name": (
        "host", lambda w: [('hostname = "nixos"', 'hostname = "nixos2"')], "host.hostname", 'hostname = "nixos"'),
    "no checkout there": (
        "host", lambda w: [("[bridge]", 'checkout = "/root/elsewhere"\n\n[bridge]')],
        "host.checkout", "no usable checkout"),
    "no such service": (
        "host", lambda w: [("[bridge]", '[bridge]\nservice = "bridge_app"')],
        "bridge.service", 'service = "ccci-bridge_app"'),
    "no line like that": (
        "host", lambda w: [("[bridge]", "[bridge]\nwatching_line = 'observing (?P<count>\\d+)'")],
        "bridge.log_command", "matches bridge.watching_line"),
    "no such unit and no such stack": (
        "host", lambda w: [("[bridge]", '[bridge]\nunit = "no-such.service"\nstacks = ["no-such-stack"]')],
        "bridge.unit", "not-found"),
    "a program that is not there": (
        "host", lambda w: [("[bridge]", 'abra = "abra2"\n\n[bridge]')], "host.abra", "abra2"),
}  # fmt: skip

# What is wrong with one thing and is seen at another as well.
ALSO = {"bridge.stacks", "host.address"}


def _made(world_pool: WorldPool, name: str, content: str) -> str:
    path = world_pool.world / name
    path.write_text(content)
    path.chmod(0o600)
    return name


def _other_host_key(world_pool: WorldPool) -> str:
    place = world_pool.world / "secrets" / f"key-{secrets.token_hex(4)}"
    return _made(world_pool, f"secrets/known-{secrets.token_hex(4)}",
                 f"[127.0.0.1]:{world_pool.settings.ssh_port} {key_pair(place)}\n")  # fmt: skip


def _stranger(world_pool: WorldPool) -> str:
    place = world_pool.world / "secrets" / f"key-{secrets.token_hex(4)}"
    key_pair(place)
    return str(place)


def _machine_id(world_pool: WorldPool) -> str:
    return str(re.findall(r'machine_id = "(\w+)"', world_pool.site.read_text())[0])


@pytest.mark.parametrize("name", MISTAKES)
def test_one_thing_wrong_is_told_at_its_setting(night: WorldPool, name: str) -> None:
    """Exit 1; that setting is WRONG and says what to do; nothing else is; what needs it waits and says for what."""
    part, make, setting, words = MISTAKES[name]
    code, said = checked(night, site_with(night, "mistake", *make(night)), part)
    assert code == 1, said
    assert setting in wrong_ones(said), said
    assert set(wrong_ones(said)) - {setting} <= ALSO, said
    assert words in told(said, setting), said
    assert "→" in told(said, setting)


def test_other_parts_are_looked_at_although_one_is_wrong(night: WorldPool) -> None:
    """A forge that is not there hides neither Drone nor upstream."""
    site = site_with(night, "away", (f":{night.settings.forge_port}", f":{free_ports(1)[0]}"))
    code, said = checked(night, site, "forge", "drone", "upstream")
    assert code == 1
    assert told(said, "ccci.poll_file").startswith("waits")
    assert told(said, "drone.results_url").startswith("ok")
    assert told(said, "upstream.owner").startswith("ok")


# -- rights --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("missing", ["write:organization", "write:repository", "write:issue"])
def test_a_scope_that_is_missing_is_named_in_the_table(night: WorldPool, missing: str) -> None:
    """By reading alone: no request of the check is a write."""
    every = ("write:organization", "write:repository", "write:issue", "read:user")
    scopes = ",".join(s.replace("write:", "read:") if s == missing else s for s in every)
    _, said = checked(night, site_with(night, "narrow", (FORGE_TOKEN, token_with(night, scopes))))
    rows = {line.split()[1]: line for line in said.splitlines() if line.startswith("  forge.token ")}
    assert rows[missing].endswith("MISSING")
    assert [name for name, line in rows.items() if line.endswith("has it")] == [s for s in every if s != missing]


@pytest.mark.parametrize(
    "scopes", ["all", "write:admin,write:organization,write:repository,write:issue,read:user"]
)
def test_a_token_with_more_than_is_needed_is_told(night: WorldPool, scopes: str) -> None:
    """It works, and it is not what to leave in a file for every night."""
    code, said = checked(night, site_with(night, "wide", (FORGE_TOKEN, token_with(night, scopes))))
    assert code == 0
    assert "more than needed" in said


# -- servers that are odd ------------------------------------------------------------------------------------


@pytest.fixture
def odd() -> Iterator[HttpServer]:
    with serving() as server:
        yield server


@pytest.mark.parametrize("body", [b"[]", b"null", b'{"version": null}', b"3", b"<html>"])
def test_an_answer_of_another_shape_is_told_and_ends_nothing(
    night: WorldPool, odd: HttpServer, body: bytes
) -> None:
    """No traceback, whatever a server says."""
    odd.usual = Answer(200, body)
    code, said = checked(night, site_with(night, "odd", (night.settings.forge_url, odd.url)), "forge")
    assert code == 1
    assert "to change, worst first" in said


def test_a_certificate_is_told_by_who_signed_it(night: WorldPool, tmp_path: Path) -> None:
    """An authority of one's own: its name is said, so that one knows which file to name; then it is believed."""
    files = ensure(tmp_path)
    with serving(files.server_context()) as server:
        wrong = site_with(night, "private", (night.settings.forge_url, server.url))
        said = told(checked(night, wrong)[1], "forge.url (connection)")
        assert "signed by" in said
        right = site_with(
            night, "trusted", (f'url = "{night.settings.forge_url}"', f'url = "{server.url}"\nca = "{files.ca}"')
        )
        said = told(checked(night, right)[1], "forge.url (connection)")
        assert said.startswith("ok")
        assert "certificate by" in said
        (tmp_path / "no.pem").write_text("no certificate")
        none = site_with(night, "no-ca", ("[forge]", f'[forge]\nca = "{tmp_path / "no.pem"}"'))
        assert "PEM" in told(checked(night, none)[1], "forge.url (ca)")


def test_a_secret_never_comes_back(night: WorldPool, odd: HttpServer) -> None:
    """A server that repeats what it was sent: neither token is printed. The search for it would find one."""
    token = night.settings.operator_token
    odd.usual = Answer(403, f'{{"message": "who is token {token}? {token[:20]} …"}}'.encode())
    _, said = checked(night, site_with(night, "echo", (night.settings.forge_url, odd.url)))
    assert "who is token" in said
    assert token not in said
    assert token[:20] not in said
