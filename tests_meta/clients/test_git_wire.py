"""The git client: parsing the ref advertisement, and moving commits between two forges."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fixtures.clients.git import (
    REFUSED_NAME,
    ZERO,
    Refs,
    Remote,
    Workspace,
    advertised_refs,
    parse_advertisement,
    ref_bytes,
    ref_name,
    shell_ref,
)
from fixtures.clients.http import Http
from fixtures.config.secret import Secret
from fixtures.errors import Conflict, MusterError, Refused, Unknown, Unreachable
from tests_meta.rehearsal.forge_server import BOT, EmbeddedForge, ForgeUnderTest, forge, git_environment
from tests_meta.rehearsal.forge_server import Remote as Repository

__all__ = ["forge"]
SHA = "0123456789abcdef0123456789abcdef01234567"
OTHER = "89abcdef0123456789abcdef0123456789abcdef"
HEADER = b"001e# service=git-upload-pack\n0000"


def packet(text: str) -> bytes:
    data = text.encode(errors="surrogateescape") + b"\n"
    return f"{len(data) + 4:04x}".encode() + data


def advertisement(*refs: str) -> bytes:
    """An advertisement with these ``<sha> <name>`` lines, as git sends it over smart HTTP."""
    lines = [f"{refs[0]}\0multi_ack symref=HEAD:refs/heads/main agent=git/2.39", *refs[1:]] if refs else []
    return HEADER + b"".join(packet(line) for line in lines) + b"0000"


def parsed(data: bytes) -> Refs:
    return parse_advertisement(data, where="upstream ghost")


# -- the list of refs ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository with branches, both kinds of tags, and a pull request's head."""
    bare = tmp_path_factory.mktemp("real") / "ghost.git"
    git(bare.parent, "init", "--quiet", "--bare", "--initial-branch=main", str(bare))
    tree = git(bare, "mktree", given="")
    first = git(bare, "commit-tree", tree, "-m", "one")
    second = git(bare, "commit-tree", tree, "-p", first, "-m", "two")
    git(bare, "update-ref", "refs/heads/main", second)
    git(bare, "update-ref", "refs/heads/feature/x", first)
    git(bare, "update-ref", "refs/pull/12/head", first)
    git(bare, "update-ref", "refs/notes/commits", first)
    git(bare, "tag", "1.0.0+5.1", first)
    git(bare, "tag", "-a", "-m", "annotated", "2.0.0+6.0", second)
    return bare


def git(folder: Path, *arguments: str, given: str | None = None) -> str:
    done = subprocess.run(["git", *arguments], cwd=folder, env=git_environment(), input=given, text=True,
                          capture_output=True, timeout=60, check=True)  # fmt: skip
    return done.stdout.strip()


def as_git_says_it(bare: Path) -> bytes:
    """What git's own server side advertises for a repository."""
    command = ["git", "upload-pack", "--stateless-rpc", "--advertise-refs", str(bare)]
    return HEADER + subprocess.run(command, env=git_environment(), capture_output=True, check=True).stdout


def test_ref_advertisement_is_parsed(real: Path) -> None:
    """Branches, peeled tags, pull request heads and HEAD's branch are read from git's own advertisement."""
    refs = parsed(as_git_says_it(real))
    assert refs.head_branch == "main"
    assert refs.branches == {
        "main": git(real, "rev-parse", "main"),
        "feature/x": git(real, "rev-parse", "feature/x"),
    }
    assert refs.tags == {
        name: git(real, "rev-parse", f"{name}^{{commit}}") for name in ("1.0.0+5.1", "2.0.0+6.0")
    }
    assert refs.pulls == {12: git(real, "rev-parse", "refs/pull/12/head")}
    assert refs.head == refs.branches["main"]


def test_head_without_a_branch_is_detached() -> None:
    """HEAD that names a commit and no branch is told by that commit; HEAD that names a branch is not detached."""
    on_main = parsed(advertisement(f"{SHA} HEAD", f"{SHA} refs/heads/main"))
    assert (on_main.head_branch, on_main.detached) == ("main", "")
    bare = HEADER + packet(f"{OTHER} HEAD\0multi_ack agent=git/2.39") + packet(f"{SHA} refs/heads/main") + b"0000"
    assert (parsed(bare).head_branch, parsed(bare).detached) == ("", OTHER)


def test_empty_repository_has_no_branches(tmp_path: Path) -> None:
    """An empty repository gives refs without branches, unlike a missing one."""
    git(tmp_path, "init", "--quiet", "--bare", "--initial-branch=main", "empty.git")
    refs = parsed(as_git_says_it(tmp_path / "empty.git"))
    assert (refs.branches, refs.tags, refs.head) == ({}, {}, None)


def test_truncated_advertisement_is_rejected(real: Path) -> None:
    """An advertisement truncated at any byte raises `Unreachable`, so that no tag seems to be missing."""
    whole = as_git_says_it(real)
    for size in range(len(whole)):
        with pytest.raises(Unreachable, match="upstream ghost: "):
            parsed(whole[:size])


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"<html><body>please log in</body></html>",
        b"fffffff",
        b"-001" + HEADER,
        b" 1_e" + HEADER,
        HEADER + b"0003" + b"0000",
        HEADER + b"00ff" + b"short",
        HEADER + packet("ERR access denied or repository not exported") + b"0000",
        HEADER + packet("no refs at all") + b"0000",
    ],
)
def test_malformed_advertisement_is_unreachable(data: bytes) -> None:
    """HTML, a git error and invalid packet lengths raise `Unreachable`."""
    with pytest.raises(Unreachable, match="upstream ghost: "):
        parsed(data)


HOSTILE = {
    "an option for an id": "--upload-pack=touch${IFS}x refs/heads/main",
    "an id with a path": f"../../{SHA[:34]} refs/heads/main",
    "a short id": f"{SHA[:39]} refs/heads/main",
    "capital letters": f"{SHA.upper()} refs/heads/main",
}
UNUSABLE = {
    "a colon in a name": f"{SHA} refs/tags/v1:refs/heads/main",
    "a pattern": f"{SHA} refs/tags/*",
    "a step up": f"{SHA} refs/tags/../heads/main",
    "a hidden part": f"{SHA} refs/tags/.git",
    "a line break": f"{SHA} refs/tags/a\nb",
    "a space": f"{SHA} refs/tags/a b",
    "a lock": f"{SHA} refs/heads/main.lock",
    "a reflog": f"{SHA} refs/heads/main@{{1}}",
    "no name": f"{SHA} ",
}


@pytest.mark.parametrize("line", HOSTILE.values(), ids=HOSTILE)
def test_invalid_ids_are_rejected(line: str) -> None:
    """An advertisement with an id that git does not allow is rejected as a whole."""
    with pytest.raises(Unreachable, match=r"saw .* in it"):
        parsed(advertisement(f"{SHA} HEAD", line, f"{OTHER} refs/heads/z"))


@pytest.mark.parametrize("line", UNUSABLE.values(), ids=UNUSABLE)
def test_ref_with_an_unusable_name_is_named_and_left_out(line: str) -> None:
    """A ref whose name git does not allow is named, on one line; the other refs are read."""
    refs = parsed(advertisement(f"{SHA} HEAD", line, f"{OTHER} refs/heads/z"))
    assert (refs.branches, refs.tags) == ({"z": OTHER}, {})
    (name,) = refs.unusable
    assert name.isprintable()
    assert name


def test_ref_names_are_bytes(real: Path, tmp_path: Path) -> None:
    """A tag in Latin-1 is read with its byte written out, and is fetched and named to git as git has it."""
    bare = tmp_path / "latin.git"
    git(tmp_path, "clone", "--quiet", "--bare", str(real), str(bare))
    name = b"refs/tags/caf\xe9"
    subprocess.run(["git", "update-ref", name, "refs/heads/main"], cwd=bare, env=git_environment(), check=True)
    refs = parsed(as_git_says_it(bare))
    assert refs.tags["caf\\xe9"] == refs.branches["main"]
    assert refs.unusable == ()
    assert ref_bytes("refs/tags/caf\\xe9") == name
    assert ref_bytes("refs/tags/caf\u00e9") == "refs/tags/caf\u00e9".encode()


@pytest.mark.parametrize("name", [b"refs/tags/caf\xe9", b"refs/tags/it's;$(touch${IFS}x)", b"refs/tags/a&b"])
def test_ref_in_a_command_to_paste_is_one_word(name: bytes, tmp_path: Path) -> None:
    """A ref name reaches a program from bash byte by byte, whatever signs it has."""
    words = ["bash", "-c", f"printf %s {shell_ref(ref_name(name))}"]
    assert subprocess.run(words, cwd=tmp_path, capture_output=True, check=True).stdout == name
    assert list(tmp_path.iterdir()) == []


def test_sha1_and_sha256_ids_are_accepted() -> None:
    """Object ids of SHA-1 and of SHA-256 repositories are accepted."""
    assert parsed(advertisement(f"{SHA} HEAD", f"{'a' * 64} refs/heads/main")).branches == {"main": "a" * 64}


@given(st.text(st.characters(blacklist_categories=["Cs"]), max_size=12))
def test_no_ref_name_passes_that_git_rejects(name: str) -> None:
    """Every ref name that `git check-ref-format` rejects is rejected."""
    try:
        verdict = subprocess.run(["git", "check-ref-format", f"refs/tags/{name}"], check=False)
    except ValueError:
        return  # a NUL cannot be an argument at all
    if verdict.returncode != 0:
        assert REFUSED_NAME.search(f"refs/tags/{name}".encode()), f"git refuses {name!r}"


@given(st.binary(max_size=400))
def test_arbitrary_bytes_give_refs_or_unreachable(data: bytes) -> None:
    """Arbitrary bytes give refs or `Unreachable`, never another exception."""
    for given_bytes in (data, HEADER + data, HEADER + data + b"0000"):
        try:
            refs = parsed(given_bytes)
        except Unreachable:
            continue
        assert all(len(sha) in (40, 64) for sha in [*refs.branches.values(), *refs.tags.values()])


# -- over a real wire ----------------------------------------------------------------------------------------


@contextmanager
def http_to(forge: ForgeUnderTest, token: str) -> Iterator[Http]:
    import base64

    pair = base64.b64encode(f"{BOT}:{forge.server.tokens[token]}".encode()).decode()
    http = Http(
        "mirror", forge.url, timeout_s=10, headers={"Authorization": Secret(f"Basic {pair}", where="a test")}
    )
    yield http
    http.close()


def remote(repository: Repository, token: str = "operator") -> Remote:
    secret = Secret(repository.forge.server.tokens[token], where="a test")
    return Remote(f"{repository.forge.url}/{repository.owner}/{repository.name}.git", BOT, secret)


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return Workspace(tmp_path / "work", limit_s=30)


@pytest.fixture
def source(forge: ForgeUnderTest) -> Repository:
    """An upstream with one commit on main."""
    return forge.new_repo({"compose.yml": "version: '3.8'\n"})


def test_refs_of_a_private_repository(forge: ForgeUnderTest, source: Repository) -> None:
    """One request with the token reads the same refs as git; a missing repository gives None."""
    with http_to(forge, "operator") as http:
        refs = advertised_refs(http, f"{source.owner}/{source.name}")
        assert refs is not None
        assert refs.branches == {"main": source.head()}
        assert http.requests == 1
        assert advertised_refs(http, f"{source.owner}/no-such-repository") is None


def test_refs_without_the_read_scope_are_refused(forge: ForgeUnderTest, source: Repository) -> None:
    """A token without the scope raises `Refused`; the repository does not count as missing."""
    with http_to(forge, "issues") as http, pytest.raises(Refused):
        advertised_refs(http, f"{source.owner}/{source.name}")


def test_commits_are_copied_between_repositories(
    forge: ForgeUnderTest, source: Repository, workspace: Workspace
) -> None:
    """A commit is fetched by its id and pushed with a lease; then both repositories have the same main."""
    target = forge.new_repo()
    head = source.head()
    workspace.fetch(remote(source), ["refs/heads/main"], store="ghost")
    workspace.push(remote(target), "ghost", [("refs/heads/main", ZERO, head)])
    assert target.head() == head


def test_push_over_a_newer_commit_is_a_conflict(
    forge: ForgeUnderTest, source: Repository, workspace: Workspace
) -> None:
    """A push whose lease is outdated raises `Conflict`, and the newer commit stays."""
    old = source.head()
    target = forge.new_repo()
    workspace.fetch(remote(source), ["refs/heads/main"], store="ghost")
    workspace.push(remote(target), "ghost", [("refs/heads/main", ZERO, old)])
    theirs = forge.write(target, {"README.md": "by hand\n"}, branch="main")
    new = forge.write(source, {"README.md": "released\n"}, branch="main")
    workspace.fetch(remote(source), ["refs/heads/main"], store="ghost")
    with pytest.raises(Conflict, match="changed since it was read"):
        workspace.push(remote(target), "ghost", [("refs/heads/main", old, new)])
    assert target.head() == theirs


def test_push_is_atomic(forge: ForgeUnderTest, source: Repository, workspace: Workspace) -> None:
    """If one branch has moved, the tags of the same push are not updated either."""
    head, target = source.head(), forge.new_repo({"theirs": "x"})
    workspace.fetch(remote(source), ["refs/heads/main"], store="ghost")
    with pytest.raises(Conflict):
        workspace.push(remote(target), "ghost", [("refs/heads/main", OTHER, head), ("refs/tags/v1", ZERO, head)])
    with http_to(forge, "operator") as http:
        refs = advertised_refs(http, f"{target.owner}/{target.name}")
    assert refs is not None
    assert refs.tags == {}


def test_is_ancestor(forge: ForgeUnderTest, source: Repository, workspace: Workspace) -> None:
    """A commit is an ancestor of its descendants only; an unknown commit is an ancestor of nothing."""
    old = source.head()
    new = forge.write(source, {"README.md": "released\n"}, branch="main")
    workspace.fetch(remote(source), ["refs/heads/main"], store="ghost")
    assert workspace.is_ancestor("ghost", old, new)
    assert workspace.is_ancestor("ghost", new, new)
    assert not workspace.is_ancestor("ghost", new, old)
    assert not workspace.is_ancestor("ghost", OTHER, new)


def test_push_to_a_protected_branch_is_refused(
    forge: ForgeUnderTest, source: Repository, workspace: Workspace
) -> None:
    """A push to a protected branch raises `Refused`, not `Conflict` or `Unknown`."""
    target = forge.new_repo({"theirs": "x"})
    answer = forge.api().post(
        f"{target.api}/branch_protections", json={"rule_name": "main", "enable_push": False}
    )
    assert answer.status_code == 201, answer.text
    workspace.fetch(remote(source), ["refs/heads/main"], store="ghost")
    with pytest.raises(Refused, match="refused"):
        workspace.push(remote(target), "ghost", [("refs/heads/main", target.head(), source.head())])


@pytest.mark.parametrize("token", ["reader", "issues"])
def test_push_without_the_right_is_refused(
    forge: ForgeUnderTest, source: Repository, workspace: Workspace, token: str
) -> None:
    """A token without the right to push raises `Refused`; the message does not contain it."""
    target = forge.new_repo()
    workspace.fetch(remote(source), ["refs/heads/main"], store="ghost")
    with pytest.raises(Refused) as caught:
        workspace.push(remote(target, token), "ghost", [("refs/heads/main", ZERO, source.head())])
    assert forge.server.tokens[token] not in str(caught.value)


def test_wrong_token_is_refused(source: Repository, workspace: Workspace) -> None:
    """git does not prompt for a password; the fetch raises `Refused`."""
    wrong = Remote(remote(source).url, BOT, Secret("f" * 40, where="a test"))
    with pytest.raises(Refused, match="denied access"):
        workspace.fetch(wrong, ["refs/heads/main"], store="ghost")


# -- a connection that breaks, a repository that bites ----------------------------------------------------------


@contextmanager
def breaking(forge: ForgeUnderTest, action: str, path: str, *, times: int | None = None) -> Iterator[None]:
    """The embedded forge does `action` to requests of this path; to the first `times`, or to all of them."""
    server = forge.server
    assert isinstance(server, EmbeddedForge)
    file = server.settings.root / "forge-faults.json"
    file.write_text(json.dumps([{"method": "POST", "path": path, "action": action, "times": times}]))
    try:
        yield
    finally:
        file.unlink()


@pytest.fixture
def embedded(forge: ForgeUnderTest) -> ForgeUnderTest:
    if not isinstance(forge.server, EmbeddedForge):
        pytest.skip("only the embedded forge misbehaves on demand")
    return forge


@pytest.mark.parametrize("action", ["reset-after", "truncate", "status:500"])
def test_push_with_a_lost_answer_is_unknown(
    embedded: ForgeUnderTest, source: Repository, workspace: Workspace, action: str
) -> None:
    """If the connection is lost during a push, it raises `Unknown` and is not repeated."""
    target = embedded.new_repo()
    workspace.fetch(remote(source), ["refs/heads/main"], store="ghost")
    with breaking(embedded, action, f"{target.name}.git/git-receive-pack"), pytest.raises(Unknown):
        workspace.push(remote(target), "ghost", [("refs/heads/main", ZERO, source.head())])


@pytest.mark.parametrize("action", ["reset", "truncate", "status:502"])
def test_broken_fetch_is_unreachable(
    embedded: ForgeUnderTest, source: Repository, workspace: Workspace, action: str
) -> None:
    """If the connection is lost during a fetch, it raises `Unreachable`."""
    with breaking(embedded, action, f"{source.name}.git/git-upload-pack"), pytest.raises(Unreachable):
        workspace.fetch(remote(source), ["refs/heads/main"], store="ghost")


@pytest.mark.parametrize("action", ["reset", "truncate", "status:502"])
def test_broken_fetch_is_retried_once(
    embedded: ForgeUnderTest, source: Repository, workspace: Workspace, action: str
) -> None:
    """A fetch is repeated after a lost connection, but not after a refusal."""
    with breaking(embedded, action, f"{source.name}.git/git-upload-pack", times=1):
        workspace.fetch(remote(source), ["refs/heads/main"], store="ghost")
    assert workspace.is_ancestor("ghost", source.head(), source.head())


def test_git_processes_have_a_time_limit(embedded: ForgeUnderTest, source: Repository, tmp_path: Path) -> None:
    """With a silent server a fetch raises `Unreachable` and a push `Unknown` at the time limit."""
    hasty, target, started = Workspace(tmp_path / "hasty", limit_s=2), embedded.new_repo(), time.monotonic()
    hasty.fetch(remote(source), ["refs/heads/main"], store="ghost")
    head = source.head()
    with breaking(embedded, "hang", "git-(upload|receive)-pack"):
        with pytest.raises(Unreachable, match="did not end within 2 s"):
            hasty.fetch(remote(source), ["refs/heads/main"], store="other")
        with pytest.raises(Unknown, match="did not end within 2 s"):
            hasty.push(remote(target), "ghost", [("refs/heads/main", ZERO, head)])
    assert time.monotonic() - started < 15, "git was not killed at its time limit"


@pytest.mark.parametrize("url", ["ext::sh -c touch% {mark}", "file://{bare}", "{bare}", "ssh://127.0.0.1/x.git"])
def test_only_http_and_https_are_allowed(real: Path, tmp_path: Path, workspace: Workspace, url: str) -> None:
    """A remote that is a command, a local path or another protocol is rejected."""
    mark = tmp_path / "mark"
    with pytest.raises(Unreachable, match="not allowed"):
        workspace.fetch(Remote(url.format(mark=mark, bare=real)), ["refs/heads/main"], store="ghost")
    assert not mark.exists()


def test_token_is_in_no_argument_and_no_file(
    source: Repository, tmp_path: Path, workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The token is in no command line, configuration or reflog; the same search finds the URL."""
    spy, log = tmp_path / "bin", tmp_path / "arguments"
    spy.mkdir()
    found = subprocess.run(
        ["sh", "-c", "command -v git"], capture_output=True, text=True, check=True
    ).stdout.strip()
    (spy / "git").write_text(f'#!/bin/sh\nprintf "%s\\n" "$@" >> {log}\nexec {found} "$@"\n')
    (spy / "git").chmod(0o755)
    monkeypatch.setenv("PATH", f"{spy}:{os.environ['PATH']}")
    workspace.fetch(remote(source), ["refs/heads/main"], store="ghost")
    token = source.forge.server.tokens["operator"]
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert log in files
    assert "fetch" in log.read_text()
    assert [path for path in files if token.encode() in path.read_bytes()] == []
    (tmp_path / "control").write_text(token)
    assert [path for path in tmp_path.rglob("*") if path.is_file() and token.encode() in path.read_bytes()]


def test_operators_git_configuration_is_not_read(
    source: Repository, tmp_path: Path, workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A rewritten URL, a hook path and a credential helper in ~/.gitconfig have no effect."""
    mark = tmp_path / "mark"
    home = tmp_path / "home"
    home.mkdir()
    (home / ".gitconfig").write_text(
        f'[url "http://127.0.0.1:9/"]\n\tinsteadOf = http://\n[credential]\n\thelper = "!touch {mark}; false"\n'
        f"[core]\n\tfsmonitor = touch {mark}\n\thooksPath = {home}\n"
    )
    for name in ("reference-transaction", "post-checkout"):
        (home / name).write_text(f"#!/bin/sh\ntouch {mark}\n")
        (home / name).chmod(0o755)
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("GIT_DIR", str(tmp_path / "elsewhere"))
    monkeypatch.setenv("GIT_SSH_COMMAND", f"touch {mark}")
    workspace.fetch(remote(source), ["refs/heads/main"], store="ghost")
    assert workspace.is_ancestor("ghost", source.head(), source.head())
    assert not mark.exists()


def test_fetched_content_is_never_checked_out(
    forge: ForgeUnderTest, tmp_path: Path, workspace: Workspace
) -> None:
    """Hooks, filters, submodules and symlinks of a hostile recipe have no effect in the bare repository."""
    files = {
        ".gitattributes": "* filter=evil diff=evil\n",
        ".gitmodules": '[submodule "x"]\n\tpath = x\n\turl = ext::sh -c touch% mark\n',
        "hooks/post-checkout": "#!/bin/sh\ntouch mark\n",
    }
    hostile = forge.new_repo(files)
    workspace.fetch(remote(hostile), ["refs/heads/main"], store="hostile")
    target = forge.new_repo()
    workspace.push(remote(target), "hostile", [("refs/heads/main", ZERO, hostile.head())])
    assert target.head() == hostile.head()
    names = {path.name for path in tmp_path.rglob("*")}
    assert names.isdisjoint({".gitattributes", ".gitmodules", "post-checkout", "mark"})


def test_every_git_failure_is_mapped(workspace: Workspace) -> None:
    """A closed port, an unknown name and an invalid port raise `Unreachable`."""
    for url in (
        "http://127.0.0.1:9/x.git",
        "http://no-such-host.invalid/x.git",
        "http://127.0.0.1:99999/x.git",
    ):
        with pytest.raises(MusterError):
            workspace.fetch(Remote(url), ["refs/heads/main"], store="x")
        with pytest.raises(MusterError):
            workspace.push(Remote(url), "x", [("refs/heads/main", ZERO, SHA)])
