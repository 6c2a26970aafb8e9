"""The world that mutations break, and the acts by which people, servers and accidents break it.

Acts use git, HTTP, the embedded host's own commands and the files of its servers; never muster's clients.
"""

from __future__ import annotations

import contextlib
import json
import os
import sqlite3
import subprocess
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from fixtures.rehearsal.settings import WorldSettings
from tests_meta.parallel_worlds import SEEDED, ParallelWorld
from tests_meta.rehearsal.ci_world import until
from tests_meta.rehearsal.forge_server import git_environment
from tests_meta.world_view import WorldView

CONVERGED = "converged"
ROSTER = """\
recipes = [
  { name = "keycloak", enroll = false },
  { name = "hedgedoc", enroll = false },
  { name = "ghost", enroll = true, known_red = { reason = "restore", until = 9999-12-31 } },
]
canaries = ["ghost"]
deferred = [{ recipe = "ghost", item = "backup pull request 1" }]
"""


def git(folder: Path, *arguments: str, date: str = "") -> str:
    """The output of a git command; `date` is that of the commits it makes."""
    dates = {"GIT_AUTHOR_DATE": date, "GIT_COMMITTER_DATE": date} if date else {}
    done = subprocess.run(
        ["git", *arguments], cwd=folder, env=git_environment() | dates, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


class World:
    """One converged world with a small roster, and its acts."""

    def __init__(self, folder: Path, parallel: ParallelWorld | None = None) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.parallel = parallel or ParallelWorld(folder / "world", ROSTER)
        self._folder = folder

    @property
    def settings(self) -> WorldSettings:
        return self.parallel.settings

    @property
    def view(self) -> WorldView:
        return WorldView(self.settings)

    @property
    def org(self) -> str:
        return self.settings.org

    @property
    def host_folder(self) -> Path:
        return self.settings.host_dir

    def converge(self) -> None:
        """Make the converged world once and keep it: an apply from the world of 2026-06-02."""
        self.parallel.begin(SEEDED)
        self.parallel.visit().demand(0)
        self.parallel.keep(CONVERGED)
        self.renew()

    def renew(self) -> None:
        """Restore the converged world and start it."""
        self.parallel.begin(CONVERGED)

    # -- the forge -----------------------------------------------------------------------------------------

    def api(self, method: str, path: str, body: Any = None) -> Any:
        """One request of the operator to the forge's API; raises HTTPError for a refusal."""
        request = urllib.request.Request(
            f"{self.settings.forge_url}/api/v1{path}",
            method=method,
            data=json.dumps(body).encode() if body is not None else None,
            headers={
                "Authorization": f"token {self.settings.operator_token}",
                "Content-Type": "application/json",
            },
        )
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(request, timeout=20) as answer:
            return json.loads(answer.read() or b"null")

    def edit_repository(self, repository: str, **columns: object) -> None:
        self.api("PATCH", f"/repos/{self.org}/{repository}", columns)

    @contextlib.contextmanager
    def database(self) -> Iterator[sqlite3.Connection]:
        """The forge's database, for states that its API does not make."""
        with contextlib.closing(sqlite3.connect(self.settings.forge_dir / "forge.db", timeout=30)) as db, db:
            yield db

    def bare(self, name: str, *, upstream: bool = False) -> Path:
        return self.view.bare(name, upstream=upstream)

    def set_ref(self, name: str, ref: str, to: str, *, upstream: bool = False) -> str:
        """Set a ref in the bare repository (`to` empty: delete it); returns what it was, or an empty string."""
        bare = self.bare(name, upstream=upstream)
        was = self.view.refs(name, upstream=upstream).get(ref, "")
        git(bare, "update-ref", *(["-d", ref] if not to else [ref, to]))
        return was

    @contextlib.contextmanager
    def ref(self, name: str, ref: str, to: str, *, upstream: bool = False) -> Iterator[None]:
        """A ref that names another commit (or, with `to` empty, is not there) inside the block."""
        was = self.set_ref(name, ref, to, upstream=upstream)
        try:
            yield
        finally:
            self.set_ref(name, ref, was, upstream=upstream)

    def tag(self, name: str) -> str:
        """The ref of a mirror's last tag."""
        return max(ref for ref in self.view.refs(name) if ref.startswith("refs/tags/"))

    def copy_objects(self, kept: Path, name: str, kind: str) -> None:
        """Write the objects of one kind from a kept folder of objects into the repository's own."""
        bare = self.bare(name)
        other = git_environment() | {"GIT_OBJECT_DIRECTORY": str(kept)}
        listed = subprocess.run(
            ["git", "cat-file", "--batch-all-objects", "--batch-check=%(objecttype) %(objectname)"],
            cwd=bare, env=other, capture_output=True, text=True, check=True,
        ).stdout  # fmt: skip
        for line in listed.splitlines():
            if line.startswith(f"{kind} "):
                content = subprocess.run(
                    ["git", "cat-file", kind, line.split()[1]],
                    cwd=bare,
                    env=other,
                    capture_output=True,
                    check=True,
                ).stdout
                subprocess.run(
                    ["git", "hash-object", "-t", kind, "-w", "--stdin", "--literally"],
                    cwd=bare, env=git_environment(), input=content, capture_output=True, check=True,
                )  # fmt: skip

    def commit(
        self,
        name: str,
        files: dict[str, str | None],
        *,
        upstream: bool = False,
        orphan: bool = False,
        days_ago: int = 0,
    ) -> str:
        """A commit of `files` (None deletes one) on main's head that no ref names yet; returns its id."""
        bare = self.bare(name, upstream=upstream)
        with tempfile.TemporaryDirectory(dir=self._folder) as folder:
            git(bare, "worktree", "add", "--quiet", "--detach", f"{folder}/tree", "main")
            tree = Path(folder, "tree")
            if orphan:
                git(tree, "checkout", "--quiet", "--orphan", "elsewhere")
            for path, text in files.items():
                (place := tree / path).parent.mkdir(parents=True, exist_ok=True)
                place.unlink() if text is None else place.write_text(text)
            git(tree, "add", "--all")
            date = f"{int(time.time()) - days_ago * 86_400} +0000"
            git(tree, "commit", "--quiet", "--allow-empty", "--message", "by hand", date=date)
            made = git(tree, "rev-parse", "HEAD")
            git(bare, "worktree", "remove", "--force", str(tree))
            git(bare, "update-ref", "-d", "refs/heads/elsewhere")
        return made

    @contextlib.contextmanager
    def ccci(self, files: dict[str, str | None]) -> Iterator[None]:
        """cc-ci's main, and the host's checkout, at a commit of `files` inside the block."""
        made = self.commit("cc-ci", files)
        checkout = self.host_folder / "root/cc-ci"
        was = git(checkout, "rev-parse", "HEAD")
        with self.ref("cc-ci", "refs/heads/main", made):
            git(checkout, "fetch", "--quiet", str(self.bare("cc-ci")), "main")
            git(checkout, "reset", "--quiet", "--hard", made)
            try:
                yield
            finally:
                git(checkout, "reset", "--quiet", "--hard", was)

    @contextlib.contextmanager
    def edited(self, file: Path, old: str, new: str) -> Iterator[None]:
        """A file in which the first `old` is `new` inside the block."""
        text = file.read_text()
        assert old in text, old
        file.write_text(text.replace(old, new, 1))
        try:
            yield
        finally:
            file.write_text(text)

    @contextlib.contextmanager
    def without(self, path: Path) -> Iterator[None]:
        """A file or folder that is not there inside the block."""
        kept = path.rename(path.with_name(f"{path.name}-kept"))
        try:
            yield
        finally:
            if path.is_dir():
                path.rmdir()
            kept.rename(path)

    # -- CI ------------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def build(self, recipe: str, **changes: object) -> Iterator[int]:
        """A build inside the block like the latest of `recipe`, made now, with some fields of its own; its number."""
        with contextlib.closing(sqlite3.connect(self.settings.ci_dir / "drone.sqlite", timeout=30)) as db, db:
            rows = db.execute(
                "SELECT document FROM builds WHERE status != 'pending' ORDER BY number DESC"
            ).fetchall()
            builds = [json.loads(row[0]) for row in rows]
            like = next(
                one for one in builds if one["params"].get("RECIPE") == recipe and one["event"] == "custom"
            )
            number, now = builds[0]["number"] + 1, int(time.time())
            times = {"created": now, "started": now, "finished": now, "updated": now}
            made = like | times | {"number": number} | changes
            values = (number, made["status"], json.dumps(made))
            db.execute("INSERT INTO builds (number, status, document) VALUES (?, ?, ?)", values)
        try:
            yield number
        finally:
            with contextlib.closing(sqlite3.connect(self.settings.ci_dir / "drone.sqlite", timeout=30)) as db, db:
                db.execute("DELETE FROM builds WHERE number = ?", (number,))

    # -- the host ------------------------------------------------------------------------------------------

    def on_host(self, script: str) -> str:
        """Run a script on the host as its operator; returns what it prints."""
        environment = {
            "PATH": f"{self.host_folder}/bin:{os.environ['PATH']}",
            "HOME": str(self.host_folder / "root"),
        }
        done = subprocess.run(
            ["sh", "-ec", script], env=environment, check=True, capture_output=True, text=True, timeout=60
        )
        return done.stdout

    def await_unit(self, unit: str, state: str) -> None:
        """Wait until the unit is in this state."""
        until(
            lambda: self.on_host(f"systemctl show -p ActiveState --value {unit}").strip() == state,
            what=f"{unit} to be {state}",
            within_s=20,
        )

    def older_generation(self) -> str:
        """The profile's link of the generation before the newest, by its name."""
        profiles = self.host_folder / "nix/var/nix/profiles"
        links = sorted(profiles.glob("system-*-link"), key=lambda link: int(link.name.split("-")[1]))
        return links[-2].name

    @staticmethod
    def point(link: Path, target: str) -> None:
        """Make a link name another target."""
        link.unlink()
        link.symlink_to(target)

    def await_bridge(self) -> None:
        """Wait until a bridge runs that has polled once."""
        until(
            lambda: "first poll done" in self.on_host("docker service logs --raw ccci-bridge_app"),
            what="the bridge's first poll",
            within_s=30,
        )

    def bridge_pid(self) -> int:
        """The process of the running bridge."""
        service = "$(docker service ps -q -f desired-state=running ccci-bridge_app | head -n 1)"
        task = json.loads(self.on_host(f"docker inspect {service}"))[0]
        return int(task["Status"]["ContainerStatus"]["PID"])

    def deploy_bridge(self, replace: dict[str, str], *, wait: bool = True) -> None:
        """Deploy the bridge by hand with parts of its stack file replaced; with `wait` until that one runs."""
        stacks = self.host_folder.glob("nix/store/*-ccci-bridge-stack.json")
        # The times of a real store's files are all the same; the poll set only grows.
        text = max((path.read_text() for path in stacks), key=len)
        for old, new in replace.items():
            assert old in text, old
            text = text.replace(old, new)
        (by_hand := self.host_folder / "root/by-hand.json").write_text(text)
        before = self._bridge_task()
        self.on_host(
            f"set -a; . {self.host_folder}/etc/ccci/world.env; "
            f"docker stack deploy --detach=true --compose-file {by_hand} ccci-bridge"
        )
        if wait:
            until(lambda: self._bridge_task() not in ("", before), what="a new task of the bridge", within_s=30)

    def _bridge_task(self) -> str:
        """The id of the bridge's running task, or an empty string."""
        rows = self.on_host(
            "docker service ps --no-trunc --format '{{.ID}} {{.CurrentState}}' -f desired-state=running "
            "ccci-bridge_app"
        )
        return next((row.split()[0] for row in rows.splitlines() if " Running" in row), "")

    def await_failed_task(self) -> None:
        """Wait until a task of the bridge has ended with an error."""
        shown = "docker service ps --format '{{.CurrentState}}' ccci-bridge_app"
        until(lambda: "Failed" in self.on_host(shown), what="a failed task of the bridge", within_s=30)

    def redeploy_bridge(self) -> None:
        """Deploy the bridge as its unit does."""
        self.deploy_bridge({})
