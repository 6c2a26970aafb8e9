"""Actions of people in a world between two runs: push, deploy by hand, trigger a build, boot another generation."""

from __future__ import annotations

import json
import os
import subprocess
import urllib.request
from pathlib import Path
from typing import Any

from fixtures.rehearsal.settings import WorldSettings
from tests_meta.muster_runs import WorldPool
from tests_meta.rehearsal.ci_world import until
from tests_meta.rehearsal.forge_server import git_environment
from tests_meta.world_view import POLL_FILE, WorldView


def git(folder: Path, *arguments: str) -> str:
    done = subprocess.run(["git", *arguments], cwd=folder, env=git_environment(), text=True,
                          capture_output=True, timeout=60, check=False)  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


class Person:
    """A person with a clone of one repository and plain git; `main` is restored at the end of the block."""

    def __init__(self, world_pool: WorldPool, name: str, folder: Path) -> None:
        settings = world_pool.settings
        login = f"://{settings.bot}:{settings.operator_token}@"
        url = f"{settings.forge_url}/{settings.org}/{name}.git".replace("://", login, 1)
        self.folder = folder / name
        git(folder, "clone", "--quiet", url, str(self.folder))
        self._found = git(self.folder, "rev-parse", "HEAD")

    def __enter__(self) -> Person:
        return self

    def __exit__(self, *_: object) -> None:
        git(self.folder, "push", "--quiet", "--force", "origin", f"{self._found}:main")

    def push(self) -> str:
        """Commit all changes and force-push them to main; returns the commit."""
        git(self.folder, "add", "--all")
        git(self.folder, "commit", "--quiet", "--allow-empty", "--message", "by hand")
        git(self.folder, "push", "--quiet", "--force", "origin", "HEAD:main")
        return git(self.folder, "rev-parse", "HEAD")

    def edit_poll_set(self, old: str, new: str) -> str:
        file = self.folder / POLL_FILE
        text = file.read_text()
        assert old in text
        file.write_text(text.replace(old, new, 1))
        return self.push()


def deploy_by_hand(world_pool: WorldPool, stack_file: Path) -> None:
    """Run `docker stack deploy` for the bridge, as an operator on the host does."""
    host = world_pool.settings.host_dir
    script = (
        f"set -a; . {host}/etc/ccci/world.env; "
        f"docker stack deploy --detach=true --compose-file {stack_file} ccci-bridge"
    )
    environment = {"PATH": f"{host}/bin:{os.environ['PATH']}", "HOME": str(host / "root")}
    subprocess.run(["sh", "-c", script], env=environment, check=True, capture_output=True, timeout=60)


def deploy_bridge_without(world_pool: WorldPool, recipe: str) -> Path:
    """Deploy the bridge by hand without one recipe in its poll set; returns the complete stack file."""
    host, entry, world_view = (
        world_pool.settings.host_dir,
        f",{world_pool.settings.org}/{recipe}",
        WorldView(world_pool.settings),
    )
    polled = len(world_view.running_poll_set())
    stacks = (host / "nix/store").glob("*-ccci-bridge-stack.json")
    stack = max((path for path in stacks if entry in path.read_text()), key=lambda path: path.stat().st_mtime_ns)
    (by_hand := host / "root/by-hand.json").write_text(stack.read_text().replace(entry, ""))
    deploy_by_hand(world_pool, by_hand)
    until(
        lambda: [len(polls) for polls in world_view.running_poll_sets()] == [polled - 1],
        what="the bridge with the edited poll set",
    )
    return stack


def trigger_build(settings: WorldSettings, recipe: str) -> str:
    """Open a pull request on the mirror, comment ``!testme``, and wait for the verdict; returns its state."""
    repo = f"/repos/{settings.org}/{recipe}"
    world_view = WorldView(settings)
    known = {build["number"] for build in world_view.builds()}
    branch = f"try-{len(known)}"
    file = {"operation": "create", "path": f"{branch}.txt", "content": ""}
    change = {"files": [file], "message": "Try", "new_branch": branch, "branch": "main"}
    _post(settings, f"{repo}/contents", change)
    pull = _post(settings, f"{repo}/pulls", {"head": branch, "base": "main", "title": f"Try {len(known)}"})
    _await_two_polls(world_view, recipe)
    comment = _post(settings, f"{repo}/issues/{pull['number']}/comments", {"body": "!testme"})

    def reported() -> str:
        _, rows = world_view.api(f"{repo}/statuses/{pull['head']['sha']}")
        states = [row["status"] for row in rows or () if row["context"] == "cc-ci/testme"]
        return next((state for state in states if state in ("success", "failure", "error")), "")

    state = until(reported, within_s=120, what=f"a verdict on {recipe}")
    _request(settings, "DELETE", f"{repo}/issues/comments/{comment['id']}")
    return state


def _await_two_polls(world_view: WorldView, recipe: str) -> None:
    """Wait for two polls of the recipe, because the bridge ignores comments older than its first poll."""
    since, path = len(world_view.requests()), f"/repos/{world_view.settings.org}/{recipe}/pulls"

    def polls() -> bool:
        made = world_view.requests()[since:]
        return len([r for r in made if r["user_agent"] == "cc-ci-bridge" and r["path"].endswith(path)]) >= 2

    until(polls, within_s=60, what=f"two polls of {recipe}")


def _post(settings: WorldSettings, path: str, body: dict[str, Any]) -> dict[str, Any]:
    made: dict[str, Any] = json.loads(_request(settings, "POST", path, body))
    return made


def _request(settings: WorldSettings, method: str, path: str, body: dict[str, Any] | None = None) -> bytes:
    request = urllib.request.Request(
        f"{settings.forge_url}/api/v1{path}",
        method=method,
        data=json.dumps(body).encode() if body is not None else None,
        headers={"Authorization": f"token {settings.operator_token}", "Content-Type": "application/json"},
    )
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(request, timeout=20) as answer:
        return bytes(answer.read())


def boot_an_older_generation(settings: WorldSettings) -> str:
    """Make the generation before the default the boot entry of a stopped host; returns the entry."""
    loader = settings.host_dir / "boot/loader"
    config = loader / "loader.conf"
    default = config.read_text().split()[-1]
    numbers = sorted(int(entry.stem.split("-")[-1]) for entry in (loader / "entries").glob("nixos-generation-*"))
    older = max(number for number in numbers if number < int(default.split("-")[-1].removesuffix(".conf")))
    entry = f"nixos-generation-{older}.conf"
    config.write_text(config.read_text().replace(default, entry))
    return entry
