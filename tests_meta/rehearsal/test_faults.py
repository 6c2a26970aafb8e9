"""Every fault of the rehearsal leads to the exit code, verdict and end state in its table.

By default one fault of each kind is run; ``MUSTER_ALL_FAULTS=1`` runs all. The world is read before and after each
run with git, SQLite, symlinks and the host's systemctl, not with muster's clients.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from dataclasses import replace

import pytest

from fixtures.rehearsal.faults import bridge, clock, drone, forge, host, people, record
from fixtures.rehearsal.faults.model import WENT_BACK, EndState, Fault, RecordLeft
from fixtures.rehearsal.faults.table import FAULTS, find
from tests_meta.muster_runs import Ran, muster
from tests_meta.parallel_worlds import FaultRun, ParallelWorld, in_parallel_worlds
from tests_meta.rehearsal.fault_runs import ENDINGS, differences, run_to_its_ending, run_with_fault
from tests_meta.reports.statements import Finished, untrue_statements

ALL = os.environ.get("MUSTER_ALL_FAULTS") == "1"
# The acts of other people have tests of their own, in test_people.
OF_PEOPLE = {entry.name for entry in people.FAULTS}
SHOWN = sorted(name for name, entry in FAULTS.items() if (ALL or entry.quick) and name not in OF_PEOPLE)
CONTROL = "switch-exit-4-old-unit"


@pytest.fixture(scope="module")
def fault_runs(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Mapping[str, Future[FaultRun]]:
    """One run of each fault that the selected tests need."""
    needs: set[str] = {
        item.callspec.params["name"] if hasattr(item, "callspec") else CONTROL
        for item in request.session.items
        if item.path == request.path and "fault_runs" in getattr(item, "fixturenames", ())
    }

    def job(name: str) -> Callable[[ParallelWorld], FaultRun]:
        if name in ENDINGS:
            return lambda parallel_world: run_to_its_ending(parallel_world, name)
        return lambda parallel_world: run_with_fault(parallel_world, name)

    return in_parallel_worlds(tmp_path_factory.mktemp("faults"), {name: job(name) for name in sorted(needs)})


def test_every_fault_is_fully_described() -> None:
    """Every fault has a unique name in kebab case, a sentence, an effect and a reason, and is found by name."""
    everything = [one for system in (forge, host, bridge, drone, record, clock, people) for one in system.FAULTS]
    assert len(everything) == len(FAULTS)
    for one in everything:
        assert re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)+", one.name)
        assert len(one.shows) > 20
        assert one.does
        assert one.why
        assert find(one.example) is one


def test_quick_faults_cover_each_exit_and_end_state() -> None:
    """The quick faults cover every end state of the table except the slowest, and the main exit codes."""
    quick = [entry for entry in FAULTS.values() if entry.quick and entry.name not in OF_PEOPLE]
    assert {entry.state for entry in FAULTS.values()} - {EndState.GONE} == {entry.state for entry in quick}
    assert {entry.exit for entry in quick} >= {0, 1, 11, 13}


@pytest.mark.parametrize("name", SHOWN)
def test_fault_ends_in_its_verdict(fault_runs: Mapping[str, Future[FaultRun]], name: str) -> None:
    """The run has the exit code and verdict of the fault and names its cause, without a traceback."""
    entry, ran = FAULTS[name], fault_runs[name].result().ran
    ran.demand(entry.exit)
    assert "Traceback" not in ran.output
    assert "INTERNALERROR" not in ran.output
    assert entry.says.lower() in ran.output.lower()
    assert (WENT_BACK in ran.output) == (entry.says == WENT_BACK)
    demand_record(entry, ran)


def demand_record(entry: Fault, ran: Ran) -> None:
    """Assert that the record has the same exit and verdict, and no partial file."""
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
def test_fault_leaves_the_world_in_its_end_state(fault_runs: Mapping[str, Future[FaultRun]], name: str) -> None:
    """The world is in the end state of the fault, with no leftovers of muster."""
    fault = FAULTS[name]
    assert differences(fault.state, fault_runs[name].result(), recipe=fault.recipe) == []


@pytest.mark.parametrize("name", [*SHOWN, *ENDINGS])
def test_record_states_only_what_is_so(fault_runs: Mapping[str, Future[FaultRun]], name: str) -> None:
    """Each statement of report and summary agrees with the journal, and with the world before and after the run."""
    if name in FAULTS and FAULTS[name].record != RecordLeft.WHOLE:
        assert not FAULTS[name].name.startswith("switch"), "a fault of the host leaves a whole record"
        return
    run = fault_runs[name].result()
    run.ran.demand(ENDINGS[name].exit if name in ENDINGS else FAULTS[name].exit)
    assert untrue_statements(Finished(run.ran, run.before, run.after)) == []


def test_false_statements_are_found(fault_runs: Mapping[str, Future[FaultRun]]) -> None:
    """The same check finds a figure, a change and a verdict that are not so (positive control)."""
    run = fault_runs[CONTROL].result()
    assert run.ran.folder is not None
    folder = run.ran.folder.parents[1] / "altered" / run.ran.folder.name
    shutil.copytree(run.ran.folder, folder)
    page, summary = folder / "report.html", folder / "summary.json"
    page.write_text(re.sub(r"[0-9,]+ changes were made", "99 changes were made", page.read_text()))
    told = json.loads(summary.read_text())
    told |= {"verdict": "unchanged", "polled": 0}
    summary.write_text(json.dumps(told))
    found = " ".join(untrue_statements(Finished(replace(run.ran, folder=folder), run.before, run.after)))
    assert all(f"{check}: " in found for check in ("ending", "counts", "figures"))


@pytest.mark.parametrize("name", SHOWN)
def test_failed_run_says_what_to_do(fault_runs: Mapping[str, Future[FaultRun]], name: str) -> None:
    """A failed run has a finding with an action, or a failed assertion with a message."""
    ran = fault_runs[name].result().ran
    if FAULTS[name].record != RecordLeft.WHOLE:
        assert "make room" in ran.output or "could not be written" in ran.output
        return
    if FAULTS[name].exit == 0:
        assert [one for one in ran.summary["findings"] if one["severity"] == "action"] == []
        return
    actions = [finding["do"] for finding in ran.summary["findings"] if finding["do"]]
    assert actions or [line for line in ran.of("assertion") if line["outcome"] == "failed" and line["message"]]


def test_end_states_are_distinguished(fault_runs: Mapping[str, Future[FaultRun]]) -> None:
    """A migrated world matches no other end state, and an unchanged world does not match a migrated one."""
    migrated = fault_runs[CONTROL].result()
    for state in (EndState.BASELINE_LIVE, EndState.NOT_ENROLLED, EndState.WITHHELD, EndState.UNTOUCHED):
        assert differences(state, migrated) != [], state
    unchanged = replace(migrated, after=migrated.before)
    assert differences(EndState.CONVERGED, unchanged) != []
    assert differences(EndState.ALL_BUT_ONE, unchanged, recipe="mumble") != []


def test_fault_list_shows_each_outcome() -> None:
    """`--fault list` prints every fault with its sentence and its exit code."""
    output = muster("--fault", "list").demand(0).output
    for name, fault in FAULTS.items():
        line = next(line for line in output.splitlines() if name in line and fault.shows in line)
        assert f"exit {fault.exit}" in line
