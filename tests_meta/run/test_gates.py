"""What lets the next phase begin, and what keeps a selection from starting in the middle."""

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
    """A phase whose tests, each about a recipe (or None: the whole system), came out like this."""
    result = PhaseResult()
    for number, (recipe, outcome) in enumerate(notes):
        result.note(f"test {number}", recipe, outcome, None)
    return result


# -- a gate counts -----------------------------------------------------------------------------------------


def test_a_phase_in_which_all_passed_lets_the_next_begin() -> None:
    """Every test about the whole system, and every recipe."""
    assert phase((None, "passed"), ("ghost", "passed"), ("immich", "passed")).why_closed() == ""


def test_one_failure_about_the_whole_system_closes_the_gate() -> None:
    """Named, so that what is skipped later can say what it waits for."""
    assert phase((None, "failed"), ("ghost", "passed")).why_closed() == "test 0"


def test_a_recipe_that_failed_does_not_stop_the_others() -> None:
    """It is left out; nineteen less one go on."""
    result = phase((None, "passed"), ("ghost", "failed"), ("ghost", "passed"), ("immich", "passed"))
    assert result.why_closed() == ""
    assert result.failed_recipes == {"ghost"}


def test_a_phase_in_which_no_recipe_came_through_closes_the_gate() -> None:
    """A recipe of which one test passed and one failed did not come through."""
    result = phase((None, "passed"), ("ghost", "passed"), ("ghost", "failed"), ("immich", "failed"))
    assert result.why_closed().startswith("no recipe passed; first: test 2")


@pytest.mark.parametrize("outcomes", [[], ["skipped"], ["skipped", "skipped"]])
def test_a_phase_in_which_nothing_ran_closes_the_gate(outcomes: list[str]) -> None:
    """Nothing checked must never look like nothing wrong."""
    assert phase(*[(None, outcome) for outcome in outcomes]).why_closed() == "none of its tests ran"


@pytest.mark.parametrize("reason", [Reason.PLANNED, Reason.UNKNOWN])
def test_what_a_plan_foresees_is_neither_passed_nor_forgotten(reason: Reason) -> None:
    """A phase of `--plan` in which everything is still to be done is no empty phase."""
    result = PhaseResult()
    result.note("it exists: mumble", "mumble", "skipped", reason)
    assert (result.planned, result.skipped, result.executed) == (1, 0, 0)
    assert result.why_closed() == ""


@given(
    st.lists(
        st.tuples(st.sampled_from([None, "ghost", "immich"]), st.sampled_from(["passed", "failed", "skipped"]))
    )
)
def test_a_gate_never_opens_on_nothing(notes: list[tuple[str | None, str]]) -> None:
    """Open means: something ran, nothing about the whole system failed, and one recipe is whole if any was tried."""
    if phase(*notes).why_closed():
        return
    ran = [(recipe, outcome) for recipe, outcome in notes if outcome != "skipped"]
    assert ran
    assert (None, "failed") not in ran
    tried = {recipe for recipe, _ in ran} - {None}
    assert not tried or any((recipe, "failed") not in ran for recipe in tried)


def test_later_phases_say_which_failure_they_wait_for() -> None:
    """Phase 3 waits for the gate of phase 1, in words."""
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


def test_a_phase_whose_gate_was_never_asked_is_waited_for() -> None:
    """An earlier phase that was not run, or was broken off, opens nothing."""
    gates = Gates()
    assert gates.waits_for(0) == ""
    assert gates.waits_for(1) == "phase 0: none of its tests ran"
    gates.result(0).note("the forge answers", None, "passed", None)
    assert gates.waits_for(1) == "phase 0: its gate did not run"


# -- a selection is completed and put in order ----------------------------------------------------------------


def item(number: int, name: str, **params: str) -> Any:
    """A collected test, as far as the order is concerned."""
    path = PHASES / f"test_{number}_x.py"
    return SimpleNamespace(path=path, name=name, callspec=SimpleNamespace(params=params) if params else None)


EVERYTHING = [item(number, name) for number in range(7) for name in ("test_a", "test_b", "test_gate")]


def names(items: list[Any]) -> list[str]:
    return [f"{phase_of(one)} {one.name.removeprefix('test_')}" for one in items]


def test_earlier_phases_are_put_back_whole() -> None:
    """One test of phase 2 brings phases 0 and 1, and its own phase's gate; nothing else of phase 2, nothing later."""
    chosen = [one for one in EVERYTHING if (phase_of(one), one.name) == (2, "test_b")]
    restore_phases(chosen, EVERYTHING)
    assert names(chosen) == ["0 a", "0 b", "0 gate", "1 a", "1 b", "1 gate", "2 b", "2 gate"]


def test_a_gate_is_the_last_test_of_its_phase() -> None:
    """Wherever it was collected."""
    chosen = list(reversed(EVERYTHING))
    restore_phases(chosen, list(chosen))
    assert names(chosen) == [f"{number} {name}" for number in range(7) for name in ("b", "a", "gate")]


def test_an_empty_selection_stays_empty() -> None:
    """pytest then ends with its own code for it; nothing is put back to look busy."""
    chosen: list[Any] = []
    restore_phases(chosen, EVERYTHING)
    assert chosen == []


@given(st.sets(st.integers(0, len(EVERYTHING) - 1), min_size=1), st.randoms())
def test_any_selection_becomes_one_that_can_be_trusted(indices: set[int], random: Any) -> None:
    """All of what was chosen, all earlier phases whole, each phase's gate last, phases in order, nothing twice."""
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


def test_a_module_brings_the_modules_before_it() -> None:
    """`pytest phases/test_3_enrollment.py` collects phases 0, 1 and 2 as well."""
    assert earlier_modules(["phases/test_3_enrollment.py"], PHASES) == [str(module) for module in MODULES[:3]]
    assert earlier_modules(["phases/test_2_suites.py::test_gate"], PHASES) == [
        str(module) for module in MODULES[:2]
    ]


@pytest.mark.parametrize(
    "arguments", [["phases/test_0_preflight.py"], ["phases"], [], ["tests_meta/config/test_site.py"]]
)
def test_nothing_is_added_where_nothing_is_missing(arguments: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """The first phase, the whole folder, nothing at all, or tests of something else."""
    monkeypatch.chdir(ROOT)
    assert earlier_modules(arguments, PHASES) == []


def test_only_the_phases_are_phases() -> None:
    """A file of the same name elsewhere is not one."""
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
def test_what_is_about_one_recipe_is_counted_as_that_recipes(name: str, value: str) -> None:
    """A canary that is not answered, a suite that is not proven: one recipe's failure, not the whole system's."""
    assert recipe_of(item(5, "test_x", **{name: value})) == "ghost"


def test_what_is_about_no_recipe_is_about_the_whole_system() -> None:
    """A scope of the token, a mark of the host, or nothing at all."""
    assert recipe_of(item(0, "test_x", scope="write:issue")) is None
    assert recipe_of(item(0, "test_x")) is None


def test_there_are_seven_phases_each_with_a_gate() -> None:
    """A module without a gate would let the next phase begin whatever happened in it."""
    assert len(MODULES) == 7
    for module in MODULES:
        assert "def test_gate(gate: Gate) -> None:" in module.read_text()
