"""Properties of the judgement at a run's end: acts of others undo nothing and are reported; muster's harm is undone."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fixtures.clients.git import Refs
from fixtures.journal.kinds import ChangeKind
from fixtures.rollback import others
from fixtures.rollback.finish import Rollback
from fixtures.run.run import Run
from fixtures.survey import Survey
from tests_meta.rollback.night_model import ACTS, END, ORG, START, SYNCED, Act, Edit, Judged, break_bridge, judge

LIVE = {ChangeKind.ENROLL, ChangeKind.SYNC_CHECKOUT, ChangeKind.SWITCH}
timed_acts = st.lists(st.sampled_from(ACTS), unique_by=lambda act: act.name, max_size=6).flatmap(
    lambda acts: st.tuples(*(st.tuples(st.sampled_from(act.moments), st.just(act)) for act in acts))
)
quick = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture(autouse=True)
def no_second_look_at_refs(monkeypatch: pytest.MonkeyPatch) -> None:
    """The second look at a mirror's refs shows what the last survey shows; the model has no server to ask."""
    latest: dict[str, Refs] = {}
    real = others._refs_changed

    def remember(run: Run, recipe: str, now: Refs | None) -> Iterator[str]:
        if now is not None:
            latest[f"{ORG}/{recipe}"] = now
        return real(run, recipe, now)

    monkeypatch.setattr(others, "_refs_changed", remember)
    monkeypatch.setattr(others, "advertised_refs", lambda _, full_name: latest[full_name])


@quick
@given(acts=timed_acts)
def test_acts_of_others_never_lead_to_an_undo(tmp_path: Path, acts: tuple[tuple[int, Act], ...]) -> None:
    """Whatever others do during a run that broke nothing: nothing is undone."""
    judged = judge(tmp_path / "run", acts)
    assert (judged.rollback, judged.undone) == (Rollback.NONE, ())


@quick
@given(acts=timed_acts)
def test_harm_of_the_switch_is_undone_whatever_others_do(
    tmp_path: Path, acts: tuple[tuple[int, Act], ...]
) -> None:
    """A switch that breaks the bridge is undone, unless somebody has activated another system since."""
    judged = judge(tmp_path / "run", acts, harm=break_bridge)
    taken_over = any(act.name == "activate" for _, act in acts)
    assert set(judged.undone) == (set() if taken_over else LIVE)
    assert bool(judged.overtaken) == taken_over


@pytest.mark.parametrize("act", ACTS, ids=lambda act: act.name)
def test_each_act_is_reported_at_each_moment(tmp_path: Path, act: Act) -> None:
    """One act alone: a finding names it, at whichever moment of the run it happened."""
    for moment in act.moments:
        told = judge(tmp_path / f"run-{moment}", [(moment, act)]).told
        assert [text for text in told if act.says in text] != [], (moment, told)


def test_run_without_others_reports_nothing(tmp_path: Path) -> None:
    """Positive control of the reports: a night without acts has no finding."""
    assert judge(tmp_path / "run", []) == Judged(Rollback.NONE, (), (), "")


def test_difference_seen_before_the_switch_is_not_its_doing(tmp_path: Path) -> None:
    """An alert that was there before the switch is a finding; the same alert after it is a regression."""
    alert = next(act for act in ACTS if act.name == "alert")
    assert judge(tmp_path / "early", [(SYNCED, alert)]).undone == ()
    late = judge(tmp_path / "late", [(END, alert)])
    assert set(late.undone) == LIVE


def test_difference_that_was_well_in_between_counts_anew(tmp_path: Path) -> None:
    """A unit that failed, was well, and fails after the switch again is the switch's doing."""
    unit = next(act for act in ACTS if act.name == "unit")

    def fail_again(survey: Survey) -> Survey:
        return unit.edit(survey)

    once = Act("once", lambda survey: survey, "", (START,))
    judged = judge(tmp_path / "run", [(START, once)], harm=fail_again)
    assert set(judged.undone) == LIVE


@pytest.mark.parametrize("lie", [*(act.edit for act in ACTS), break_bridge])
def test_answer_that_is_not_repeated_undoes_nothing(tmp_path: Path, lie: Edit) -> None:
    """What one look at the end shows and the next one does not (an empty list, a head that went back) is no loss."""
    judged = judge(tmp_path / "run", [], lie=lie)
    assert (judged.rollback, judged.undone) == (Rollback.NONE, ())
    assert [text for text in judged.told if "was closed" in text or "failed" in text] == []


def test_search_that_contradicts_the_page_closes_nothing(tmp_path: Path) -> None:
    """A pull request that no search lists is not closed while its own page says that it is open."""
    close = next(act for act in ACTS if act.name == "close")
    judged = judge(tmp_path / "lie", [(START, close)], closed=())
    assert judged == Judged(Rollback.NONE, (), (), "")
    assert judge(tmp_path / "truth", [(START, close)]).told != ()


@pytest.mark.parametrize("days", [-400, -1, 1, 400])
def test_forge_with_another_clock_says_who_and_when(tmp_path: Path, days: int) -> None:
    """The timeline is asked by the forge's clock, and told by ours."""
    close = next(act for act in ACTS if act.name == "close")
    told = judge(tmp_path / "run", [(START, close)], ahead=timedelta(days=days)).told
    assert [text for text in told if "ghost#1 was closed by alice at 21:14 UTC" in text] != [], told
