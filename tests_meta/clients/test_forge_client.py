"""muster's forge and git clients against the embedded forge, and against a real Gitea if one is given."""

from __future__ import annotations

import base64
from pathlib import Path

import pytest

from fixtures.clients.forge import ForgeReader, ForgeWriter, MergeCheckPending
from fixtures.clients.forge_values import FileWrite
from fixtures.clients.git import ZERO, Remote, Workspace, advertised_refs
from fixtures.clients.http import Http
from fixtures.config.secret import Secret
from fixtures.errors import Conflict, Drift, Refused
from fixtures.run.waiting import Seen, Waiter
from tests_meta.clients.http_server import serving
from tests_meta.rehearsal.forge_server import ORG, ForgeUnderTest, forge

__all__ = ["forge"]


def client(forge: ForgeUnderTest, token: str = "operator") -> ForgeWriter:
    secret = Secret(f"token {forge.server.tokens[token]}", where="test")
    return ForgeWriter(
        Http("forge", forge.url, timeout_s=20, headers={"Authorization": secret}), bot="autonomic-bot"
    )


def smart_http(forge: ForgeUnderTest) -> Http:
    pair = base64.b64encode(f"autonomic-bot:{forge.server.tokens['operator']}".encode()).decode()
    return Http(
        "mirror", forge.url, timeout_s=20, headers={"Authorization": Secret(f"Basic {pair}", where="test")}
    )


def git_remote(forge: ForgeUnderTest, full_name: str) -> Remote:
    token = Secret(forge.server.tokens["operator"], where="test")
    return Remote(f"{forge.url}/{full_name}.git", "autonomic-bot", token)


def test_mirror_is_created_pushed_and_deleted(forge: ForgeUnderTest, tmp_path: Path) -> None:
    """A mirror is created, pushed to atomically with leases, and deleted; a second creation conflicts."""
    source, writer = forge.new_repo({"compose.yml": "services: {}\n"}), client(forge)
    upstream = f"{source.owner}/{source.name}"
    name = f"mirror-of-{source.name}"
    made = writer.create_repository(ORG, name, private=True, description="Mirror, created by a test")
    assert (made.empty, made.private, made.description) == (True, True, "Mirror, created by a test")
    with pytest.raises(Conflict):
        writer.create_repository(ORG, name, private=True, description="")
    assert writer.repositories(ORG)[name].full_name == f"{ORG}/{name}"
    refs = advertised_refs(smart_http(forge), f"{ORG}/{name}")
    assert refs is not None
    assert refs.branches == {}

    workspace, head = Workspace(tmp_path / "git", limit_s=30), source.head()
    workspace.fetch(git_remote(forge, upstream), ["refs/heads/main"], store=name)
    target = git_remote(forge, f"{ORG}/{name}")
    workspace.push(target, name, [("refs/heads/main", ZERO, head), ("refs/tags/1.0", ZERO, head)])
    forge.write(source, {"more.yml": "x\n"})
    newer = source.head()
    workspace.fetch(git_remote(forge, upstream), ["refs/heads/main"], store=name)
    with pytest.raises(Conflict):
        workspace.push(target, name, [("refs/heads/main", ZERO, newer), ("refs/tags/2.0", ZERO, newer)])

    def settled() -> bool | Seen:
        seen = writer.repository(f"{ORG}/{name}")
        return Seen("empty") if seen is None or seen.empty else seen.default_branch == "main"

    assert Waiter(interval_s=0.05).until("the forge to settle", settled, limit_s=20)
    pushed = advertised_refs(smart_http(forge), f"{ORG}/{name}")
    assert pushed is not None
    assert (pushed.head_branch, pushed.branches, pushed.tags) == ("main", {"main": head}, {"1.0": head})
    writer.delete_repository(f"{ORG}/{name}")
    assert writer.repository(f"{ORG}/{name}") is None
    assert advertised_refs(smart_http(forge), f"{ORG}/{name}") is None


def test_push_to_a_protected_branch_is_refused(forge: ForgeUnderTest, tmp_path: Path) -> None:
    """The push raises `Refused` with the forge's message and without the token."""
    source, target = forge.new_repo({"a": "1"}), forge.new_repo({"b": "2"})
    forge.api().post(target.api + "/branch_protections", json={"rule_name": "main", "enable_push": False})
    workspace = Workspace(tmp_path / "git", limit_s=30)
    workspace.fetch(git_remote(forge, f"{source.owner}/{source.name}"), ["refs/heads/main"], store="a")
    remote = git_remote(forge, f"{target.owner}/{target.name}")
    with pytest.raises(Refused) as refusal:
        workspace.push(remote, "a", [("refs/heads/main", target.head(), source.head())])
    assert forge.server.tokens["operator"] not in str(refusal.value)
    assert "push" in str(refusal.value)


def test_proposal_from_branch_to_merge(forge: ForgeUnderTest) -> None:
    """A commit on a new branch, a pull request, a comment, and a merge of the given head; an old head conflicts."""
    remote, writer = forge.new_repo({"README.md": "x\n"}), client(forge)
    full_name = f"{remote.owner}/{remote.name}"
    writes = [
        FileWrite("tests/a/test_a.py", b"def test(): ...\n", None),
        FileWrite("tests/a/PARITY.md", b"#\n", None),
    ]
    commit = writer.commit_files(full_name, writes, message="suite", branch="main", new_branch="muster/suite-a")
    pull = writer.open_pull(full_name, head="muster/suite-a", base="main", title="A suite", body="adds it")
    assert (pull.head, pull.head_branch, pull.author) == (commit, "muster/suite-a", "autonomic-bot")
    assert writer.commits_of_pull(full_name, pull.number) == 1
    with pytest.raises(Conflict):
        writer.open_pull(full_name, head="muster/suite-a", base="main", title="again", body="")
    assert [p.name for p in writer.open_pulls(ORG) if p.repository == full_name] == [pull.name]
    refs = advertised_refs(smart_http(forge), full_name)
    assert refs is not None
    assert refs.pulls == {pull.number: commit}
    comment = writer.comment(full_name, pull.number, "!testme")
    assert [c.body for c in writer.comments(full_name, pull.number)] == ["!testme"]
    writer.delete_comment(full_name, comment.id)
    assert writer.comments(full_name, pull.number) == []

    def mergeable() -> bool | Seen:
        return writer.pull(full_name, pull.number).mergeable or Seen("checking")

    Waiter(interval_s=0.05).until("mergeable", mergeable, limit_s=20)
    with pytest.raises(Conflict):
        writer.merge_pull(full_name, pull.number, head=remote.head())

    def merged_now() -> bool | Seen:
        try:
            writer.merge_pull(full_name, pull.number, head=commit)
        except MergeCheckPending:  # a refused merge puts it back to that, a moment later
            return Seen("checking")
        return True

    Waiter(interval_s=0.05).until("merged", merged_now, limit_s=20)
    merged = writer.pull(full_name, pull.number)
    assert (merged.merged, merged.state, bool(merged.merge_commit)) == (True, "closed", True)
    paths = {entry.path for entry in writer.tree(full_name, "main") if entry.kind == "blob"}
    assert paths == {"README.md", "tests/a/test_a.py", "tests/a/PARITY.md"}
    writer.close_pull(full_name, pull.number)


def test_file_is_replaced_only_if_unchanged(forge: ForgeUnderTest) -> None:
    """An update names the blob that it replaces; an edit in between raises `Conflict`."""
    remote, writer = forge.new_repo({"nix/bridge.nix": "old\n"}), client(forge)
    full_name = f"{remote.owner}/{remote.name}"
    read = writer.file(full_name, "nix/bridge.nix", "main")
    assert read is not None
    assert read.content == b"old\n"
    writer.commit_files(full_name, [FileWrite(read.path, b"theirs\n", read.blob)], message="m", branch="main")
    with pytest.raises(Conflict):
        writer.commit_files(full_name, [FileWrite(read.path, b"ours\n", read.blob)], message="m", branch="main")
    now = writer.file(full_name, "nix/bridge.nix", "main")
    assert now is not None
    assert now.content == b"theirs\n"
    writer.commit_files(full_name, [FileWrite(read.path, None, now.blob)], message="m", branch="main")
    assert writer.file(full_name, "nix/bridge.nix", "main") is None
    writer.commit_files(full_name, [FileWrite("a/b", b"1", None)], message="m", branch="main")
    with pytest.raises(Drift):
        writer.file(full_name, "a", "main")


def test_statuses_are_ordered_newest_first(forge: ForgeUnderTest) -> None:
    """Statuses are ordered by their per-commit ids, not by their times."""
    remote, writer = forge.new_repo({"a": "1"}), client(forge)
    head = remote.head()
    for state in ("pending", "failure", "success"):
        body = {"state": state, "context": "cc-ci/testme", "target_url": f"http://ci/x/{len(state)}"}
        assert forge.api().post(f"{remote.api}/statuses/{head}", json=body).status_code == 201
    seen = writer.statuses(f"{remote.owner}/{remote.name}", head)
    assert [status.state for status in seen] == ["success", "failure", "pending"]
    assert {status.creator for status in seen} == {"autonomic-bot"}


def test_missing_scopes_are_found(forge: ForgeUnderTest) -> None:
    """A full token lacks no scope, each other token exactly the ones it was not given, and nothing is written."""
    assert client(forge).missing_scopes(ORG) == []
    assert client(forge, "organizer").missing_scopes(ORG) == ["write:repository", "write:issue"]
    assert client(forge, "issues").missing_scopes(ORG) == ["write:organization", "write:repository"]
    assert client(forge, "reader").missing_scopes(ORG) == [
        "write:organization",
        "write:repository",
        "write:issue",
    ]


def test_renamed_repository_raises_drift(forge: ForgeUnderTest) -> None:
    """The forge redirects to the new name; the client raises `Renamed` instead of following."""
    remote, reader = forge.new_repo({"a": "1"}), client(forge)
    renamed = forge.api().patch(remote.api, json={"name": f"{remote.name}-new"})
    assert renamed.status_code == 200
    with pytest.raises(Drift, match="renamed"):
        reader.repository(f"{remote.owner}/{remote.name}")


def test_forge_reader_has_no_writing_method() -> None:
    """`ForgeReader` has no writing methods; the same search finds those of `ForgeWriter`."""
    writing = {"create", "delete", "set", "commit_files", "open_pull", "close", "describe", "merge", "comment"}

    def writers(kind: type) -> list[str]:
        return [n for n in vars(kind) if any(n == w or n.startswith(w + "_") for w in writing) if n != "comments"]

    assert writers(ForgeReader) == []
    assert "delete_repository" in writers(ForgeWriter)


def test_wrong_token_is_refused(forge: ForgeUnderTest) -> None:
    """401 raises `Refused` with a remedy and without the token."""
    token = "0" * 40
    http = Http("forge", forge.url, timeout_s=20, headers={"Authorization": Secret(f"token {token}", where="x")})
    with pytest.raises(Refused) as refusal:
        ForgeReader(http, bot="autonomic-bot").version()
    assert token not in str(refusal.value)


def test_premature_merge_differs_from_a_conflict() -> None:
    """A 405 with Gitea's "try again later" raises `MergeCheckPending`; any other 405 raises `Conflict`."""
    with serving() as server:
        writer = ForgeWriter(Http("forge", server.url, timeout_s=5, headers={}), bot="autonomic-bot")
        server.will_say({"message": "Please try again later"}, 405)
        with pytest.raises(MergeCheckPending):
            writer.merge_pull("o/r", 1, head="0" * 40)
        server.will_say({"message": "The PR is already merged"}, 405)
        with pytest.raises(Conflict) as refusal:
            writer.merge_pull("o/r", 1, head="0" * 40)
    assert not isinstance(refusal.value, MergeCheckPending)
