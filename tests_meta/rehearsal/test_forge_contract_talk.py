"""The forge's routes about issues, comments and statuses. See `test_forge_contract`."""

from __future__ import annotations

import re
from datetime import datetime

import pytest

from tests_meta.rehearsal.forge_server import ORG, ForgeUnderTest, forge

__all__ = ["forge"]


def test_comments(forge: ForgeUnderTest) -> None:
    """201 with who, what and where; lists are oldest first; ids only grow."""
    remote = forge.new_repo({"a": "1"})
    forge.new_pull(remote, {"b": "1"})
    path = remote.api + "/issues/1/comments"
    made = forge.api().post(path, json={"body": "!testme"})
    assert made.status_code == 201
    first = made.json()
    page = f"{forge.url}/{remote.owner}/{remote.name}/pulls/1"
    assert (first["body"], first["user"]["login"]) == ("!testme", "autonomic-bot")
    assert (first["pull_request_url"], first["issue_url"]) == (page, "")
    assert first["html_url"] == f"{page}#issuecomment-{first['id']}"
    second = forge.api("alice").post(path, json={"body": "two"}).json()
    assert second["id"] > first["id"]
    listed = forge.api().get(path)
    assert [each["id"] for each in listed.json()] == [first["id"], second["id"]]
    assert listed.headers["X-Total-Count"] == "2"
    assert "Link" not in listed.headers
    assert len(forge.api().get(path, params={"limit": 1}).json()) == 2, "never paged"
    assert forge.pull(remote, 1)["comments"] == 2


def test_times_are_whole_seconds(forge: ForgeUnderTest) -> None:
    """RFC 3339 without fractions: two comments of one second cannot be told apart by time."""
    remote = forge.new_repo({"a": "1"})
    forge.new_pull(remote, {"b": "1"})
    made = forge.api().post(remote.api + "/issues/1/comments", json={"body": "x"}).json()
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(Z|[+-]\d\d:\d\d)", made["created_at"])
    assert made["created_at"] == made["updated_at"]


def test_editing_a_comment_keeps_id_and_creation(forge: ForgeUnderTest) -> None:
    """A comment that is edited in place is invisible to whoever looks for new ids or new times of creation."""
    remote = forge.new_repo({"a": "1"})
    forge.new_pull(remote, {"b": "1"})
    made = forge.api().post(remote.api + "/issues/1/comments", json={"body": "one"}).json()
    path = f"{remote.api}/issues/comments/{made['id']}"
    edited = forge.api().patch(path, json={"body": "two"})
    assert (edited.status_code, edited.json()["body"]) == (200, "two")
    assert (edited.json()["id"], edited.json()["created_at"]) == (made["id"], made["created_at"])
    listed = forge.api().get(remote.api + "/issues/1/comments").json()
    assert [each["body"] for each in listed] == ["two"]
    assert forge.api("alice").patch(path, json={"body": "mine"}).status_code == 200, "members may edit"
    assert forge.api().patch(path, json={"body": ""}).status_code == 422
    assert forge.api().delete(path).status_code == 204
    assert forge.api().patch(path, json={"body": "x"}).status_code == 404
    assert forge.api().delete(path).status_code == 404


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_comments_of_an_unknown_number_are_a_500(forge: ForgeUnderTest, method: str) -> None:
    """Not 404; the message is empty for everybody but administrators."""
    remote = forge.new_repo({"a": "1"})
    answer = forge.api().request(
        method, remote.api + "/issues/77/comments", json={"body": "x"} if method == "POST" else None
    )
    assert (answer.status_code, answer.json()["message"]) == (500, "")


def test_a_comment_needs_a_body_and_the_issue_scope(forge: ForgeUnderTest) -> None:
    """422 without a body; comments on pull requests need `issue`, and `repository` is no help."""
    remote = forge.new_repo({"a": "1"})
    forge.new_pull(remote, {"b": "1"})
    path = remote.api + "/issues/1/comments"
    assert forge.api().post(path, json={}).json()["message"] == "[Body]: Required"
    assert forge.api("issues").post(path, json={"body": "x"}).status_code == 201
    refused = forge.api("reader").get(path)
    named = "[read:issue]" if forge.before(1, 23) else "required=[read:issue]"
    assert (refused.status_code, named in refused.text) == (403, True)


def test_a_comment_of_another_repository_is_not_found(forge: ForgeUnderTest) -> None:
    """404 although ids are global."""
    remote, other = forge.new_repo({"a": "1"}), forge.new_repo({"a": "1"})
    forge.new_pull(remote, {"b": "1"})
    made = forge.api().post(remote.api + "/issues/1/comments", json={"body": "x"}).json()
    assert forge.api().patch(f"{other.api}/issues/comments/{made['id']}", json={"body": "y"}).status_code == 404
    assert forge.api().delete(f"{other.api}/issues/comments/{made['id']}").status_code == 404


def test_issues(forge: ForgeUnderTest) -> None:
    """Issues and pull requests share numbers; edits answer 201; lists hold both unless `type` says."""
    remote = forge.new_repo({"a": "1"})
    made = forge.api().post(remote.api + "/issues", json={"title": "One", "body": "text"})
    assert (made.status_code, made.json()["number"], made.json()["pull_request"]) == (201, 1, None)
    assert forge.new_pull(remote, {"b": "1"})["number"] == 2
    assert forge.api().get(remote.api + "/issues/2").json()["pull_request"]["merged"] is False
    assert forge.api().get(remote.api + "/pulls/1").status_code == 404

    def numbers(**params: str) -> list[int]:
        answer = forge.api().get(remote.api + "/issues", params=params)
        return [issue["number"] for issue in answer.json()]

    assert sorted(numbers()) == [1, 2]
    assert (numbers(type="issues"), numbers(type="pulls")) == ([1], [2])
    closed = forge.api().patch(remote.api + "/issues/1", json={"state": "closed"})
    assert (closed.status_code, closed.json()["state"]) == (201, "closed")
    forge.until(lambda: numbers() == [2], "the index to follow")
    assert (numbers(state="closed"), sorted(numbers(state="all"))) == ([1], [1, 2])
    assert forge.api().get(remote.api + "/issues/7").status_code == 404
    assert forge.api().post(remote.api + "/issues", json={}).status_code == 422


def test_issues_of_one_account(forge: ForgeUnderTest) -> None:
    """`created_by` lists one account's, whatever the case of its name; who does not exist is a 404; an edit may
    change title and text of a closed one, keeps its author and time, and needs no more than the issue scope."""
    remote = forge.new_repo({"a": "1"})
    path = remote.api + "/issues"
    ours = forge.api("issues").post(path, json={"title": "ours", "body": "<!-- x -->\none"}).json()
    assert forge.api("alice").post(path, json={"title": "hers"}).status_code == 201

    def titles(account: str) -> list[str]:
        answer = forge.api("issues").get(path, params={"created_by": account, "state": "all", "type": "issues"})
        assert answer.headers["X-Total-Count"] == str(len(answer.json()))
        return [issue["title"] for issue in answer.json()]

    forge.until(lambda: titles("autonomic-bot") == ["ours"], "the index to follow")
    assert titles("Autonomic-Bot") == ["ours"]
    assert titles("alice") == ["hers"]
    assert forge.api().get(path, params={"created_by": "nobody-at-all"}).status_code == 404
    one = f"{path}/{ours['number']}"
    assert forge.api("issues").patch(one, json={"state": "closed"}).status_code == 201
    assert forge.api("issues").patch(one, json={"state": "closed"}).status_code == 201, (
        "once more changes nothing"
    )
    edited = forge.api("issues").patch(one, json={"title": "new", "body": "<!-- x -->\ntwo"})
    assert (edited.status_code, edited.json()["state"]) == (201, "closed")
    assert forge.api("issues").post(one + "/comments", json={"body": "also on a closed one"}).status_code == 201
    assert forge.api("issues").patch(one, json={"state": "open"}).json()["state"] == "open"
    seen = forge.api().get(one).json()
    assert (seen["title"], seen["body"], seen["user"]["login"]) == ("new", "<!-- x -->\ntwo", "autonomic-bot")
    assert seen["created_at"] == ours["created_at"]


def test_searching_open_pull_requests_of_an_owner(forge: ForgeUnderTest) -> None:
    """One request for all open pull requests of an organisation: number and repository, and no head commit."""
    remote = forge.new_repo({"a": "1"})
    made = forge.new_pull(remote, {"b": "1"})
    params = {"type": "pulls", "owner": ORG, "state": "open", "limit": "50"}

    def mine() -> list[dict[str, object]]:
        found = forge.api().get("/repos/issues/search", params=params).json()
        return [each for each in found if each["repository"]["name"] == remote.name]

    found = forge.until(mine, "the index to follow")[0]
    assert found["number"] == made["number"]
    assert found["repository"] == {
        "id": made["base"]["repo_id"],
        "name": remote.name,
        "owner": ORG,
        "full_name": f"{ORG}/{remote.name}",
    }
    assert found["pull_request"] == {
        "merged": False,
        "merged_at": None,
        "draft": False,
        "html_url": made["html_url"],
    }
    assert "head" not in found
    forge.api().patch(f"{remote.api}/pulls/1", json={"state": "closed"})
    forge.until(lambda: not mine(), "the index to follow")


def test_search_shows_what_the_caller_may_see(forge: ForgeUnderTest) -> None:
    """It needs `issue`, counts in its headers, and shows strangers nothing private; unknown owners are 400."""
    remote = forge.new_repo({"a": "1"})
    for number in (1, 2):
        forge.new_pull(remote, {f"f{number}": "1"}, branch=f"b{number}")
    path = "/repos/issues/search"
    ask = {"owner": ORG, "type": "pulls"}
    answer = forge.until(
        lambda: (
            (int((seen := forge.api().get(path, params=ask | {"limit": 1})).headers["X-Total-Count"]) > 1)
            and seen
        ),
        "the index to follow",
    )
    assert len(answer.json()) == 1
    assert 'rel="next"' in answer.headers["Link"]
    assert forge.api("mallory").get(path, params=ask).json() == []
    assert forge.api("reader").get(path, params=ask).status_code == 403
    assert forge.api().get(path, params={"owner": "nobody"}).status_code == 400


def test_statuses(forge: ForgeUnderTest) -> None:
    """Sent as `state`, answered as `status`; ids count per commit; a branch name is resolved."""
    remote = forge.new_repo({"a": "1"})
    head = remote.head()
    body = {"state": "pending", "context": "cc-ci/testme", "target_url": "http://ci/1", "description": "d"}
    first = forge.api().post(f"{remote.api}/statuses/{head}", json=body)
    assert first.status_code == 201
    made = first.json()
    assert (made["id"], made["status"], made["context"]) == (1, "pending", "cc-ci/testme")
    assert (made["target_url"], made["description"], made["creator"]["login"]) == (
        "http://ci/1",
        "d",
        "autonomic-bot",
    )
    second = forge.api().post(remote.api + "/statuses/main", json=body | {"state": "success"}).json()
    assert (second["id"], second["url"].endswith(head)) == (2, True)
    listed = forge.api().get(f"{remote.api}/statuses/{head}")
    assert {each["id"] for each in listed.json()} == {1, 2}
    by_branch = forge.api().get(remote.api + "/statuses/main").json()
    assert by_branch == [] or forge.before(1, 24), "a full commit id only"
    by_ref = forge.api().get(remote.api + "/commits/main/statuses").json()
    assert {each["status"] for each in by_ref} == {"pending", "success"}
    assert forge.api().get(f"{remote.api}/commits/{head[:10]}/statuses").status_code == 200
    other = forge.new_repo({"a": "other"})
    again = forge.api().post(other.api + "/statuses/main", json=body).json()
    assert again["id"] == 1, "counted per commit"


def test_an_unknown_commit_has_no_status(forge: ForgeUnderTest) -> None:
    """Reporting on it is a 500, listing is empty."""
    remote = forge.new_repo({"a": "1"})
    path = f"{remote.api}/statuses/{'1' * 40}"
    assert forge.api().post(path, json={"state": "success"}).status_code == 500
    assert forge.api().get(path).json() == []


def test_statuses_are_in_time_of_the_server(forge: ForgeUnderTest) -> None:
    """A status can be dated against a comment: both carry the same clock."""
    remote = forge.new_repo({"a": "1"})
    forge.new_pull(remote, {"b": "1"})
    comment = forge.api().post(remote.api + "/issues/1/comments", json={"body": "x"}).json()
    status = forge.api().post(remote.api + "/statuses/main", json={"state": "success"}).json()
    assert status["context"] == ""
    assert datetime.fromisoformat(status["created_at"]) >= datetime.fromisoformat(comment["created_at"])
