"""Git over HTTP, and the updates that follow a push. See `test_forge_contract`."""

from __future__ import annotations

import gzip
import subprocess
from pathlib import Path

import httpx
import pytest

from tests_meta.rehearsal.forge_server import ORG, PUBLIC_ORG, Clone, ForgeUnderTest, forge, git_environment

__all__ = ["forge"]


def git_request(forge: ForgeUnderTest, path: str, service: str, authorization: str) -> httpx.Response:
    headers = {"Authorization": authorization} if authorization else {}
    url = f"{forge.url}/{path}/info/refs"
    return forge.api("").get(url, params={"service": service}, headers=headers)


def basic(token: str) -> str:
    return httpx.BasicAuth("anybody", token)._auth_header


PULL, PUSH = "git-upload-pack", "git-receive-pack"


@pytest.mark.parametrize(
    ("repo", "service", "token", "status"),
    [
        ("public", PULL, "", 200),
        ("public", PULL, "wrong", 401),
        ("public", PUSH, "", 401),
        ("private", PULL, "", 401),
        ("missing", PULL, "", 401),
        ("missing", PULL, "operator", 404),
        ("missing", PUSH, "operator", 403),
        ("private", PULL, "mallory", 404),
        ("private", PULL, "reader", 200),
        ("private", PUSH, "reader", 403),
        ("private", PULL, "issues", 403),
        ("private", PUSH, "operator", 200),
        ("archived", PULL, "operator", 200),
        ("archived", PUSH, "operator", 403),
    ],
)
def test_who_may_pull_and_push(forge: ForgeUnderTest, repo: str, service: str, token: str, status: int) -> None:
    """The status of git's first request tells apart: who are you, not you, no such thing."""
    names = {
        "public": lambda: forge.new_repo({"a": "1"}, org=PUBLIC_ORG, private=False),
        "private": lambda: forge.new_repo({"a": "1"}),
        "archived": lambda: forge.new_repo({"a": "1"}),
    }
    path = f"{ORG}/there-is-no-such-thing"
    if repo in names:
        remote = names[repo]()
        path = f"{remote.owner}/{remote.name}"
        if repo == "archived":
            forge.api().patch(remote.api, json={"archived": True})
    secret = "0" * 40 if token == "wrong" else forge.server.tokens.get(token, "")
    answer = git_request(forge, path + ".git", service, basic(secret) if token else "")
    assert answer.status_code == status
    if status == 401 and not token:
        assert answer.headers["WWW-Authenticate"].startswith("Basic")
    if status == 200:
        assert answer.headers["Content-Type"] == f"application/x-{service}-advertisement"


def test_a_bearer_token_is_not_scope_checked(forge: ForgeUnderTest) -> None:
    """The scopes of a token count for git only when it comes as Basic."""
    remote = forge.new_repo({"a": "1"})
    secret = forge.server.tokens["issues"]
    assert git_request(forge, f"{ORG}/{remote.name}", PULL, basic(secret)).status_code == 403
    assert git_request(forge, f"{ORG}/{remote.name}", PULL, f"Bearer {secret}").status_code == 200


def test_a_reader_is_stopped_by_the_hook(forge: ForgeUnderTest, tmp_path: Path) -> None:
    """Somebody who may read and not write gets as far as the hook, whose message git prints."""
    remote = forge.new_repo({"a": "1"}, org=PUBLIC_ORG, private=False)
    clone = forge.clone(remote, tmp_path / "c", "mallory")
    clone.commit({"b": "1"})
    pushed = clone.attempt("push", "origin", "HEAD:main")
    assert pushed.returncode != 0
    assert "User permission denied for writing." in pushed.stderr
    assert "pre-receive hook declined" in pushed.stderr


def test_clone_and_push_of_real_history(forge: ForgeUnderTest, tmp_path: Path) -> None:
    """What was pushed is what is cloned, byte for byte, modes and large files included."""
    remote = forge.new_repo()
    clone = forge.clone(remote, tmp_path / "one")
    (clone.path / "run.sh").write_text("#!/bin/sh\n")
    (clone.path / "run.sh").chmod(0o755)
    (clone.path / "large").write_bytes(bytes(range(256)) * 12_000)
    clone.commit({"folder/a": "text"})
    clone.git("tag", "-a", "-m", "one", "1.0.0")
    clone.git("push", "--quiet", "origin", "HEAD:main", "1.0.0")
    other = forge.clone(remote, tmp_path / "two")
    assert other.git("rev-parse", "main^{tree}") == clone.git("rev-parse", "HEAD^{tree}")
    assert other.git("rev-parse", "1.0.0") == clone.git("rev-parse", "1.0.0")


def test_compressed_requests_are_read(forge: ForgeUnderTest) -> None:
    """A body that git compressed is understood."""
    remote = forge.new_repo({"a": "1"})
    wish = f"0032want {remote.head()}\n00000009done\n".encode()
    answer = forge.api("").post(
        f"{forge.url}/{ORG}/{remote.name}.git/git-upload-pack",
        content=gzip.compress(wish),
        headers={
            "Authorization": basic(forge.server.tokens["reader"]),
            "Content-Encoding": "gzip",
            "Content-Type": "application/x-git-upload-pack-request",
        },
    )
    assert answer.status_code == 200
    assert answer.content.startswith(b"0008NAK\nPACK")


def test_git_follows_a_rename(forge: ForgeUnderTest, tmp_path: Path) -> None:
    """The old URL of a renamed repository clones the new one."""
    remote = forge.new_repo({"a": "1"})
    forge.api().patch(remote.api, json={"name": remote.name + "-new"})
    clone = forge.clone(remote, tmp_path / "c")
    assert (clone.path / "a").read_text() == "1"


def test_a_first_push_takes_effect_later(forge: ForgeUnderTest, tmp_path: Path) -> None:
    """After the first push the repository stops being empty, in its own time, and then answers everything."""
    remote = forge.new_repo()
    clone = forge.clone(remote, tmp_path / "c")
    head = clone.commit({"a": "1"})
    clone.git("push", "--quiet", "origin", "HEAD:main")
    repo = forge.until(
        lambda: (found := forge.api().get(remote.api).json()) and not found["empty"] and found, "not empty"
    )
    assert repo["default_branch"] == "main"
    branches = forge.api().get(remote.api + "/branches").json()
    assert [(each["name"], each["commit"]["id"]) for each in branches] == [("main", head)]


def test_the_first_branch_becomes_the_default(forge: ForgeUnderTest, tmp_path: Path) -> None:
    """Whatever default branch was asked for, an empty repository takes the one that is pushed first."""
    remote = forge.new_repo()
    clone = forge.clone(remote, tmp_path / "c")
    clone.commit({"a": "1"})
    clone.git("push", "--quiet", "origin", "HEAD:feature")
    forge.until(lambda: not forge.api().get(remote.api).json()["empty"], "not empty")
    assert forge.api().get(remote.api).json()["default_branch"] == "feature"


def test_branches_and_pull_heads_follow_before_push_returns(forge: ForgeUnderTest, tmp_path: Path) -> None:
    """When ``git push`` returns, the branch and ``refs/pull/N/head`` are where they were pushed to."""
    remote = forge.new_repo({"a": "1"})
    pull = forge.new_pull(remote, {"b": "1"})
    clone = forge.clone(remote, tmp_path / "c")
    clone.git("checkout", "--quiet", "feature")
    head = clone.commit({"b": "2"})
    clone.git("push", "--quiet", "origin", "feature")
    assert forge.pull(remote, pull["number"])["head"]["sha"] == head
    assert forge.api().get(remote.api + "/branches/feature").json()["commit"]["id"] == head
    refs = clone.git("ls-remote", "origin", f"refs/pull/{pull['number']}/head")
    assert refs.split()[0] == head


def test_a_conflict_is_found_after_a_push(forge: ForgeUnderTest, tmp_path: Path) -> None:
    """`mergeable` follows a push to the base in its own time, and back again."""
    remote = forge.new_repo({"a": "one\n"})
    clone = forge.clone(remote, tmp_path / "c")
    clone.git("checkout", "--quiet", "-b", "feature")
    clone.commit({"a": "two\n"})
    clone.git("push", "--quiet", "origin", "feature")
    body = {"head": "feature", "base": "main", "title": "t"}
    pull = forge.until(
        lambda: (made := forge.api().post(remote.api + "/pulls", json=body)).status_code == 201 and made.json(),
        "pull request",
    )
    assert pull["mergeable"] is True
    clone.git("checkout", "--quiet", "main")
    clone.commit({"a": "three\n"})
    clone.git("push", "--quiet", "origin", "main")
    forge.until(lambda: not forge.pull(remote, pull["number"])["mergeable"], "a conflict")
    clone.git("checkout", "--quiet", "feature")
    clone.git("reset", "--quiet", "--hard", "main")
    clone.commit({"a": "four\n"})
    clone.git("push", "--quiet", "--force", "origin", "feature")
    forge.until(lambda: forge.pull(remote, pull["number"])["mergeable"], "no conflict")


def _push(clone: Clone, *arguments: str) -> subprocess.CompletedProcess[str]:
    return clone.attempt("push", "origin", *arguments)


def test_protected_branches_refuse(forge: ForgeUnderTest, tmp_path: Path) -> None:
    """Pushes, force pushes and deletion of a protected branch are declined with Gitea's words."""
    remote = forge.new_repo({"a": "1"})
    clone = forge.clone(remote, tmp_path / "c")
    clone.commit({"a": "2"})
    clone.git("push", "--quiet", "origin", "HEAD:kept")
    for rule in ("main", "kept"):
        body = {"rule_name": rule, "enable_push": rule == "kept"}
        assert forge.api().post(remote.api + "/branch_protections", json=body).status_code == 201
    plain = _push(clone, "HEAD:main")
    assert plain.returncode == 1
    assert "Not allowed to push to protected branch main" in plain.stderr
    assert "! [remote rejected] HEAD -> main (pre-receive hook declined)" in plain.stderr
    clone.commit({"a": "3"})
    assert _push(clone, "HEAD:kept").returncode == 0
    forced = _push(clone, "--force", "HEAD~1:kept")
    assert "branch kept is protected from force push" in forced.stderr
    deleted = _push(clone, "--delete", "kept")
    assert "branch kept is protected from deletion" in deleted.stderr
    assert remote.head("kept") == clone.git("rev-parse", "HEAD")


def test_the_default_branch_cannot_be_deleted(forge: ForgeUnderTest, tmp_path: Path) -> None:
    """Also where nothing is protected."""
    remote = forge.new_repo({"a": "1"})
    clone = forge.clone(remote, tmp_path / "c")
    refused = _push(clone, "--delete", "main")
    assert "branch main is the default branch and cannot be deleted" in refused.stderr
    assert remote.head() != ""


def test_an_unprotected_branch_can_be_forced(forge: ForgeUnderTest, tmp_path: Path) -> None:
    """The server accepts a force push; only git's own lease keeps others' work."""
    remote = forge.new_repo({"a": "1"})
    clone = forge.clone(remote, tmp_path / "c")
    before = clone.git("rev-parse", "main")
    clone.git("checkout", "--quiet", "--orphan", "fresh")
    head = clone.commit({"a": "other"})
    assert "non-fast-forward" in _push(clone, "HEAD:main").stderr
    stale = _push(clone, f"--force-with-lease=main:{'1' * 40}", "HEAD:main")
    assert "stale info" in stale.stderr
    assert _push(clone, f"--force-with-lease=main:{before}", "HEAD:main").returncode == 0
    assert remote.head() == head


def test_pull_refs_cannot_be_pushed(forge: ForgeUnderTest, tmp_path: Path) -> None:
    """``refs/pull/N/head`` belongs to the forge."""
    remote = forge.new_repo({"a": "1"})
    clone = forge.clone(remote, tmp_path / "c")
    refused = _push(clone, "HEAD:refs/pull/7/head")
    assert refused.returncode != 0
    assert "[remote rejected]" in refused.stderr


def test_a_shallow_clone(forge: ForgeUnderTest, tmp_path: Path) -> None:
    """Depth is honoured."""
    remote = forge.new_repo({"a": "1"})
    forge.write(remote, {"b": "1"})
    subprocess.run(
        ["git", "clone", "--quiet", "--depth=1", remote.url(), str(tmp_path / "c")],
        env=git_environment(),
        check=True,
        capture_output=True,
    )
    assert Clone(tmp_path / "c").git("rev-list", "--count", "HEAD") == "1"
