"""Every fault of the embedded world leads to what its table says: exit code, verdict, and state of the world.

On every push one fault of each kind is shown; ``MUSTER_ALL_FAULTS=1`` shows all. The world is read by git,
SQLite, symlinks and the host's own systemctl, before and after each run, never by muster's clients.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from dataclasses import replace

import pytest

from fixtures.rehearsal.faults import bridge, clock, drone, forge, host, record
from fixtures.rehearsal.faults.model import WENT_BACK, EndState, Fault, RecordLeft
from fixtures.rehearsal.faults.table import FAULTS, find
from tests_meta.muster_runs import Ran, muster
from tests_meta.parallel_worlds import FaultRun, ParallelWorld, in_parallel_worlds
from tests_meta.rehearsal.fault_runs import differences, run_with_fault

ALL = os.environ.get("MUSTER_ALL_FAULTS") == "1"
SHOWN = sorted(name for name, entry in FAULTS.items() if ALL or entry.quick)
CONTROL = "switch-exit-4-old-unit"


@pytest.fixture(scope="module")
def sweep(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Mapping[str, Future[FaultRun]]:
    """All faults that the chosen tests are about, each run once."""
    needs: set[str] = {
        item.callspec.params["name"] if hasattr(item, "callspec") else CONTROL
        for item in request.session.items
        if item.path == request.path and "sweep" in getattr(item, "fixturenames", ())
    }

    def job(name: str) -> Callable[[ParallelWorld], FaultRun]:
        return lambda parallel_world: run_with_fault(parallel_world, name)

    return in_parallel_worlds(tmp_path_factory.mktemp("faults"), {name: job(name) for name in sorted(needs)})


def test_every_fault_is_a_record_of_its_own() -> None:
    """A name in kebab case that no other fault has, a sentence, an effect, and a reason; it is found by its name."""
    everything = [one for system in (forge, host, bridge, drone, record, clock) for one in system.FAULTS]
    assert len(everything) == len(FAULTS)
    for one in everything:
        assert re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)+", one.name)
        assert len(one.shows) > 20
        assert one.does
        assert one.why
        assert find(one.example) is one


def test_every_push_shows_each_exit_and_each_state() -> None:
    """The chosen few hold one of each kind of outcome that the whole table has, but for the slowest."""
    quick = [entry for entry in FAULTS.values() if entry.quick]
    assert {entry.state for entry in FAULTS.values()} - {EndState.GONE} == {entry.state for entry in quick}
    assert {entry.exit for entry in quick} >= {0, 1, 11, 13}


@pytest.mark.parametrize("name", SHOWN)
def test_a_fault_ends_in_its_verdict(sweep: Mapping[str, Future[FaultRun]], name: str) -> None:
    """Exit code, verdict in one word, and the cause in words; never a traceback."""
    entry, ran = FAULTS[name], sweep[name].result().ran
    ran.demand(entry.exit)
    assert "Traceback" not in ran.output
    assert "INTERNALERROR" not in ran.output
    assert entry.says.lower() in ran.output.lower()
    assert (WENT_BACK in ran.output) == (entry.says == WENT_BACK)
    demand_record(entry, ran)


def demand_record(entry: Fault, ran: Ran) -> None:
    """The record names the same exit and verdict; what there was no room for is not there in part."""
    assert ran.folder is not None
    names = {path.name for path in ran.folder.iterdir()}
    if entry.record == RecordLeft.WHOLE:
        assert ran.summary["verdict"] == entry.verdict
        assert ran.summary["exit"] == entry.exit
        assert "report.html" in names
        return
    assert names & {"report.html", "junit.xml"} == set()
    assert [one for one in ran.folder.iterdir() if one.stat().st_size == 0] == []
    if entry.record == RecordLeft.NO_END:
        assert ran.lines[-1]["type"] != "end"
        assert ran.summary["verdict"] == "interrupted"
    else:
        assert "summary.json" not in names
        assert (ran.lines[-1]["exit"], ran.lines[-1]["verdict"]) == (entry.exit, entry.verdict)


@pytest.mark.parametrize("name", SHOWN)
def test_a_fault_leaves_the_world_in_its_state(sweep: Mapping[str, Future[FaultRun]], name: str) -> None:
    """As it was or as it should be, and nothing of muster's own left in it."""
    fault = FAULTS[name]
    assert differences(fault.state, sweep[name].result(), recipe=fault.recipe) == []


@pytest.mark.parametrize("name", SHOWN)
def test_what_needs_a_person_says_what_to_do(sweep: Mapping[str, Future[FaultRun]], name: str) -> None:
    """A run that did not end well names a thing to do, or an assertion with what was expected and seen."""
    ran = sweep[name].result().ran
    if FAULTS[name].record != RecordLeft.WHOLE:
        assert "make room" in ran.output or "could not be written" in ran.output
        return
    if FAULTS[name].exit == 0:
        assert [one for one in ran.summary["findings"] if one["severity"] == "action"] == []
        return
    told = [finding["do"] for finding in ran.summary["findings"] if finding["do"]]
    assert told or [line for line in ran.of("assertion") if line["outcome"] == "failed" and line["message"]]


def test_the_checks_tell_the_states_apart(sweep: Mapping[str, Future[FaultRun]]) -> None:
    """A migrated world passes for no other state, and an untouched one not for a migrated one."""
    migrated = sweep[CONTROL].result()
    for state in (EndState.BASELINE_LIVE, EndState.NOT_ENROLLED, EndState.WITHHELD, EndState.UNTOUCHED):
        assert differences(state, migrated) != [], state
    still = replace(migrated, after=migrated.before)
    assert differences(EndState.CONVERGED, still) != []
    assert differences(EndState.ALL_BUT_ONE, still, recipe="mumble") != []


def test_the_list_of_faults_tells_each_outcome() -> None:
    """`--fault list` names every fault, what it shows, and the exit code that it leads to."""
    said = muster("--fault", "list").demand(0).output
    for name, fault in FAULTS.items():
        line = next(line for line in said.splitlines() if name in line and fault.shows in line)
        assert f"exit {fault.exit}" in line
