"""Whatever part of the phases somebody asks for: it runs its gates or fails, and nothing checked is never exit 0.

Listings show what would run; where the end counts, the selection is really run against a world that is up.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from tests_meta.muster_runs import ROOT, Ran, WorldPool, files_below, listed, muster, phases_of
from tests_meta.world_view import WorldView

MODULES = [f"phases/{path.name}" for path in sorted((ROOT / "phases").glob("test_*.py"))]
ONE = "phases/test_4_deploy.py::test_the_bridge_runs"


def gates_in(nodeids: Sequence[str]) -> list[int]:
    """The phases whose gate is the last of their tests in this list."""
    numbers = phases_of(nodeids)
    last = dict(zip(numbers, nodeids, strict=True))
    return [number for number, nodeid in last.items() if nodeid.endswith("::test_gate")]


@pytest.fixture(scope="module")
def everything() -> list[str]:
    return listed()


# -- what would run ----------------------------------------------------------------------------------------


def test_all_seven_phases_run_in_order_each_with_its_gate_last(everything: list[str]) -> None:
    """Several hundred assertions, one per recipe where it is about a recipe."""
    assert phases_of(everything) == sorted(phases_of(everything))
    assert gates_in(everything) == list(range(7))
    assert len(everything) > 300
    assert len([nodeid for nodeid in everything if "[mumble]" in nodeid]) > 10


@pytest.mark.parametrize("module", [MODULES[0], MODULES[3], MODULES[6]])
def test_a_single_file_brings_the_phases_before_it(everything: list[str], module: str) -> None:
    """Whole, in order; nothing after it."""
    number = MODULES.index(module)
    assert listed(phases=[module]) == [nodeid for nodeid in everything if phases_of([nodeid])[0] <= number]


def test_a_single_test_brings_the_phases_before_it(everything: list[str]) -> None:
    """All of them whole; of its own phase only itself."""
    before = [nodeid for nodeid in everything if phases_of([nodeid])[0] < 4]
    assert listed(phases=[ONE]) == [*before, ONE]


@pytest.mark.parametrize("words", ["bridge", "mumble and tags", "not gate"])
def test_a_keyword_brings_what_its_last_phase_stands_on(everything: list[str], words: str) -> None:
    """Gates too, even where the words would leave them out."""
    found = listed("-k", words)
    last = max(phases_of(found))
    assert gates_in(found) == list(range(last + 1))
    before = [nodeid for nodeid in everything if phases_of([nodeid])[0] < last]
    assert found[: len(before)] == before


def test_files_in_another_order_run_in_the_order_of_the_phases(everything: list[str]) -> None:
    """The command line's order is not the migration's."""
    assert listed(phases=list(reversed(MODULES))) == everything


def test_a_deselected_test_below_the_last_phase_is_put_back(everything: list[str]) -> None:
    """A gate, a file: what later phases stand on cannot be deselected away."""
    assert listed("--deselect", MODULES[0], "--deselect", f"{MODULES[2]}::test_gate") == everything


def test_it_can_be_started_from_anywhere(everything: list[str], tmp_path: Path) -> None:
    """From another folder, by the phases' full path: cron does not change folders."""
    ran = muster(
        "--collect-only",
        "-q",
        "-c",
        str(ROOT / "pyproject.toml"),
        phases=[str(ROOT / "phases")],
        cwd=tmp_path,
    )
    assert len([line for line in ran.demand(0).output.splitlines() if "::" in line]) == len(everything)


def test_a_listing_touches_nothing(tmp_path: Path) -> None:
    """No record, no world, nobody contacted; the site's secrets are not even read."""
    ran = muster("--collect-only", "--world", str(tmp_path / "world"), reports=tmp_path / "reports").demand(0)
    assert "collected" in ran.output
    assert list(tmp_path.iterdir()) == []


# -- what is refused ---------------------------------------------------------------------------------------


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
def test_what_would_run_phases_beside_each_other_or_leave_some_out_is_refused(
    arguments: tuple[str, ...], tmp_path: Path
) -> None:
    """Exit 4 and one sentence, before a world is started."""
    ran = muster(*arguments, "--world", str(tmp_path / "world"), reports=tmp_path / "reports").demand(4)
    said = [line for line in ran.output.splitlines() if line.startswith("ERROR: ")]
    assert len(said) == 1, ran.output
    assert "phases" in said[0]
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
def test_an_empty_selection_is_no_success_and_touches_nothing(
    arguments: tuple[str, ...], status: int, tmp_path: Path
) -> None:
    """pytest's own exit for "nothing collected"; no world, no record of a run that was none."""
    muster(*arguments, "--world", str(tmp_path / "world"), reports=tmp_path / "reports").demand(status)
    assert files_below(tmp_path) == []


def test_a_test_that_is_not_there_is_a_mistake_of_the_command_line(tmp_path: Path) -> None:
    """Exit 4; the phases before it are not run in its place."""
    ran = muster(reports=tmp_path / "reports", phases=["phases/test_4_deploy.py::test_of_somebody"]).demand(4)
    assert "not found" in ran.output
    assert files_below(tmp_path) == []


# -- what happens when it is run -----------------------------------------------------------------------------


def phases_run(ran: Ran) -> dict[int, int]:
    """How many assertions passed, by phase."""
    return {phase["phase"]: phase["passed"] for phase in ran.summary["phases"]}


def test_a_single_test_really_runs_its_gates(converged: WorldPool) -> None:
    """Phases 0 to 3 whole, then it: exit 0 on a healthy world, and nothing later was looked at."""
    passed = phases_run(converged.visit("--health", phases=[ONE]).demand(0))
    assert list(passed) == [0, 1, 2, 3, 4]
    assert all(passed.values())
    assert passed[4] == 1


def test_a_selection_whose_ground_does_not_hold_fails(converged: WorldPool) -> None:
    """The forge's organisation cannot be read: the one test asked for is skipped, and the run is no success."""
    with converged.breaking({"listener": "forge", "path": "^/api/v1/orgs/", "action": "status:404"}):
        ran = converged.visit("--health", phases=[ONE]).demand(1)
    assert "the organisation can be read" in ran.failed
    skipped = {line["title"]: line["message"] for line in ran.of("assertion") if line["outcome"] == "skipped"}
    assert skipped["the bridge runs"].startswith("waits for phase 0: ")


@pytest.mark.parametrize(
    "arguments",
    [("--ignore", MODULES[0]), ("--setup-only",), ("--setup-plan",), ("-p", "no:muster")],
    ids=" ".join,
)
def test_a_run_that_leaves_out_a_phase_changes_nothing_and_fails(
    night: WorldPool, arguments: tuple[str, ...]
) -> None:
    """Its tests ignored, or set up and never called: no gate opens, so no later phase acts."""
    before = WorldView(night.settings).everything()
    ran = night.visit(*arguments)
    assert ran.exit not in (0, 10), ran.output[-2000:]
    assert WorldView(night.settings).everything() == before


def test_stopping_at_the_first_failure_is_no_success(converged: WorldPool) -> None:
    """``-x``: what was not run is not taken for right."""
    with converged.breaking({"listener": "upstream", "path": "/mumble.git/", "action": "status:404"}):
        ran = converged.visit("--health", "-x")
    assert ran.exit not in (0, 10)
    assert "upstream has the recipe: mumble" in ran.failed
    assert len(ran.failed) == 1
