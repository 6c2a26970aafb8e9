"""A small embedded world for the tests of the ci server and the bridge, of real processes."""

from __future__ import annotations

import ast
import base64
import secrets
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from time import monotonic, sleep
from typing import Any, TypeVar

import httpx

import fixtures.rehearsal
from fixtures.rehearsal.forge_embedded.store import Store
from fixtures.rehearsal.settings import WorldSettings

PACKAGE = Path(str(fixtures.rehearsal.__file__)).parent
ROOT = PACKAGE.parents[1]
T = TypeVar("T")
ORG = "recipe-maintainers"
# A REF that no mirror has: its build fails at the fetch within a tenth of a second.
NO_SUCH_COMMIT = "f" * 40
MEMBER_SCOPES = "write:repository,write:issue,read:organization,read:user"
# The module behind each part that these tests start alone.
MODULES = {"forge": "forge_embedded", "ci": "drone_embedded", "drone": "drone_real"}


def free_ports(count: int) -> list[int]:
    """Ports that are free now."""
    listeners = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    try:
        return [int(listener.getsockname()[1]) for listener in listeners]
    finally:
        for listener in listeners:
            listener.close()


def until(look: Callable[[], T | None], *, within_s: float = 20.0, what: str = "") -> T:
    """Poll until `look` returns a value; the other side is a process, so there is no event to wait for."""
    deadline = monotonic() + within_s
    while monotonic() < deadline:
        found = look()
        if found:
            return found
        sleep(0.03)
    raise AssertionError(f"not within {within_s} s: {what}")


def commit_tree(bare: Path, branch: str, files: Mapping[str, str | Path], *, parent: str = "") -> str:
    """Commit `files` (path to text, or to a file on disk) on a branch of a bare repository; returns the sha."""
    lines = [f"commit refs/heads/{branch}", "mark :1", "committer cc-ci <ci@example.org> 1780272000 +0000"]
    lines += ["data 4", "seed"]
    if parent:
        lines.append(f"from {parent}")
    stream = "\n".join(lines).encode() + b"\n"
    for path, content in files.items():
        data = content.read_bytes() if isinstance(content, Path) else content.encode()
        stream += f"M 100644 inline {path}\ndata {len(data)}\n".encode() + data + b"\n"
    git(bare, "fast-import", "--quiet", "--force", given=stream)
    return git(bare, "rev-parse", f"refs/heads/{branch}")


def git(bare: Path, *arguments: str, given: bytes = b"") -> str:
    """Run git in a bare repository; CalledProcessError when it fails."""
    done = subprocess.run(["git", *arguments], cwd=bare, input=given, capture_output=True, check=True)
    return done.stdout.decode().strip()


def functional_tests(recipe: str) -> set[str]:
    """The functional tests in a recipe's files, by their names in results, read without running them."""
    found = set()
    for path in (PACKAGE / "initial_state" / "ccci" / "tests" / recipe / "functional").glob("test_*.py"):
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
                found.add(f"functional/{path.name}::{node.name}")
    return found


def ccci_tree() -> dict[str, str | Path]:
    """The cc-ci repository as the rehearsal seeds it."""
    base = PACKAGE / "initial_state" / "ccci"
    found = (path for path in base.rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    return {str(path.relative_to(base)): path for path in found}


@dataclass
class World:
    """A running world, its settings, and methods to read it and to act in it as a person would."""

    settings: WorldSettings
    processes: dict[str, subprocess.Popen[str]]
    members: dict[str, str]
    http: httpx.Client

    def start(self, part: str) -> None:
        """Start one of the world's processes and wait for its READY."""
        with (self.settings.root / f"{part}.log").open("a") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", f"fixtures.rehearsal.{MODULES.get(part, part)}", str(self.settings.root)],
                cwd=ROOT,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )
        self.processes[part] = process
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line == "READY\n", (line, (self.settings.root / f"{part}.log").read_text())

    def stop(self, part: str) -> None:
        """Terminate one process and wait for it."""
        process = self.processes.pop(part)
        process.terminate()
        process.wait(timeout=15)
        if process.stdout is not None:
            process.stdout.close()

    def forge(self, method: str, path: str, *, user: str = "", **options: Any) -> httpx.Response:
        """One API call to the forge, as the operator or as `user`."""
        token = self.members[user] if user else self.settings.operator_token
        url = f"{self.settings.forge_url}/api/v1{path}"
        return self.http.request(method, url, headers={"Authorization": f"token {token}"}, **options)

    def drone(self, method: str, path: str, *, token: str | None = None, **options: Any) -> httpx.Response:
        """One API call to Drone; `path` begins behind ``/api``."""
        bearer = self.settings.drone_token if token is None else token
        headers = {"Authorization": f"Bearer {bearer}"} if bearer else {}
        return self.http.request(method, f"{self.settings.ci_url}/api{path}", headers=headers, **options)

    def trigger(self, recipe: str, ref: str, **params: str) -> dict[str, Any]:
        """Start a custom build of a recipe."""
        query = {"branch": "main", "RECIPE": recipe, "REF": ref, **params}
        answer = self.drone("POST", f"/repos/{ORG}/cc-ci/builds", params=query)
        assert answer.status_code == 200, answer.text
        build: dict[str, Any] = answer.json()
        return build

    def build(self, number: int) -> dict[str, Any]:
        """The current state of one build in Drone."""
        found: dict[str, Any] = self.drone("GET", f"/repos/{ORG}/cc-ci/builds/{number}").json()
        return found

    def builds(self, **params: str | int) -> list[dict[str, Any]]:
        """The list of builds."""
        found: list[dict[str, Any]] = self.drone("GET", f"/repos/{ORG}/cc-ci/builds", params=params).json()
        return found

    def log(self, number: int, step: int = 2) -> str:
        """The text of one step's log."""
        lines = self.drone("GET", f"/repos/{ORG}/cc-ci/builds/{number}/logs/1/{step}").json()
        return "".join(line["out"] for line in lines)

    def finished(self, number: int) -> dict[str, Any]:
        """Wait for the end of the build and return it."""

        def look() -> dict[str, Any] | None:
            build = self.build(number)
            return build if build["status"] not in ("pending", "running") else None

        return until(look, what=f"build {number} done")

    def results(self, number: int) -> dict[str, Any]:
        """The run's results.json."""
        url = f"{self.settings.dashboard_url}/runs/{number}/results.json"
        found: dict[str, Any] = self.http.get(url).json()
        return found

    def head(self, repo: str, branch: str = "main") -> str:
        """The head of a branch."""
        return git(self.settings.forge_dir / "repos" / ORG / f"{repo}.git", "rev-parse", f"refs/heads/{branch}")

    def push(self, branch: str, files: Mapping[str, str | Path | None], *, base: str = "main") -> str:
        """Push a commit on top of `base` to a branch of cc-ci, over http; returns its sha."""
        contents = []
        for path, content in files.items():
            known = self.forge("GET", f"/repos/{ORG}/cc-ci/contents/{path}", params={"ref": base})
            row: dict[str, Any] = {"path": path, "operation": "create"}
            if known.status_code == 200:
                row |= {"operation": "delete" if content is None else "update", "sha": known.json()["sha"]}
            if content is not None:
                data = content.read_bytes() if isinstance(content, Path) else content.encode()
                row["content"] = base64.b64encode(data).decode()
            contents.append(row)
        body = {"branch": base, "new_branch": branch, "message": "A change", "files": contents}
        answer = self.forge("POST", f"/repos/{ORG}/cc-ci/contents", json=body)
        assert answer.status_code == 201, answer.text
        return str(answer.json()["commit"]["sha"])

    def statuses(self, repo: str, sha: str) -> list[dict[str, Any]]:
        """All statuses of a commit, latest first."""
        found: list[dict[str, Any]] = []
        page = 1
        while rows := self.forge(
            "GET", f"/repos/{ORG}/{repo}/statuses/{sha}", params={"limit": 50, "page": page}
        ).json():
            found += rows
            page += 1
        return sorted(found, key=lambda status: -int(status["id"]))


def make_settings(root: Path, **changes: Any) -> WorldSettings:
    """Settings of a fresh world on free ports."""
    ports = free_ports(5)
    tokens = {name: secrets.token_hex(20) for name in ("operator", "bridge", "drone_forge", "checkout", "drone")}
    values: dict[str, Any] = {
        "root": root,
        "pace": 0.01,
        "forge_port": ports[0],
        "upstream_port": ports[1],
        "ci_port": ports[2],
        "dashboard_port": ports[3],
        "ssh_port": ports[4],
        **{f"{name}_token": token for name, token in tokens.items()},
    }
    settings = WorldSettings(**(values | changes))
    settings.save()
    return settings


def seed(settings: WorldSettings, recipes: Mapping[str, Mapping[str, str]]) -> dict[str, str]:
    """Accounts, the cc-ci repository, and one mirror per recipe with an open pull request #1; members' tokens."""
    store = Store(settings.forge_dir)
    store.create_user(settings.bot, id=64)
    members = {}
    for name in ("alice", "mallory"):
        store.create_user(name)
        members[name] = secrets.token_hex(20)
        store.create_token(name, members[name], MEMBER_SCOPES)
    store.create_org(ORG, private=True, owners=[settings.bot], members=["alice"])
    write = "write:organization,write:repository,write:issue,read:user"
    for token, scopes in (
        (settings.operator_token, write),
        (settings.bridge_token, "read:organization,write:repository,write:issue,read:user"),
        (settings.drone_forge_token, "write:repository,read:user,read:organization"),
    ):
        store.create_token(settings.bot, token, scopes)
    commit_tree(store.create_repo(ORG, "cc-ci", private=True), "main", ccci_tree())
    store.note_pushed(ORG, "cc-ci")
    for recipe, files in recipes.items():
        bare = store.create_repo(ORG, recipe, private=True)
        main = commit_tree(bare, "main", {"compose.yml": "version: '3.8'\n", **files})
        commit_tree(bare, "change", {"README.md": f"# {recipe}\n"}, parent=main)
        store.note_pushed(ORG, recipe)
        store.create_pull(ORG, recipe, head="change", title="A change", author="alice")
    store.close()
    return members


@contextmanager
def running(
    root: Path,
    recipes: Mapping[str, Mapping[str, str]],
    *,
    prepare: Callable[[WorldSettings], None] | None = None,
    parts: tuple[str, ...] = ("forge", "ci"),
    **changes: Any,
) -> Iterator[World]:
    """A seeded world with its `parts` running; all of its processes are stopped at the end.

    `prepare` may add to the world before its processes start; `changes` are settings.
    """
    root.mkdir(parents=True, exist_ok=True)
    settings = make_settings(root, **changes)
    # No keep-alive: a stale connection to a restarted server would fail.
    limits = httpx.Limits(max_keepalive_connections=0)
    http = httpx.Client(trust_env=False, timeout=70, verify=False, limits=limits)  # plain http on loopback
    world = World(settings, {}, seed(settings, recipes), http)
    if prepare is not None:
        prepare(settings)
    try:
        for part in parts:
            world.start(part)
        yield world
    finally:
        http.close()
        for part in reversed(list(world.processes)):
            world.stop(part)
        shutil.rmtree(root, ignore_errors=True)
