"""The forge's routes that read and write files and history. See `test_forge_contract`."""

from __future__ import annotations

from base64 import b64decode
from datetime import datetime
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests_meta.rehearsal.forge_server import ForgeUnderTest, Remote, encoded, forge

__all__ = ["forge"]


def blob(forge: ForgeUnderTest, remote: Remote, path: str, ref: str = "main") -> dict[str, Any]:
    answer = forge.api().get(f"{remote.api}/contents/{path}", params={"ref": ref})
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def test_a_file_is_an_object_and_a_folder_a_list(forge: ForgeUnderTest) -> None:
    """Content comes in base64 for one file, and is null in lists."""
    remote = forge.new_repo({"a.txt": "text", "d/b.txt": "more"})
    found = blob(forge, remote, "a.txt")
    assert (found["type"], found["encoding"], b64decode(found["content"])) == ("file", "base64", b"text")
    assert (found["path"], found["size"]) == ("a.txt", 4)
    listed = forge.api().get(remote.api + "/contents").json()
    assert [(each["name"], each["type"], each["content"]) for each in listed] == [
        ("a.txt", "file", None),
        ("d", "dir", None),
    ]
    assert [each["path"] for each in forge.api().get(remote.api + "/contents/d").json()] == ["d/b.txt"]


@pytest.mark.parametrize(
    ("ref", "status"),
    [("main", 200), ("", 200), ("HEAD", 404), ("refs/heads/main", 404), ("short", 404), ("full", 200)],
)
def test_refs_of_contents(forge: ForgeUnderTest, ref: str, status: int) -> None:
    """A branch, a tag or a full commit id; nothing else, from 1.24 on."""
    remote = forge.new_repo({"a": "1"})
    head = remote.head()
    wanted = {"short": head[:10], "full": head}.get(ref, ref)
    assert forge.api().get(remote.api + "/contents/a", params={"ref": wanted}).status_code == (
        200 if forge.before(1, 24) else status
    )


def test_a_missing_file(forge: ForgeUnderTest) -> None:
    """404, and the same for one below a file."""
    remote = forge.new_repo({"a": "1"})
    for path in ("b", "a/b", "b/c"):
        assert forge.api().get(f"{remote.api}/contents/{path}").status_code == 404, path


def write_one(forge: ForgeUnderTest, remote: Remote, operation: str, path: str, **options: Any) -> httpx.Response:
    """One file in a commit of its own; `content` and `sha` belong to the file, other options to the commit."""
    file = {"operation": operation, "path": path}
    file |= {name: options.pop(name) for name in ("content", "sha") if name in options}
    return forge.api().post(remote.api + "/contents", json={"files": [file], "message": "one", **options})


def test_updating_needs_the_blob_that_is_there(forge: ForgeUnderTest) -> None:
    """201 with the new commit and blob; a stale blob is 422, not 409."""
    remote = forge.new_repo({"a": "1"})
    old = blob(forge, remote, "a")["sha"]
    done = write_one(forge, remote, "update", "a", content=encoded("2"), sha=old)
    assert done.status_code == 201
    assert done.json()["commit"]["sha"] == remote.head()
    new = done.json()["files"][0]["sha"]
    stale = write_one(forge, remote, "update", "a", content=encoded("2"), sha=old)
    assert stale.status_code == 422
    assert stale.json()["message"] == f"sha does not match [given: {old}, expected: {new}]"


@pytest.mark.parametrize(
    ("operation", "path", "options", "status", "text"),
    [
        ("update", "nothing", {"content": "", "sha": "0" * 40}, 404, "object does not exist"),
        ("update", "a", {"content": "", "sha": "0" * 40, "branch": "none"}, 404, "branch does not exist"),
        ("update", "a", {"content": "*"}, 422, "illegal base64 data"),
        ("create", "a", {"content": ""}, 422, "repository file already exists [path: a]"),
        ("create", "d", {"content": ""}, 422, "a directory exists where you"),
        ("create", "a/b", {"content": ""}, 422, "a file exists where you"),
        ("create", "x", {"content": "", "new_branch": "main", "branch": "other"}, 422, "branch already exists"),
        ("create", ".git/config", {"content": ""}, 422, "path contains a malformed path component"),
        ("delete", "nothing", {"sha": "0" * 40}, 404, "repository file does not exist [path: nothing]"),
    ],
)
def test_refused_writes(
    forge: ForgeUnderTest, operation: str, path: str, options: dict[str, Any], status: int, text: str
) -> None:
    """Each mistake has its own status and message, and changes nothing."""
    remote = forge.new_repo({"a": "1", "d/b": "1"})
    forge.write(remote, {"c": "1"}, new_branch="other")
    before = remote.head()
    answer = write_one(forge, remote, operation, path, **options)
    assert remote.head() == before
    if forge.before(1, 25) and (operation, path) == ("update", "nothing"):
        assert answer.status_code == 500
        return
    assert answer.status_code == status
    assert answer.json()["message"].startswith(text)


def test_several_files_in_one_commit(forge: ForgeUnderTest) -> None:
    """201; deleted files are null in the receipt, whose commit is the branch's head."""
    remote = forge.new_repo({"a": "1", "b": "1", "d/c": "1"})
    files = [
        {"operation": "update", "path": "a", "content": encoded("2"), "sha": blob(forge, remote, "a")["sha"]},
        {"operation": "delete", "path": "b", "sha": blob(forge, remote, "b")["sha"]},
        {"operation": "create", "path": "d/e", "content": encoded("3")},
    ]
    body = {"files": files, "message": "all"}
    done = forge.api().post(remote.api + "/contents", json=body)
    assert done.status_code == 201
    found = done.json()
    assert [each and each["path"] for each in found["files"]] == ["a", None, "d/e"]
    assert found["commit"]["sha"] == remote.head()
    assert found["commit"]["message"].strip() == "all"
    tree = forge.api().get(remote.api + "/git/trees/main", params={"recursive": "true"}).json()
    assert [each["path"] for each in tree["tree"]] == ["a", "d", "d/c", "d/e"]


def test_several_files_are_all_or_nothing(forge: ForgeUnderTest) -> None:
    """One refused file refuses all; an unknown operation is a 500, no list of files a 422."""
    remote = forge.new_repo({"a": "1"})
    before = remote.head()
    fine = {"operation": "create", "path": "b", "content": ""}
    for bad, status in (
        ({"operation": "create", "path": "a", "content": ""}, 422),
        ({"operation": "update", "path": "a", "content": "", "sha": "0" * 40}, 422),
        ({"operation": "conjure", "path": "c", "content": ""}, 500),
    ):
        answer = forge.api().post(remote.api + "/contents", json={"files": [fine, bad]})
        assert answer.status_code == status, bad
    assert forge.api().post(remote.api + "/contents", json={}).json()["message"] == "[Files]: Required"
    assert remote.head() == before
    nothing = forge.api().post(remote.api + "/contents", json={"files": []})
    assert (nothing.status_code, nothing.json()["files"] or None) == (201, None)
    assert remote.head() == nothing.json()["commit"]["sha"] != before, "an empty list is an empty commit"


def test_without_a_blob_id_the_last_writer_wins(forge: ForgeUnderTest) -> None:
    """In a commit of several files `sha` is optional, and left out it is unchecked."""
    remote = forge.new_repo({"a": "1"})
    body = {"files": [{"operation": "update", "path": "a", "content": encoded("2")}]}
    assert forge.api().post(remote.api + "/contents", json=body).status_code == 201
    assert b64decode(blob(forge, remote, "a")["content"]) == b"2"


def test_writing_to_a_new_branch(forge: ForgeUnderTest) -> None:
    """`new_branch` starts from `branch`, leaves it alone, and must not exist yet."""
    remote = forge.new_repo({"a": "1"})
    before = remote.head()
    commit = forge.write(remote, {"b": "1"}, branch="main", new_branch="topic/one")
    assert (remote.head(), remote.head("topic/one")) == (before, commit)
    again = write_one(forge, remote, "create", "c", content="", branch="main", new_branch="topic/one")
    assert again.status_code == 422
    assert forge.api().get(remote.api + "/branches/topic/one").json()["commit"]["id"] == commit
    assert forge.api().get(remote.api + "/branches/topic%2Fone").json()["name"] == "topic/one"


def test_the_first_file_fills_an_empty_repository_at_once(forge: ForgeUnderTest) -> None:
    """Unlike a push, a write through the API is not followed by a wait."""
    remote = forge.new_repo()
    done = write_one(forge, remote, "create", "a", content=encoded("1"), branch="trunk")
    assert done.status_code == 201
    repo = forge.api().get(remote.api).json()
    assert (repo["empty"], repo["default_branch"]) == (False, "trunk")
    assert forge.api().get(remote.api + "/branches/trunk").status_code == 200


def test_an_update_keeps_the_mode(forge: ForgeUnderTest, tmp_path: Path) -> None:
    """An executable stays one; new files are plain."""
    remote = forge.new_repo({"a": "1"})
    clone = forge.clone(remote, tmp_path / "c")
    (clone.path / "run.sh").write_text("1")
    (clone.path / "run.sh").chmod(0o755)
    clone.commit({})
    clone.git("push", "--quiet", "origin", "HEAD:main")
    sha = blob(forge, remote, "run.sh")["sha"]
    assert write_one(forge, remote, "update", "run.sh", content=encoded("2"), sha=sha).status_code == 201
    tree = forge.api().get(remote.api + "/git/trees/main").json()["tree"]
    assert {each["path"]: each["mode"] for each in tree} == {"a": "100644", "run.sh": "100755"}


def test_protected_branches_refuse_files(forge: ForgeUnderTest) -> None:
    """403 for writing to a branch that nobody may push to."""
    remote = forge.new_repo({"a": "1"})
    forge.api().post(remote.api + "/branch_protections", json={"rule_name": "main"})
    refused = write_one(forge, remote, "create", "b", content="")
    assert refused.status_code == 403
    assert refused.json()["message"] == "user cannot commit to repo [user: autonomic-bot]"
    allowed = write_one(forge, remote, "create", "b", content="", new_branch="topic")
    assert allowed.status_code == 201


def test_trees_are_paged_by_per_page(forge: ForgeUnderTest) -> None:
    """`per_page` cuts, `truncated` is true while there is more, and past the end the list is null."""
    remote = forge.new_repo({"a": "1", "d/b": "1", "d/e/c": "1"})
    path = remote.api + "/git/trees/main"
    flat = forge.api().get(path).json()
    assert [(each["path"], each["type"], each["mode"]) for each in flat["tree"]] == [
        ("a", "blob", "100644"),
        ("d", "tree", "040000"),
    ]
    whole = forge.api().get(path, params={"recursive": 1})
    assert whole.headers["X-Total-Count"] == "5"
    assert [each["path"] for each in whole.json()["tree"]] == ["a", "d", "d/b", "d/e", "d/e/c"]
    assert (whole.json()["truncated"], whole.json()["total_count"]) == (False, 5)
    cut = forge.api().get(path, params={"recursive": 1, "per_page": 2, "page": 2}).json()
    assert [each["path"] for each in cut["tree"]] == ["d/b", "d/e"]
    assert (cut["truncated"], cut["page"]) == (True, 2)
    beyond = forge.api().get(path, params={"recursive": 1, "per_page": 2, "page": 9}).json()
    assert (beyond["tree"], beyond["truncated"]) == (None, False)
    assert len(forge.api().get(path, params={"recursive": "yes"}).json()["tree"]) == 2
    unknown = forge.api().get(remote.api + "/git/trees/nothing")
    assert (unknown.status_code, unknown.json()["message"]) == (400, "sha not found [nothing]")


def test_a_tree_by_branch_commit_or_tree(forge: ForgeUnderTest) -> None:
    """A branch name with a slash is one escaped segment; ids of commits and trees work as well."""
    remote = forge.new_repo({"d/a": "1"})
    head = forge.write(remote, {"d/b": "1"}, new_branch="topic/one")
    escaped = forge.api().get(remote.api + "/git/trees/topic%2Fone").json()
    by_commit = forge.api().get(f"{remote.api}/git/trees/{head}").json()
    assert escaped["tree"] == by_commit["tree"]
    assert by_commit["sha"] == head
    folder = by_commit["tree"][0]["sha"]
    by_tree = forge.api().get(f"{remote.api}/git/trees/{folder}").json()
    assert ([each["path"] for each in by_tree["tree"]], by_tree["sha"]) == (["a", "b"], folder)


def test_commits_come_latest_first(forge: ForgeUnderTest) -> None:
    """History of a branch, with author, message, date and parents; an unknown branch is a 404."""
    remote = forge.new_repo({"a": "1\n"})
    first = remote.head()
    second = forge.write(remote, {"b": "1\n2\n"}, message="second")
    answer = forge.api().get(remote.api + "/commits", params={"sha": "main"})
    latest, oldest = answer.json()
    assert (latest["sha"], oldest["sha"]) == (second, first)
    assert [parent["sha"] for parent in latest["parents"]] == [first]
    assert latest["commit"]["message"].strip() == "second"
    assert datetime.fromisoformat(latest["commit"]["committer"]["date"]).tzinfo is not None
    assert latest["author"]["login"] == "autonomic-bot"
    assert answer.headers["X-Total-Count"] == "2"
    unknown = forge.api().get(remote.api + "/commits", params={"sha": "nothing"})
    assert unknown.status_code == (500 if forge.before(1, 23) else 404)


def test_one_commit(forge: ForgeUnderTest) -> None:
    """By branch, id or short id; 404 for none."""
    remote = forge.new_repo({"a": "1"})
    head = remote.head()
    for name in ("main", head, head[:8]):
        assert forge.api().get(f"{remote.api}/git/commits/{name}").json()["sha"] == head, name
    assert forge.api().get(remote.api + "/git/commits/nothing").status_code == 404
