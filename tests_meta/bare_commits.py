"""Create commits directly in a bare repository, as if somebody had pushed them; uses no server."""

from __future__ import annotations

import os
import subprocess
import tempfile
from pathlib import Path

from tests_meta.rehearsal.forge_server import git_environment


def commit_file(bare: Path, path: str, content: str, *, branch: str = "main") -> str:
    """Add or change one file on the branch; returns the new commit."""
    with tempfile.TemporaryDirectory() as folder:
        env = {"GIT_INDEX_FILE": os.path.join(folder, "index")}
        old = git(bare, "rev-parse", branch)
        git(bare, "read-tree", old, **env)
        blob = git(bare, "hash-object", "-w", "--stdin", stdin=content)
        git(bare, "update-index", "--add", "--cacheinfo", f"100644,{blob},{path}", **env)
        tree = git(bare, "write-tree", **env)
    commit = git(bare, "commit-tree", tree, "-p", old, "-m", "by somebody else")
    git(bare, "update-ref", f"refs/heads/{branch}", commit)
    return commit


def git(bare: Path, *words: str, stdin: str = "", **env: str) -> str:
    done = subprocess.run(
        ["git", "-c", f"safe.directory={bare}", *words],
        cwd=bare,
        env=git_environment() | env,
        input=stdin,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    return done.stdout.strip()
