"""The benchmark: its lines about goals, its rosters, the delay of its relays, and the waits that it counts."""

from __future__ import annotations

import socket
import threading
import time
import tomllib
from pathlib import Path

import pytest

from fixtures.config.roster import ROSTER_FILE, load_roster
from fixtures.journal.lines import Line
from fixtures.journal.reader import StoredJournal
from fixtures.rehearsal.benchmark import (
    AGAIN,
    NIGHT,
    REHEARSAL,
    delay_site,
    extend_roster,
    format_requests,
    goals_of,
    main,
    union_of_waits_s,
)
from fixtures.rehearsal.delay import Relays


@pytest.mark.parametrize(
    ("name", "forge", "shown"),
    [
        (NIGHT, 30, "HTTP requests 50 (at most 50: ok), and 3 for news"),
        (NIGHT, 31, "HTTP requests 51 (at most 50: MISSED), and 3 for news"),
        (REHEARSAL, 500, "520 HTTP requests (no budget: not a healthy night), and 3 for news"),
    ],
)
def test_budget_of_requests_is_compared_for_a_healthy_night(name: str, forge: int, shown: str) -> None:
    """A health check is compared with the budget of 2R+12 and says whether it is kept; other runs have no budget."""
    requests = {"forge": forge, "upstream": 19, "drone": 1, "news": 3}
    assert format_requests(name, requests, recipes=19) == shown


def test_goals_are_of_the_world_that_they_are_meant_for() -> None:
    """A night has goals up to 50 ms away, the rehearsal at its default pace, and other numbers of recipes none."""
    assert [goal.limit for goal in goals_of(NIGHT, 200, rtt_ms=50, pace=0.02)] == [4.0, 110.0]
    assert goals_of(NIGHT, 200, rtt_ms=51, pace=0.02) == goals_of(NIGHT, 20, rtt_ms=0, pace=0.02) == ()
    assert [goal.limit for goal in goals_of(REHEARSAL, 19, rtt_ms=0, pace=0.02)] == [10.0, 150.0]
    assert goals_of(REHEARSAL, 19, rtt_ms=0, pace=1.0) == goals_of(AGAIN, 19, rtt_ms=0, pace=0.02) == ()


def test_roster_is_extended_at_its_end(tmp_path: Path) -> None:
    """The recipes of the roster stay, and new ones follow until there are as many as asked for."""
    (file := tmp_path / "roster.toml").write_text(extend_roster(ROSTER_FILE.read_text(), 200))
    names, known = load_roster(file).names, load_roster(ROSTER_FILE).names
    assert len(names) == 200
    assert tuple(names[: len(known)]) == tuple(known)
    assert extend_roster(ROSTER_FILE.read_text(), len(known)) == ROSTER_FILE.read_text()


@pytest.mark.parametrize("options", [["--recipes", "3"], ["--runs", "0"], ["--recipes", "many"]])
def test_unusable_number_is_refused(options: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """A number that is too small or none ends with one sentence before anything is started."""
    with pytest.raises(SystemExit) as ended:
        main(options)
    assert ended.value.code == 2
    assert f"expected a whole number from {19 if '--recipes' in options else 1} on" in capsys.readouterr().err


def test_relay_delays_a_round_trip_and_loses_nothing() -> None:
    """A question and its answer of a megabyte take at least two round trips: one to connect, one to be answered."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=_echo, args=(listener,), daemon=True).start()
        relays = Relays(0.1)
        sent, port = bytes(range(256)) * 4096, relays.open(listener.getsockname()[1])
        started = time.monotonic()
        with socket.create_connection(("127.0.0.1", port), timeout=20) as client:
            threading.Thread(target=_send, args=(client, sent)).start()
            got = b"".join(iter(lambda: client.recv(65_536), b""))
        relays.close()
    assert got == sent
    assert time.monotonic() - started >= 0.2


def _send(client: socket.socket, data: bytes) -> None:
    client.sendall(data)
    client.shutdown(socket.SHUT_WR)


def _echo(listener: socket.socket) -> None:
    connection, _ = listener.accept()
    with connection:
        while data := connection.recv(65_536):
            connection.sendall(data)


def test_site_file_reaches_every_server_through_a_relay() -> None:
    """Each server of HTTP gets a proxy of its own, ssh another port, and nothing else changes."""
    text = (
        '[forge]\nurl = "http://127.0.0.1:81"\n[upstream]\nurl = "http://127.0.0.1:82"\n'
        '[host]\naddress = "127.0.0.1"\nport = 83\n[drone]\nurl = "http://127.0.0.1:84"\n'
    )
    relays = Relays(0.0)
    was, now = tomllib.loads(text), tomllib.loads(delay_site(text, relays))
    relays.close()
    proxies = [now[name].pop("proxy") for name in ("forge", "upstream", "drone")]
    assert len({*proxies}) == 3
    assert now["host"].pop("port") != was["host"].pop("port")
    assert now == was


def test_waits_that_overlap_count_once() -> None:
    """Two waits at the same time are one span; a gap between waits is none."""
    lines: tuple[Line, ...] = (
        {"type": "wait", "t": 10.0, "seconds": 5.0},
        {"type": "wait", "t": 12.0, "seconds": 4.0},
        {"type": "wait", "t": 11.0, "seconds": 0.5},
        {"type": "wait", "t": 20.0, "seconds": 1.0},
        {"type": "note", "t": 30.0},
    )
    assert union_of_waits_s(StoredJournal(Path(), lines, torn=False)) == pytest.approx(8.0)
