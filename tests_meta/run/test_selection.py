"""A selection of tests runs the gates of its phases or fails; a run that checks nothing never exits with 0.

Listings show the selected tests; where the result matters, the selection is run against a running world.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from tests_meta.muster_runs import ROOT, Ran, WorldPool, files_below, listed, muster, phases_of
from tests_meta.world_view import WorldView

MODULES = [f"phases/{path.name}" for path in sorted((ROOT / "phases").glob("test_*.py"))]
SINGLE_TEST = "phases/test_4_deploy.py::test_the_bridge_runs"


def gates_in(nodeids: Sequence[str]) -> list[int]:
    """The phases whose last test in this list is the gate."""
    numbers = phases_of(nodeids)
    last = dict(zip(numbers, nodeids, strict=True))
    return [number for number, nodeid in last.items() if nodeid.endswith("::test_gate")]


@pytest.fixture(scope="module")
def everything() -> list[str]:
    return listed()


# -- listings ---------------------------------------------------------------------------------------------


def test_seven_phases_run_in_order_with_the_gate_last(everything: list[str]) -> None:
    """There are several hundred assertions; those about recipes exist once per recipe."""
    assert phases_of(everything) == sorted(phases_of(everything))
    assert gates_in(everything) == list(range(7))
    assert len(everything) > 300
    assert len([nodeid for nodeid in everything if "[mumble]" in nodeid]) > 10


@pytest.mark.parametrize("module", [MODULES[0], MODULES[3], MODULES[6]])
def test_single_file_selects_the_phases_before_it(everything: list[str], module: str) -> None:
    """All earlier phases are selected completely and in order, and no later phase."""
    number = MODULES.index(module)
    assert listed(phases=[module]) == [nodeid for nodeid in everything if phases_of([nodeid])[0] <= number]


def test_single_test_selects_the_phases_before_it(everything: list[str]) -> None:
    """All earlier phases are selected completely; of its own phase only the test itself."""
    before = [nodeid for nodeid in everything if phases_of([nodeid])[0] < 4]
    assert listed(phases=[SINGLE_TEST]) == [*before, SINGLE_TEST]


@pytest.mark.parametrize("words", ["bridge", "mumble and tags", "not gate"])
def test_keyword_selects_the_phases_before_the_last_match(everything: list[str], words: str) -> None:
    """Gates are selected even if the keyword excludes them."""
    found = listed("-k", words)
    last = max(phases_of(found))
    assert gates_in(found) == list(range(last + 1))
    before = [nodeid for nodeid in everything if phases_of([nodeid])[0] < last]
    assert found[: len(before)] == before


def test_order_of_files_does_not_change_the_order_of_phases(everything: list[str]) -> None:
    """Phases run in numerical order, whatever the order on the command line."""
    assert listed(phases=list(reversed(MODULES))) == everything


def test_deselected_test_of_an_earlier_phase_is_restored(everything: list[str]) -> None:
    """Neither a gate nor a file that a later phase requires can be deselected."""
    assert listed("--deselect", MODULES[0], "--deselect", f"{MODULES[2]}::test_gate") == everything


def test_run_can_start_in_any_folder(everything: list[str], tmp_path: Path) -> None:
    """The full path of the phases suffices, because cron does not change the folder."""
    ran = muster(
        "--collect-only",
        "-q",
        "-c",
        str(ROOT / "pyproject.toml"),
        phases=[str(ROOT / "phases")],
        cwd=tmp_path,
    )
    assert len([line for line in ran.demand(0).output.splitlines() if "::" in line]) == len(everything)


def test_listing_writes_and_contacts_nothing(tmp_path: Path) -> None:
    """A listing creates neither a record nor a world."""
    ran = muster("--collect-only", "--world", str(tmp_path / "world"), reports=tmp_path / "reports").demand(0)
    assert "collected" in ran.output
    assert list(tmp_path.iterdir()) == []


# -- refusals ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "arguments",
    [
        ("-n2",),
        ("--dist", "each", "--tx", "2*popen"),
        ("-p", "no:dependency"),
        ("--lf",),
        ("--ff",),
        ("--sw",),
        ("--ignore-unknown-dependency",),
    ],
    ids=" ".join,
)
def test_option_that_breaks_the_order_of_phases_is_refused(arguments: tuple[str, ...], tmp_path: Path) -> None:
    """Parallel runs and partial selections exit with 4 and one sentence, before a world is started."""
    ran = muster(*arguments, "--world", str(tmp_path / "world"), reports=tmp_path / "reports").demand(4)
    errors = [line for line in ran.output.splitlines() if line.startswith("ERROR: ")]
    assert len(errors) == 1, ran.output
    assert "phases" in errors[0]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "status"),
    [
        (("-k", "no_such_test"), 5),
        (("-m", "no_such_mark"), 5),
        (("--ignore-glob", "*.py"), 5),
    ],
    ids=["keyword", "mark", "ignored"],
)
def test_empty_selection_fails_and_writes_nothing(
    arguments: tuple[str, ...], status: int, tmp_path: Path
) -> None:
    """The exit code is pytest's for "nothing collected"; neither a world nor a record is created."""
    muster(*arguments, "--world", str(tmp_path / "world"), reports=tmp_path / "reports").demand(status)
    assert files_below(tmp_path) == []


def test_unknown_test_is_a_usage_error(tmp_path: Path) -> None:
    """Exit 4; no earlier phase is run instead."""
    ran = muster(reports=tmp_path / "reports", phases=["phases/test_4_deploy.py::test_of_somebody"]).demand(4)
    assert "not found" in ran.output
    assert files_below(tmp_path) == []


# -- runs ---------------------------------------------------------------------------------------------------


def phases_run(ran: Ran) -> dict[int, int]:
    """How many assertions passed, by phase."""
    return {phase["phase"]: phase["passed"] for phase in ran.summary["phases"]}


def test_single_test_runs_the_earlier_gates(converged: WorldPool) -> None:
    """On a healthy world it runs phases 0 to 3 completely and then the test; exit 0, and no later phase runs."""
    passed = phases_run(converged.visit("--health", phases=[SINGLE_TEST]).demand(0))
    assert list(passed) == [0, 1, 2, 3, 4]
    assert all(passed.values())
    assert passed[4] == 1


def test_selection_fails_when_an_earlier_phase_fails(converged: WorldPool) -> None:
    """When phase 0 cannot read the organisation, the selected test is skipped and the run exits with 1."""
    with converged.breaking({"listener": "forge", "path": "^/api/v1/orgs/", "action": "status:404"}):
        ran = converged.visit("--health", phases=[SINGLE_TEST]).demand(1)
    assert "the organisation can be read" in ran.failed
    skipped = {line["title"]: line["message"] for line in ran.of("assertion") if line["outcome"] == "skipped"}
    assert skipped["the bridge runs"].startswith("waits for phase 0: ")


@pytest.mark.parametrize(
    "arguments",
    [("--ignore", MODULES[0]), ("--setup-only",), ("--setup-plan",), ("-p", "no:muster")],
    ids=" ".join,
)
def test_run_without_a_phase_fails_and_changes_nothing(night: WorldPool, arguments: tuple[str, ...]) -> None:
    """If a phase's tests are ignored or not called, its gate stays closed and no later phase acts."""
    before = WorldView(night.settings).everything()
    ran = night.visit(*arguments)
    assert ran.exit not in (0, 10), ran.output[-2000:]
    assert WorldView(night.settings).everything() == before


def test_run_stopped_at_the_first_failure_fails(converged: WorldPool) -> None:
    """With ``-x``, tests that did not run do not count as passed."""
    with converged.breaking({"listener": "upstream", "path": "/mumble.git/", "action": "status:404"}):
        ran = converged.visit("--health", "-x")
    assert ran.exit not in (0, 10)
    assert "upstream has the recipe: mumble" in ran.failed
    assert len(ran.failed) == 1
