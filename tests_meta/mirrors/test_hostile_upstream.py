"""Mirroring a hostile upstream repository executes nothing here and writes nothing outside of its folder.

The repository is made with git's plumbing commands and served by a real forge. For each trap a positive control shows
that a careless use of the repository triggers it.
"""

from __future__ import annotations

import base64
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from fixtures.clients.git import ZERO, Remote, Workspace, advertised_refs
from fixtures.clients.http import Http
from fixtures.config.secret import Secret
from fixtures.errors import Refused, Unknown, Unreachable
from tests_meta.clients.http_server import Answer, serving
from tests_meta.clients.test_git_wire import breaking
from tests_meta.muster_runs import environment
from tests_meta.rehearsal.ci_world import until
from tests_meta.rehearsal.forge_processes import EmbeddedForge
from tests_meta.rehearsal.forge_server import ForgeUnderTest, forge
from tests_meta.rehearsal.forge_server import Remote as Repository

__all__ = ["forge"]

LIMIT_S = 30.0
ODD_REFS = (
    "refs/heads/--upload-pack=touch-mark",
    "refs/heads/$(touch${IFS}mark)",
    "refs/heads/a;touch-mark",
    "refs/heads/a|b&c'd\"e`f",
    "refs/tags/-oProxyCommand=touch",
    "refs/tags/ünï-☃",
    "refs/tags/" + "long/" * 30 + "end",
    "refs/elsewhere/HEAD",
)


def git(folder: Path, *arguments: str, given: str | None = None, control: bool = False) -> str:
    """Run git; `control` allows every protocol, as a careless person would."""
    words = ["-c", "protocol.allow=always", "-c", "protocol.ext.allow=always"] if control else []
    done = subprocess.run(
        ["git", *words, "-C", str(folder), *arguments],
        input=given, capture_output=True, text=True, timeout=60, check=False,
        env=environment(GIT_AUTHOR_NAME="m", GIT_AUTHOR_EMAIL="m@x", GIT_COMMITTER_NAME="m", GIT_COMMITTER_EMAIL="m@x"),
    )  # fmt: skip
    assert control or done.returncode == 0, done.stderr
    return done.stdout.strip()


class Trap:
    """A hostile repository in `folder`; a triggered trap creates the file `mark`."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.mark, self.outside = folder / "hostile", folder / "mark", folder / "outside"
        self.folder.mkdir()
        self.outside.mkdir()
        git(self.folder, "init", "--quiet", "--initial-branch=main")
        files = {
            ".gitattributes": "* filter=evil diff=evil merge=evil export-subst\n",
            ".gitmodules": f'[submodule "x"]\n\tpath = x\n\turl = ext::sh -c "touch% {self.mark}"\n'
            f'[submodule "y"]\n\tpath = y\n\turl = -u./payload\n[submodule "../../z"]\n\tpath = z\n\turl = ./z\n',
            ".lfsconfig": "[lfs]\n\turl = http://127.0.0.1:9/\n",
            "hooks/post-checkout": f"#!/bin/sh\ntouch {self.mark}\n",
            "compose.yml": "version: '3.8' # $Format:%H$\n",
        }
        entries = [
            ("100755" if "hooks" in name else "100644", self._blob(text), name) for name, text in files.items()
        ]
        entries += [("120000", self._blob(target), name) for name, target in
                    (("passwd", "/etc/passwd"), ("up", "../../../outside"), ("link", str(self.outside)))]  # fmt: skip
        tree = self._tree(entries)
        self.inner = git(self.folder, "commit-tree", "-m", "inner", tree)
        entries += [("160000", self.inner, "x"), ("160000", self.inner, "y")]
        self.head = git(self.folder, "commit-tree", "-m", "$(touch mark) \x1b[31m", self._tree(entries))
        git(self.folder, "update-ref", "refs/heads/main", self.head)
        for ref in ODD_REFS:
            git(self.folder, "update-ref", ref, self.head)

    def _blob(self, text: str) -> str:
        return git(self.folder, "hash-object", "-w", "--stdin", given=text)

    def _tree(self, entries: list[tuple[str, str, str]]) -> str:
        """A tree with one level of folders; git's plumbing does not check its names."""
        index = self.folder / "index-for-trap"
        index.unlink(missing_ok=True)
        lines = "".join(f"{mode} {sha}\t{name}\n" for mode, sha, name in entries)
        done = subprocess.run(
            ["git", "-C", str(self.folder), "update-index", "--add", "--index-info"],
            input=lines, text=True, env=environment(GIT_INDEX_FILE=str(index)), check=True,
        )  # fmt: skip
        assert done.returncode == 0
        return subprocess.run(
            ["git", "-C", str(self.folder), "write-tree"], capture_output=True, text=True, check=True,
            env=environment(GIT_INDEX_FILE=str(index)),
        ).stdout.strip()  # fmt: skip

    def publish(self, remote: Repository) -> None:
        git(self.folder, "push", "--quiet", remote.url(), "refs/heads/*:refs/heads/*", "refs/tags/*:refs/tags/*")


@pytest.fixture
def trap(tmp_path: Path) -> Trap:
    return Trap(tmp_path)


def remote(repository: Repository) -> Remote:
    token = Secret(repository.forge.server.tokens["operator"], where="a test")
    return Remote(repository.url(""), "bot", token)


def files_outside(folder: Path, but: Path) -> dict[str, float]:
    """Every file below `folder` but not below `but`, with its modification time."""
    return {
        str(path): path.lstat().st_mtime
        for path in folder.rglob("*")
        if but not in path.parents and path != but and not path.is_dir()
    }


def test_mirroring_executes_nothing_and_writes_nothing_elsewhere(
    forge: ForgeUnderTest, tmp_path: Path, trap: Trap, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Symlinks, filters, hooks, submodules and unusual refs have no effect; main and every tag are copied unchanged."""
    source, target = forge.new_repo(), forge.new_repo()
    trap.publish(source)
    home = tmp_path / "home"
    home.mkdir()
    # The command that a filter of the repository would start.
    (home / ".gitconfig").write_text(
        f'[filter "evil"]\n\tsmudge = touch {trap.mark}\n\tclean = touch {trap.mark}\n\trequired = true\n'
        f'[diff "evil"]\n\ttextconv = touch {trap.mark}\n'
    )
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.chdir(tmp_path)
    signed = {"Authorization": Secret(f"token {remote_token(source)}", where="a test")}
    http = Http("upstream", forge.url, timeout_s=10, headers=signed)
    refs = advertised_refs(http, f"{source.owner}/{source.name}")
    assert refs is not None
    assert set(refs.tags) == {ref.removeprefix("refs/tags/") for ref in ODD_REFS if ref.startswith("refs/tags/")}
    work = tmp_path / "git"
    before = files_outside(tmp_path, work)
    workspace = Workspace(work, limit_s=LIMIT_S)
    wanted = ["refs/heads/main", *(f"refs/tags/{tag}" for tag in refs.tags)]
    workspace.fetch(remote(source), wanted, store="ghost")
    updates = [("refs/heads/main", ZERO, trap.head)]
    updates += [(f"refs/tags/{tag}", ZERO, sha) for tag, sha in refs.tag_objects.items()]
    workspace.push(remote(target), "ghost", updates)
    arrived = advertised_refs(http, f"{target.owner}/{target.name}")
    assert arrived is not None
    assert (arrived.head, arrived.tags) == (trap.head, refs.tags)
    assert not trap.mark.exists()
    assert list(trap.outside.iterdir()) == []
    assert files_outside(tmp_path, work) == before
    assert [path for path in work.rglob("*") if path.is_symlink()] == []
    http.close()


@pytest.mark.parametrize("careless", ["checkout", "submodule"])
def test_traps_work_on_a_careless_clone(
    tmp_path: Path, trap: Trap, careless: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Positive control: a clone with a work tree and a filter, or with all protocols, triggers the traps."""
    home = tmp_path / "home"
    home.mkdir()
    (home / ".gitconfig").write_text(f'[filter "evil"]\n\tsmudge = touch {trap.mark}; cat\n')
    monkeypatch.setenv("HOME", str(home))
    if careless == "checkout":
        git(tmp_path, "clone", "--quiet", str(trap.folder), "careless", control=True)
        assert trap.mark.exists()
        assert os.readlink(tmp_path / "careless/passwd") == "/etc/passwd"
    else:
        (tmp_path / "careless").mkdir()
        git(tmp_path, "ls-remote", f"ext::sh -c touch% {trap.mark}", control=True)
        assert trap.mark.exists()


def test_submodule_url_is_never_used(forge: ForgeUnderTest, tmp_path: Path, trap: Trap) -> None:
    """A submodule whose URL is a command is neither run nor fetched, even with recursion configured."""
    source = forge.new_repo()
    trap.publish(source)
    workspace = Workspace(tmp_path / "git", limit_s=LIMIT_S)
    (tmp_path / "git/gitconfig").write_text(
        "[submodule]\n\trecurse = true\n[fetch]\n\trecurseSubmodules = true\n"
    )
    workspace.fetch(remote(source), ["refs/heads/main"], store="ghost")
    assert not trap.mark.exists()


# -- size limits ------------------------------------------------------------------------------------------------


def test_repository_above_the_size_limit_is_refused(forge: ForgeUnderTest, tmp_path: Path) -> None:
    """A fetch stops at the size limit and stores no ref; the same repository fits a larger limit."""
    source = forge.new_repo()
    clone = forge.clone(source, tmp_path / "clone")
    (clone.path / "huge").write_bytes(os.urandom(5 * 2**20))
    head = clone.commit({"a": "b"})
    clone.git("push", "--quiet", "origin", "HEAD:refs/heads/main")
    narrow = Workspace(tmp_path / "narrow", limit_s=LIMIT_S, limit_mb=2)
    with pytest.raises(Unreachable, match="exceeds 2 MB") as caught:
        narrow.fetch(remote(source), ["refs/heads/main"], store="ghost")
    assert "\n" not in str(caught.value)
    assert "limits.git_mb" in caught.value.do
    assert sum(path.stat().st_size for path in (tmp_path / "narrow").rglob("*") if path.is_file()) < 3 * 2**20
    wide = Workspace(tmp_path / "wide", limit_s=LIMIT_S, limit_mb=20)
    wide.fetch(remote(source), ["refs/heads/main"], store="ghost")
    assert wide.is_ancestor("ghost", head, head)


def test_highly_compressed_file_is_not_held_in_memory(forge: ForgeUnderTest, tmp_path: Path) -> None:
    """200 MB of zeros, 200 KB compressed, are hashed while they arrive, with less than 128 MB of memory."""
    source = forge.new_repo()
    clone = forge.clone(source, tmp_path / "clone")
    with (clone.path / "zeros").open("wb") as stream:
        stream.truncate(200 * 2**20)
    clone.commit({"a": "b"})
    clone.git("push", "--quiet", "origin", "HEAD:refs/heads/main")
    workspace = Workspace(tmp_path / "git", limit_s=LIMIT_S)
    done = subprocess.run(
        ["/bin/sh", "-c", 'ulimit -v 400000; exec "$@"', "sh", *_fetching(workspace, source)],
        capture_output=True, text=True, timeout=60, check=False, env=environment(TOKEN=remote_token(source)),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-600:]


def remote_token(repository: Repository) -> str:
    return str(repository.forge.server.tokens["operator"])


def _fetching(workspace: Workspace, source: Repository) -> list[str]:
    program = (
        "import os, sys\nfrom pathlib import Path\nfrom fixtures.config.secret import Secret\n"
        "from fixtures.clients.git import Remote, Workspace\n"
        "w = Workspace(Path(sys.argv[1]), limit_s=40)\n"
        "w.fetch(Remote(sys.argv[2], 'bot', Secret(os.environ['TOKEN'], where='t')), ['refs/heads/main'], store='x')\n"
    )
    return [sys.executable, "-c", program, str(workspace._folder), source.url("")]


# -- secrets -------------------------------------------------------------------------------------------------


def command_lines() -> list[bytes]:
    found = []
    for process in Path("/proc").iterdir():
        if process.name.isdigit():
            try:
                found.append((process / "cmdline").read_bytes())
            except OSError:
                continue
    return found


def _speaks_to(target: Repository) -> bool:
    return any(b"remote-http" in line and target.name.encode() in line for line in command_lines())


@contextmanager
def hanging_push(forge: ForgeUnderTest, workspace: Workspace, target: Repository, head: str) -> Iterator[None]:
    """Inside the block, a push waits for its server."""
    with breaking(forge, "hang", "git-receive-pack"):
        outcome: list[BaseException] = []

        def push() -> None:
            try:
                workspace.push(remote(target), "ghost", [("refs/heads/main", ZERO, head)])
            except Unknown as late:
                outcome.append(late)

        thread = threading.Thread(target=push)
        thread.start()
        # Find this push by the name of its target, because other tests push at the same time.
        until(lambda: _speaks_to(target), what="git speaking http")
        yield
        thread.join()
        assert outcome, "the push did not hang"


def test_token_is_in_no_command_line_during_a_push(forge: ForgeUnderTest, tmp_path: Path, trap: Trap) -> None:
    """No process of this machine and no file of the folder has the token; the same search finds the URL."""
    if not isinstance(forge.server, EmbeddedForge):
        pytest.skip("only the embedded forge misbehaves on demand")
    source, target = forge.new_repo(), forge.new_repo()
    trap.publish(source)
    workspace = Workspace(tmp_path / "git", limit_s=4)
    workspace.fetch(remote(source), ["refs/heads/main"], store="ghost")
    token = remote_token(source).encode()
    with hanging_push(forge, workspace, target, trap.head):
        lines = command_lines()
    assert any(target.name.encode() in line for line in lines), "the search sees git's arguments"
    assert [line for line in lines if token in line] == []
    kept = [path for path in (tmp_path / "git").rglob("*") if path.is_file()]
    assert any(path.name == "config" for path in kept)
    assert [path for path in kept if token in path.read_bytes()] == []


def test_echoed_token_is_not_in_the_message(tmp_path: Path) -> None:
    """A token that the server echoes, plain or as a header, is removed from the message."""
    token = "0123456789abcdef0123456789abcdef01234567"
    header = base64.b64encode(f"bot:{token}".encode())
    with serving() as server:
        said = f"you sent {token} and {header.decode()}".encode()
        server.usual = Answer(403, said, {"Content-Type": "text/plain"})
        workspace = Workspace(tmp_path / "git", limit_s=LIMIT_S)
        there = Remote(f"{server.url}/x.git", "bot", Secret(token, where="t"))
        with pytest.raises((Unreachable, Refused)) as caught:
            workspace.fetch(there, ["refs/heads/main"], store="x")
        text = str(caught.value)
        assert "you sent ****" in text, text
        assert token not in text
        assert header.decode() not in text
