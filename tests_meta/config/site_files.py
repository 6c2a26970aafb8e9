"""A minimal valid site file, and wrong lines for it with the words that the message must contain."""

from __future__ import annotations

from pathlib import Path

import pytest

from fixtures.config.site import load_site
from fixtures.errors import BadSetting

TOKEN = "0123456789abcdef0123456789abcdef01234567"

MINIMAL = """\
name = "cc-ci"
[forge]
url = "https://git.autonomic.zone"
org = "recipe-maintainers"
token = { env = "MUSTER_FORGE_TOKEN" }
[upstream]
url = "https://git.coopcloud.tech"
[ccci]
branch = "main"
[host]
address = "cc-ci"
machine_id = "4f6b1c0d9e8a47f2b35d6c7e8f901a2b"
hostname = "nixos"
root_device = "/dev/sda1"
[bridge]
runtime = "swarm"
[drone]
url = "https://drone.ci.commoninternet.net"
token = { env = "MUSTER_DRONE_TOKEN" }
[verdicts]
trigger = "!testme"
[limits]
http_s = 20
"""


def write(folder: Path, text: str | bytes) -> Path:
    path = folder / "site.toml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def with_line(section: str, line: str) -> str:
    """The minimal site in which `line` replaces the line of the same key in its section, or is added to it."""
    name = line.split("=")[0].strip()
    head, _, rest = MINIMAL.partition(f"[{section}]\n") if section else ("", "", MINIMAL)
    body, opening, tail = rest.partition("[")
    kept = [old for old in body.splitlines() if old.split("=")[0].strip() != name]
    new = "\n".join([*kept, line]) + "\n"
    return (f"{head}[{section}]\n" if section else "") + new + opening + tail


def without(section: str, name: str) -> str:
    """The minimal site in which one key of one section is not there."""
    return with_line(section, f"{name} = absent").replace(f"{name} = absent\n", "")


def refusal(path: Path) -> str:
    with pytest.raises(BadSetting) as caught:
        load_site(path)
    return str(caught.value)


def assert_one_sentence(said: str) -> None:
    assert said.endswith(".")
    assert said.isprintable()
    assert ". " not in said, f"more than one sentence: {said}"


# section, the wrong line, and what the sentence must contain besides the file and the key.
WRONG = [
    ("", "name = 3", "the number 3"),
    ("", 'name = "CC CI"', "small letters"),
    ("", 'name = "a/b"', "small letters"),
    ("", "name = true", "true"),
    ("forge", 'url = "http://git.autonomic.zone"', "http is only for loopback"),
    ("forge", 'url = "http://127.0.0.1.example.org"', "http is only for loopback"),
    ("forge", 'url = "http://10.0.0.1"', "http is only for loopback"),
    ("forge", 'url = "http://localhost.example.org"', "http is only for loopback"),
    ("forge", 'url = "http://127.0.0.256"', "http is only for loopback"),
    ("forge", 'url = "http://127.\\u0660.0.1"', "http is only for loopback"),
    ("forge", 'url = "https://[::::]"', "https URL"),
    ("forge", 'url = "https://[127.0.0.1]"', "https URL"),
    ("forge", 'url = "https://git.autonomic.zone:"', "https URL"),
    ("drone", 'results_url = "https://[::::]/{build}"', "https URL"),
    ("host", 'proxy = "socks5h://[::::]:1080"', "socks5h"),
    ("forge", 'url = "git.autonomic.zone"', "https URL"),
    ("forge", 'url = "ftp://git.autonomic.zone"', "https URL"),
    ("forge", 'url = "https://"', "https URL"),
    ("forge", 'url = "https://git.autonomic.zone:99999"', "https URL"),
    ("forge", 'url = "https://git.autonomic.zone/?a=b"', "https URL"),
    ("forge", 'url = "https://git.autonomic.zone/#x"', "https URL"),
    ("forge", 'url = "https://git autonomic.zone"', "https URL"),
    ("forge", 'url = "https://git.autonomic.zone\\n"', "https URL"),
    ("forge", "url = 7", "the number 7"),
    ("forge", 'url = ""', "an empty text"),
    ("forge", "url = []", "an empty list"),
    ("forge", 'org = "a/b"', "Gitea"),
    ("forge", 'org = "-recipes"', "Gitea"),
    ("forge", 'org = "a..b"', "Gitea"),
    ("forge", 'org = "<b>"', "Gitea"),
    ("forge", 'bot = "bot; rm -rf /"', "Gitea"),
    ("forge", 'ca = "no-such-file.pem"', "exists"),
    ("forge", 'proxy = "ftp://proxy.example.org"', "socks5h"),
    ("forge", 'proxy = "socks5h://proxy.example.org/path"', "socks5h"),
    ("upstream", 'url = "http://git.coopcloud.tech"', "http is only for loopback"),
    ("upstream", 'owner = ".."', "Gitea"),
    ("ccci", 'repository = "cc-ci"', "owner/name"),
    ("ccci", 'repository = "a/.."', "owner/name"),
    ("ccci", 'repository = "a/b/c"', "owner/name"),
    ("ccci", 'repository = "a/b.git"', "owner/name"),
    ("ccci", 'branch = "-main"', "branch"),
    ("ccci", 'branch = "main.lock"', "branch"),
    ("ccci", 'branch = "a..b"', "branch"),
    ("ccci", 'poll_file = "/etc/passwd"', "inside the repository"),
    ("ccci", 'poll_file = "../bridge.nix"', "inside the repository"),
    ("ccci", 'poll_file = ".git/config"', "inside the repository"),
    ("ccci", 'poll_variable = "POLL REPOS"', "variable"),
    ("ccci", 'tests_dir = ""', "inside the repository"),
    ("ccci", 'template = "Uptime-Kuma"', "recipe name"),
    ("ccci", 'suite_layout = "flat"', '"functional" or "custom"'),
    ("ccci", 'suite_proof = "none"', '"cc-ci-pull-request" or "recipe-pull-request"'),
    ("ccci", 'suite_keys = "HEALTH_PATH"', "list"),
    ("ccci", 'other_folders = ["a/b"]', "folder"),
    ("host", 'address = "-oProxyCommand=id"', "host name"),
    ("host", 'address = ""', "host name"),
    ("host", 'user = "ro ot"', "letters"),
    ("host", "port = 0", "1 to 65535"),
    ("host", "port = 65536", "1 to 65535"),
    ("host", 'port = "22"', "1 to 65535"),
    ("host", "port = true", "1 to 65535"),
    ("host", 'ssh_config = "nowhere"', "exists"),
    ("host", 'known_hosts = "~no-such-user-here/known_hosts"', "user"),
    ("host", 'identity_file = "."', "exists"),
    ("host", 'proxy = "127.0.0.1:1080"', "socks5h"),
    ("host", 'machine_id = "4f6b"', "32"),
    ("host", 'machine_id = "4F6B1C0D9E8A47F2B35D6C7E8F901A2B"', "small letters"),
    ("host", 'hostname = "no such"', "hostname"),
    ("host", 'root_device = ""', "findmnt"),
    ("host", 'prefix = "relative"', "absolute"),
    ("host", 'prefix = "/world/../.."', "absolute"),
    ("host", 'checkout = "cc-ci"', "absolute"),
    ("host", 'checkout = "/root/../etc"', "absolute"),
    ("host", 'checkout = "/root/$(id)"', "absolute"),
    ("host", 'remote = "--upload-pack=id"', "letters"),
    ("host", 'flake = "git+file://{path}"', "{checkout}"),
    ("host", 'flake = ".#cc-ci"', "without #"),
    ("host", 'attribute = "cc ci"', "letters"),
    ("host", 'profile = ""', "absolute"),
    ("host", 'activation = "boot"', '"switch" or "test-then-switch"'),
    ("host", 'abra = "abra; id"', "program"),
    ("bridge", 'runtime = "docker"', '"swarm" or "systemd"'),
    ("bridge", 'service = "a b"', "letters"),
    ("bridge", 'stacks = ["drone", "drone"]', "a second time"),
    ("bridge", "stacks = [1]", "the number 1"),
    ("bridge", "poll_interval_s = 0", "above 0"),
    ("bridge", "poll_interval_s = nan", "above 0"),
    ("bridge", "poll_interval_s = inf", "above 0"),
    ("bridge", 'log_command = "docker service logs x"', "list of words"),
    ("bridge", "log_command = []", "list of words"),
    ("bridge", 'log_command = ["docker", "{name}"]', "{service}"),
    ("bridge", 'inspect_command = ["docker", ""]', "list of words"),
    ("bridge", "watching_line = 'watching ('", "does not compile"),
    ("bridge", "watching_line = 'watching (.*)'", "repository or count"),
    ("drone", 'url = "http://drone.ci.commoninternet.net"', "http is only for loopback"),
    ("drone", 'repository = "cc-ci"', "owner/name"),
    ("drone", 'recipe_parameter = "RECIPE&x"', "variable"),
    ("drone", "runner_capacity = 0", "1 to 64"),
    ("drone", "runner_capacity = 1.5", "1 to 64"),
    ("drone", 'results_url = "https://ci.commoninternet.net/runs/"', "{build}"),
    ("drone", 'results_url = "https://ci.commoninternet.net/{build}/{build}"', "{build}"),
    ("drone", 'results_url = "http://ci.commoninternet.net/{build}"', "http is only for loopback"),
    ("verdicts", 'context = ""', "context"),
    ("verdicts", 'trigger = "!testme\\n"', "one line"),
    ("limits", "http_s = -1", "above 0"),
    ("limits", "http_s = 0", "above 0"),
    ("limits", "http_s = true", "true"),
    ("limits", 'http_s = "20"', "above 0"),
    ("limits", "build_s = 1e9", "604800"),
    ("limits", "switch_s = 2026-06-02", "2026-06-02"),
    ("limits", "dead_man_s = 1200", "switch_s + bridge_start_s + probe_s"),
]
