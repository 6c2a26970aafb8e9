"""What only the embedded forge has: state that survives a stop, faults on demand, and a log of requests."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest

from fixtures.rehearsal.forge_embedded.bare import Bare
from fixtures.rehearsal.forge_embedded.store import Store
from fixtures.rehearsal.forge_embedded.wire_faults import FILE
from tests_meta.rehearsal.forge_server import (
    BOT,
    ORG,
    EmbeddedForge,
    ForgeUnderTest,
    Remote,
    git_environment,
    request_log,
)

HISTORY = b"""\
commit refs/heads/main
committer A <a@forge.invalid> 1780000000 +0000
data 3
one
M 100644 inline a
data 2
1

commit refs/heads/feature
committer A <a@forge.invalid> 1780000001 +0000
data 3
two
from refs/heads/main
M 100644 inline b
data 2
1

"""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedForge]:
    """An embedded forge of this module's own, which tests may break, stop and start."""
    embedded = EmbeddedForge(tmp_path_factory.mktemp("broken"))
    yield embedded
    embedded.stop()


@pytest.fixture
def own(server: EmbeddedForge) -> Iterator[ForgeUnderTest]:
    """That forge without any fault, before and after."""
    file = server.settings.root / FILE
    file.unlink(missing_ok=True)
    yield ForgeUnderTest(server)
    file.unlink(missing_ok=True)


def fault(own: ForgeUnderTest, **rule: Any) -> None:
    """Make this the only fault."""
    assert isinstance(own.server, EmbeddedForge)
    file = own.server.settings.root / FILE
    draft = file.with_suffix(".new")
    draft.write_text(json.dumps([{"listener": "forge", "times": 1} | rule]))
    draft.replace(file)


def test_state_survives_a_stop(server: EmbeddedForge, own: ForgeUnderTest) -> None:
    """Every answer is the same after stop and start."""
    remote = own.new_repo({"a": "1"})
    own.new_pull(remote, {"b": "1"})
    own.until(lambda: own.pull(remote, 1)["mergeable"], "checked for conflicts")
    comment = own.api().post(remote.api + "/issues/1/comments", json={"body": "x"}).json()
    own.api().post(remote.api + "/statuses/main", json={"state": "success", "context": "c"})
    own.api().post(remote.api + "/branch_protections", json={"rule_name": "main"})
    paths = ("", "/pulls/1", "/issues/1/comments", "/commits/main/statuses", "/branches")
    before = {path: own.api().get(remote.api + path).json() for path in paths}
    server.stop()
    server.start()
    assert {path: own.api().get(remote.api + path).json() for path in paths} == before
    later = own.api().post(remote.api + "/issues/1/comments", json={"body": "y"}).json()
    assert later["id"] > comment["id"]


def test_a_push_before_the_stop_is_finished_after_it(tmp_path: Path) -> None:
    """What the queue had not yet done when the forge was killed is done when it is started again."""
    (tmp_path / "world").mkdir()
    server = EmbeddedForge(tmp_path / "world", pace=1.0)
    try:
        own = ForgeUnderTest(server)
        remote = own.new_repo()
        clone = own.clone(remote, tmp_path / "c")
        clone.commit({"a": "1"})
        clone.git("push", "--quiet", "origin", "HEAD:main")
        assert own.api().get(remote.api).json()["empty"] is True, "the queue runs a second later"
        until_then = {"/branches": 200, "/branches/main": 500, "/contents/a": 500, "/commits": 409, "/pulls": 404}
        seen = {path: own.api().get(remote.api + path).status_code for path in until_then}
        assert seen == until_then, "as Gitea between a first push and its queue"
        server.process.kill()
        server.process.wait()
        server.start()
        own.until(lambda: not own.api().get(remote.api).json()["empty"], "finished after the start")
    finally:
        server.stop()


def test_it_ends_with_the_process_that_started_it(server: EmbeddedForge, own: ForgeUnderTest) -> None:
    """A forge whose parent is killed does not stay behind."""
    server.stop()
    serve = [sys.executable, "-m", "fixtures.rehearsal.forge_embedded", str(server.settings.root)]
    command = ["sh", "-c", '"$@" & echo started; wait', "sh", *serve]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[2]) as parent:
        assert parent.stdout is not None
        lines = [parent.stdout.readline().strip() for _ in range(2)]
        assert "READY" in lines
        assert own.api("").get("/version").status_code == 200
        parent.kill()
        parent.stdout.read()  # ends when the forge, which holds the other end, has ended
    with pytest.raises(httpx.TransportError):
        own.api("").get("/version")
    server.start()


@pytest.mark.parametrize(("action", "retry"), [("status:500", None), ("status:429", "1"), ("status:401", None)])
def test_a_status_instead_of_an_answer(own: ForgeUnderTest, action: str, retry: str | None) -> None:
    """The chosen request gets the status and does nothing; the next one is served."""
    fault(own, method="POST", path="^/api/v1/orgs/[^/]+/repos$", action=action)
    body = {"name": f"not-{action[-3:]}"}
    broken = own.api().post(f"/orgs/{ORG}/repos", json=body)
    assert (str(broken.status_code), broken.headers.get("Retry-After")) == (action[-3:], retry)
    assert own.api().get(f"/repos/{ORG}/{body['name']}").status_code == 404
    assert own.api().post(f"/orgs/{ORG}/repos", json=body).status_code == 201


def test_faults_can_be_counted_and_switched(own: ForgeUnderTest) -> None:
    """`skip` lets some pass, `times` ends it, a changed file counts anew, no file is no fault."""
    fault(own, method="GET", path="/version$", skip=1, times=2, action="status:503")
    seen = [own.api().get("/version").status_code for _ in range(5)]
    assert seen == [200, 503, 503, 200, 200]
    fault(own, method="*", path="/version$", times=None, action="status:502")
    assert [own.api().get("/version").status_code for _ in range(3)] == [502] * 3
    assert own.api().get("/user").status_code == 200
    assert isinstance(own.server, EmbeddedForge)
    (own.server.settings.root / FILE).unlink()
    assert own.api().get("/version").status_code == 200


def test_listeners_are_broken_apart(server: EmbeddedForge, own: ForgeUnderTest) -> None:
    """A fault of the forge leaves the upstream alone."""
    fault(own, path=".", times=None, action="status:500")
    assert own.api("").get("/version").status_code == 500
    assert httpx.get(server.settings.upstream_url + "/api/v1/version").status_code == 200


def test_a_reset_before_the_act(own: ForgeUnderTest) -> None:
    """The connection is reset and nothing was done."""
    fault(own, method="POST", path="/repos$", action="reset")
    with pytest.raises((httpx.ReadError, httpx.RemoteProtocolError)):
        own.api().post(f"/orgs/{ORG}/repos", json={"name": "reset"})
    assert own.api().get(f"/repos/{ORG}/reset").status_code == 404


@pytest.mark.parametrize("action", ["reset-after", "truncate"])
def test_an_answer_that_is_lost(own: ForgeUnderTest, action: str) -> None:
    """The act is done and the client does not learn of it."""
    fault(own, method="POST", path="/repos$", action=action)
    with pytest.raises((httpx.ReadError, httpx.RemoteProtocolError)):
        own.api().post(f"/orgs/{ORG}/repos", json={"name": action})
    assert own.api().get(f"/repos/{ORG}/{action}").status_code == 200


def test_a_slow_answer_and_one_that_never_comes(own: ForgeUnderTest) -> None:
    """`slow` delays, `hang` lasts until the client gives up and harms nobody else."""
    fault(own, path="/version$", action="slow:0.3")
    began = time.monotonic()
    assert own.api().get("/version").status_code == 200
    assert time.monotonic() - began >= 0.3
    fault(own, path="/version$", action="hang")
    with pytest.raises(httpx.ReadTimeout):
        own.api().get("/version", timeout=0.3)
    assert own.api().get("/version").status_code == 200


def test_git_can_be_broken_too(own: ForgeUnderTest, tmp_path: Path) -> None:
    """A push whose answer is lost has happened all the same."""
    remote = own.new_repo({"a": "1"})
    clone = own.clone(remote, tmp_path / "c")
    head = clone.commit({"a": "2"})
    fault(own, method="POST", path="/git-receive-pack$", action="reset-after")
    assert clone.attempt("push", "origin", "HEAD:main").returncode != 0
    assert remote.head() == head
    assert own.api().get(remote.api + "/branches/main").json()["commit"]["id"] == head
    fault(own, method="GET", path="info/refs$", action="status:503")
    assert "503" in clone.attempt("fetch", "origin").stderr


def test_a_push_that_breaks_off_harms_nobody(server: EmbeddedForge, own: ForgeUnderTest) -> None:
    """A client that goes away in the middle of a push leaves the repository as it was and the forge alive."""
    remote = own.new_repo({"a": "1"})
    before = remote.head()
    login = httpx.BasicAuth("anybody", server.tokens["operator"])._auth_header
    head = (
        f"POST /{ORG}/{remote.name}.git/git-receive-pack HTTP/1.1\r\nHost: x\r\nAuthorization: {login}\r\n"
        "Content-Type: application/x-git-receive-pack-request\r\nContent-Length: 100000\r\n\r\n"
    )
    with socket.create_connection(("127.0.0.1", server.settings.forge_port)) as connection:
        connection.sendall(head.encode() + b"0094" + before.encode())
    own.until(
        lambda: [
            line
            for line in request_log(server.settings)
            if remote.name in line["path"] and line["method"] == "POST" and "receive" in line["path"]
        ],
        "the end of the broken push",
    )
    assert remote.head() == before
    own.write(remote, {"b": "1"})


def test_requests_are_logged_without_tokens(server: EmbeddedForge, own: ForgeUnderTest) -> None:
    """One line per request, so that a client's requests can be counted; no token is ever in it."""
    before = len(request_log(server.settings))
    secret = server.tokens["operator"]
    own.api("").get("/version", params={"page": 1, "token": secret}, headers={"User-Agent": "counted/1"})
    fault(own, path="/user$", action="status:500")
    own.api().get("/user")
    git = ["git", "ls-remote", Remote(ORG, "none", own).url()]
    subprocess.run(git, env=git_environment(), capture_output=True, check=False)
    lines = own.until(lambda: len(found := request_log(server.settings)[before:]) >= 4 and found, "the last line")
    wanted = {"method": "GET", "path": "/api/v1/version", "status": 200, "user_agent": "counted/1"}
    assert {name: lines[0][name] for name in wanted} == wanted
    assert lines[0]["query"] == {"page": "1"}
    assert (lines[1]["status"], lines[1]["fault"]) == (500, "status:500")
    assert lines[-1]["user_agent"].startswith("git/")
    logged = (server.settings.logs_dir / "forge-requests.jsonl").read_text()
    assert secret not in logged
    assert "counted/1" in logged, "the search would have found it"


def test_the_database_holds_no_token(server: EmbeddedForge) -> None:
    """Tokens are kept as digests."""
    content = (server.settings.forge_dir / "forge.db").read_bytes()
    assert not [name for name, token in server.tokens.items() if token.encode() in content]
    assert BOT.encode() in content, "the search would have found it"


def test_seeding(tmp_path: Path) -> None:
    """A store can be filled with a past: ids, branches and times as they were."""
    store = Store(tmp_path)
    store.create_user("alice", id=64)
    store.create_org("org", private=True, owners=["alice"])
    path = store.create_repo("org", "Ghost", private=True)
    Bare(path).git("fast-import", "--quiet", given=HISTORY)
    store.note_pushed("org", "Ghost")
    repo = store.repo("ORG", "ghost")
    assert (repo.empty, repo.default_branch, repo.private) == (False, "main", True)
    at = datetime(2026, 6, 1, tzinfo=UTC)
    pull = store.create_pull("org", "Ghost", head="feature", title="t", author="alice", created_at=at)
    assert (pull.number, pull.state, pull.issue.created) == (1, "mergeable", int(at.timestamp()))
    comment = store.create_comment("org", "Ghost", 1, author="alice", body="b")
    assert store.create_comment("org", "Ghost", 1, author="alice", body="c").id == comment.id + 1
    with pytest.raises(ValueError, match="40 lower-case"):
        store.create_token("alice", "short", "all")
    with pytest.raises(KeyError):
        store.repo("org", "nothing")
    store.close()
