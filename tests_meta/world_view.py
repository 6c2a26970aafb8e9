"""Read a world without muster's clients: git in the bare repositories, HTTP by urllib, SQLite, /proc.

An error in muster's clients would be invisible to tests that use the same clients.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import sqlite3
import subprocess
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fixtures.rehearsal.settings import WorldSettings

POLL_FILE = "nix/modules/bridge.nix"
# The forge's content that people see; without statuses and builds, which change without muster.
QUERIES = {
    "repositories": "SELECT lower_name, private, is_empty, default_branch, description FROM repos ORDER BY id",
    "issues": "SELECT repo_id, number, title, body, closed FROM issues ORDER BY id",
    "pulls": """
        SELECT p.repo_id, p.number, p.head_branch, p.base_branch,
               CASE WHEN i.closed THEN 'closed' ELSE 'open' END, p.merged_sha
        FROM pulls p JOIN issues i ON i.id = p.issue_id ORDER BY p.id""",
    "comments": """
        SELECT issue_id, body, accounts.name FROM comments JOIN accounts ON accounts.id = author_id
        WHERE kind = 'comment' ORDER BY comments.id""",
}
GITEA_QUERIES = {
    "repositories": """
        SELECT lower_name, is_private, is_empty, default_branch, description FROM repository ORDER BY id""",
    "issues": 'SELECT repo_id, "index", name, content, is_closed FROM issue ORDER BY id',
    "pulls": """
        SELECT p.base_repo_id, p."index", p.head_branch, p.base_branch,
               CASE WHEN i.is_closed THEN 'closed' ELSE 'open' END, p.merged_commit_id
        FROM pull_request p JOIN issue i ON i.id = p.issue_id ORDER BY p.id""",
    "comments": """
        SELECT issue_id, content, "user".name FROM comment JOIN "user" ON "user".id = poster_id
        WHERE type = 0 ORDER BY comment.id""",
}


@dataclass(frozen=True)
class WorldView:
    """One world, read from outside."""

    settings: WorldSettings

    def bare(self, name: str, *, upstream: bool = False) -> Path:
        owner = self.settings.upstream_owner if upstream else self.settings.org
        base = self.settings.upstream_dir if upstream else self.settings.forge_dir
        return base / "repos" / owner / f"{name}.git"

    def git(self, name: str, *arguments: str, upstream: bool = False) -> str:
        """Output of plain git in a bare repository."""
        bare = self.bare(name, upstream=upstream)
        done = subprocess.run(
            ["git", "-c", f"safe.directory={bare}", *arguments],
            cwd=bare,
            capture_output=True,
            text=True,
            timeout=30,
            check=True,
        )
        return done.stdout.rstrip("\n")

    def refs(self, name: str, *, upstream: bool = False) -> dict[str, str]:
        """Every ref of a repository and its object; empty if the repository does not exist."""
        if not self.bare(name, upstream=upstream).exists():
            return {}
        shown = self.git(name, "for-each-ref", "--format=%(refname) %(objectname)", upstream=upstream)
        return dict(line.split(" ") for line in shown.splitlines())

    def all_refs(self, *, upstream: bool = False) -> dict[str, dict[str, str]]:
        folder = self.bare("x", upstream=upstream).parent
        return {bare.stem: self.refs(bare.stem, upstream=upstream) for bare in sorted(folder.glob("*.git"))}

    def poll_set(self, commit: str = "main") -> list[str]:
        """The poll set in cc-ci at a commit, read by a regular expression."""
        text = self.git("cc-ci", "show", f"{commit}:{POLL_FILE}")
        found = re.search(r'"POLL_REPOS=([^"]*)"', text)
        assert found is not None, text
        return found[1].split(",")

    def running_poll_set(self) -> list[str]:
        """The poll set in the environment of this world's only bridge process."""
        found = self.running_poll_sets()
        assert len(found) == 1, f"{len(found)} bridges run"
        return found[0]

    def running_poll_sets(self) -> list[list[str]]:
        """The poll set of every bridge process; during a restart there may be none, or two."""
        return [bridge["POLL_REPOS"].split(",") for bridge in self._bridges()]

    def _bridges(self) -> list[dict[str, str]]:
        bridges = []
        for process in Path("/proc").iterdir():
            if process.name.isdigit():
                with contextlib.suppress(OSError):
                    # A Swarm task runs the package, a systemd unit its poller.
                    if re.search(
                        rb"fixtures\.rehearsal\.bridge(\.poller)?\0", (process / "cmdline").read_bytes()
                    ):
                        entries = (process / "environ").read_bytes().decode().split("\0")
                        bridges.append(dict(entry.split("=", 1) for entry in entries if "=" in entry))
        return [one for one in bridges if one.get("GITEA_URL") == self.settings.forge_url]

    def database(self) -> dict[str, list[Any]]:
        """The content of the forge's database that people see."""
        gitea = self.settings.forge == "gitea"
        file, queries = ("gitea.db", GITEA_QUERIES) if gitea else ("forge.db", QUERIES)
        with contextlib.closing(sqlite3.connect(self.settings.forge_dir / file, timeout=30)) as db:
            return {name: db.execute(query).fetchall() for name, query in queries.items()}

    def host(self) -> dict[str, str]:
        """The host's running system, boot default, checkout and alerts."""
        root = self.settings.host_dir
        profile = root / "nix/var/nix/profiles/system"
        checkout = subprocess.run(
            ["git", "-c", "safe.directory=*", "-C", str(root / "root/cc-ci"), "rev-parse", "HEAD"],
            capture_output=True,
            text=True,
            check=True,
        )
        alerts = root / "var/lib/ci-warm/alerts"
        return {
            "running": os.path.realpath(root / "run/current-system"),
            "generation": os.readlink(profile),
            "boots": os.path.realpath(profile),
            "checkout": checkout.stdout.strip(),
            "alerts": " ".join(sorted(path.name for path in alerts.iterdir())),
        }

    def everything(self) -> dict[str, Any]:
        """Everything that a write of muster would change, as one value to compare."""
        return {
            "forge": self.all_refs(),
            "upstream": self.all_refs(upstream=True),
            "discussions": self.database(),
            "host": self.host(),
        }

    def api(self, path: str, *, token: str | None = None) -> tuple[int, Any]:
        """Status and body of a GET to the forge's API; `token` "" sends no credentials."""
        secret = self.settings.operator_token if token is None else token
        headers = {"Authorization": f"token {secret}"} if secret else {}
        return _get(f"{self.settings.forge_url}/api/v1{path}", headers)

    def drone(self, path: str) -> Any:
        headers = {"Authorization": f"Bearer {self.settings.drone_token}"}
        status, body = _get(f"{self.settings.ci_url}/api{path}", headers)
        assert status == 200, body
        return body

    def builds(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.drone(f"/repos/{self.settings.org}/cc-ci/builds?per_page=100")
        return found

    def writes_by(self, agent: str, *, since: int = 0) -> list[str]:
        """The write requests of programs with this user agent to the forge, after the first `since` requests."""
        return [
            request
            for request in self.requests_by(agent, since=since)
            if not request.startswith(("GET ", "HEAD ")) and not request.endswith("/git-upload-pack")
        ]

    def requests_by(self, agent: str, *, since: int = 0) -> list[str]:
        """The requests of programs with this user agent to the forge, after the first `since` requests."""
        return [
            f"{entry['method']} {entry['path']}"
            for entry in self.requests()[since:]
            if entry["user_agent"].startswith(agent)
        ]

    def requests(self) -> list[dict[str, Any]]:
        file = self.settings.logs_dir / "forge-requests.jsonl"
        return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


def _get(url: str, headers: dict[str, str]) -> tuple[int, Any]:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(urllib.request.Request(url, headers=headers), timeout=20) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as refusal:
        return refusal.code, refusal.read().decode(errors="replace")
