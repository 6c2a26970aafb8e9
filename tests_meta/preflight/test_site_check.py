"""`python -m fixtures check`: for each single mistake in a site file, the check reports exactly that setting.

The world is that of the `night` fixture, kept running; each test writes its own site file and runs the check in this
process.
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


def run_check(world_pool: WorldPool, site: Path, *parts: str) -> tuple[int, str]:
    """The exit code and the output."""
    said: list[str] = []
    code = check(site, world_pool.roster, evaluate=False, parts=parts or ("forge",), out=said.append)
    return code, "\n".join(said)


def lines_about(output: str, setting: str) -> str:
    """The lines of the output about one setting, with the remedy."""
    found = re.search(rf"^\S+ +{re.escape(setting)} (?!\([a-z]+\)).*(?:\n {{30,}}.*)*", output, re.M)
    assert found, f"nothing about {setting}:\n{output}"
    return found[0]


def wrong_settings(output: str) -> list[str]:
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


# -- a correct file ---------------------------------------------------------------------------------------------


def test_correct_site_file_passes_and_nothing_is_written(night: WorldPool) -> None:
    """The command line exits 0, makes only read requests, and leaves the world unchanged."""
    world_view = WorldView(night.settings)
    before, since = world_view.everything(), len(world_view.requests())
    ran = subprocess.run(
        [sys.executable, "-m", "fixtures", "check", str(night.site), "--roster", str(night.roster)],
        cwd=ROOT, env=environment(), capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert wrong_settings(ran.stdout) == []
    assert "0 wrong" in ran.stdout
    assert not re.search(r"^skip ", ran.stdout, re.M)
    assert world_view.everything() == before
    assert world_view.writes_by("muster", since=since) == []
    for setting in ("forge.token (scopes)", "ccci.poll_file", "drone.results_url", "verdicts.context",
                    "host.checkout", "bridge.log_command", "clock of host"):  # fmt: skip
        assert lines_about(ran.stdout, setting).startswith("ok")
    for secret in (night.settings.operator_token, night.settings.drone_token):
        assert secret not in ran.stdout + ran.stderr


def test_attribute_is_evaluated_only_with_evaluate(night: WorldPool) -> None:
    """With --evaluate, an attribute of another host is wrong; without it, nothing is evaluated."""
    lines: list[str] = []
    site = site_with(night, "attribute", ("[bridge]", 'attribute = "cc-ci-incus"\n\n[bridge]'))
    code = check(site, night.roster, evaluate=True, parts=("host",), out=lines.append)
    assert code == 1
    assert wrong_settings("\n".join(lines)) == ["host.attribute"]
    assert "not evaluated" in lines_about(run_check(night, night.site, "host")[1], "host.attribute")


# -- the file ------------------------------------------------------------------------------------------------


def test_every_wrong_key_of_the_file_is_reported_at_once(night: WorldPool) -> None:
    """All wrong keys are reported in one run with exit 4, and nothing is contacted."""
    world_view = WorldView(night.settings)
    since = len(world_view.requests())
    site = site_with(night, "keys", ("[forge]", "[forge]\ncolour = 3"), ('hostname = "nixos"', 'hostname = "a b"'),
                     ("http_s = 10.0", "http_s = -1"), ("[upstream]", "[upstream]\nproxy = 7"))  # fmt: skip
    code, said = run_check(night, site, "forge", "host")
    assert code == 4
    for key in ("forge.colour", "host.hostname", "limits.http_s", "upstream.proxy"):
        assert key in said
    assert "4 wrong" in said
    assert world_view.requests_by("muster", since=since) == []


@pytest.mark.parametrize("text", [None, "name = ", b"\xff\xfe"])
def test_unreadable_file_is_reported_once(night: WorldPool, text: str | bytes | None) -> None:
    """A missing or malformed file gives one error and exit 4."""
    site = night.world / "broken.toml"
    site.unlink(missing_ok=True)
    if text is not None:
        site.write_bytes(text if isinstance(text, bytes) else text.encode())
    code, said = run_check(night, site)
    assert (code, said.count("WRONG")) == (4, 1)


# -- single mistakes -----------------------------------------------------------------------------------------

Mistake = tuple[str, Callable[[WorldPool], list[Change]], str, str]
"""The part; the change of the file; the setting that must be reported as wrong; text that its lines must contain."""

MISTAKES: dict[str, Mistake] = {
    "token in an unset variable": (
        "forge", lambda w: [(FORGE_TOKEN, 'token = { env = "MUSTER_NO_SUCH_TOKEN" }')],
        "forge.token (secret)", "MUSTER_NO_SUCH_TOKEN to be set"),
    "invalid token": (
        "forge", lambda w: [(FORGE_TOKEN, private(w, "f" * 40))], "forge.token", "401"),
    "token of another account": (
        "forge", lambda w: [(FORGE_TOKEN, token_with(w, "all", of="alice"))], "forge.token", 'bot = "alice"'),
    "token without read:user": (
        "forge", lambda w: [(FORGE_TOKEN, token_with(w, "write:repository,write:issue,write:organization"))],
        "forge.token", "scope read:user"),
    "unknown host name": (
        "forge", lambda w: [(w.settings.forge_url, "https://no-such-host.invalid")], "forge.url (name)", "resolved"),
    "closed port": (
        "forge", lambda w: [(f":{w.settings.forge_port}", f":{free_ports(1)[0]}")],
        "forge.url (connection)", "no connection"),
    "server that is not a forge": (
        "forge", lambda w: [(w.settings.forge_url, w.settings.dashboard_url)], "forge.url", "404"),
    "https without TLS": (
        "forge", lambda w: [(w.settings.forge_url, w.settings.forge_url.replace("http:", "https:"))],
        "forge.url (connection)", "TLS"),
    "unknown organisation": (
        "forge", lambda w: [('org = "recipe-maintainers"', 'org = "no-such-org"')], "forge.org", "no-such-org"),
    "unknown cc-ci repository": (
        "forge", lambda w: [("recipe-maintainers/cc-ci", "recipe-maintainers/cc-cd")],
        "ccci.repository", "does not exist"),
    "unknown branch": (
        "forge", lambda w: [("[ccci]", '[ccci]\nbranch = "trunk"')], "ccci.branch", 'branch = "main"'),
    "wrong path of the poll file": (
        "forge", lambda w: [("[ccci]", '[ccci]\npoll_file = "modules/bridge.nix"')],
        "ccci.poll_file", 'poll_file = "nix/modules/bridge.nix"'),
    "wrong poll variable": (
        "forge", lambda w: [("[ccci]", '[ccci]\npoll_variable = "POLL_SET"')], "ccci.poll_file", "POLL_SET"),
    "wrong pipeline file": (
        "forge", lambda w: [("[ccci]", '[ccci]\npipeline_file = ".woodpecker.yml"')],
        "ccci.pipeline_file", "has no .woodpecker.yml"),
    "unit that the host does not have": (
        "host", lambda w: [("[bridge]", 'units = ["dockerd.service"]\n\n[bridge]')], "host.units", "dockerd.service"),
    "life_command that never changes": (
        "host", lambda w: [("[bridge]", '[bridge]\nlife_command = ["echo", "1"]')],
        "bridge.life_command", "no sign of life"),
    "tests_dir without suites": (
        "forge", lambda w: [("[ccci]", '[ccci]\ntests_dir = "nix"')], "ccci.tests_dir", "no suite in nix/"),
    "unknown template recipe": (
        "forge", lambda w: [("[ccci]", '[ccci]\ntemplate = "no-such-recipe"')], "ccci.template", "no-such-recipe"),
    "wrong suite layout": (
        "forge", lambda w: [("[ccci]", '[ccci]\nsuite_layout = "custom"')],
        "ccci.template", 'suite_layout = "functional"'),
    "unreachable proxy": (
        "forge", lambda w: [("[forge]", f'[forge]\nproxy = "socks5h://127.0.0.1:{free_ports(1)[0]}"')],
        "forge.proxy", "no connection"),
    "invalid Drone token": (
        "drone", lambda w: [(DRONE_TOKEN, private(w, "0" * 32))], "drone.token", "guest"),
    "unknown repository in Drone": (
        "drone", lambda w: [('repository = "recipe-maintainers/cc-ci"\nresults', 'repository = "a/b"\nresults')],
        "drone.repository", "shows no a/b"),
    "wrong recipe parameter": (
        "drone", lambda w: [("[drone]", '[drone]\nrecipe_parameter = "APP"')], "drone.recipe_parameter", "RECIPE"),
    "wrong head parameter": (
        "drone", lambda w: [("[drone]", '[drone]\nhead_parameter = "SHA"')], "drone.recipe_parameter", "REF"),
    "unreachable dashboard": (
        "drone", lambda w: [(w.settings.dashboard_url, f"http://127.0.0.1:{free_ports(1)[0]}")],
        "drone.results_url (connection)", "no connection"),
    "unknown upstream owner": (
        "upstream", lambda w: [('owner = "coop-cloud"', 'owner = "no-such-coop"')],
        "upstream.owner", "no-such-coop"),
    "port without ssh": (
        "host", lambda w: [(f"port = {w.settings.ssh_port}", f"port = {w.settings.forge_port}")],
        "host.known_hosts", "no key for"),
    "host key not pinned": (
        "host", lambda w: [("secrets/known_hosts", _made(w, "secrets/nobody", ""))],
        "host.known_hosts", "ssh-keyscan"),
    "wrong pinned host key": (
        "host", lambda w: [("secrets/known_hosts", _other_host_key(w))], "host.user", "not the one in"),
    "unauthorised ssh key": (
        "host", lambda w: [("secrets/id_ed25519", _stranger(w))], "host.user", "authorized_keys"),
    "wrong machine id": (
        "host", lambda w: [(_machine_id(w), "0" * 32)], "host.machine_id", "machine_id = "),
    "wrong hostname": (
        "host", lambda w: [('hostname = "nixos"', 'hostname = "nixos2"')], "host.hostname", 'hostname = "nixos"'),
    "missing checkout": (
        "host", lambda w: [("[bridge]", 'checkout = "/root/elsewhere"\n\n[bridge]')],
        "host.checkout", "no usable checkout"),
    "unknown bridge service": (
        "host", lambda w: [("[bridge]", '[bridge]\nservice = "bridge_app"')],
        "bridge.service", 'service = "ccci-bridge_app"'),
    "watching_line without a match": (
        "host", lambda w: [("[bridge]", "[bridge]\nwatching_line = 'observing (?P<count>\\d+)'")],
        "bridge.log_command", "matches bridge.watching_line"),
    "unknown unit and unknown stack": (
        "host", lambda w: [("[bridge]", '[bridge]\nunit = "no-such.service"\nstacks = ["no-such-stack"]')],
        "bridge.unit", "not-found"),
    "missing abra program": (
        "host", lambda w: [("[bridge]", 'abra = "abra2"\n\n[bridge]')], "host.abra", "abra2"),
}  # fmt: skip

# Settings that are reported in addition, because they depend on the wrong one.
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
def test_single_mistake_is_reported_at_its_setting(night: WorldPool, name: str) -> None:
    """A single mistake gives exit 1 and one WRONG setting with a remedy; checks that depend on it are skipped."""
    part, make, setting, words = MISTAKES[name]
    code, said = run_check(night, site_with(night, "mistake", *make(night)), part)
    assert code == 1, said
    assert setting in wrong_settings(said), said
    assert set(wrong_settings(said)) - {setting} <= ALSO, said
    assert words in lines_about(said, setting), said
    assert "→" in lines_about(said, setting)


NOTES = {
    "results_dir without results": (
        ("[drone]", '[drone]\nresults_dir = "/var/lib/elsewhere"'), "drone.results_dir", "has no <build>/results.json"),
    "configured_command that prints nothing": (
        ("[bridge]", '[bridge]\nconfigured_command = ["true"]'), "bridge.configured_command", "the value of none"),
    "known failure that has expired": (("9999-12-31", "2020-01-01"), "host.known_failures", "offsite-copy.service"),
}  # fmt: skip


@pytest.mark.parametrize("name", NOTES)
def test_setting_without_effect_is_noted(night: WorldPool, name: str) -> None:
    """A setting that shows nothing to a health check is a note with a remedy; in the right site file it is ok."""
    change, setting, words = NOTES[name]
    code, said = run_check(night, site_with(night, "note", change), "host", "drone")
    assert code == 0, said
    assert lines_about(said, setting).startswith("note")
    assert words in lines_about(said, setting)
    assert "→" in lines_about(said, setting)


def test_other_parts_are_checked_although_one_is_wrong(night: WorldPool) -> None:
    """With an unreachable forge, Drone and upstream are still checked."""
    site = site_with(night, "away", (f":{night.settings.forge_port}", f":{free_ports(1)[0]}"))
    code, said = run_check(night, site, "forge", "drone", "upstream")
    assert code == 1
    assert lines_about(said, "ccci.poll_file").startswith("skip")
    assert lines_about(said, "drone.results_url").startswith("ok")
    assert lines_about(said, "upstream.owner").startswith("ok")


# -- rights --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("missing", ["write:organization", "write:repository", "write:issue"])
def test_missing_scope_is_in_the_table_of_rights(night: WorldPool, missing: str) -> None:
    """A missing scope is found by reading alone and marked MISSING in the table of rights."""
    every = ("write:organization", "write:repository", "write:issue", "read:user")
    scopes = ",".join(s.replace("write:", "read:") if s == missing else s for s in every)
    _, said = run_check(night, site_with(night, "narrow", (FORGE_TOKEN, token_with(night, scopes))))
    rows = {line.split()[1]: line for line in said.splitlines() if line.startswith("  forge.token ")}
    assert rows[missing].endswith("MISSING")
    assert [name for name, line in rows.items() if line.endswith("has it")] == [s for s in every if s != missing]


@pytest.mark.parametrize(
    "scopes", ["all", "write:admin,write:organization,write:repository,write:issue,read:user"]
)
def test_surplus_scopes_are_reported(night: WorldPool, scopes: str) -> None:
    """A token with more scopes than needed passes, and the surplus is reported."""
    code, said = run_check(night, site_with(night, "wide", (FORGE_TOKEN, token_with(night, scopes))))
    assert code == 0
    assert "more than needed" in said


# -- unexpected answers ------------------------------------------------------------------------------------


@pytest.fixture
def odd() -> Iterator[HttpServer]:
    with serving() as server:
        yield server


@pytest.mark.parametrize("body", [b"[]", b"null", b'{"version": null}', b"3", b"<html>"])
def test_unexpected_json_is_reported_without_a_traceback(night: WorldPool, odd: HttpServer, body: bytes) -> None:
    """An answer with an unexpected structure makes the setting WRONG; the check goes on."""
    odd.usual = Answer(200, body)
    code, said = run_check(night, site_with(night, "odd", (night.settings.forge_url, odd.url)), "forge")
    assert code == 1
    assert "to change, worst first" in said


def test_untrusted_certificate_is_reported_with_its_issuer(night: WorldPool, tmp_path: Path) -> None:
    """A certificate of a private authority is WRONG and names its issuer; it passes once `ca` is set."""
    files = ensure(tmp_path)
    with serving(files.server_context()) as server:
        wrong = site_with(night, "private", (night.settings.forge_url, server.url))
        said = lines_about(run_check(night, wrong)[1], "forge.url (connection)")
        assert "signed by" in said
        right = site_with(
            night, "trusted", (f'url = "{night.settings.forge_url}"', f'url = "{server.url}"\nca = "{files.ca}"')
        )
        said = lines_about(run_check(night, right)[1], "forge.url (connection)")
        assert said.startswith("ok")
        assert "certificate by" in said
        (tmp_path / "no.pem").write_text("no certificate")
        none = site_with(night, "no-ca", ("[forge]", f'[forge]\nca = "{tmp_path / "no.pem"}"'))
        assert "PEM" in lines_about(run_check(night, none)[1], "forge.url (ca)")


def test_echoed_secret_is_not_printed(night: WorldPool, odd: HttpServer) -> None:
    """A token that a server echoes is removed from the output, whole or in part."""
    token = night.settings.operator_token
    odd.usual = Answer(403, f'{{"message": "who is token {token}? {token[:20]} …"}}'.encode())
    _, said = run_check(night, site_with(night, "echo", (night.settings.forge_url, odd.url)))
    assert "who is token" in said
    assert token not in said
    assert token[:20] not in said
