"""Answers become typed values at a client's edge: what is ignored, tolerated, escaped and refused."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from typing import Any

import pytest

from fixtures.clients.decoding import Malformed, decode
from fixtures.clients.drone import DroneReader
from fixtures.clients.drone_values import ListedBuild, RecordedResults
from fixtures.clients.forge import ForgeReader, ForgeWriter
from fixtures.clients.forge_answers import ListedComment, Pull
from fixtures.clients.forge_issues import IssueClient
from fixtures.clients.forge_values import Repository
from fixtures.clients.http import Http
from fixtures.clients.upstream import commits_since
from fixtures.errors import Refused, Unknown, Unreachable
from tests_meta.clients.http_server import Answer, HttpServer, serving

SHA = "a" * 40
REPOSITORY = {"full_name": "org/ghost", "empty": False, "default_branch": "main", "private": True}
PULL = {
    "number": 7,
    "title": "t",
    "state": "open",
    "user": {"login": "alice"},
    "head": {"ref": "topic", "sha": SHA},
    "base": {"ref": "main", "sha": SHA},
}
COMMENT = {"id": 1, "body": "!testme", "created_at": "2026-06-02T00:13:00Z", "user": {"login": "bot"}}
STATUS = {"id": 1, "context": "cc-ci/testme", "status": "success", "created_at": "2026-06-02T00:13:00Z"}
BUILD = {"number": 3, "status": "success", "event": "custom", "created": 1_780_000_000, "after": SHA}


@pytest.fixture
def server() -> Iterator[HttpServer]:
    with serving() as little:
        yield little


@pytest.fixture
def http(server: HttpServer) -> Iterator[Http]:
    made = Http("forge", server.url, timeout_s=5)
    yield made
    made.close()


def said(value: Any) -> bytes:
    return json.dumps(value).encode()


def will_page(server: HttpServer, items: Any, *, total: str) -> None:
    server.will(Answer(body=said(items), headers={"X-Total-Count": total}))


def test_unknown_fields_are_ignored_and_optional_ones_may_be_missing_or_null() -> None:
    """A later forge's fields are ignored; a field with a default may be left out or null; both mean the default."""
    plain = decode(said(REPOSITORY), Repository, where="x")
    more = {**REPOSITORY, "object_format_name": "sha1", "topics": [], "description": None, "archived": None}
    assert decode(said(more), Repository, where="x") == plain
    assert (plain.archived, plain.mirror, plain.description, plain.permissions) == (False, False, "", {})


@pytest.mark.parametrize("user", [None, {}, {"login": None}, "missing"])
def test_pull_request_of_a_deleted_account_is_read(user: Any) -> None:
    """A pull request whose author is gone is read with an empty author."""
    item = {**PULL, "user": user} if user != "missing" else {k: v for k, v in PULL.items() if k != "user"}
    assert decode(said(item), Pull, where="x").value("org/ghost").author == ""


WRONG = {
    "other type": ({**PULL, "number": "7"}, "number", "`int`", "'7'"),
    "bool for int": ({**PULL, "number": True}, "number", "`int`", "True"),
    "negative": ({**PULL, "number": -7}, "number", ">= 0", "-7"),
    "huge": ({**PULL, "number": 2**70}, "number", "<= 9223372036854775807", str(2**70)),
    "nested": ({**PULL, "head": {"ref": 5}}, "head.ref", "`str`", "5"),
    "no commit id": ({**PULL, "head": {"ref": "x", "sha": "--force"}}, "head.sha", "regex", "'--force'"),
    "null": ({**PULL, "state": None}, "state", "required", "object"),
    "list": ([PULL], "answer", "`object`", "a list of 1"),
    "text": ("moved", "answer", "`object`", "'moved'"),
}


@pytest.mark.parametrize("case", WRONG)
def test_error_names_request_field_expected_and_seen(http: Http, server: HttpServer, case: str) -> None:
    """A value of a wrong form raises `Malformed`: method, URL, field, what was expected and what came."""
    item, field, expected, seen = WRONG[case]
    server.will_say(item)
    with pytest.raises(Malformed) as caught:
        ForgeReader(http, bot="bot").pull("org/ghost", 7)
    message = caught.value.message
    assert f"forge: GET {server.url}/api/v1/repos/org/ghost/pulls/7" in message
    for words in (field, expected, seen):
        assert words in message, message
    assert caught.value.do
    assert len(server.asked) == 1, "asking again brings the same answer"


@pytest.mark.parametrize(
    ("escape", "shown"),
    [
        (r"caf\udce9", r"caf\udce9"),
        (r"half \ud83d", r"half \ud83d"),
        (r"\ud83d\ud83d\ude00", "\\ud83d\N{GRINNING FACE}"),
        (r"whole \ud83d\ude00", "whole \N{GRINNING FACE}"),
        (r"a backslash \\ud83d", r"a backslash \ud83d"),
        (r"\u00e9", "é"),
    ],
)
def test_text_that_no_encoding_takes_is_escaped_visibly(escape: str, shown: str) -> None:
    """A lone surrogate becomes visible text; pairs, other escapes and escaped backslashes stay what they are."""
    body = json.dumps(COMMENT).replace("!testme", escape).encode()
    text = decode(body, ListedComment, where="x").body
    assert text == shown
    assert text.encode()


@pytest.mark.parametrize(
    ("body", "shown"),
    [
        (b'{"id": 1, "created_at": "2026-06-02T00:13:00Z", "body": "caf\xe9 \xc3\xa9"}', "caf\\xe9 é"),
        (json.dumps(COMMENT).encode("utf-16"), "!testme"),
        (b"\xef\xbb\xbf" + said(COMMENT), "!testme"),
    ],
    ids=["latin-1", "utf-16", "byte order mark"],
)
def test_other_encodings_are_read_or_escaped(body: bytes, shown: str) -> None:
    """Bytes that are not UTF-8 are escaped, and what declares itself by a byte order mark is decoded as that."""
    assert decode(body, ListedComment, where="x").body == shown


@pytest.mark.parametrize(
    "body", [b"", b"<html>", b"{", b'{"id": NaN}', b"[" * 100_000, b"\xff\xfe{", b'{"a":"\\ud8"}']
)
def test_body_that_is_not_json_is_named(body: bytes) -> None:
    """Nothing, HTML, half of an object, endless nesting: each is "not JSON" or "nothing", with the body's beginning."""
    with pytest.raises(Malformed, match=r"forge: GET /x: expected JSON, saw (nothing|a body that is not JSON)"):
        decode(body, Repository, where="forge: GET /x")


@pytest.mark.parametrize(
    ("kind", "item", "field", "value"),
    [
        (ListedComment, COMMENT, "created_at", "0001-01-01T00:00:00+14:00"),
        (ListedComment, COMMENT, "created_at", "2026-06-02T00:13:00"),
        (ListedComment, COMMENT, "created_at", "yesterday"),
        (ListedBuild, BUILD, "created", -1),
        (ListedBuild, BUILD, "created", 10**18),
        (ListedBuild, BUILD, "params", {"RECIPE": None, "REF": 5}),
        (RecordedResults, {}, "stages", [{"name": "custom", "tests": [{"name": "t"}]}]),
        (Repository, REPOSITORY, "full_name", "ghost"),
    ],
)
def test_value_that_would_break_later_is_refused_here(kind: type, item: Any, field: str, value: Any) -> None:
    """Times without a zone or out of range, names without an owner and tests without an outcome are `Malformed`."""
    decode(said(item), kind, where="x")
    with pytest.raises(Malformed):
        decode(said({**item, field: value}), kind, where="x")


def test_one_bad_item_of_a_list_is_left_out_and_named(http: Http, server: HttpServer) -> None:
    """A pull request or a build that cannot be read is collected with its request and number; the others are read."""
    good = {"number": 1, "title": "t", "state": "open", "repository": {"full_name": "org/ghost"}, "user": None}
    will_page(server, [good, {**good, "number": "x"}, {**good, "number": 3}], total="3")
    forge = ForgeReader(http, bot="bot")
    assert [pull.number for pull in forge.open_pulls("org")] == [1, 3]
    (bad,) = forge.unreadable
    assert "/repos/issues/search page 1, item 2: the field number" in bad.message
    server.will_say([BUILD, {**BUILD, "number": 2, "created": None}, {**BUILD, "number": 1}])
    drone = DroneReader(http, http, repository="org/ci", results_path="/{build}")
    assert [build.number for build in drone.builds()] == [3, 1]
    assert "item 2" in forge.unreadable[-1].message
    assert "created" in forge.unreadable[-1].message


def test_history_with_a_bad_row_is_refused_as_a_whole(http: Http, server: HttpServer) -> None:
    """A commit's statuses and a pull request's comments are read whole: else an older one would count as the last."""
    forge = ForgeReader(http, bot="bot")
    will_page(server, [STATUS, {**STATUS, "id": None}], total="2")
    will_page(server, [STATUS, {**STATUS, "id": None}], total="2")
    with pytest.raises(Malformed, match=r"statuses.*item 2.*`id`"):
        forge.statuses("org/ghost", SHA)
    server.will_say([COMMENT, {**COMMENT, "id": -1}])
    with pytest.raises(Malformed, match="comments"):
        forge.comments("org/ghost", 1)
    assert not forge.unreadable


def test_unreadable_answer_to_a_write_is_unknown(http: Http, server: HttpServer) -> None:
    """A 201 with a body that cannot be read does not say that nothing was made."""
    writer = ForgeWriter(http, bot="bot")
    server.usual = Answer(201, b"<html>done</html>")
    with pytest.raises(Unknown):
        writer.create_repository("org", "ghost", private=True, description="")
    with pytest.raises(Unknown):
        writer.comment("org/ghost", 1, "!testme")
    with pytest.raises(Unknown):
        writer.commit_files("org/ghost", [], message="m", branch="main")
    assert len(server.asked) == 3


def test_builds_that_could_not_be_read_are_known_by_their_recipe(http: Http, server: HttpServer) -> None:
    """`null` is no list of builds, and the recipe of a build that could not be read is named where that can be read."""
    drone = DroneReader(http, http, repository="org/ci", results_path="/{build}")
    server.will_say(None)
    with pytest.raises(Malformed, match="builds"):
        list(drone.builds())
    server.will_say([{**BUILD, "created": -1, "params": {"RECIPE": "ghost"}}, {"number": "x"}, "build", BUILD])
    assert [build.number for build in drone.builds()] == [3]
    assert drone.unreadable_builds_of("RECIPE") == {"ghost"}


@pytest.mark.parametrize("body", [b"", b"<html>", gzip.compress(b"x" * 9999)[:-9]], ids=["empty", "HTML", "cut"])
def test_archive_that_is_not_whole_is_malformed(http: Http, server: HttpServer, body: bytes) -> None:
    """An archive is checked to its end, because a part of it has a part of the files."""
    forge = ForgeReader(http, bot="bot")
    server.will(Answer(body=gzip.compress(b"x")), Answer(404), Answer(body=body))
    assert forge.archive("org/ci", SHA)
    assert forge.archive("org/ci", SHA) is None
    with pytest.raises(Malformed, match=r"tar\.gz"):
        forge.archive("org/ci", SHA)


# -- paging -------------------------------------------------------------------------------------------------------


def repositories(*names: str) -> list[dict[str, Any]]:
    return [{**REPOSITORY, "full_name": f"org/{name}"} for name in names]


def test_pages_shorter_than_asked_for_are_followed(http: Http, server: HttpServer) -> None:
    """By Link, by X-Total-Count, or to an empty page; never by a page's length."""
    forge = ForgeReader(http, bot="bot")
    server.will_say(repositories("a", "b"), Link='<http://root/url?page=2>; rel="next"')
    server.will_say(repositories("c"), Link='<http://root/url?page=1>; rel="prev"')
    assert set(forge.repositories("org")) == {"a", "b", "c"}
    will_page(server, repositories("a"), total="2")
    will_page(server, repositories("b"), total="2")
    assert set(forge.repositories("org")) == {"a", "b"}
    for page in (repositories("a"), repositories("b"), None):
        server.will_say(page)
    assert set(forge.repositories("org")) == {"a", "b"}
    assert len(server.asked) == 7


@pytest.mark.parametrize(
    "link",
    [
        "<http://root/url?page=2>;rel=next",
        '<http://root/url?page=2>; REL="Next"',
        '<http://root/url?page=2>; rel="next last"',
        '<http://root/url?a=1,2;b=3>; title="a; b"; rel="next", <http://root/url>; rel="last"',
        '<http://root/url?page=9>; rel="last" , <http://root/url?page=2> ;  rel = "next"',
    ],
)
def test_link_is_read_in_every_form_of_the_standard(http: Http, server: HttpServer, link: str) -> None:
    """Without quotes, in capitals, in a list of relations: the next page is asked for."""
    server.will_say(repositories("a"), Link=link)
    server.will_say(repositories("b"), Link='<http://root/url?page=1>; rel="prev"')
    assert set(ForgeReader(http, bot="bot").repositories("org")) == {"a", "b"}


def test_link_without_a_relation_says_nothing(http: Http, server: HttpServer) -> None:
    """A header that is garbled is no end of the list: it is read until an empty page."""
    for page in (repositories("a"), repositories("b"), None):
        server.will_say(page, Link=";;;")
    assert set(ForgeReader(http, bot="bot").repositories("org")) == {"a", "b"}


@pytest.mark.parametrize(
    "pages", [[["a"], []], [["a"], ["a"]], [["a", "b", "c"]]], ids=["less", "same page", "more"]
)
def test_total_that_does_not_add_up_is_an_error(http: Http, server: HttpServer, pages: list[list[str]]) -> None:
    """A list that ends before its total, repeats a page to reach it, or exceeds it, is read again and then refused."""
    for page in [*pages, *pages]:
        will_page(server, repositories(*page), total="2")
    with pytest.raises(Malformed, match=r"expected 2 items, as X-Total-Count says, saw \d"):
        ForgeReader(http, bot="bot").repositories("org")
    assert len(server.asked) == 2 * len(pages)


def test_list_that_changed_while_it_was_read_is_read_again(http: Http, server: HttpServer) -> None:
    """A total that adds up the second time is a list."""
    will_page(server, repositories("a"), total="2")
    will_page(server, [], total="2")
    will_page(server, repositories("a", "b"), total="2")
    assert set(ForgeReader(http, bot="bot").repositories("org")) == {"a", "b"}


def test_repositories_that_the_account_may_not_see_are_no_error(http: Http, server: HttpServer) -> None:
    """Gitea counts them in the total of an organisation's list; with Link the end of the list is known all the same."""
    first = '<http://h/?page=1>; rel="first"'
    server.will(Answer(body=said(repositories("a")), headers={"X-Total-Count": "3", "Link": first}))
    assert set(ForgeReader(http, bot="bot").repositories("org")) == {"a"}


def test_issues_and_commits_are_read_from_short_pages_too(http: Http, server: HttpServer) -> None:
    """muster's own issues and upstream's history do not end at a short page either."""
    issue = {**COMMENT, "number": 1, "title": "t", "state": "open"}
    will_page(server, [issue], total="2")
    will_page(server, [{**issue, "number": 2}], total="2")
    assert [one.number for one in IssueClient(http, repository="org/x", bot="bot").issues()] == [1, 2]
    server.will_say({}, 404)
    with pytest.raises(Refused, match="404"):
        IssueClient(http, repository="org/x", bot="bot").issues()

    def commit(letter: str) -> dict[str, Any]:
        return {"sha": letter * 40, "commit": {"committer": {"date": "2026-06-02T00:13:00Z"}}}

    server.will_say([commit("a")], Link='<http://h/?page=2>; rel="next"')
    server.will_say([commit("b"), commit("c")])
    newer = commits_since(http, "up/ghost", head="a" * 40, known="c" * 40)
    assert newer is not None
    assert [one.sha[0] for one in newer] == ["a", "b"]
    for _ in range(2):
        server.will_say([commit("a")], Link='<http://h/?page=2>; rel="next"')
    with pytest.raises(Unreachable, match="same page"):
        commits_since(http, "up/ghost", head="a" * 40, known="c" * 40)
