"""The forge's API: authentication, order of errors, paging, organisations and repositories.

Every test runs against the embedded forge, and with ``MUSTER_GITEA_BIN`` against a real Gitea as well. The
files ``test_forge_contract_*.py`` cover git, files, pull requests and discussions in the same way.
"""

from __future__ import annotations

import base64
import re

import httpx
import pytest

from tests_meta.rehearsal.forge_server import ORG, PUBLIC_ORG, ForgeUnderTest, forge

__all__ = ["forge"]


def get(forge: ForgeUnderTest, path: str, authorization: str = "") -> httpx.Response:
    headers = {"Authorization": authorization} if authorization else {}
    return forge.api("").get(path, headers=headers)


def basic(name: str, password: str) -> str:
    return "Basic " + base64.b64encode(f"{name}:{password}".encode()).decode()


def test_version_needs_no_token(forge: ForgeUnderTest) -> None:
    """Everybody may read the version."""
    (version,) = get(forge, "/version").json().values()
    assert re.fullmatch(r"1\.2\d\.\d+", version)


@pytest.mark.parametrize("scheme", ["token", "Token", "bearer", "BEARER"])
@pytest.mark.parametrize("path", ["/version", f"/orgs/{PUBLIC_ORG}/repos"])
def test_an_unknown_token_is_refused_everywhere(forge: ForgeUnderTest, scheme: str, path: str) -> None:
    """A token that does not exist is a 401 on every route, public ones included."""
    answer = get(forge, path, f"{scheme} {'0' * 40}")
    if forge.before(1, 25) and scheme == "Token":
        assert answer.status_code == 200, "only 'token' and 'bearer' in any case were known"
        return
    assert answer.status_code == 401
    said = answer.json()["message"]
    assert said == "invalid username, password or token" or forge.before(1, 25)


@pytest.mark.parametrize("form", ["{token}", "Bearer", "token {token} x", "Digest {token}"])
def test_a_header_that_does_not_parse_is_ignored(forge: ForgeUnderTest, form: str) -> None:
    """A malformed Authorization header makes the caller anonymous, not refused."""
    header = form.format(token=forge.server.tokens["operator"])
    assert get(forge, "/version", header).status_code == 200
    assert get(forge, "/user", header).status_code == 401


@pytest.mark.parametrize("scheme", ["token", "TOKEN", "bearer", "Bearer"])
def test_schemes_are_read_in_any_case(forge: ForgeUnderTest, scheme: str) -> None:
    """`token` and `bearer` in any case carry the same token; before 1.25 `token` only so."""
    answer = get(forge, "/user", f"{scheme} {forge.server.tokens['operator']}")
    if forge.before(1, 25) and scheme == "TOKEN":
        assert answer.status_code == 401
        return
    assert (answer.status_code, answer.json()["login"]) == (200, "autonomic-bot")


def test_basic_takes_a_token_as_the_password_of_any_name(forge: ForgeUnderTest) -> None:
    """The account is the token's, whatever the name says; an unknown token is a 401."""
    assert (
        get(forge, "/user", basic("anybody", forge.server.tokens["operator"])).json()["login"] == "autonomic-bot"
    )
    assert get(forge, "/version", basic("anybody", "0" * 40)).status_code == 401


def test_a_missing_scope_is_named_in_full(forge: ForgeUnderTest) -> None:
    """403 names the scope that the route needs and those that the token has."""
    answer = forge.api("reader").get("/user")
    assert answer.status_code == 403
    assert answer.json()["message"] == (
        "token does not have at least one of required scope(s), required=[read:user], token scope=read:repository"
    )
    written = forge.api("reader").post(f"/orgs/{ORG}/repos", json={"name": "x"})
    assert "required=[write:organization], token scope=read:repository" in written.json()["message"]


def test_scopes_are_shown_in_normal_form(forge: ForgeUnderTest) -> None:
    """The token's scopes are listed in the order of Gitea's table, not of their granting."""
    assert forge.api().get("/admin/users").status_code in (403, 404)
    answer = forge.api("organizer").post(f"/org/{ORG}/repos", json={"name": "x"})
    assert answer.json()["message"].endswith(
        "required=[write:organization write:repository], token scope=write:organization"
    )
    public = forge.api("issues").get("/user").json()["message"]
    assert public.endswith("required=[read:user], token scope=write:issue")


def test_org_routes_need_organization_only(forge: ForgeUnderTest) -> None:
    """Listing and creating repositories of an organisation needs `organization`; `repository` is no help."""
    assert forge.api("organizer").get(f"/orgs/{ORG}/repos").status_code == 200
    refused = forge.api("reader").get(f"/orgs/{ORG}/repos")
    assert (refused.status_code, "required=[read:organization]" in refused.text) == (403, True)


def test_a_failed_validation_is_a_safe_scope_probe(forge: ForgeUnderTest) -> None:
    """The deprecated creation route checks both scopes before the body, so an empty body creates nothing."""
    assert forge.api("operator").post(f"/org/{ORG}/repos", json={}).status_code == 422
    assert forge.api("organizer").post(f"/org/{ORG}/repos", json={}).status_code == 403


def test_private_things_do_not_exist_for_strangers(forge: ForgeUnderTest) -> None:
    """A private repository or organisation is a 404 for whoever may not see it, also for writing."""
    remote = forge.new_repo({"a": "1"})
    for token in ("", "mallory"):
        assert forge.api(token).get(remote.api).status_code == 404
        assert forge.api(token).post(remote.api + "/pulls", json={}).status_code == 404


def test_public_things_can_be_read_and_not_written(forge: ForgeUnderTest) -> None:
    """Anonymous writes to a visible repository are 401, those of a stranger 403."""
    remote = forge.new_repo({"a": "1"}, org=PUBLIC_ORG, private=False)
    assert forge.api("").get(remote.api).json()["permissions"] == {"admin": False, "push": False, "pull": True}
    body = {"new_branch_name": "x"}
    anonymous = forge.api("").post(remote.api + "/branches", json=body)
    assert (anonymous.status_code, anonymous.json()["message"]) == (401, "token is required")
    stranger = forge.api("mallory").post(remote.api + "/branches", json=body)
    assert stranger.status_code == 403
    assert stranger.json()["message"] == "user should have a permission to write to a repo"
    assert forge.api("mallory").delete(remote.api).status_code == 403
    protected = forge.api("mallory").post(remote.api + "/branch_protections", json={"rule_name": "main"})
    assert protected.status_code == 403


def test_members_write_but_do_not_own(forge: ForgeUnderTest) -> None:
    """A member with write access pushes and merges, and neither deletes nor protects."""
    remote = forge.new_repo({"a": "1"})
    alice = forge.api("alice")
    assert alice.get(remote.api).json()["permissions"] == {"admin": False, "push": True, "pull": True}
    assert alice.post(remote.api + "/branches", json={"new_branch_name": "x"}).status_code == 201
    assert alice.delete(remote.api).json()["message"] == "user should be the owner of the repo"
    refused = alice.post(remote.api + "/branch_protections", json={"rule_name": "main"})
    assert "admin write of a repository" in refused.json()["message"]
    made = alice.post(f"/orgs/{ORG}/repos", json={"name": "mine"})
    assert (made.status_code, "not allowed to create" in made.text) == (403, True)


def test_membership_is_shown_to_members(forge: ForgeUnderTest) -> None:
    """204 for a member, 404 for others and for unknown names."""
    bot = forge.api()
    assert bot.get(f"/orgs/{ORG}/members/alice").status_code == 204
    assert bot.get(f"/orgs/{ORG}/members/mallory").status_code == 404
    assert bot.get(f"/orgs/{ORG}/members/nobody").status_code == 404
    assert forge.api("mallory").get(f"/orgs/{ORG}/members/mallory").status_code == 404


def test_a_new_repository_is_empty(forge: ForgeUnderTest) -> None:
    """201; empty, and its default branch is named although there is none."""
    answer = forge.api().post(
        f"/orgs/{ORG}/repos", json={"name": "fresh", "private": True, "default_branch": "trunk"}
    )
    assert answer.status_code == 201
    made = answer.json()
    wanted = {
        "full_name": f"{ORG}/fresh",
        "empty": True,
        "private": True,
        "archived": False,
        "mirror": False,
        "default_branch": "trunk",
        "clone_url": f"{forge.url}/{ORG}/fresh.git",
        "html_url": f"{forge.url}/{ORG}/fresh",
        "url": f"{forge.url}/api/v1/repos/{ORG}/fresh",
        "permissions": {"admin": True, "push": True, "pull": True},
    }
    assert {name: made[name] for name in wanted} == wanted


def test_an_empty_repository_answers_oddly(forge: ForgeUnderTest) -> None:
    """No branches is null, no commits 409, no tree 400; contents, branch and even the list of pulls 404."""
    remote, bot = forge.new_repo(), forge.api()
    branches = bot.get(remote.api + "/branches")
    assert (branches.status_code, branches.json(), branches.headers["X-Total-Count"]) == (200, None, "0")
    commits = bot.get(remote.api + "/commits")
    assert (commits.status_code, commits.json()["message"]) == (409, "Git Repository is empty.")
    tree = bot.get(remote.api + "/git/trees/main")
    assert (tree.status_code, tree.json()["message"]) == (400, "sha not found [main]")
    assert bot.get(remote.api + "/contents").status_code == (200 if forge.before(1, 24) else 404)
    assert bot.get(remote.api + "/branches/main").status_code == 404
    assert bot.post(remote.api + "/branches", json={"new_branch_name": "x"}).status_code == 404
    assert bot.get(remote.api + "/pulls").status_code == 404


@pytest.mark.parametrize(
    ("body", "status", "text"),
    [
        ({}, 422, "[Name]: Required"),
        ({"name": ""}, 422, "[Name]: Required"),
        ({"name": "a b"}, 422, "[Name]: "),
        ({"name": "a" * 101}, 422, "[Name]: MaxSize"),
        ({"name": 7}, 422, "[]: "),
        ({"name": "x", "private": "yes"}, 422, "[]: "),
        ({"name": "x", "default_branch": "a..b"}, 422, "[DefaultBranch]: "),
    ],
)
def test_bodies_are_validated_first(
    forge: ForgeUnderTest, body: dict[str, object], status: int, text: str
) -> None:
    """422 with the name of the Go field, before anything is created."""
    answer = forge.api().post(f"/orgs/{ORG}/repos", json=body)
    assert answer.status_code == status
    assert answer.json()["message"].startswith(text)


def test_a_body_needs_its_type(forge: ForgeUnderTest) -> None:
    """Without Content-Type the body is not read: 422."""
    bare = forge.api().post(f"/orgs/{ORG}/repos", content=b'{"name": "x"}')
    assert (bare.status_code, bare.json()["message"]) == (422, "[]: Empty Content-Type")
    other = forge.api().post(
        f"/orgs/{ORG}/repos", content=b'{"name": "x"}', headers={"Content-Type": "text/plain"}
    )
    assert (other.status_code, other.json()["message"]) == (422, "[]: Unsupported Content-Type")


def test_creating_twice_is_a_conflict(forge: ForgeUnderTest) -> None:
    """409 for a name that exists, in any case of its letters."""
    remote = forge.new_repo()
    again = forge.api().post(f"/orgs/{ORG}/repos", json={"name": remote.name.upper()})
    assert again.status_code == 409
    assert again.json()["message"] == "The repository with the same name already exists."


def test_unknown_names_are_404(forge: ForgeUnderTest) -> None:
    """Unknown owners, repositories, organisations: 404, with a list of errors."""
    for path in ("/repos/nobody/x", f"/repos/{ORG}/nothing", "/orgs/nobody/repos", "/orgs/alice/repos"):
        answer = forge.api().get(path)
        assert answer.status_code == 404, path
        assert set(answer.json()) == {"errors", "message", "url"}, path
    assert forge.api().post("/orgs/nobody/repos", json={"name": "x"}).status_code == 404
    assert forge.api().post("/org/nobody/repos", json={"name": "x"}).status_code == 422


def test_names_are_found_in_any_case(forge: ForgeUnderTest) -> None:
    """The URL's case does not matter; the answer shows the real names."""
    remote = forge.new_repo()
    shouted = forge.api().get(f"/repos/{ORG.upper()}/{remote.name.upper()}")
    assert shouted.json()["full_name"] == f"{ORG}/{remote.name}"


def test_a_renamed_repository_redirects(forge: ForgeUnderTest) -> None:
    """The old name answers 301 with a relative place, to anybody; the new name answers."""
    remote = forge.new_repo({"a": "1"})
    renamed = forge.api().patch(remote.api, json={"name": remote.name + "-new"})
    assert (renamed.status_code, renamed.json()["name"]) == (200, remote.name + "-new")
    sent = forge.api().get(remote.api + "/branches", params={"limit": 1})
    assert sent.status_code == 301
    assert sent.headers["Location"] == f"/api/v1{remote.api}-new/branches?limit=1"
    assert forge.api().get(remote.api, follow_redirects=True).json()["name"] == remote.name + "-new"
    taken = forge.new_repo()
    clash = forge.api().patch(taken.api, json={"name": remote.name + "-new"})
    assert clash.status_code == 422
    again = forge.api().post(f"/orgs/{ORG}/repos", json={"name": remote.name})
    assert again.status_code == 201, "a name that only redirects can be given to a new repository"
    assert forge.api().get(remote.api).status_code == 200


def test_editing_a_repository(forge: ForgeUnderTest) -> None:
    """Visibility, description and default branch change; an unknown default branch is ignored."""
    remote = forge.new_repo({"a": "1"})
    forge.write(remote, {"b": "1"}, new_branch="other")
    edited = forge.api().patch(remote.api, json={"description": "text", "private": False}).json()
    assert (edited["description"], edited["private"]) == ("text", False)
    ignored = forge.api().patch(remote.api, json={"default_branch": "nothing"})
    assert (ignored.status_code, ignored.json()["default_branch"]) == (200, "main")
    assert forge.api().patch(remote.api, json={"default_branch": "other"}).json()["default_branch"] == "other"


def test_an_archived_repository_is_locked(forge: ForgeUnderTest) -> None:
    """423 on writes, and reads go on."""
    remote = forge.new_repo({"a": "1"})
    pull = forge.new_pull(remote, {"b": "1"})
    assert forge.api().patch(remote.api, json={"archived": True}).json()["archived"] is True
    writes = [
        ("POST", "/branches", {"new_branch_name": "x"}),
        ("POST", "/pulls", {"head": "feature", "base": "main", "title": "t"}),
        ("POST", f"/pulls/{pull['number']}/merge", {"Do": "merge"}),
        ("POST", f"/issues/{pull['number']}/comments", {"body": "b"}),
        ("POST", "/contents", {"files": []}),
    ]
    for method, path, body in writes:
        assert forge.api().request(method, remote.api + path, json=body).status_code == 423, path
    assert forge.api().get(remote.api + "/contents/a").status_code == 200


def test_a_deleted_repository_is_gone(forge: ForgeUnderTest) -> None:
    """204 without a body, then 404; the name is free again."""
    remote = forge.new_repo({"a": "1"})
    gone = forge.api().delete(remote.api)
    assert (gone.status_code, gone.content) == (204, b"")
    assert forge.api().get(remote.api).status_code == 404
    assert forge.api().post(f"/orgs/{ORG}/repos", json={"name": remote.name}).json()["empty"] is True


def test_pages_are_cut_to_fifty(forge: ForgeUnderTest) -> None:
    """A `limit` above 50 is silently 50, one below 1 is 30; the header counts all."""
    remote = forge.new_repo({"a": "1"})
    path = f"{remote.api}/statuses/{remote.head()}"
    for number in range(52):
        body = {"state": "success", "context": f"c{number}"}
        assert forge.api().post(path, json=body).status_code == 201
    for limit, shown in (("100", 50), ("0", 30), ("x", 30), ("7", 7)):
        page = forge.api().get(path, params={"limit": limit, "page": 1})
        assert len(page.json()) == shown, limit
        assert page.headers["X-Total-Count"] == "52", limit
    assert len(forge.api().get(path, params={"limit": 50, "page": 2}).json()) == 2
    beyond = forge.api().get(path, params={"limit": 50, "page": 9})
    assert (beyond.status_code, beyond.json()) == (200, [])
    assert len(forge.api().get(path, params={"limit": 7}).json()) == 52, "statuses alone ignore it without page"


def test_link_headers_name_the_neighbours(forge: ForgeUnderTest) -> None:
    """`Link` is absolute, keeps the other parameters, and is absent when there is one page."""
    remote = forge.new_repo({"a": "1"})
    for number in range(4):
        forge.write(remote, {f"f{number}": "1"}, new_branch=f"b{number}")
    path = remote.api + "/branches"
    base = f"{forge.url}/api/v1{path}?limit=2&page="
    first = forge.api().get(path, params={"limit": 2})
    assert len(first.json()) == 2
    assert first.headers["Link"] == f'<{base}2>; rel="next",<{base}3>; rel="last"'
    middle = forge.api().get(path, params={"limit": 2, "page": 2})
    assert middle.headers["Link"] == (
        f'<{base}3>; rel="next",<{base}3>; rel="last",<{base}1>; rel="first",<{base}1>; rel="prev"'
    )
    assert first.headers["X-Total-Count"] == "5"
    assert "Link" not in forge.api().get(path, params={"limit": 5}).headers


def test_org_repositories_in_order(forge: ForgeUnderTest) -> None:
    """All repositories of an organisation, oldest first, empty and archived ones included; private ones for
    members only, though the count header may tell more than is shown."""
    public = forge.new_repo(org=PUBLIC_ORG, private=False)
    hidden = forge.new_repo(org=PUBLIC_ORG, private=True)
    path = f"/orgs/{PUBLIC_ORG}/repos"
    listed = [repo["name"] for repo in forge.api().get(path, params={"limit": 50}).json()]
    assert listed.index(public.name) < listed.index(hidden.name)
    seen = forge.api("mallory").get(path, params={"limit": 50})
    names = [repo["name"] for repo in seen.json()]
    assert public.name in names
    assert hidden.name not in names
    assert int(seen.headers["X-Total-Count"]) > len(names)
    assert hidden.name not in [repo["name"] for repo in forge.api("").get(path).json()] or not seen
