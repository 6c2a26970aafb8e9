"""summary.json, the status line, the Prometheus textfile and the pings: what machines read of a run."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from fixtures.config.secret import Secret
from fixtures.errors import Unreachable
from fixtures.journal.load_record import load
from fixtures.journal.run_record import RunRecord
from fixtures.journal.status_line import status_line
from fixtures.journal.writer import Journal
from fixtures.notify.ping import ping
from fixtures.notify.prometheus import metrics, write_textfile
from fixtures.notify.webhook import send
from reports import render, summary
from tests_meta.reports.sample_night import EXITS, ROSTER
from tests_meta.reports.sample_runs import STATES, write

EXPECTED_STATUS = {
    "converged": "OK",
    "unchanged": "OK",
    "planned": "PENDING",
    "drift": "FAILED",
    "failed": "FAILED",
    "rolled-back": "ROLLED-BACK",
    "rollback-failed": "BROKEN",
    "withheld": "WITHHELD",
    "interrupted": "INTERRUPTED",
}


@pytest.fixture(scope="module")
def records(tmp_path_factory: pytest.TempPathFactory) -> dict[str, RunRecord]:
    root = tmp_path_factory.mktemp("states")
    return {state: load(write(root / state, state)) for state in STATES}


@pytest.mark.parametrize("state", STATES)
def test_fits_the_published_schema(records: dict[str, RunRecord], state: str) -> None:
    """The summary of every state fits the published JSON Schema, which is itself a valid schema."""
    jsonschema.Draft202012Validator.check_schema(summary.schema())
    told = summary.summary(records[state])
    jsonschema.validate(told, summary.schema(), jsonschema.Draft202012Validator)
    assert told["verdict"] == state
    assert told["exit"] == (None if state == "interrupted" else EXITS.get(state, 0))


@pytest.mark.parametrize(
    ("key", "wrong"),
    [
        ("verdict", "fine"),
        ("exit", "0"),
        ("started", "02.06.2026"),
        ("changes", [{"id": 1}]),
        ("recipes", {"ghost": {"mirrored": "yes"}}),
        ("phases", [{"phase": -1}]),
        ("schema", 2),
    ],
)
def test_schema_refuses(records: dict[str, RunRecord], key: str, wrong: Any) -> None:
    """The schema can say no: a wrong verdict, time, change, answer or number does not fit it."""
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({**summary.summary(records["converged"]), key: wrong}, summary.schema())


@pytest.mark.parametrize("key", sorted(summary.schema()["required"]))
def test_schema_misses_nothing(records: dict[str, RunRecord], key: str) -> None:
    """A summary that lacks any of the promised keys does not fit the schema."""
    told = summary.summary(records["converged"])
    del told[key]
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(told, summary.schema())


def test_counts_what_the_roll_says(records: dict[str, RunRecord]) -> None:
    """Counts and lists are the final roll's; recipes, changes and phases are all there with what they hold."""
    told = summary.summary(records["converged"])
    assert (told["expected"], told["mirrored"], told["covered"], told["polled"]) == (19, 19, 19, 19)
    assert told["triggered"] == ["ghost", "hedgedoc", "immich", "mumble"]
    assert told["green"] == ["hedgedoc", "mumble"]
    assert sorted(told["recipes"]) == sorted(ROSTER)
    ghost = told["recipes"]["ghost"]
    assert (ghost["green"], ghost["build"], ghost["known_red"]["until"]) == (False, 120, "2026-07-15")
    assert told["recipes"]["keycloak"]["green"] is None
    assert [change["id"] for change in told["changes"]] == list(range(1, 17))
    assert [change["undone"] for change in told["changes"] if change["kind"] == "comment"] == [True] * 4
    assert [phase["phase"] for phase in told["phases"]] == list(range(7))
    assert told["requests"] == {
        "forge": 47,
        "upstream": 19,
        "drone": 4,
        "host_sessions": 2,
        "host_connections": 1,
    }


def test_file_is_written_and_is_the_same_twice(tmp_path: Path) -> None:
    """The file stands beside the journal, and rendering again changes no byte of it."""
    folder = write(tmp_path, "rolled-back")
    render(folder)
    first = (folder / "summary.json").read_bytes()
    render(folder)
    assert (folder / "summary.json").read_bytes() == first
    assert json.loads(first)["verdict"] == "rolled-back"


@pytest.mark.parametrize("state", STATES)
def test_status_line(records: dict[str, RunRecord], state: str) -> None:
    """One line, ``muster:`` and a word for the state first, the count of recipes second."""
    line = status_line(records[state])
    assert "\n" not in line
    assert re.match(rf"muster: {EXPECTED_STATUS[state]} \d+/19 mirrored, covered and polled; ", line)
    assert f"; autonomic, {state}, " in line


def test_status_line_counts_the_least(records: dict[str, RunRecord]) -> None:
    """The count is of the column in which fewest have a yes: what is missing anywhere is missing."""
    assert status_line(records["converged"]).startswith("muster: OK 19/19 ")
    assert status_line(records["rolled-back"]).startswith("muster: ROLLED-BACK 10/19 ")
    assert status_line(records["rollback-failed"]).startswith("muster: BROKEN 0/19 ")


def test_status_line_says_rehearsal(tmp_path: Path) -> None:
    """A rehearsal is never taken for the real thing: the line says so in capitals."""
    assert "; REHEARSAL, converged, " in status_line(load(write(tmp_path, "converged", rehearsal=True)))


def test_nothing_checked_is_not_ok(tmp_path: Path) -> None:
    """A run over an empty roster that exited with pytest's "no tests" is not OK, whatever verdict it wrote."""
    journal = Journal(tmp_path / "journal.jsonl")
    journal.write("run", run="r", site="s", mode="health", rehearsal=False, version="0", roster=[])
    journal.write("end", exit=5, verdict="unchanged", wall_s=0.1)
    journal.close()
    assert status_line(load(tmp_path)).startswith("muster: FAILED 0/0 ")


_SAMPLE = re.compile(r'^[a-z_]+(\{[a-z]+="[^"\n]*"(,[a-z]+="[^"\n]*")*\}) -?\d+(\.\d+)?$')


@pytest.mark.parametrize("state", STATES)
def test_textfile_is_prometheus(records: dict[str, RunRecord], tmp_path: Path, state: str) -> None:
    """Every line of the textfile is a HELP, a TYPE or a sample, each family once, every sample after its TYPE."""
    path = tmp_path / "muster.prom"
    write_textfile(path, records[state])
    families: list[str] = []
    for line in path.read_text(encoding="utf-8").splitlines():
        if line.startswith("# TYPE "):
            families.append(line.split()[2])
        elif not line.startswith("# HELP "):
            assert _SAMPLE.match(line), line
            assert line.startswith(families[-1] + "{")
    assert len(families) == len(set(families)) >= 8


def test_textfile_numbers(records: dict[str, RunRecord]) -> None:
    """Success, exit code, counts by column and a recipe's green are the record's; interrupted is exit -1."""
    told = metrics(records["converged"])
    labels = 'site="autonomic",mode="apply",rehearsal="false"'
    assert f"muster_last_run_success{{{labels}}} 1" in told
    assert f'muster_recipes{{{labels},column="polled"}} 19' in told
    assert f'muster_recipe_green{{{labels},recipe="immich"}} 0' in told
    assert 'recipe="keycloak"' not in told
    assert f"muster_last_run_timestamp_seconds{{{labels}}} 178035" in told
    assert f"muster_exit_code{{{labels}}} -1" in metrics(records["interrupted"])
    assert f"muster_last_run_success{{{labels}}} 0" in metrics(records["interrupted"])


class Receiver(ThreadingHTTPServer):
    """A server that keeps what it is sent and answers with `status`."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.got: list[tuple[str, bytes]] = []
        self.status = 200

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/ping/6f1a-secret-of-the-url"


class _Handler(BaseHTTPRequestHandler):
    server: Receiver

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        self.server.got.append((self.path, body))
        self.send_response(self.server.status)
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        """Nothing is printed by a test's server."""


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    server = Receiver()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def test_ping_says_success_and_failure_apart(records: dict[str, RunRecord], receiver: Receiver) -> None:
    """A good run pings the URL, any other the URL with /fail, both with the status line as body."""
    url = Secret(receiver.url, where="MUSTER_PING")
    ping(url, records["unchanged"])
    ping(url, records["withheld"])
    path = "/ping/6f1a-secret-of-the-url"
    assert [where for where, _ in receiver.got] == [path, f"{path}/fail"]
    assert receiver.got[1][1].startswith(b"muster: WITHHELD ")


def test_webhook_posts_a_short_text(records: dict[str, RunRecord], receiver: Receiver) -> None:
    """The webhook gets a text under the key that chat servers show, and what tells the run."""
    record = records["drift"]
    send(Secret(receiver.url, where="MUSTER_WEBHOOK"), record, text="one\ntwo", findings=["mirror-x"])
    told = json.loads(receiver.got[0][1])
    assert (told["text"], told["findings"]) == ("one\ntwo", ["mirror-x"])
    assert (told["run"], told["verdict"], told["exit"]) == (record.run, record.verdict, record.exit)


@pytest.mark.parametrize("how", ["refused", "closed", "no url"])
def test_failed_ping_keeps_its_url(records: dict[str, RunRecord], receiver: Receiver, how: str) -> None:
    """A ping that is not taken is `Unreachable`, and neither the message nor its cause names the URL."""
    receiver.status = 500
    address = {"refused": receiver.url, "closed": "http://127.0.0.1:9/6f1a-secret", "no url": "6f1a-secret:"}[how]
    with pytest.raises(Unreachable) as caught:
        ping(Secret(address, where="MUSTER_PING"), records["unchanged"])
    assert "MUSTER_PING" in str(caught.value)
    assert "6f1a-secret" not in f"{caught.value!r} {caught.value.__cause__!r}"
