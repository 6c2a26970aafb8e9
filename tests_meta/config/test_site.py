"""The keys of a site file: their values, and the sentence about each wrong, missing or unknown key."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import pytest

from fixtures.config import site as site_module
from fixtures.config.reader import keys_of
from fixtures.config.site import Bridge, Site, load_site
from fixtures.errors import BadSetting
from tests_meta.config.site_files import (
    MINIMAL,
    TOKEN,
    WRONG,
    assert_one_sentence,
    refusal,
    with_line,
    without,
    write,
)

SECTIONS = [field.name for field in dataclasses.fields(Site) if field.name != "name"]


@pytest.mark.parametrize(("section", "line", "says"), WRONG, ids=[f"{s}-{line}"[:60] for s, line, _ in WRONG])
def test_wrong_value(section: str, line: str, says: str, tmp_path: Path) -> None:
    """The message about a wrong value is one sentence: file, key, expected value, example, seen value."""
    path = write(tmp_path, with_line(section, line))
    said = refusal(path)
    key = ".".join(filter(None, (section, line.split("=")[0].strip())))
    assert re.match(rf"{re.escape(str(path))}: {re.escape(key)}(\[\d+\])* must be ", said)
    assert says in said
    assert ", for example " in said
    assert ", but is " in said
    assert_one_sentence(said)


def test_example_of_every_message_is_accepted(tmp_path: Path) -> None:
    """The example of a message is a line that the file accepts."""
    for section in SECTIONS:
        for name, key in keys_of(getattr(site_module, section.capitalize())).items():
            if name in ("ca", "ssh_config", "known_hosts", "identity_file"):
                continue
            load_site(write(tmp_path, with_line(section, key.line)))


REQUIRED = [
    ("", "name"),
    ("forge", "url"),
    ("forge", "org"),
    ("forge", "token"),
    ("upstream", "url"),
    ("host", "address"),
    ("host", "machine_id"),
    ("host", "hostname"),
    ("host", "root_device"),
    ("drone", "url"),
    ("drone", "token"),
]


@pytest.mark.parametrize(("section", "name"), REQUIRED)
def test_missing_key(section: str, name: str, tmp_path: Path) -> None:
    """The message about a missing key is one sentence: file, key, expected value, example."""
    said = refusal(write(tmp_path, without(section, name)))
    assert f"{section}.{name}".strip(".") + " is missing; expected is " in said
    assert f", for example {name} = " in said
    assert_one_sentence(said)


def test_nothing_else_is_required(tmp_path: Path) -> None:
    """Values that the record of cc-ci establishes are defaults; a table of such keys only may be left out."""
    optional = [line for line in MINIMAL.splitlines() if not re.match(r"\[(ccci|bridge|verdicts|limits)\]", line)]
    text = "\n".join(
        line for line in optional if line.split(" ")[0] not in ("branch", "runtime", "trigger", "http_s")
    )
    site = load_site(write(tmp_path, text))
    assert site.ccci.poll_file == "nix/modules/bridge.nix"
    assert site.bridge.service == "ccci-bridge_app"
    assert site.verdicts.context == "cc-ci/testme"
    assert site.limits.build_s == 3600


@pytest.mark.parametrize("section", ["forge", "upstream", "host", "drone"])
def test_missing_table(section: str, tmp_path: Path) -> None:
    """The message about a missing table names each of its required keys."""
    path = write(tmp_path, re.sub(rf"\[{section}\]\n([^\[]*\n)*?(?=\[)", "", MINIMAL))
    assert re.findall(r": (\S+) is missing; expected is ", refusal(path)) == [
        f"{table}.{name}" for table, name in REQUIRED if table == section
    ]


UNKNOWN = [
    ("forge", "ulr", "did you mean url, for example url = "),
    ("forge", "URL", "did you mean url"),
    ("host", "machineid", "did you mean machine_id"),
    ("limits", "http", "did you mean http_s"),
    ("verdicts", "zzz", "[verdicts] knows context, trigger"),
    ("", "hots", "did you mean host"),
    ("", "zzz", "the file knows name, forge"),
    ("forge", '"<script>alert(1)</script>"', "[forge] knows url"),
]


@pytest.mark.parametrize(("section", "name", "says"), UNKNOWN)
def test_unknown_key(section: str, name: str, says: str, tmp_path: Path) -> None:
    """An unknown key is refused, with the name that was probably meant and an example."""
    said = refusal(write(tmp_path, with_line(section, f"{name} = 1")))
    assert "is not a known key" in said
    assert says in said
    assert ", for example " in said
    assert_one_sentence(said)


@pytest.mark.parametrize(("name", "near"), [("machine_id", "machine-id"), ("[forge]", "[froge]")])
def test_misspelled_required_key(name: str, near: str, tmp_path: Path) -> None:
    """A misspelled required key or table is reported as misspelled, and not as missing too."""
    said = refusal(write(tmp_path, MINIMAL.replace(name, near)))
    assert f"did you mean {name.strip('[]')}" in said
    assert_one_sentence(said)


def test_misspelled_value(tmp_path: Path) -> None:
    """A misspelled value of a key with few choices is refused with the choice that was probably meant."""
    said = refusal(write(tmp_path, with_line("bridge", 'runtime = "sytemd"')))
    assert said.endswith('must be "swarm" or "systemd", for example runtime = "swarm",'
                         ' but is the text "sytemd" (did you mean "systemd"?).')  # fmt: skip


def test_all_problems_are_reported_at_once(tmp_path: Path) -> None:
    """A file with problems in several tables gets one sentence for each, in the order of the tables."""
    text = with_line("limits", "http_s = 0\ncolour = 3")
    text = text.replace('hostname = "nixos"\n', "").replace('branch = "main"', 'branch = "-"\ntests_dir = "/"')
    text = text.replace('runtime = "swarm"', 'stacks = ["a b", "drone", "drone", 3]').replace('"cc-ci"', "7", 1)
    path = write(tmp_path, text)
    with pytest.raises(BadSetting) as caught:
        load_site(path)
    assert [problem.removeprefix(f"{path}: ").split()[0] for problem in caught.value.problems] == [
        "name", "ccci.branch", "ccci.tests_dir", "host.hostname",
        "bridge.stacks[0]", "bridge.stacks[2]", "bridge.stacks[3]", "limits.colour", "limits.http_s",
    ]  # fmt: skip
    assert str(caught.value).splitlines() == list(caught.value.problems)
    for problem in caught.value.problems:
        assert ", for example " in problem
        assert_one_sentence(problem)


@pytest.mark.parametrize("value", ["3", '"x"', "[]", "true"])
def test_table_of_another_type(value: str, tmp_path: Path) -> None:
    """A table that is a value of another type is refused."""
    said = refusal(write(tmp_path, f"forge = {value}\n" + re.sub(r"\[forge\]\n(.*\n){2}", "", MINIMAL)))
    assert ": forge must be a table, for example [forge]" in said


WRONG_TOKENS = [
    (f'"{TOKEN}"', "a plain text (not shown)"),
    ('""', "a plain text (not shown)"),
    (f'{{ env = "{TOKEN}" }}', "not shown"),
    ('{ env = "" }', "capitals"),
    ("{ env = 3 }", "the number 3"),
    ('{ file = "" }', "path of a file"),
    ("{ file = 3 }", "path of a file"),
    (f'{{ command = "echo {TOKEN}" }}', "not shown"),
    ("{ command = [] }", "list of words"),
    ('{ command = ["pass", 3] }', "list of words"),
    ("{ }", "a table of 0 keys"),
    ('{ env = "A", file = "b" }', "a table of 2 keys with env or file"),
    (f'{{ value = "{TOKEN}" }}', "none of env, file, command"),
    (f'["{TOKEN}"]', "a list"),
    ("17", "the number 17"),
]


@pytest.mark.parametrize(("value", "says"), WRONG_TOKENS)
@pytest.mark.parametrize("section", ["forge", "upstream", "drone"])
def test_secret_only_by_reference(section: str, value: str, says: str, tmp_path: Path) -> None:
    """A secret is a reference; a secret in the file itself is refused and not shown."""
    said = refusal(write(tmp_path, with_line(section, f"token = {value}")))
    assert f": {section}.token" in said
    assert says in said
    assert TOKEN not in said
    assert TOKEN[:16] not in said
    assert_one_sentence(said)


def test_url_with_password_is_not_shown(tmp_path: Path) -> None:
    """A URL with a password is refused without repeating it, whatever else is wrong with the URL."""
    for section, name in (("forge", "url"), ("forge", "proxy"), ("drone", "results_url")):
        for end in ("/{build}", "/", "/?a=b", "/ "):
            said = refusal(
                write(tmp_path, with_line(section, f'{name} = "https://bot:{TOKEN}@example.org{end}"'))
            )
            assert TOKEN not in said
            assert "a URL with a user name in it (not shown)" in said


def test_loopback_may_be_http(tmp_path: Path) -> None:
    """http is accepted for loopback addresses only."""
    for url in ("http://127.0.0.1:3000", "http://127.8.9.10", "http://[::1]:80", "http://localhost:8080/gitea"):
        assert load_site(write(tmp_path, with_line("forge", f'url = "{url}/"'))).forge.url == url


@pytest.mark.parametrize("scheme", ["http", "https", "socks5", "socks5h"])
def test_proxy_schemes(scheme: str, tmp_path: Path) -> None:
    """A proxy may be http, https, socks5 or socks5h."""
    url = f"{scheme}://127.0.0.1:1080"
    assert load_site(write(tmp_path, with_line("host", f'proxy = "{url}"'))).host.proxy == url


def test_paths_on_this_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """~ is the home folder; a relative path starts at the site file's folder, not at the working directory."""
    (tmp_path / "known_hosts").touch()
    home = tmp_path / "home"
    home.mkdir()
    (home / "key").touch()
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.chdir("/")
    path = write(tmp_path, with_line("host", 'known_hosts = "known_hosts"\nidentity_file = "~/key"'))
    host = load_site(path).host
    assert host.known_hosts == tmp_path / "known_hosts"
    assert host.identity_file == home / "key"


def test_prefix_and_flake(tmp_path: Path) -> None:
    """The flake holds the checkout's path as muster reaches it, and the attribute."""
    host = load_site(write(tmp_path, MINIMAL)).host
    assert host.flake_uri == "git+file:///root/cc-ci?submodules=1#cc-ci"
    embedded = dataclasses.replace(host, prefix="/tmp/w/host")
    assert embedded.flake_uri == "git+file:///tmp/w/host/root/cc-ci?submodules=1#cc-ci"
    assert embedded.path("/etc/machine-id") == "/tmp/w/host/etc/machine-id"


def test_commands_follow_the_runtime(tmp_path: Path) -> None:
    """The log and inspection commands are the runtime's own unless the site names others."""
    assert Bridge().log_command == ("docker", "service", "logs", "--raw", "{task}")
    assert Bridge().inspect_command == ("docker", "inspect", "{task}")
    unit = load_site(
        write(tmp_path, with_line("bridge", 'runtime = "systemd"\nservice = "bridge.service"'))
    ).bridge
    assert unit.log_command[0] == "journalctl"
    assert "_SYSTEMD_INVOCATION_ID={task}" in unit.log_command
    assert unit.inspect_command[-1] == "bridge.service"
    own = load_site(
        write(tmp_path, with_line("bridge", 'log_command = ["tail", "/var/log/{service}", "{unit}"]'))
    ).bridge
    assert own.log_command == ("tail", "/var/log/ccci-bridge_app", "deploy-bridge.service")


def test_watching_line_reads_both_forms() -> None:
    """The default expression reads a line per repository, and a line with their number."""
    found = [
        Bridge().watching_line.search(line)
        for line in ("bridge: watching all 20 repos", "bridge: watching recipe-maintainers/ghost", "bridge: idle")
    ]
    assert [match and match.groupdict() for match in found] == [
        {"count": "20", "repository": None},
        {"count": None, "repository": "recipe-maintainers/ghost"},
        None,
    ]
