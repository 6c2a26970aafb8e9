"""The forges that the contract tests talk to, as processes: the embedded one, and a real Gitea.

Both get the same accounts, tokens and organisations, so a test cannot tell them apart except by their answers.
"""

from __future__ import annotations

import os
import re
import secrets
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import httpx

from fixtures.rehearsal.forge_embedded.store import Store
from fixtures.rehearsal.forge_gitea.instance import Instance
from fixtures.rehearsal.settings import WorldSettings

ROOT = Path(__file__).parents[2]
ORG = "recipe-maintainers"
PUBLIC_ORG = "coop-cloud"
BOT = "autonomic-bot"
WORK = "write:organization,write:repository,write:issue,read:user"
TOKENS = {
    "admin": ("root", "all"),
    "operator": (BOT, WORK),
    "reader": (BOT, "read:repository"),
    "issues": (BOT, "write:issue"),
    "organizer": (BOT, "write:organization"),
    "alice": ("alice", WORK),
    "mallory": ("mallory", WORK),
}
"""Who a token acts for and what it may do: bot owns both organisations, alice is a member of the first
with write access, mallory is nobody to either."""


class Server(Protocol):
    """A running forge, whichever it is."""

    tokens: dict[str, str]

    @property
    def url(self) -> str:
        """Its root URL, without a slash at the end."""

    def stop(self) -> None:
        """End it, and everything it started."""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def git_environment() -> dict[str, str]:
    """An environment in which git reads no configuration of this machine and never asks for a password."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    return kept | {
        "GIT_TERMINAL_PROMPT": "0",
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_CONFIG_GLOBAL": os.devnull,
        "GIT_AUTHOR_NAME": "Test",
        "GIT_AUTHOR_EMAIL": "test@forge.invalid",
        "GIT_COMMITTER_NAME": "Test",
        "GIT_COMMITTER_EMAIL": "test@forge.invalid",
    }


def _wait_ready(ask: Callable[[], bool], process: subprocess.Popen[Any], log: Path) -> None:
    deadline = time.monotonic() + 60
    while not ask():
        assert process.poll() is None, log.read_text()
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.02)


class EmbeddedForge:
    """The embedded forge as its own process, in a world of its own."""

    kind = "embedded"

    def __init__(self, folder: Path, *, pace: float = 0.02) -> None:
        self.tokens = {name: secrets.token_hex(20) for name in TOKENS}
        self.settings = WorldSettings(
            root=folder,
            pace=pace,
            forge_port=free_port(),
            upstream_port=free_port(),
            ci_port=0,
            dashboard_port=0,
            ssh_port=0,
            operator_token=self.tokens["operator"],
            bridge_token=secrets.token_hex(20),
            drone_forge_token=secrets.token_hex(20),
            checkout_token=self.tokens["reader"],
            drone_token=secrets.token_hex(16),
        )
        self.settings.save()
        self._seed()
        self.start()

    @property
    def url(self) -> str:
        return self.settings.forge_url

    def _seed(self) -> None:
        for directory in (self.settings.forge_dir, self.settings.upstream_dir):
            store = Store(directory)
            store.create_user("root")
            store.create_user(BOT, id=64)
            store.create_user("alice")
            store.create_user("mallory")
            store.create_org(ORG, private=True, owners=[BOT], members=["alice"])
            store.create_org(PUBLIC_ORG, owners=[BOT])
            for name, (user, scopes) in TOKENS.items():
                store.create_token(user, self.tokens[name], scopes)
            store.close()

    def start(self) -> None:
        """Start the process and wait for its READY."""
        self.log = self.settings.root / "forge.log"
        with self.log.open("ab") as stream:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "fixtures.rehearsal.forge_embedded", str(self.settings.root)],
                cwd=ROOT,
                stdout=subprocess.PIPE,
                stderr=stream,
                text=True,
            )
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == "READY\n", self.log.read_text()

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait(timeout=20)


class GiteaForge:
    """A real Gitea with SQLite in a temporary folder, given the accounts that the embedded one is seeded with."""

    kind = "gitea"

    def __init__(self, binary: str, folder: Path) -> None:
        self._instance = Instance(Path(binary), folder, free_port(), folder / "logs")
        self._instance.configure()
        self._instance.run("migrate")
        self.log = folder / "gitea.log"
        with self.log.open("wb") as stream:
            self.process = subprocess.Popen(
                self._instance.command("web"),
                env=self._instance.environment(),
                stdout=stream,
                stderr=subprocess.STDOUT,
            )
        _wait_ready(self._instance.healthy, self.process, self.log)
        self.tokens = self._seed()

    @property
    def url(self) -> str:
        return self._instance.url

    def _seed(self) -> dict[str, str]:
        """Accounts by the command line, organisations by the API: the least privileged way for each."""
        for name, flags in (("root", ["--admin"]), (BOT, []), ("alice", []), ("mallory", [])):
            self._instance.run(
                *("admin", "user", "create", "--username", name, "--email", f"{name}@forge.invalid"),
                *("--password", secrets.token_hex(12), "--must-change-password=false", *flags),
            )
        tokens = {}
        for name, (user, scopes) in TOKENS.items():
            made = self._instance.run(
                *("admin", "user", "generate-access-token", "--username", user, "--token-name", name),
                *("--scopes", scopes, "--raw"),
            )
            found = re.search(r"\b[0-9a-f]{40}\b", made)
            assert found is not None, made
            tokens[name] = found[0]
        client = httpx.Client(
            base_url=self.url + "/api/v1", headers={"Authorization": f"token {tokens['admin']}"}, timeout=30
        )
        # Before 1.23 an account that was made by the command line may not have organisations.
        allowed = {"login_name": BOT, "source_id": 0, "allow_create_organization": True}
        client.patch(f"/admin/users/{BOT}", json=allowed).raise_for_status()
        for org, visibility in ((ORG, "private"), (PUBLIC_ORG, "public")):
            body = {"username": org, "visibility": visibility}
            client.post(f"/admin/users/{BOT}/orgs", json=body).raise_for_status()
        units = ["repo.code", "repo.issues", "repo.pulls", "repo.releases"]
        team = {
            "name": "members",
            "permission": "write",
            "includes_all_repositories": True,
            "units": units,
            "units_map": dict.fromkeys(units, "write"),
        }
        made_team = client.post(f"/orgs/{ORG}/teams", json=team).raise_for_status().json()
        client.put(f"/teams/{made_team['id']}/members/alice").raise_for_status()
        return tokens

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait(timeout=60)
