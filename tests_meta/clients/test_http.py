"""HTTP as muster speaks it, against a real little server: what is repeated, what is sent once, what an answer means."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from threading import Barrier, BrokenBarrierError

import httpx
import pytest

from fixtures.clients.http import POOL_SIZE, Http
from fixtures.clients.retry import Busy
from fixtures.config.secret import Secret
from fixtures.errors import MusterError, Refused, Unknown, Unreachable
from fixtures.rehearsal.tls import ensure
from tests_meta.clients.http_server import HANG_UP, RESET, SILENCE, Answer, HttpServer, serving
from tests_meta.rehearsal.ci_world import free_ports

TOKEN = "0123456789abcdef0123456789abcdef01234567"
LOST = (RESET, HANG_UP, Answer(body=b"0123456789", cut=4))


@pytest.fixture
def server() -> Iterator[HttpServer]:
    with serving() as little:
        yield little


def client(url: str, *, timeout_s: float = 5.0, ca: Path | None = None) -> Http:
    return Http("forge", url, timeout_s=timeout_s, ca=ca,
                headers={"Authorization": Secret(f"token {TOKEN}", where="a test")})  # fmt: skip


@pytest.fixture
def http(server: HttpServer) -> Iterator[Http]:
    made = client(server.url)
    yield made
    made.close()


# -- reads -------------------------------------------------------------------------------------------------


def test_a_read_returns_what_the_server_said(http: Http, server: HttpServer) -> None:
    """One request, with the credentials in a header and nowhere else."""
    server.will_say({"version": "1.24"})
    assert http.get("/version", {"page": 2}).json() == {"version": "1.24"}
    (asked,) = server.asked
    assert (asked.method, asked.path, asked.headers["user-agent"]) == ("GET", "/version?page=2", "muster")
    assert asked.headers["authorization"] == f"token {TOKEN}"
    assert http.requests == 1


@pytest.mark.parametrize("lost", [*LOST, Answer(500), Answer(502)], ids=["reset", "closed", "cut", "500", "502"])
def test_a_read_is_repeated_when_nobody_answers(http: Http, server: HttpServer, lost: Answer | str) -> None:
    """A reset, a closed connection, half an answer or a 5xx is followed by another try, which counts."""
    server.will(lost)
    server.will_say([1])
    assert http.get("/list").json() == [1]
    assert (len(server.asked), http.requests) == (2, 2)


@pytest.mark.parametrize("lost", LOST, ids=["reset", "closed", "cut"])
def test_a_read_is_not_repeated_for_ever(http: Http, server: HttpServer, lost: Answer | str) -> None:
    """Three tries, then it is unreachable; the message names server and request, and never the token."""
    server.usual = lost
    with pytest.raises(Unreachable, match="forge: GET /list") as caught:
        http.get("/list")
    assert len(server.asked) == 3
    assert TOKEN not in str(caught.value) + repr(caught.value.__cause__)


def test_a_silent_server_does_not_hold_a_read_for_ever(server: HttpServer) -> None:
    """The tries together end within twice the time limit of one."""
    server.usual = SILENCE
    http, started = client(server.url, timeout_s=0.3), time.monotonic()
    with pytest.raises(Unreachable, match="timed out"):
        http.get("/list")
    assert time.monotonic() - started < 2
    http.close()


def test_nobody_listening_is_unreachable() -> None:
    """Refused connections are told apart from broken ones, and say what to look at."""
    http = client(f"http://127.0.0.1:{free_ports(1)[0]}")
    with pytest.raises(Unreachable, match="could not connect") as caught:
        http.get("/list")
    assert caught.value.do
    http.close()


@pytest.mark.parametrize("status", [401, 403])
def test_a_refusal_is_believed_at_once(http: Http, server: HttpServer, status: int) -> None:
    """401 and 403 are answers: not repeated, and told in the server's own words."""
    server.will_say({"message": "token does not have at least one of required scope(s)"}, status)
    with pytest.raises(Refused, match="required scope"):
        http.get("/user")
    assert len(server.asked) == 1


def test_a_status_that_was_asked_for_is_returned(http: Http, server: HttpServer) -> None:
    """404 where the caller can use it is no error."""
    server.will_say({"message": "not found"}, 404)
    assert http.get("/repos/x", answers=(200, 404)).status_code == 404


@pytest.mark.parametrize("status", [404, 410, 418])
def test_a_status_that_nobody_asked_for_is_no_answer(http: Http, server: HttpServer, status: int) -> None:
    """Any other status means that the other side is not what it was taken for."""
    server.usual = Answer(status, b"<html>gone fishing</html>")
    with pytest.raises(Unreachable, match=f"{status}.*gone fishing"):
        http.get("/api")


def test_a_page_where_json_was_expected_is_no_answer(http: Http, server: HttpServer) -> None:
    """A portal or a maintenance page answers 200 to everything; that is not the forge speaking."""
    server.usual = Answer(200, b"<html>please log in</html>", {"Content-Type": "text/html"})
    with pytest.raises(Unreachable, match="not JSON"):
        http.get("/api/v1/version")
    assert http.get("/x.git/info/refs", json_type=False).content.startswith(b"<html>")


def test_a_long_remote_text_is_cut_to_one_line(http: Http, server: HttpServer) -> None:
    """What a server says ends up in messages: one line, not a page."""
    server.usual = Answer(400, b"line\n" * 1000)
    with pytest.raises(Unreachable) as caught:
        http.get("/api")
    assert "\n" not in caught.value.message
    assert len(caught.value.message) < 500


def test_busy_is_asked_again_after_the_time_it_said(http: Http, server: HttpServer) -> None:
    """429 with Retry-After: the read waits that long and tries again."""
    server.will(Answer(429, headers={"Retry-After": "1"}), Answer())
    started = time.monotonic()
    http.get("/list")
    assert time.monotonic() - started >= 1
    assert len(server.asked) == 2


def test_a_busy_time_beyond_the_limit_is_not_waited_for(http: Http, server: HttpServer) -> None:
    """A server that says "in an hour" is unreachable now, and the wait is in no proportion."""
    server.usual = Answer(429, headers={"Retry-After": "3600"})
    started = time.monotonic()
    with pytest.raises(Busy) as caught:
        http.get("/list")
    assert caught.value.retry_after_s == 3600
    assert time.monotonic() - started < 5
    assert len(server.asked) == 1


@pytest.mark.parametrize("said", ["soon", "-5", "Wed, 21 Oct 2099 07:28:00 GMT"])
def test_a_retry_after_that_is_no_number_is_a_second(http: Http, server: HttpServer, said: str) -> None:
    """Whatever stands there, the read goes on with a short pause."""
    server.will(Answer(429, headers={"Retry-After": said}), Answer())
    assert http.get("/list").status_code == 200


def test_a_redirect_on_the_same_server_is_followed(http: Http, server: HttpServer) -> None:
    """A renamed repository answers 301; its new place is read with the same credentials."""
    server.will(Answer(301, headers={"Location": f"{server.url}/new"}))
    server.will_say({"full_name": "org/new"})
    assert http.get("/old").json()["full_name"] == "org/new"
    assert [asked.headers.get("authorization") for asked in server.asked] == [f"token {TOKEN}"] * 2


def test_credentials_do_not_follow_a_redirect_elsewhere(http: Http, server: HttpServer) -> None:
    """Another server that is redirected to never sees the token."""
    with serving() as other:
        server.usual = Answer(302, headers={"Location": f"{other.url}/trap"})
        with contextlib.suppress(MusterError):
            http.get("/old")
        assert [asked.headers.get("authorization") for asked in other.asked] in ([], [None])


def test_redirects_in_a_circle_end(http: Http, server: HttpServer) -> None:
    """They are no answer."""
    server.usual = Answer(302, headers={"Location": f"{server.url}/again"})
    with pytest.raises(Unreachable):
        http.get("/again")


def test_a_body_that_does_not_decompress_is_no_answer(http: Http, server: HttpServer) -> None:
    """A broken proxy's bytes do not become a traceback."""
    server.usual = Answer(200, b"not gzip at all", {"Content-Encoding": "gzip"})
    with pytest.raises(Unreachable):
        http.get("/list")


# -- writes ------------------------------------------------------------------------------------------------


def test_a_write_is_sent_once_and_confirmed(http: Http, server: HttpServer) -> None:
    """One request with its body; the confirming status is returned."""
    server.will_say({"number": 1}, 201)
    assert http.send("POST", "/pulls", {"title": "x"}, answers=(201,)).json() == {"number": 1}
    (asked,) = server.asked
    assert (asked.method, asked.body.replace(b" ", b"")) == ("POST", b'{"title":"x"}')


@pytest.mark.parametrize("lost", [*LOST, Answer(500), Answer(502), Answer(503, headers={"Retry-After": "0"})],
                         ids=["reset", "closed", "cut", "500", "502", "503"])  # fmt: skip
def test_a_write_whose_answer_is_lost_is_unknown_and_not_repeated(
    http: Http, server: HttpServer, lost: Answer | str
) -> None:
    """Nobody knows whether it was carried out: it is looked up, never sent again."""
    server.usual = lost
    with pytest.raises(Unknown, match="forge: POST /pulls"):
        http.send("POST", "/pulls", {}, answers=(201,))
    assert len(server.asked) == 1


def test_a_write_without_an_answer_in_time_is_unknown(server: HttpServer) -> None:
    """Silence after the request was sent is not a failure either."""
    server.usual = SILENCE
    http = client(server.url, timeout_s=0.3)
    with pytest.raises(Unknown):
        http.send("DELETE", "/repos/x", answers=(204,))
    assert len(server.asked) == 1
    http.close()


def test_a_write_that_was_never_sent_is_unreachable() -> None:
    """No connection, so certainly not carried out; that is another decision than unknown."""
    http = client(f"http://127.0.0.1:{free_ports(1)[0]}")
    with pytest.raises(Unreachable):
        http.send("POST", "/pulls", {}, answers=(201,))
    assert http.requests == 1
    http.close()


def test_a_write_that_was_put_off_is_sent_once_more(http: Http, server: HttpServer) -> None:
    """429 says "not carried out, come back": the only answer that is followed by a second attempt."""
    server.will(Answer(429, headers={"Retry-After": "1"}), Answer(201))
    started = time.monotonic()
    http.send("POST", "/pulls", {}, answers=(201,))
    assert time.monotonic() - started >= 1
    assert len(server.asked) == 2


def test_a_write_is_put_off_once_at_most(http: Http, server: HttpServer) -> None:
    """A second 429 is given back to the caller; an hour's wait at once."""
    server.usual = Answer(429, headers={"Retry-After": "0"})
    with pytest.raises(Busy):
        http.send("POST", "/pulls", {}, answers=(201,))
    assert len(server.asked) == 2
    server.usual = Answer(429, headers={"Retry-After": "3600"})
    with pytest.raises(Busy):
        http.send("POST", "/pulls", {}, answers=(201,))
    assert len(server.asked) == 3


def test_a_site_says_how_long_a_write_may_be_put_off(server: HttpServer) -> None:
    """A server that asks for more than that is not waited for at all."""
    impatient = Http("forge", server.url, timeout_s=5, retry_after_s=1)
    server.will(Answer(429, headers={"Retry-After": "2"}), Answer(429, headers={"Retry-After": "1"}), Answer(201))
    with pytest.raises(Busy):
        impatient.send("POST", "/pulls", {}, answers=(201,))
    impatient.send("POST", "/pulls", {}, answers=(201,))
    assert len(server.asked) == 3
    impatient.close()


def test_a_refused_write_says_so(http: Http, server: HttpServer) -> None:
    """403: a right is missing; nothing was written."""
    server.will_say({"message": "user should have permission"}, 403)
    with pytest.raises(Refused, match="permission"):
        http.send("PATCH", "/repos/x", {}, answers=(200,))


@pytest.mark.parametrize("status", [301, 302, 307, 308])
def test_a_write_never_follows_a_redirect(http: Http, server: HttpServer, status: int) -> None:
    """A write to a renamed repository must not land somewhere else by itself."""
    server.usual = Answer(status, headers={"Location": f"{server.url}/elsewhere"})
    with pytest.raises(MusterError, match=str(status)):
        http.send("PATCH", "/repos/old", {}, answers=(200,))
    assert [asked.path for asked in server.asked] == ["/repos/old"]


def test_a_connection_that_the_server_closed_meanwhile_is_not_used_for_a_write(
    http: Http, server: HttpServer
) -> None:
    """Idle connections die quietly; a write goes over one that lives, so its answer is not lost."""
    server.will(Answer(then_close=True), Answer(201))
    http.get("/first")
    assert server.hung_up.wait(5)
    assert http.send("POST", "/second", {}, answers=(201,)).status_code == 201
    assert [asked.path for asked in server.asked] == ["/first", "/second"]


# -- around it ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("hours", [-3, 0, 3])
def test_the_servers_clock_is_compared_with_ours(http: Http, server: HttpServer, hours: int) -> None:
    """From the Date header of the latest answer, in whole seconds."""
    theirs = datetime.now(UTC) + timedelta(hours=hours)
    server.will(Answer(headers={"Date": format_datetime(theirs, usegmt=True)}))
    http.get("/version")
    assert abs(http.skew_s - hours * 3600) < 3


@pytest.mark.parametrize("said", ["yesterday", "", "Tue, 02 Jun 2026 00:13:00"])
def test_a_date_that_is_none_changes_nothing(http: Http, server: HttpServer, said: str) -> None:
    """A server may write what it likes there; a time without a zone is not guessed at."""
    server.will(Answer(headers={"Date": said}))
    assert http.get("/version").status_code == 200
    assert http.skew_s == 0


def test_connections_are_pooled_and_bounded(http: Http, server: HttpServer) -> None:
    """A hundred reads from forty threads use at most 16 connections, and all of those at once."""
    everyone = Barrier(POOL_SIZE)

    def hold() -> None:
        try:
            everyone.wait(5)
        except BrokenBarrierError:
            return

    server.hold = hold
    with ThreadPoolExecutor(40) as pool:
        assert {http_answer.status_code for http_answer in pool.map(lambda n: http.get(f"/{n}"), range(96))} == {
            200
        }
    assert server.most_at_once == POOL_SIZE == 16
    assert server.connections == POOL_SIZE
    assert http.requests == 96


def test_the_shells_proxy_is_not_used(server: HttpServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Which way requests go is the site file's business, not the environment's."""
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{free_ports(1)[0]}")
    http = client(server.url)
    assert http.get("/version").status_code == 200
    http.close()


def test_a_certificate_that_nobody_vouches_for_is_unreachable(tmp_path: Path) -> None:
    """A server with its own authority is trusted only when the site names that authority."""
    files = ensure(tmp_path)
    with serving(files.server_context()) as server:
        trusting, doubting = client(server.url, ca=files.ca), client(server.url)
        assert trusting.get("/version").status_code == 200
        with pytest.raises(Unreachable, match=r"(?i)certificate"):
            doubting.get("/version")
        trusting.close()
        doubting.close()


def test_every_exception_of_the_library_becomes_one_of_ours() -> None:
    """Whatever httpx can raise about a request is one of this project's errors at the border."""

    def every(kind: type[Exception]) -> Iterator[type[Exception]]:
        yield kind
        for below in kind.__subclasses__():
            yield from every(below)

    kinds = [kind for kind in every(httpx.RequestError) if kind.__module__.startswith("httpx")]
    assert len(kinds) > 10
    for kind in kinds:

        def failing(request: httpx.Request, kind: type[Exception] = kind) -> httpx.Response:
            raise kind("broken")

        http = Http("forge", "http://127.0.0.1", timeout_s=0.1, transport=httpx.MockTransport(failing))
        with pytest.raises((Unreachable, Unknown)):
            http.send("POST", "/", {}, answers=(201,))
        http.close()
