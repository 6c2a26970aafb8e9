"""The record states only what is so: verdicts, causes, counts and what was done, each from a journal made for it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from fixtures.clients.http import Http
from fixtures.errors import Refused, Unreachable
from fixtures.journal.causes import failures_by_cause
from fixtures.journal.kinds import Severity
from fixtures.journal.lines import FILE_NAME
from fixtures.journal.load_record import load
from fixtures.journal.run_record import RunRecord
from fixtures.journal.status_line import status_line
from fixtures.journal.to_do import TaskKind, tasks
from fixtures.journal.writer import Journal
from fixtures.notify.prometheus import metrics
from reports import summary
from reports.page import report
from reports.words import lede
from tests_meta.clients.http_server import Answer, serving
from tests_meta.reports.sample_runs import write

RECIPES = [f"recipe-{number}" for number in range(8)]
TOKEN = "drone: GET /api/user: answered 401 (Unauthorized)."
RENEW = "Check the token named in the site file."


def record_of(folder: Path, *lines: dict[str, Any], mode: str = "apply", end: dict[str, Any]) -> RunRecord:
    """The record of a run of which these lines were written."""
    journal = Journal(folder / FILE_NAME)
    journal.write("run", run="r", site="s", mode=mode, rehearsal=False, version="0", roster=RECIPES)
    for line in lines:
        journal.write(line["type"], **{key: value for key, value in line.items() if key != "type"})
    journal.write("end", **end)
    journal.close()
    return load(folder)


def assertion(name: str, *, outcome: str = "failed", phase: int = 0, **more: Any) -> dict[str, Any]:
    nodeid = f"phases/test_{phase}_x.py::{name}"
    told = {"title": name.removeprefix("test_").replace("_", " "), "what": name, "expected": "a", "seen": "b"}
    return {"type": "assertion", "nodeid": nodeid, "phase": phase, "outcome": outcome, **told, **more}


def roll(**ok: bool | None) -> dict[str, Any]:
    """A final roll in which every recipe has these answers."""
    columns = dict.fromkeys(("mirrored", "covered", "polled", "triggerable", "green")) | ok
    cells: dict[str, Any] = {column: {"ok": answer, "evidence": {}} for column, answer in columns.items()}
    return {"type": "roll", "moment": "final", "recipes": dict.fromkeys(RECIPES, cells)}


FAILED = {"exit": 1, "verdict": "failed"}


def test_refused_token_is_the_first_and_only_task(tmp_path: Path) -> None:
    """The refused token is one task, first, with its remedy; gate and waiting tests are its consequences."""
    record = record_of(
        tmp_path,
        assertion("test_token", expected="no problem", seen=TOKEN, cause=TOKEN, do=RENEW),
        assertion("test_gate", message="phase 0 does not hold"),
        *(assertion(f"test_{n}", outcome="skipped", phase=1, reason="waits") for n in range(3)),
        end=FAILED,
    )
    (task,) = tasks(record)
    assert (task.severity, task.what, task.do) == (Severity.ACTION, TOKEN, RENEW)
    assert (task.consequences, task.waiting) == (("gate",), 3)


def test_failures_of_one_cause_are_one_task(tmp_path: Path) -> None:
    """Twenty-five assertions that fail because of one dead host are one task with 24 more; another cause is another."""
    dead: dict[str, Any] = {
        "expected": "no problem",
        "cause": "host: no route",
        "seen": "host: no route",
        "do": "Go there.",
    }
    record = record_of(
        tmp_path,
        *(assertion(f"test_host_{n}", **dead) for n in range(25)),
        assertion("test_other"),
        end=FAILED,
    )
    first, second = tasks(record)
    assert (first.what, len(first.consequences)) == ("host: no route", 24)
    assert (second.what, second.consequences) == ("other: expected a, seen b.", ())
    assert "24 more for this reason" in report(record, None)


def test_dead_host_is_one_task_and_no_figure(tmp_path: Path) -> None:
    """A host that does not answer is one action with 24 more below it, and what it would have said is no zero."""
    record = load(write(tmp_path, "unreachable"))
    (task,) = [one for one in tasks(record) if one.severity is Severity.ACTION]
    assert (len(task.consequences), task.do) == (
        24,
        "Check that the machine runs and that this one can reach it.",
    )
    assert "polled is unknown" in lede(record)


def test_first_failure_of_a_recipe_explains_its_others(tmp_path: Path) -> None:
    """Of one recipe in one phase the first failure is the task; four recipes with the same failure are one task."""
    two = [assertion(f"test_{name}[x]", phase=1, recipe="recipe-0") for name in ("made", "head")]
    assert [len(one.consequences) for one in tasks(record_of(tmp_path, *two, end=FAILED))] == [1]
    (tmp_path / "many").mkdir()
    many = [assertion(f"test_made[{name}]", phase=1, recipe=name) for name in RECIPES[:4]]
    record = record_of(tmp_path / "many", *many, end=FAILED)
    (failure,) = failures_by_cause(record.assertions)
    assert failure.recipes == tuple(RECIPES[:4])
    (tmp_path / "few").mkdir()
    assert len(tasks(record_of(tmp_path / "few", *many[:3], end=FAILED))) == 3


def test_finding_takes_in_the_failures_that_it_explains(tmp_path: Path) -> None:
    """A finding that says what an assertion failed of is listed once, with the assertion below it, before others."""
    about = {"severity": "action", "where": "", "recipe": None}
    record = record_of(
        tmp_path,
        {"type": "finding", "id": "z", "what": "Something else.", "do": "Later.", **about},
        {"type": "finding", "id": "deploy-failed", "what": "the switch failed", "do": "See the log.", **about},
        assertion(
            "test_deploy", phase=4, expected="no problem", seen="the switch failed", cause="the switch failed"
        ),
        end=FAILED,
    )
    first, second = tasks(record)
    assert (first.id, first.consequences, second.id) == ("deploy-failed", ("deploy",), "z")


def test_every_failure_is_counted_once(tmp_path: Path) -> None:
    """The tasks about failures and their consequences are as many as the failed assertions."""
    folder = write(tmp_path, "failed")
    record = load(folder)
    told = sum(1 + len(one.consequences) for one in tasks(record) if one.kind is TaskKind.FAILED)
    told += sum(len(one.consequences) for one in tasks(record) if one.kind is TaskKind.FINDING)
    assert told == sum(one.failed for one in record.assertions) > 0


def test_recovery_lists_what_it_settled(tmp_path: Path) -> None:
    """A recovery is named so, and lists each change of the earlier run with what was done about it."""
    record = load(write(tmp_path, "recovered"))
    page = report(record, None)
    assert lede(record) == ("20260601T001300Z-autonomic-apply (it was killed): 1 kept, 1 undone, 1 gone already.")
    for words in ("Recovered", "undone", "gone already", "nix/modules/bridge.nix", "it is complete"):
        assert words in page
    assert tasks(record) == ()
    assert "No change was made" not in page
    assert "No test was executed" not in page
    assert summary.summary(record)["settled"][0]["changes"][1]["result"] == "undone"


def test_places_of_one_task_are_whole_names(tmp_path: Path) -> None:
    """Two findings that say the same keep both of their places, also where one is the beginning of the other."""
    finding = {"type": "finding", "severity": "warning", "what": "It is apart.", "do": "Look."}
    lines = [
        {**finding, "id": name, "where": f"org/{name}"} for name in ("custom-html-tiny", "custom-html", "ghost")
    ]
    (task,) = [one for one in tasks(record_of(tmp_path, *lines, end=FAILED)) if one.kind is TaskKind.FINDING]
    assert task.where == "org/custom-html-tiny, org/custom-html, org/ghost"


def test_partial_run_says_how_much_it_left_out(tmp_path: Path) -> None:
    """The task of a partial run names the first tests that it left out, and how many more there are."""
    (task,) = tasks(load(write(tmp_path, "partial")))
    assert task.what.startswith("Only 2 of 7 phases were checked completely; left out: phases/test_2_suites.py::")
    assert task.what.endswith(" and 92 more.")


def test_recovery_of_nothing_says_so(tmp_path: Path) -> None:
    """A recovery that found nothing open says that nothing was done, and is no action."""
    record = record_of(tmp_path, mode="recover", end={"exit": 0, "verdict": "recovered"})
    assert "No earlier run had left anything open" in report(record, None)
    assert tasks(record) == ()


def test_stopped_run_says_what_was_done_undone_and_left(tmp_path: Path) -> None:
    """A run that a signal stopped is not failed: its only task says what stays, was undone, and is left."""
    record = load(write(tmp_path, "stopped"))
    assert (record.cut_off, record.exit, record.phases_not_reached) == (False, 2, (5, 6))
    assert (
        record.meaning == "The run was stopped by SIGTERM before it was complete; what was half done was undone."
    )
    (task,) = tasks(record)
    assert task.what == (
        "The run was stopped by SIGTERM in phase 4, deploy: 8 changes stay; 4 undone; not reached: phase 5, 6."
    )
    assert task.severity is Severity.WARNING
    assert status_line(record).startswith("muster: INTERRUPTED ")


def test_open_change_that_the_world_did_not_hold_was_not_made(tmp_path: Path) -> None:
    """A change that was begun, and whose undo found nothing, was not made: it neither stays nor was it undone."""
    intent = {
        "change": 1,
        "kind": "switch",
        "target": "host",
        "before": 1,
        "after": 2,
        "undo": {},
        "by_hand": "x",
    }
    undo = {"type": "undo", "change": 1, "result": "not-needed", "why": "it was not completed"}
    record = record_of(
        tmp_path,
        {"type": "intent", **intent},
        undo,
        end={"exit": 2, "verdict": "interrupted", "stopped_by": "SIGINT"},
    )
    (change,) = record.changes
    assert (change.state, change.stands, change.undone) == ("failed", False, False)
    assert lede(record).endswith("No change was made.")
    assert "no change stays" in tasks(record)[0].what


def test_killed_run_is_told_from_a_stopped_one(tmp_path: Path) -> None:
    """A record without an end is of a killed run, and says to run again because something may be half done."""
    record = load(write(tmp_path, "interrupted"))
    assert record.cut_off
    assert "did not come to its end" in record.meaning
    assert lede(record).endswith("9 changes were made; the outcome of 1 is not known.")
    assert any("recovers what was left open" in task.do for task in tasks(record))


def test_column_that_was_not_looked_at_is_no_zero(tmp_path: Path) -> None:
    """Nowhere is a column without answers counted as 0; with answers it is (positive control)."""
    record = record_of(tmp_path, roll(mirrored=True, covered=True), end=FAILED)
    page = report(record, None)
    assert "polled is unknown" in lede(record)
    assert "0 of 8 polled" not in page
    assert status_line(record).startswith("muster: FAILED 8/8 mirrored and covered, polled unknown; no verdict")
    assert 'column="polled"' not in metrics(record, record.finished)
    assert summary.summary(record)["not_looked_at"] == ["polled", "triggerable", "green"]
    (tmp_path / "no").mkdir()
    asked = record_of(tmp_path / "no", roll(mirrored=True, covered=True, polled=False), end=FAILED)
    assert "0 of 8 polled" in lede(asked)
    assert 'column="polled"} 0' in metrics(asked, asked.finished)


def test_partly_read_column_says_how_many_are_unknown(tmp_path: Path) -> None:
    """A column of which one recipe could not be read says so beside its count."""
    line = roll(mirrored=True, covered=True, polled=True)
    line["recipes"] = {**line["recipes"], "recipe-0": {"mirrored": {"ok": None}, "covered": {"ok": True}}}
    assert "7 of 8 mirrored (1 unknown)" in lede(record_of(tmp_path, line, end=FAILED))


def test_run_that_could_not_begin_claims_nothing(tmp_path: Path) -> None:
    """A run that was withheld before it began does not say that everything else was done."""
    found = {
        "type": "finding",
        "id": "not-begun",
        "severity": "action",
        "what": "wrong key",
        "where": "",
        "do": "See.",
    }
    record = record_of(tmp_path, found, end={"exit": 13, "verdict": "withheld"})
    assert record.meaning == "The run could not begin; nothing was done or checked."
    assert [task.what for task in tasks(record)] == ["wrong key"]


@pytest.mark.parametrize(("status", "error"), [(401, Refused), (503, Unreachable)])
def test_errors_of_one_server_have_one_cause(status: int, error: type[Exception]) -> None:
    """Two requests that a server refuses, or cannot answer, have one cause; their messages differ."""
    with serving() as server:
        server.will(*[Answer(status, body=b"no")] * 6)
        client = Http("upstream", server.url, timeout_s=5)
        raised = []
        for path in ("/one", "/two"):
            with pytest.raises(error) as caught:
                client.get(path)
            raised.append(caught.value)
        client.close()
    assert raised[0].cause == raised[1].cause  # type: ignore[attr-defined]
    assert str(raised[0]) != str(raised[1])
