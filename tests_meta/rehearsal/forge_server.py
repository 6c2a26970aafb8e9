"""The forge for contract tests: a running server, new repositories, clones, and polling.

With ``MUSTER_GITEA_BIN``, the path of a gitea binary, the same tests also run against Gitea. A binary that was built
without its assets needs them in its folder.
"""

from __future__ import annotations

import itertools
import json
import os
import secrets
import subprocess
import time
from base64 import b64encode
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest

from fixtures.rehearsal.settings import WorldSettings
from tests_meta.rehearsal.forge_processes import (
    BOT,
    ORG,
    PUBLIC_ORG,
    EmbeddedForge,
    GiteaForge,
    Server,
    git_environment,
)

__all__ = [
    "BOT",
    "ORG",
    "PUBLIC_ORG",
    "Clone",
    "EmbeddedForge",
    "ForgeUnderTest",
    "GiteaForge",
    "Remote",
    "encoded",
    "forge",
    "git_environment",
    "request_log",
]

DEADLINE_S = 20.0


@dataclass
class Clone:
    """A local work tree."""

    path: Path

    def git(self, *arguments: str) -> str:
        """The output of a git command that must succeed."""
        done = self.attempt(*arguments)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    def attempt(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["git", "-C", str(self.path), *arguments],
            capture_output=True,
            text=True,
            env=git_environment(),
            timeout=60,
            check=False,
        )

    def commit(self, files: Mapping[str, str], message: str = "change") -> str:
        """Write files, commit them, and return the commit."""
        for name, text in files.items():
            (self.path / name).parent.mkdir(parents=True, exist_ok=True)
            (self.path / name).write_text(text)
        self.git("add", "--all")
        self.git("commit", "--quiet", "--allow-empty", "--message", message)
        return self.git("rev-parse", "HEAD")


@dataclass(frozen=True)
class Remote:
    """A repository on the forge; `api` is its path below ``/api/v1``."""

    owner: str
    name: str
    forge: ForgeUnderTest

    @property
    def api(self) -> str:
        return f"/repos/{self.owner}/{self.name}"

    def url(self, token: str = "operator") -> str:
        """The address for git, with the token as its password; "" means no token."""
        login = f"anybody:{self.forge.server.tokens[token]}@" if token else ""
        return f"{self.forge.url.replace('://', '://' + login)}/{self.owner}/{self.name}.git"

    def head(self, branch: str = "main") -> str:
        """The head of a branch, read with git ls-remote."""
        out = subprocess.run(
            ["git", "ls-remote", self.url(), f"refs/heads/{branch}"],
            capture_output=True,
            text=True,
            env=git_environment(),
            timeout=30,
            check=True,
        )
        return out.stdout.split()[0] if out.stdout else ""


@dataclass
class ForgeUnderTest:
    """A running forge: API clients by token name, new repositories, and polling."""

    server: Server
    _numbers: Iterator[int] = field(default_factory=lambda: itertools.count(1))
    _clients: dict[str, httpx.Client] = field(default_factory=dict)

    @property
    def url(self) -> str:
        return self.server.url

    def before(self, major: int, minor: int) -> bool:
        """Whether the forge is older than this Gitea version; the embedded forge reports 1.25."""
        first, second, *_ = str(self.api("").get("/version").json()["version"]).split(".")
        return (int(first), int(second)) < (major, minor)

    def api(self, token: str = "operator") -> httpx.Client:
        """An API client with this token; "" means no token."""
        if token not in self._clients:
            headers = {"Authorization": f"token {self.server.tokens[token]}"} if token else {}
            self._clients[token] = httpx.Client(base_url=self.url + "/api/v1", headers=headers, timeout=30)
        return self._clients[token]

    def new_repo(self, files: Mapping[str, str] | None = None, *, org: str = ORG, private: bool = True) -> Remote:
        """Create a repository for one test; with files, its ``main`` has one commit of them."""
        remote = Remote(org, f"repo-{next(self._numbers)}-{secrets.token_hex(3)}", self)
        made = self.api().post(
            f"/orgs/{org}/repos", json={"name": remote.name, "private": private, "default_branch": "main"}
        )
        assert made.status_code == 201, made.text
        if files:
            self.write(remote, files)
        return remote

    def write(self, remote: Remote, files: Mapping[str, str], **options: Any) -> str:
        """Create files in one commit through the API; returns the commit."""
        changes = [
            {"operation": "create", "path": path, "content": encoded(text)} for path, text in files.items()
        ]
        body = {"files": changes, "message": "write", **options}
        answer = self.api().post(remote.api + "/contents", json=body)
        assert answer.status_code == 201, answer.text
        return str(answer.json()["commit"]["sha"])

    def new_pull(self, remote: Remote, files: Mapping[str, str], *, branch: str = "feature") -> dict[str, Any]:
        """Open a pull request that adds `files` to ``main`` from a new branch."""
        self.write(remote, files, new_branch=branch)
        body = {"head": branch, "base": "main", "title": f"Take {branch}"}
        answer = self.api().post(remote.api + "/pulls", json=body)
        assert answer.status_code == 201, answer.text
        found: dict[str, Any] = answer.json()
        return found

    def clone(self, remote: Remote, folder: Path, token: str = "operator") -> Clone:
        """Clone the repository to `folder`; the address of its origin has the token."""
        subprocess.run(
            ["git", "clone", "--quiet", remote.url(token), str(folder)],
            env=git_environment(),
            capture_output=True,
            timeout=60,
            check=True,
        )
        clone = Clone(folder)
        clone.git("symbolic-ref", "HEAD", "refs/heads/main")
        return clone

    def until(self, look: Callable[[], Any], what: str) -> Any:
        """Poll until `look` returns a true value, for work that the forge does in its queues."""
        deadline = time.monotonic() + DEADLINE_S
        while not (seen := look()):
            assert time.monotonic() < deadline, f"not within {DEADLINE_S} s: {what}"
            time.sleep(0.02)
        return seen

    def pull(self, remote: Remote, number: int) -> dict[str, Any]:
        found: dict[str, Any] = self.api().get(f"{remote.api}/pulls/{number}").json()
        return found


def encoded(text: str | bytes) -> str:
    return b64encode(text.encode() if isinstance(text, str) else text).decode()


_running = pytest.StashKey[dict[str, ForgeUnderTest]]()


def kinds() -> list[str]:
    return ["embedded", "gitea"] if os.environ.get("MUSTER_GITEA_BIN") else ["embedded"]


@pytest.fixture(scope="session", params=kinds())
def forge(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> ForgeUnderTest:
    """A running forge; one of each kind for the whole session."""
    running = request.config.stash.setdefault(_running, {})
    kind = str(request.param)
    if kind not in running:
        folder = tmp_path_factory.mktemp(kind)
        server: Server = (
            EmbeddedForge(folder) if kind == "embedded" else GiteaForge(os.environ["MUSTER_GITEA_BIN"], folder)
        )
        request.config.add_cleanup(server.stop)
        running[kind] = ForgeUnderTest(server)
    return running[kind]


def request_log(settings: WorldSettings, listener: str = "forge") -> list[dict[str, Any]]:
    """The embedded forge's request log."""
    file = settings.logs_dir / f"{listener}-requests.jsonl"
    return [json.loads(line) for line in file.read_text().splitlines()]
