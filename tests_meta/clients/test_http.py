"""The HTTP client against a real server: repeated reads, writes sent once, and the meaning of each status."""

from __future__ import annotations

import contextlib
import ssl
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from threading import Barrier, BrokenBarrierError

import httpx
import pytest

from fixtures.clients.connection import connect, endpoint_of, resolve_addresses, tls_context, verify_certificate
from fixtures.clients.http import POOL_SIZE, Http, retry_after_s
from fixtures.clients.retry import Busy, with_jitter
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


def test_read_returns_the_response(http: Http, server: HttpServer) -> None:
    """One request returns the response; the credentials are only in a header."""
    server.will_say({"version": "1.24"})
    assert http.get("/version", {"page": 2}).json() == {"version": "1.24"}
    (asked,) = server.asked
    assert (asked.method, asked.path, asked.headers["user-agent"]) == ("GET", "/version?page=2", "muster")
    assert asked.headers["authorization"] == f"token {TOKEN}"
    assert http.requests == 1


@pytest.mark.parametrize("lost", [*LOST, Answer(500), Answer(502)], ids=["reset", "closed", "cut", "500", "502"])
def test_read_is_repeated_without_an_answer(http: Http, server: HttpServer, lost: Answer | str) -> None:
    """After a reset, a closed connection, half an answer or a 5xx the read is repeated and counted."""
    server.will(lost)
    server.will_say([1])
    assert http.get("/list").json() == [1]
    assert (len(server.asked), http.requests) == (2, 2)


@pytest.mark.parametrize("lost", LOST, ids=["reset", "closed", "cut"])
def test_read_gives_up_after_three_attempts(http: Http, server: HttpServer, lost: Answer | str) -> None:
    """After three attempts it raises `Unreachable` with server and request, and without the token."""
    server.usual = lost
    with pytest.raises(Unreachable, match="forge: GET /list") as caught:
        http.get("/list")
    assert len(server.asked) == 3
    assert TOKEN not in str(caught.value) + repr(caught.value.__cause__)


def test_all_attempts_of_a_read_have_a_total_limit(server: HttpServer) -> None:
    """All attempts together end within twice the time limit of one."""
    server.usual = SILENCE
    http, started = client(server.url, timeout_s=0.3), time.monotonic()
    with pytest.raises(Unreachable, match="timed out"):
        http.get("/list")
    assert time.monotonic() - started < 2
    http.close()


def test_closed_port_is_unreachable() -> None:
    """A refused connection raises `Unreachable` with a remedy."""
    http = client(f"http://127.0.0.1:{free_ports(1)[0]}")
    with pytest.raises(Unreachable, match="could not connect") as caught:
        http.get("/list")
    assert caught.value.do
    http.close()


def dialled(url: str) -> Unreachable:
    """The error of the site check's step for this URL."""
    place = endpoint_of(url)
    try:
        resolve_addresses(place.host, 5.0)
        with connect(place, 5.0) as sock:
            verify_certificate(sock, place, tls_context(None, key="ca"))
    except Unreachable as problem:
        return problem
    pytest.fail(f"{url} was reached")


@pytest.mark.parametrize(
    ("case", "words"),
    [
        ("a closed port", "no connection (Connection refused)"),
        ("http on the https port", "no TLS handshake ("),
        ("a private authority", "its certificate is not trusted ("),
        ("an unknown name", "The name nowhere.invalid cannot be resolved ("),
    ],
)
def test_failed_connection_has_the_sentence_of_the_site_check(case: str, words: str, tmp_path: Path) -> None:
    """A run names the step of the connection that failed, and the remedy, in the words of the site check."""
    tls = ensure(tmp_path).server_context() if case == "a private authority" else None
    with serving(tls) as server:
        url = server.url.replace("http://", "https://")
        if case == "a closed port":
            url = f"http://127.0.0.1:{free_ports(1)[0]}"
        elif case == "an unknown name":
            url = "https://nowhere.invalid"
        http, expected = client(url), dialled(url)
        with pytest.raises(Unreachable) as caught:
            http.get("/list")
        http.close()
    assert words in expected.message
    assert caught.value.message.endswith(f"could not connect: {expected.message}")
    assert caught.value.do == expected.do


@pytest.mark.parametrize("status", [401, 403])
def test_refusal_is_not_repeated(http: Http, server: HttpServer, status: int) -> None:
    """401 and 403 raise `Refused` at once, with the server's message."""
    server.will_say({"message": "token does not have at least one of required scope(s)"}, status)
    with pytest.raises(Refused, match="required scope"):
        http.get("/user")
    assert len(server.asked) == 1


def test_accepted_status_is_returned(http: Http, server: HttpServer) -> None:
    """A 404 is returned if the caller accepts it."""
    server.will_say({"message": "not found"}, 404)
    assert http.get("/repos/x", answers=(200, 404)).status_code == 404


@pytest.mark.parametrize("status", [404, 410, 418])
def test_unexpected_status_is_unreachable(http: Http, server: HttpServer, status: int) -> None:
    """Any status that the caller does not accept raises `Unreachable`."""
    server.usual = Answer(status, b"<html>gone fishing</html>")
    with pytest.raises(Unreachable, match=f"{status}.*gone fishing"):
        http.get("/api")


def test_html_instead_of_json_is_unreachable(http: Http, server: HttpServer) -> None:
    """A 200 with HTML, as from a login portal, raises `Unreachable`."""
    server.usual = Answer(200, b"<html>please log in</html>", {"Content-Type": "text/html"})
    with pytest.raises(Unreachable, match="not JSON"):
        http.get("/api/v1/version")
    assert http.get("/x.git/info/refs", json_type=False).content.startswith(b"<html>")


def test_long_remote_text_is_shortened_to_one_line(http: Http, server: HttpServer) -> None:
    """An error message contains one shortened line of the remote text."""
    server.usual = Answer(400, b"line\n" * 1000)
    with pytest.raises(Unreachable) as caught:
        http.get("/api")
    assert "\n" not in caught.value.message
    assert len(caught.value.message) < 500


def test_busy_read_is_repeated_after_retry_after(http: Http, server: HttpServer) -> None:
    """After a 429 the read waits for Retry-After and is repeated."""
    server.will(Answer(429, headers={"Retry-After": "1"}), Answer())
    started = time.monotonic()
    http.get("/list")
    assert time.monotonic() - started >= 1
    assert len(server.asked) == 2


def test_long_retry_after_is_not_waited_for(http: Http, server: HttpServer) -> None:
    """A Retry-After beyond the total limit raises at once."""
    server.usual = Answer(429, headers={"Retry-After": "3600"})
    started = time.monotonic()
    with pytest.raises(Busy) as caught:
        http.get("/list")
    assert caught.value.retry_after_s == 3600
    assert time.monotonic() - started < 5
    assert len(server.asked) == 1


def test_retry_after_is_seconds_or_a_date() -> None:
    """Both forms of Retry-After are read (RFC 9110, 10.2.3); a date that has passed asks for no pause."""
    now = datetime(2026, 6, 2, 0, 13, tzinfo=UTC)
    said = {
        "120": 120,
        "0": 0,
        "Tue, 02 Jun 2026 00:13:30 GMT": 30,
        "Tuesday, 02-Jun-26 00:13:30 GMT": 30,
        "Tue, 02 Jun 2026 00:12:00 GMT": 0,
        "Tue, 02 Jun 2026 00:13:30": 1,
        "1e9": 1,
        "inf": 1,
        "": 1,
    }
    assert {text: retry_after_s(text, now) for text in said} == said


@pytest.mark.parametrize("status", [429, 503])
@pytest.mark.parametrize("form", ["seconds", "date"])
def test_busy_server_is_waited_for_up_to_the_sites_limit(
    http: Http, server: HttpServer, status: int, form: str
) -> None:
    """A read waits as long as a 429 or a 503 asks, up to limits.retry_after_s, also beyond the time limit of a read."""
    later = format_datetime(datetime.now(UTC) + timedelta(seconds=2), usegmt=True)
    server.will(Answer(status, headers={"Retry-After": "1" if form == "seconds" else later}), Answer())
    patient = Http("forge", server.url, timeout_s=0.4, retry_after_s=5)
    assert patient.get("/list").status_code == 200
    server.will(Answer(status, headers={"Retry-After": "6"}), Answer())
    with pytest.raises(Busy):
        patient.get("/list")
    patient.close()
    assert len(server.asked) == 3


def test_pauses_of_two_clients_differ() -> None:
    """A pause is never shorter than what the server asked for, and varies, so that clients do not return together."""
    pauses = {with_jitter(10) for _ in range(20)}
    assert len(pauses) == 20
    assert all(10 <= pause <= 12 for pause in pauses)
    assert with_jitter(0) == 0


@pytest.mark.parametrize("said", ["soon", "-5", "Wed, 32 Oct 2026 07:28:00 GMT"])
def test_invalid_retry_after_counts_as_one_second(http: Http, server: HttpServer, said: str) -> None:
    """An invalid Retry-After gives a short pause, and the read goes on."""
    server.will(Answer(429, headers={"Retry-After": said}), Answer())
    assert http.get("/list").status_code == 200


def test_redirect_on_the_same_server_is_followed(http: Http, server: HttpServer) -> None:
    """A 301 of a renamed repository is followed with the same credentials."""
    server.will(Answer(301, headers={"Location": f"{server.url}/new"}))
    server.will_say({"full_name": "org/new"})
    assert http.get("/old").json()["full_name"] == "org/new"
    assert [asked.headers.get("authorization") for asked in server.asked] == [f"token {TOKEN}"] * 2


def test_credentials_do_not_follow_a_redirect_to_another_server(http: Http, server: HttpServer) -> None:
    """The other server of a redirect never gets the token."""
    with serving() as other:
        server.usual = Answer(302, headers={"Location": f"{other.url}/trap"})
        with contextlib.suppress(MusterError):
            http.get("/old")
        assert [asked.headers.get("authorization") for asked in other.asked] in ([], [None])


def test_redirect_loop_is_unreachable(http: Http, server: HttpServer) -> None:
    """A redirect loop raises `Unreachable`."""
    server.usual = Answer(302, headers={"Location": f"{server.url}/again"})
    with pytest.raises(Unreachable):
        http.get("/again")


def test_undecodable_body_is_unreachable(http: Http, server: HttpServer) -> None:
    """A body that cannot be decompressed raises `Unreachable`."""
    server.usual = Answer(200, b"not gzip at all", {"Content-Encoding": "gzip"})
    with pytest.raises(Unreachable):
        http.get("/list")


# -- writes ------------------------------------------------------------------------------------------------


def test_write_is_sent_once(http: Http, server: HttpServer) -> None:
    """One request is sent with its body, and the confirming response is returned."""
    server.will_say({"number": 1}, 201)
    assert http.send("POST", "/pulls", {"title": "x"}, answers=(201,)).json() == {"number": 1}
    (asked,) = server.asked
    assert (asked.method, asked.body.replace(b" ", b"")) == ("POST", b'{"title":"x"}')


@pytest.mark.parametrize("lost", [*LOST, Answer(500), Answer(502), Answer(503, headers={"Retry-After": "0"})],
                         ids=["reset", "closed", "cut", "500", "502", "503"])  # fmt: skip
def test_write_with_a_lost_answer_is_unknown_and_not_repeated(
    http: Http, server: HttpServer, lost: Answer | str
) -> None:
    """A write whose answer was lost raises `Unknown` and is sent only once."""
    server.usual = lost
    with pytest.raises(Unknown, match="forge: POST /pulls"):
        http.send("POST", "/pulls", {}, answers=(201,))
    assert len(server.asked) == 1


def test_write_without_an_answer_in_time_is_unknown(server: HttpServer) -> None:
    """A write that times out after it was sent raises `Unknown`."""
    server.usual = SILENCE
    http = client(server.url, timeout_s=0.3)
    with pytest.raises(Unknown):
        http.send("DELETE", "/repos/x", answers=(204,))
    assert len(server.asked) == 1
    http.close()


def test_unsent_write_is_unreachable() -> None:
    """Without a connection the write was not carried out, and raises `Unreachable` instead of `Unknown`."""
    http = client(f"http://127.0.0.1:{free_ports(1)[0]}")
    with pytest.raises(Unreachable):
        http.send("POST", "/pulls", {}, answers=(201,))
    assert http.requests == 1
    http.close()


def test_write_is_sent_again_after_429(http: Http, server: HttpServer) -> None:
    """A 429 means that nothing was carried out; only then is a write sent a second time."""
    server.will(Answer(429, headers={"Retry-After": "1"}), Answer(201))
    started = time.monotonic()
    http.send("POST", "/pulls", {}, answers=(201,))
    assert time.monotonic() - started >= 1
    assert len(server.asked) == 2


def test_write_is_repeated_at_most_once(http: Http, server: HttpServer) -> None:
    """A second 429, or a long Retry-After, raises `Busy`."""
    server.usual = Answer(429, headers={"Retry-After": "0"})
    with pytest.raises(Busy):
        http.send("POST", "/pulls", {}, answers=(201,))
    assert len(server.asked) == 2
    server.usual = Answer(429, headers={"Retry-After": "3600"})
    with pytest.raises(Busy):
        http.send("POST", "/pulls", {}, answers=(201,))
    assert len(server.asked) == 3


def test_retry_limit_of_a_write_is_a_setting(server: HttpServer) -> None:
    """A Retry-After beyond the site's limit raises `Busy` without waiting."""
    impatient = Http("forge", server.url, timeout_s=5, retry_after_s=1)
    server.will(Answer(429, headers={"Retry-After": "2"}), Answer(429, headers={"Retry-After": "1"}), Answer(201))
    with pytest.raises(Busy):
        impatient.send("POST", "/pulls", {}, answers=(201,))
    impatient.send("POST", "/pulls", {}, answers=(201,))
    assert len(server.asked) == 3
    impatient.close()


def test_refused_write(http: Http, server: HttpServer) -> None:
    """A 403 to a write raises `Refused`."""
    server.will_say({"message": "user should have permission"}, 403)
    with pytest.raises(Refused, match="permission"):
        http.send("PATCH", "/repos/x", {}, answers=(200,))


@pytest.mark.parametrize("status", [301, 302, 307, 308])
def test_write_does_not_follow_a_redirect(http: Http, server: HttpServer, status: int) -> None:
    """A redirect of a write raises `Drift`, and no second request is made."""
    server.usual = Answer(status, headers={"Location": f"{server.url}/elsewhere"})
    with pytest.raises(MusterError, match=str(status)):
        http.send("PATCH", "/repos/old", {}, answers=(200,))
    assert [asked.path for asked in server.asked] == ["/repos/old"]


def test_write_does_not_use_a_closed_connection(http: Http, server: HttpServer) -> None:
    """A write after the server closed the idle connection uses a new one, so its answer is not lost."""
    server.will(Answer(then_close=True), Answer(201))
    http.get("/first")
    assert server.hung_up.wait(5)
    assert http.send("POST", "/second", {}, answers=(201,)).status_code == 201
    assert [asked.path for asked in server.asked] == ["/first", "/second"]


# -- around it ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("hours", [-3, 0, 3])
def test_clock_offset_is_read_from_the_date_header(http: Http, server: HttpServer, hours: int) -> None:
    """The offset comes from the Date headers, in whole seconds."""
    theirs = datetime.now(UTC) + timedelta(hours=hours)
    server.will(Answer(headers={"Date": format_datetime(theirs, usegmt=True)}))
    http.get("/version")
    assert abs(http.skew_s - hours * 3600) < 3


@pytest.mark.parametrize("said", ["yesterday", "", "Tue, 02 Jun 2026 00:13:00"])
def test_invalid_date_header_is_ignored(http: Http, server: HttpServer, said: str) -> None:
    """An invalid Date header, or one without a zone, is ignored."""
    server.will(Answer(headers={"Date": said}))
    assert http.get("/version").status_code == 200
    assert http.skew_s == 0


def test_connections_are_pooled_and_bounded(http: Http, server: HttpServer) -> None:
    """A hundred reads from forty threads use exactly 16 connections."""
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


def test_proxy_variables_of_the_environment_are_ignored(
    server: HttpServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only the site file sets a proxy; proxy variables of the environment are ignored."""
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{free_ports(1)[0]}")
    http = client(server.url)
    assert http.get("/version").status_code == 200
    http.close()


def test_untrusted_certificate_is_unreachable(tmp_path: Path) -> None:
    """A server with a private authority is trusted only if the site names that authority."""
    files = ensure(tmp_path)
    with serving(files.server_context()) as server:
        trusting, doubting = client(server.url, ca=files.ca), client(server.url)
        assert trusting.get("/version").status_code == 200
        with pytest.raises(Unreachable, match=r"(?i)certificate"):
            doubting.get("/version")
        trusting.close()
        doubting.close()


def every(kind: type[BaseException]) -> Iterator[type[BaseException]]:
    yield kind
    for below in kind.__subclasses__():
        yield from every(below)


def exceptions_of_http() -> list[BaseException]:
    """One of each exception that httpx, ssl and the system define for a connection, and what broken text raises."""
    defined = [one for one in vars(httpx).values() if isinstance(one, type) and issubclass(one, Exception)]
    wrapping = (httpx.HTTPStatusError,)  # only raise_for_status raises it, which is not called
    made: list[BaseException] = []
    for kind in dict.fromkeys([*defined, *every(ssl.SSLError), *every(OSError)]):
        if issubclass(kind, wrapping) or kind.__module__ not in ("httpx", "ssl", "builtins", "socket"):
            continue
        worded = not issubclass(kind, httpx.StreamError) or kind is httpx.StreamError
        made.append(kind("broken") if worded else kind())
    return [*made, UnicodeDecodeError("utf-8", b"x", 0, 1, "broken"), ValueError("broken")]


def test_every_exception_of_a_request_is_mapped() -> None:
    """Each exception that can leave a request becomes `Unreachable` for a read and is never taken for "failed"."""
    raised: list[BaseException] = []

    def fail(request: httpx.Request) -> httpx.Response:
        raise raised[-1]

    http = Http("forge", "http://127.0.0.1", timeout_s=0.05, transport=httpx.MockTransport(fail))
    kinds = set()
    for problem in exceptions_of_http():
        raised.append(problem)
        kinds.add(type(problem).__name__)
        with pytest.raises((Unreachable, Unknown)):
            http.send("POST", "/", {}, answers=(201,))
        with pytest.raises(Unreachable, match="forge: GET /"):
            http.get("/")
    http.close()
    assert kinds >= {
        "ConnectError",
        "InvalidURL",
        "CookieConflict",
        "StreamClosed",
        "SSLEOFError",
        "TimeoutError",
    }
    assert len(kinds) > 40
