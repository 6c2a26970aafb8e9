"""Gates decide whether the next phase begins, and a selection always includes the earlier phases."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fixtures.journal.kinds import Reason
from fixtures.run.gates import Gate, Gates, PhaseResult, earlier_modules, phase_of, recipe_of, restore_phases
from tests_meta.muster_runs import ROOT

PHASES = ROOT / "phases"
MODULES = sorted(PHASES.glob("test_*.py"))


def phase(*notes: tuple[str | None, str]) -> PhaseResult:
    """A phase with these outcomes, each of a recipe's test (None: a test of the whole system)."""
    result = PhaseResult()
    for number, (recipe, outcome) in enumerate(notes):
        result.note(f"test {number}", recipe, outcome, None)
    return result


# -- gates ------------------------------------------------------------------------------------------------


def test_gate_opens_when_all_tests_passed() -> None:
    """Tests of the whole system and of every recipe have passed."""
    assert phase((None, "passed"), ("ghost", "passed"), ("immich", "passed")).why_closed() == ""


def test_failure_of_the_whole_system_closes_the_gate() -> None:
    """The reason is the failed test's title, which later skips quote."""
    assert phase((None, "failed"), ("ghost", "passed")).why_closed() == "test 0"


def test_failed_recipe_does_not_close_the_gate() -> None:
    """The failed recipe is excluded from later phases, and the others continue."""
    result = phase((None, "passed"), ("ghost", "failed"), ("ghost", "passed"), ("immich", "passed"))
    assert result.why_closed() == ""
    assert result.failed_recipes == {"ghost"}


def test_gate_closes_when_every_recipe_failed() -> None:
    """A recipe with one passed and one failed test has failed."""
    result = phase((None, "passed"), ("ghost", "passed"), ("ghost", "failed"), ("immich", "failed"))
    assert result.why_closed().startswith("no recipe passed; first: test 2")


@pytest.mark.parametrize(
    ("reasons", "only"),
    [
        ((), False),
        ((Reason.UNREAD,), True),
        ((Reason.UNREAD, Reason.UNREAD), True),
        ((Reason.UNREAD, Reason.ASSERTED), False),
        ((Reason.UNREAD, Reason.DRIFT), False),
        ((Reason.DRIFT,), False),
    ],
)
def test_run_failed_only_to_read_if_no_known_fact_failed(reasons: tuple[Reason, ...], only: bool) -> None:
    """A fact that was read and is wrong is never hidden behind a system that did not answer."""
    gates = Gates()
    for number, reason in enumerate(reasons):
        gates.result(number).note("a test", None, "failed", reason)
    gates.result(0).note("another test", None, "passed", None)
    assert gates.failed_only_to_read is only


@pytest.mark.parametrize("outcomes", [[], ["skipped"], ["skipped", "skipped"]])
def test_gate_closes_when_no_test_ran(outcomes: list[str]) -> None:
    """A phase without executed tests does not count as passed."""
    assert phase(*[(None, outcome) for outcome in outcomes]).why_closed() == "none of its tests ran"


@pytest.mark.parametrize("reason", [Reason.PLANNED, Reason.UNKNOWN])
def test_planned_change_counts_as_planned_and_keeps_the_gate_open(reason: Reason) -> None:
    """A phase of `--plan` in which every item is still to be changed is not an empty phase."""
    result = PhaseResult()
    result.note("it exists: mumble", "mumble", "skipped", reason)
    assert (result.planned, result.skipped, result.executed) == (1, 0, 0)
    assert result.why_closed() == ""


@given(
    st.lists(
        st.tuples(st.sampled_from([None, "ghost", "immich"]), st.sampled_from(["passed", "failed", "skipped"]))
    )
)
def test_gate_opens_only_after_passed_tests(notes: list[tuple[str | None, str]]) -> None:
    """An open gate means that a test ran, no test of the whole system failed, and not every tested recipe failed."""
    if phase(*notes).why_closed():
        return
    ran = [(recipe, outcome) for recipe, outcome in notes if outcome != "skipped"]
    assert ran
    assert (None, "failed") not in ran
    tried = {recipe for recipe, _ in ran} - {None}
    assert not tried or any((recipe, "failed") not in ran for recipe in tried)


def test_later_phase_reports_the_failure_that_blocks_it() -> None:
    """Phases 2 and 3 name the failed test of phase 1."""
    gates = Gates()
    for number in range(3):
        gates.result(number).note("the forge answers", None, "failed" if number == 1 else "passed", None)
        if number != 1:
            Gate(gates).demand(number)
        else:
            with pytest.raises(pytest.fail.Exception, match="phase 1 does not hold: 1 failed, 0 passed"):
                Gate(gates).demand(number)
    assert gates.waits_for(1) == ""
    assert gates.waits_for(2) == gates.waits_for(3) == "phase 1: the forge answers"


def test_phase_without_a_gate_run_blocks_later_phases() -> None:
    """An earlier phase that did not run or was interrupted blocks the next one."""
    gates = Gates()
    assert gates.waits_for(0) == ""
    assert gates.waits_for(1) == "phase 0: none of its tests ran"
    gates.result(0).note("the forge answers", None, "passed", None)
    assert gates.waits_for(1) == "phase 0: its gate did not run"


# -- selections -----------------------------------------------------------------------------------------------


def item(number: int, name: str, **params: str) -> Any:
    """The parts of a collected test that determine its order."""
    path = PHASES / f"test_{number}_x.py"
    return SimpleNamespace(path=path, name=name, callspec=SimpleNamespace(params=params) if params else None)


EVERYTHING = [item(number, name) for number in range(7) for name in ("test_a", "test_b", "test_gate")]


def names(items: list[Any]) -> list[str]:
    return [f"{phase_of(one)} {one.name.removeprefix('test_')}" for one in items]


def test_earlier_phases_are_restored_completely() -> None:
    """One test of phase 2 adds phases 0 and 1 and the gate of phase 2, and nothing else."""
    chosen = [one for one in EVERYTHING if (phase_of(one), one.name) == (2, "test_b")]
    restore_phases(chosen, EVERYTHING)
    assert names(chosen) == ["0 a", "0 b", "0 gate", "1 a", "1 b", "1 gate", "2 b", "2 gate"]


def test_gate_is_the_last_test_of_its_phase() -> None:
    """The gate runs last, in whatever order the tests were collected."""
    chosen = list(reversed(EVERYTHING))
    restore_phases(chosen, list(chosen))
    assert names(chosen) == [f"{number} {name}" for number in range(7) for name in ("b", "a", "gate")]


def test_empty_selection_stays_empty() -> None:
    """No earlier phase is added, so pytest exits with its code for an empty selection."""
    chosen: list[Any] = []
    restore_phases(chosen, EVERYTHING)
    assert chosen == []


@given(st.sets(st.integers(0, len(EVERYTHING) - 1), min_size=1), st.randoms())
def test_any_selection_is_completed_and_ordered(indices: set[int], random: Any) -> None:
    """The result has all chosen tests, all earlier phases, each gate last, the phases in order, and no duplicates."""
    chosen = [EVERYTHING[index] for index in indices]
    random.shuffle(chosen)
    wanted, last = {id(one) for one in chosen}, max(phase_of(one) or 0 for one in chosen)
    restore_phases(chosen, EVERYTHING)
    assert wanted <= {id(one) for one in chosen}
    assert len({id(one) for one in chosen}) == len(chosen)
    numbers = [phase_of(one) or 0 for one in chosen]
    assert numbers == sorted(numbers)
    for number in range(last + 1):
        of_phase = [one.name for one in chosen if phase_of(one) == number]
        assert of_phase[-1] == "test_gate"
        assert number == last or set(of_phase) == {"test_a", "test_b", "test_gate"}


def test_module_adds_the_modules_before_it() -> None:
    """`pytest phases/test_3_enrollment.py` collects phases 0, 1 and 2 as well."""
    assert earlier_modules(["phases/test_3_enrollment.py"], PHASES) == [str(module) for module in MODULES[:3]]
    assert earlier_modules(["phases/test_2_suites.py::test_gate"], PHASES) == [
        str(module) for module in MODULES[:2]
    ]


@pytest.mark.parametrize(
    "arguments", [["phases/test_0_preflight.py"], ["phases"], [], ["tests_meta/config/test_site.py"]]
)
def test_no_module_is_added_to_a_complete_selection(
    arguments: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is added to the first phase, the whole folder, no arguments, or other tests."""
    monkeypatch.chdir(ROOT)
    assert earlier_modules(arguments, PHASES) == []


def test_file_outside_phases_is_not_a_phase() -> None:
    """A file with a phase's name in another folder has no phase number."""
    assert phase_of(item(4, "test_x")) == 4
    assert phase_of(SimpleNamespace(path=Path("/elsewhere/test_4_deploy.py"))) is None  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("recipe", "ghost"),
        ("carried", "ghost"),
        ("canary", "ghost"),
        ("item", "ghost: backup pull request 1"),
    ],
)
def test_parametrized_test_counts_for_its_recipe(name: str, value: str) -> None:
    """A test of a recipe, canary or deferred item is that recipe's test, not the whole system's."""
    assert recipe_of(item(5, "test_x", **{name: value})) == "ghost"


def test_assertion_without_a_recipe_counts_for_the_whole_system() -> None:
    """Tests with other parameters, or without parameters, belong to no recipe."""
    assert recipe_of(item(0, "test_x", scope="write:issue")) is None
    assert recipe_of(item(0, "test_x")) is None


def test_each_of_the_seven_phases_has_a_gate() -> None:
    """Without a gate, a phase could not block the next one."""
    assert len(MODULES) == 7
    for module in MODULES:
        assert "def test_gate(gate: Gate) -> None:" in module.read_text()
