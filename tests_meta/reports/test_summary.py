"""The machine-readable output of a run: summary.json, status line, Prometheus textfile and pings."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jsonschema
import pytest

from fixtures.config.secret import Secret
from fixtures.errors import Unreachable
from fixtures.journal.load_record import load
from fixtures.journal.run_record import RunRecord, Scope
from fixtures.journal.status_line import status_line
from fixtures.journal.writer import Journal
from fixtures.notify.after_run import notify
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
    "recovered": "OK",
    "interrupted": "INTERRUPTED",
    "unreachable": "UNREACHABLE",
    "partial": "PARTIAL",
}


@pytest.fixture(scope="module")
def records(tmp_path_factory: pytest.TempPathFactory) -> dict[str, RunRecord]:
    root = tmp_path_factory.mktemp("states")
    return {state: load(write(root / state, state)) for state in STATES}


@pytest.mark.parametrize("state", STATES)
def test_summary_fits_the_published_schema(records: dict[str, RunRecord], state: str) -> None:
    """The summary of every verdict fits the published JSON Schema, which is itself a valid schema."""
    jsonschema.Draft202012Validator.check_schema(summary.schema())
    data = summary.summary(records[state])
    jsonschema.validate(data, summary.schema(), jsonschema.Draft202012Validator)
    assert data["verdict"] == state
    assert data["exit"] == (None if state == "interrupted" else EXITS.get(state, 0))


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
def test_schema_refuses_wrong_values(records: dict[str, RunRecord], key: str, wrong: Any) -> None:
    """A wrong verdict, time, change, answer or number does not fit the schema."""
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({**summary.summary(records["converged"]), key: wrong}, summary.schema())


@pytest.mark.parametrize("key", sorted(summary.schema()["required"]))
def test_schema_requires_every_key(records: dict[str, RunRecord], key: str) -> None:
    """A summary that lacks a required key does not fit the schema."""
    data = summary.summary(records["converged"])
    del data[key]
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(data, summary.schema())


def test_summary_counts_the_final_status(records: dict[str, RunRecord]) -> None:
    """Counts and lists are those of the final status; every recipe, change and phase is included."""
    data = summary.summary(records["converged"])
    assert (data["expected"], data["mirrored"], data["covered"], data["polled"]) == (19, 19, 19, 19)
    assert data["triggered"] == ["ghost", "hedgedoc", "immich", "mumble"]
    assert data["green"] == ["hedgedoc", "mumble"]
    assert sorted(data["recipes"]) == sorted(ROSTER)
    ghost = data["recipes"]["ghost"]
    assert (ghost["green"], ghost["build"], ghost["known_red"]["until"]) == (False, 120, "2026-07-15")
    assert data["recipes"]["keycloak"]["green"] is None
    assert [change["id"] for change in data["changes"]] == list(range(1, 17))
    assert [change["undone"] for change in data["changes"] if change["kind"] == "comment"] == [True] * 4
    assert [phase["phase"] for phase in data["phases"]] == list(range(7))
    assert data["requests"] == {
        "forge": 47,
        "upstream": 19,
        "drone": 4,
        "host_sessions": 2,
        "host_connections": 1,
    }


def test_rendering_again_writes_the_same_summary(tmp_path: Path) -> None:
    """Rendering again does not change the summary file."""
    folder = write(tmp_path, "rolled-back")
    render(folder)
    first = (folder / "summary.json").read_bytes()
    render(folder)
    assert (folder / "summary.json").read_bytes() == first
    assert json.loads(first)["verdict"] == "rolled-back"


@pytest.mark.parametrize("state", STATES)
def test_status_line_starts_with_its_state(records: dict[str, RunRecord], state: str) -> None:
    """The status line starts with ``muster:``, the state and the count of recipes."""
    line = status_line(records[state])
    assert "\n" not in line
    looked = (
        r"(\d+/19 mirrored(, covered and polled| and covered, polled unknown)|2 of 7 phases checked completely); "
    )
    assert re.match(rf"muster: {EXPECTED_STATUS[state]} {looked}", line)
    assert f"; autonomic, {state}, " in line


def test_status_line_counts_the_lowest_column(records: dict[str, RunRecord]) -> None:
    """The status line shows the lowest of the counts of mirrored, covered and polled recipes."""
    assert status_line(records["converged"]).startswith("muster: OK 19/19 ")
    assert status_line(records["rolled-back"]).startswith("muster: ROLLED-BACK 10/19 ")
    assert status_line(records["rollback-failed"]).startswith("muster: BROKEN 0/19 ")


def test_status_line_marks_a_rehearsal(tmp_path: Path) -> None:
    """The status line of a rehearsal says REHEARSAL."""
    assert "; REHEARSAL, converged, " in status_line(load(write(tmp_path, "converged", rehearsal=True)))


def test_run_without_tests_is_failed(tmp_path: Path) -> None:
    """A run that exited with pytest's "no tests collected" is FAILED, whatever verdict it wrote."""
    journal = Journal(tmp_path / "journal.jsonl")
    journal.write("run", run="r", site="s", mode="health", rehearsal=False, version="0", roster=[])
    journal.write("end", exit=5, verdict="unchanged", wall_s=0.1)
    journal.close()
    assert status_line(load(tmp_path)).startswith("muster: FAILED 0/0 ")


_SAMPLE = re.compile(r'^[a-z_]+(\{[a-z]+="[^"\n]*"(,[a-z]+="[^"\n]*")*\}) -?\d+(\.\d+)?$')


@pytest.mark.parametrize("state", STATES)
def test_textfile_is_prometheus(records: dict[str, RunRecord], tmp_path: Path, state: str) -> None:
    """Every line of the textfile is a HELP, a TYPE or a sample; samples follow the TYPE of their family."""
    path = tmp_path / "muster.prom"
    write_textfile(path, records[state], tmp_path)
    families: list[str] = []
    for line in path.read_text(encoding="utf-8").splitlines():
        if line.startswith("# TYPE "):
            families.append(line.split()[2])
        elif not line.startswith("# HELP "):
            assert _SAMPLE.match(line), line
            assert line.startswith(families[-1] + "{")
    assert len(families) == len(set(families)) >= 8


def test_textfile_has_the_numbers_of_the_record(records: dict[str, RunRecord]) -> None:
    """Success, exit code, counts and green recipes are those of the record; an interrupted run has exit -1."""
    data = metrics(records["converged"], records["converged"].finished)
    labels = 'site="autonomic",mode="apply",rehearsal="false"'
    assert f"muster_last_run_success{{{labels}}} 1" in data
    assert f'muster_recipes{{{labels},column="polled"}} 19' in data
    assert f'muster_recipe_green{{{labels},recipe="immich"}} 0' in data
    assert 'recipe="keycloak"' not in data
    assert f"muster_last_run_timestamp_seconds{{{labels}}} 178035" in data
    assert f"muster_exit_code{{{labels}}} -1" in metrics(records["interrupted"], records["interrupted"].finished)
    assert f"muster_last_run_success{{{labels}}} 0" in metrics(
        records["interrupted"], records["interrupted"].finished
    )


class Receiver(ThreadingHTTPServer):
    """A server that stores every request body and answers with `status`."""

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
        """Discard."""


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    server = Receiver()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def test_ping_tells_success_from_failure(records: dict[str, RunRecord], receiver: Receiver) -> None:
    """A good run pings the URL, any other run the URL with /fail; the body is the status line."""
    url = Secret(receiver.url, where="MUSTER_PING")
    ping(url, records["unchanged"])
    ping(url, records["withheld"])
    path = "/ping/6f1a-secret-of-the-url"
    assert [where for where, _ in receiver.got] == [path, f"{path}/fail"]
    assert receiver.got[1][1].startswith(b"muster: WITHHELD ")


@pytest.mark.parametrize(
    ("scope", "status", "written"),
    [(Scope(), 0, "new"), (Scope((0, 1, 2)), 0, ""), (Scope((0, 1, 2)), 1, "none")],
    ids=["whole", "partial", "partial and failed"],
)
def test_partial_run_is_no_night_for_a_monitor(
    records: dict[str, RunRecord], receiver: Receiver, tmp_path: Path, scope: Scope, status: int, written: str
) -> None:
    """A partial run sends no ping and writes no textfile; if it failed, it does, and leaves the night's time out."""
    record = replace(records["unchanged"], scope=scope, exit=status)
    textfile = tmp_path / "muster.prom"
    site: Any = SimpleNamespace(
        record=SimpleNamespace(textfile=textfile), tell=SimpleNamespace(issues_repository="", severity="info")
    )
    secrets: Any = SimpleNamespace(webhook=None, ping=Secret(receiver.url, where="MUSTER_PING"))
    assert notify(site, secrets, record, tmp_path, str) == []
    path = "/ping/6f1a-secret-of-the-url" + ("/fail" if status else "")
    assert [where for where, _ in receiver.got] == ([path] if written else [])
    assert record.finished
    when = {"new": record.finished.timestamp(), "none": 0.0, "": None}[written]
    found = (
        re.search(r"^muster_last_run_timestamp_seconds\{.*\} (.+)$", textfile.read_text(), re.M)
        if written
        else None
    )
    assert (float(found[1]) if found else None) == when
    assert textfile.exists() == bool(written)


def test_webhook_posts_text_and_run(records: dict[str, RunRecord], receiver: Receiver) -> None:
    """The webhook gets the text under the key that chat servers show, and the run with its verdict and exit."""
    record = records["drift"]
    send(Secret(receiver.url, where="MUSTER_WEBHOOK"), record, text="one\ntwo", findings=["mirror-x"])
    data = json.loads(receiver.got[0][1])
    assert (data["text"], data["findings"]) == ("one\ntwo", ["mirror-x"])
    assert (data["run"], data["verdict"], data["exit"]) == (record.run, record.verdict, record.exit)


@pytest.mark.parametrize("how", ["refused", "closed", "no url"])
def test_failed_ping_does_not_reveal_its_url(records: dict[str, RunRecord], receiver: Receiver, how: str) -> None:
    """A failed ping raises `Unreachable`; neither the message nor its cause has the URL."""
    receiver.status = 500
    address = {"refused": receiver.url, "closed": "http://127.0.0.1:9/6f1a-secret", "no url": "6f1a-secret:"}[how]
    with pytest.raises(Unreachable) as caught:
        ping(Secret(address, where="MUSTER_PING"), records["unchanged"])
    assert "MUSTER_PING" in str(caught.value)
    assert "6f1a-secret" not in f"{caught.value!r} {caught.value.__cause__!r}"
