"""The forge's routes about branches, pull requests and merging. See `test_forge_contract`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx
import pytest

from tests_meta.rehearsal.forge_server import ForgeUnderTest, Remote, forge

__all__ = ["forge"]


def merge(forge: ForgeUnderTest, remote: Remote, number: int, **body: Any) -> httpx.Response:
    return forge.api().post(f"{remote.api}/pulls/{number}/merge", json={"Do": "merge"} | body)


def test_branches(forge: ForgeUnderTest) -> None:
    """Created from a ref, 409 when there is one, deleted with 204 even when there is none (a 500 before 1.25)."""
    remote = forge.new_repo({"a": "1"})
    path, bot = remote.api + "/branches", forge.api()
    made = bot.post(path, json={"new_branch_name": "topic/a", "old_ref_name": remote.head()})
    assert (made.status_code, made.json()["commit"]["id"]) == (201, remote.head())
    again = bot.post(path, json={"new_branch_name": "topic/a"})
    assert (again.status_code, again.json()["message"]) == (409, "The branch already exists.")
    assert bot.post(path, json={"new_branch_name": "topic"}).status_code == 409
    assert bot.post(path, json={"new_branch_name": "x", "old_ref_name": "nothing"}).status_code == 500
    assert bot.post(path, json={"new_branch_name": "a..b"}).status_code == 422
    assert bot.delete(path + "/topic/a").status_code == 204
    assert bot.delete(path + "/topic/a").status_code == (500 if forge.before(1, 25) else 204)
    assert bot.get(path + "/topic/a").status_code == 404
    refused = bot.delete(path + "/main")
    assert (refused.status_code, refused.json()["message"]) == (403, "can not delete default branch")


def test_a_protected_branch(forge: ForgeUnderTest) -> None:
    """A rule of its name or a glob protects a branch from deletion; a second rule of the same name is a 403."""
    remote = forge.new_repo({"a": "1"})
    path, bot = remote.api + "/branch_protections", forge.api()
    bot.post(remote.api + "/branches", json={"new_branch_name": "kept"})
    assert bot.get(remote.api + "/branches/kept").json()["protected"] is False
    made = bot.post(path, json={"rule_name": "ke*"})
    assert (made.status_code, made.json()["rule_name"], made.json()["enable_push"]) == (201, "ke*", False)
    again = bot.post(path, json={"rule_name": "ke*"})
    assert (again.status_code, again.json()["message"]) == (403, "Branch protection already exist")
    assert bot.get(remote.api + "/branches/kept").json()["protected"] is True
    assert bot.delete(remote.api + "/branches/kept").status_code == 403


def test_a_new_pull_request(forge: ForgeUnderTest) -> None:
    """201, checked for conflicts at once, with everything a client needs to pin it."""
    remote = forge.new_repo({"a": "1\n"})
    base = remote.head()
    made = forge.new_pull(remote, {"b": "1\n2\n"})
    wanted = {
        "number": 1,
        "state": "open",
        "title": "Take feature",
        "draft": False,
        "mergeable": True,
        "merged": False,
        "merged_at": None,
        "merge_commit_sha": None,
        "merge_base": base,
        "closed_at": None,
        "html_url": f"{forge.url}/{remote.owner}/{remote.name}/pulls/1",
    }
    assert {name: made[name] for name in wanted} == wanted
    assert made["user"]["login"] == "autonomic-bot"
    assert (made["head"]["ref"], made["head"]["sha"]) == ("feature", remote.head("feature"))
    assert (made["base"]["ref"], made["base"]["sha"]) == ("main", base)
    assert made["base"]["repo"]["full_name"] == f"{remote.owner}/{remote.name}"
    assert forge.pull(remote, 1)["number"] == 1
    assert forge.api().get(remote.api + "/pulls/2").status_code == 404


@pytest.mark.parametrize(
    ("body", "status", "text"),
    [
        ({"head": "main", "base": "main", "title": "t"}, 422, "Invalid PullRequest: There are no changes"),
        ({"head": "nothing", "base": "main", "title": "t"}, 404, "not found"),
        ({"head": "feature", "base": "nothing", "title": "t"}, 404, "not found"),
        ({"base": "main", "title": "t"}, 422, "[Head]: Required"),
        ({"head": "feature", "base": "main"}, 422, "[Title]: Required"),
        ({"head": "feature", "base": "main", "title": "t"}, 409, "pull request already exists"),
    ],
)
def test_refused_pull_requests(forge: ForgeUnderTest, body: dict[str, str], status: int, text: str) -> None:
    """Each mistake has its own status and message."""
    remote = forge.new_repo({"a": "1"})
    forge.new_pull(remote, {"b": "1"})
    answer = forge.api().post(remote.api + "/pulls", json=body)
    assert answer.status_code == status
    if not (forge.before(1, 25) and status == 404):
        assert answer.json()["message"].startswith(text)


def test_a_duplicate_names_the_number_in_its_text(forge: ForgeUnderTest) -> None:
    """The number of the open pull request is in the 409's message; a closed one is no obstacle."""
    remote = forge.new_repo({"a": "1"})
    forge.new_pull(remote, {"b": "1"})
    body = {"head": "feature", "base": "main", "title": "t"}
    clash = forge.api().post(remote.api + "/pulls", json=body)
    assert "issue_id: 1," in clash.json()["message"]
    closed = forge.api().patch(remote.api + "/pulls/1", json={"state": "closed"})
    assert (closed.status_code, closed.json()["state"]) == (201, "closed")
    assert forge.api().post(remote.api + "/pulls", json=body).json()["number"] == 2
    reopened = forge.api().patch(remote.api + "/pulls/1", json={"state": "open"})
    assert reopened.status_code == 201, "reopening does not look: now there are two on the same branches"
    assert {pull["state"] for pull in forge.api().get(remote.api + "/pulls").json()} == {"open"}


def test_nothing_to_merge_says_mergeable(forge: ForgeUnderTest) -> None:
    """A head that brings nothing makes a pull request that is `mergeable` and cannot be merged."""
    remote = forge.new_repo({"a": "1"})
    forge.api().post(remote.api + "/branches", json={"new_branch_name": "same"})
    body = {"head": "same", "base": "main", "title": "t"}
    made = forge.api().post(remote.api + "/pulls", json=body)
    assert (made.status_code, made.json()["mergeable"]) == (201, True)
    refused = merge(forge, remote, 1)
    assert (refused.status_code, refused.json()["message"]) == (405, "Please try again later")


def test_lists_without_state_hold_everything(forge: ForgeUnderTest) -> None:
    """`state` filters only when it is ``open`` or ``closed``; newest first, counted in the header."""
    remote = forge.new_repo({"a": "1"})
    for number in range(3):
        forge.new_pull(remote, {f"f{number}": "1"}, branch=f"b{number}")
    forge.api().patch(remote.api + "/pulls/2", json={"state": "closed"})
    path = remote.api + "/pulls"

    def numbers(**params: str) -> set[int]:
        return {pull["number"] for pull in forge.api().get(path, params=params).json()}

    assert numbers() == numbers(state="all") == numbers(state="x") == {1, 2, 3}
    assert (numbers(state="open"), numbers(state="closed")) == ({1, 3}, {2})
    assert forge.api().get(path, params={"state": "open", "limit": 1}).headers["X-Total-Count"] == "2"


def test_editing_a_pull_request(forge: ForgeUnderTest) -> None:
    """201 for title, body, state; 403 without a body for strangers; 412 for no state at all."""
    remote = forge.new_repo({"a": "1"})
    forge.new_pull(remote, {"b": "1"})
    path = remote.api + "/pulls/1"
    edited = forge.api().patch(path, json={"title": "New", "body": "text"})
    assert (edited.status_code, edited.json()["title"], edited.json()["body"]) == (201, "New", "text")
    closed = forge.api().patch(path, json={"state": "closed"}).json()
    assert closed["closed_at"] is not None
    assert forge.api().patch(path, json={"state": "open"}).json()["closed_at"] is None
    assert forge.api().patch(path, json={"state": "merged"}).status_code == 412
    assert remote.head("feature") != "", "closing keeps the branch"


def test_merging(forge: ForgeUnderTest) -> None:
    """200 without a body; the next read says merged, by whom and as which commit, and the issue is closed."""
    remote = forge.new_repo({"a": "1"})
    base, head = remote.head(), forge.new_pull(remote, {"b": "1"})["head"]["sha"]
    done = merge(forge, remote, 1, head_commit_id=head)
    assert (done.status_code, done.content) == (200, b"")
    pull = forge.pull(remote, 1)
    assert (pull["merged"], pull["state"], pull["merged_by"]["login"]) == (True, "closed", "autonomic-bot")
    assert pull["merge_commit_sha"] == remote.head()
    commit = forge.api().get(f"{remote.api}/git/commits/{remote.head()}").json()
    assert [parent["sha"] for parent in commit["parents"]] == [base, head]
    subject = commit["commit"]["message"].splitlines()[0]
    assert subject == "Merge pull request 'Take feature' (#1) from feature into main"
    again = merge(forge, remote, 1)
    already = "" if forge.before(1, 25) else "The PR is already merged"
    assert (again.status_code, again.json()["message"]) == (405, already)
    assert forge.api().patch(remote.api + "/pulls/1", json={"state": "open"}).status_code == 412


def test_a_pinned_head_that_moved_is_not_merged(forge: ForgeUnderTest) -> None:
    """409 `head out of date`, and the base stays."""
    remote = forge.new_repo({"a": "1"})
    head = forge.new_pull(remote, {"b": "1"})["head"]["sha"]
    forge.write(remote, {"c": "1"}, branch="feature")
    forge.until(lambda: forge.pull(remote, 1)["mergeable"], "checked again")
    before = remote.head()

    def refused() -> httpx.Response | None:
        answer = merge(forge, remote, 1, head_commit_id=head)
        return answer if answer.status_code != 405 else None

    answer = forge.until(refused, "an answer other than 405")
    assert (answer.status_code, answer.json()["message"]) == (409, "head out of date")
    assert remote.head() == before


def test_refused_merges(forge: ForgeUnderTest) -> None:
    """405 for drafts and members' lack of right, 404 for closed and unknown, 422 for no or an unknown style."""
    remote = forge.new_repo({"a": "1"})
    forge.new_pull(remote, {"b": "1"})
    path = remote.api + "/pulls/1"
    unknown = forge.api().post(path + "/merge", json={"Do": "conjure"})
    assert (unknown.status_code, unknown.json()["message"][:5]) == (422, "[Do]:")
    assert forge.api().post(path + "/merge", json={}).json()["message"] == "[Do]: Required"
    assert merge(forge, remote, 9).status_code == 404
    forge.api().patch(path, json={"title": "WIP: not yet"})
    assert forge.pull(remote, 1)["draft"] is True
    refused = merge(forge, remote, 1)
    assert (refused.status_code, refused.json()["message"]) == (
        405,
        "Work in progress PRs cannot be merged",
    )
    forge.api().patch(path, json={"title": "now", "state": "closed"})
    assert merge(forge, remote, 1).status_code == 404


def test_a_stranger_may_not_merge(forge: ForgeUnderTest) -> None:
    """405, not 403."""
    remote = forge.new_repo({"a": "1"}, org="coop-cloud", private=False)
    forge.new_pull(remote, {"b": "1"})
    refused = forge.api("mallory").post(remote.api + "/pulls/1/merge", json={"Do": "merge"})
    assert (refused.status_code, refused.json()["message"]) == (405, "User not allowed to merge PR")


def test_a_conflict_says_try_again(forge: ForgeUnderTest, tmp_path: Path) -> None:
    """A real conflict is found at creation, reads `mergeable: false`, and merging says 405 for ever."""
    remote = forge.new_repo({"a": "1\n"})
    clone = forge.clone(remote, tmp_path / "c")
    clone.git("checkout", "--quiet", "-b", "feature")
    clone.commit({"a": "2\n"})
    clone.git("push", "--quiet", "origin", "feature")
    clone.git("checkout", "--quiet", "main")
    clone.commit({"a": "3\n"})
    clone.git("push", "--quiet", "origin", "main")
    body = {"head": "feature", "base": "main", "title": "t"}
    assert forge.api().post(remote.api + "/pulls", json=body).json()["mergeable"] is False
    refused = merge(forge, remote, 1)
    assert (refused.status_code, refused.json()["message"]) == (405, "Please try again later")


def test_merging_one_rechecks_the_others(forge: ForgeUnderTest) -> None:
    """Pull requests on the same base stay open and become mergeable again."""
    remote = forge.new_repo({"a": "1"})
    forge.new_pull(remote, {"b": "1"}, branch="one")
    forge.new_pull(remote, {"c": "1"}, branch="two")
    assert merge(forge, remote, 1).status_code == 200
    forge.until(lambda: forge.pull(remote, 2)["mergeable"], "checked again")
    forge.until(lambda: merge(forge, remote, 2).status_code == 200, "merged")


def test_commits_of_a_pull_request(forge: ForgeUnderTest) -> None:
    """The commits that merging would bring, latest first, whatever the base did meanwhile."""
    remote = forge.new_repo({"a": "1"})
    one = forge.new_pull(remote, {"b": "1"})["head"]["sha"]
    two = forge.write(remote, {"c": "1"}, branch="feature")
    forge.write(remote, {"d": "1"})
    listed = forge.api().get(remote.api + "/pulls/1/commits")
    assert [commit["sha"] for commit in listed.json()] == [two, one]
    assert listed.headers["X-Total-Count"] == "2"


def test_deleting_the_head_closes(forge: ForgeUnderTest) -> None:
    """A pull request whose head branch is deleted is closed, in its own time, and keeps its head commit."""
    remote = forge.new_repo({"a": "1"})
    head = forge.new_pull(remote, {"b": "1"})["head"]["sha"]
    assert forge.api().delete(remote.api + "/branches/feature").status_code == 204
    pull = forge.until(
        lambda: (seen := forge.pull(remote, 1))["state"] == "closed" and seen, "closed by the deletion"
    )
    assert (pull["head"]["ref"], pull["head"]["sha"], pull["merged"]) == ("refs/pull/1/head", head, False)
