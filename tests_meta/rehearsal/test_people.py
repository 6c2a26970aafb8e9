"""Other people at work during a run: nothing of theirs is undone or lost, muster says what they did, and the exit is
right. And the reverse: what muster breaks is still rolled back while they are at work.

By default the busy night is run, alone and with one fault, and one act alone; ``MUSTER_ALL_FAULTS=1`` runs every act
alone, and the busy night with every fault that ends with exit 11.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass

import pytest

from fixtures.changes import REGISTRY
from fixtures.rehearsal.faults.model import EndState, RecordLeft
from fixtures.rehearsal.faults.people import ACTS, BUSY_NIGHT
from fixtures.rehearsal.faults.table import FAULTS
from fixtures.rehearsal.people.act import ANY_TIME, Boundary
from fixtures.rehearsal.people.crew import Kind
from fixtures.rehearsal.people.night import schedule
from tests_meta.census import Census, Done, acts_done, take_census, undone_by_run
from tests_meta.muster_runs import LIMIT_S, Ran
from tests_meta.parallel_worlds import SEEDED, FaultRun, ParallelWorld, in_parallel_worlds
from tests_meta.rehearsal.fault_runs import differences

ALL = os.environ.get("MUSTER_ALL_FAULTS") == "1"
NIGHT = "busy-night"
OF_PEOPLE = {act.name for act in ACTS}
ROLLED_BACK = sorted(entry.name for entry in FAULTS.values() if entry.exit == 11 and entry.name not in OF_PEOPLE)
BROKEN = [name for name in ROLLED_BACK if ALL or name == "switch-breaks-bridge"]
RELEASED = {"release-before-sync": "keycloak", "release-after-sync": "n8n"}
ALONE = [act.name for act in ACTS] if ALL else ["edit-poll-file"]


@dataclass(frozen=True)
class PeopleRun:
    """One run with people: the world around it, their belongings before and after, and what they did."""

    seen: FaultRun
    before: Census
    after: Census
    done: tuple[Done, ...]
    undone: tuple[str, ...]

    @property
    def ran(self) -> Ran:
        return self.seen.ran

    def explained(self, line: str) -> bool:
        """Whether the people themselves made this difference from the expected end state."""
        kept = [one for act in self.done for one in act.kept]
        pushed = {one.where.split(" ")[0] for one in kept if one.kind is Kind.REF}
        pushed |= {one.where for one in kept if one.kind is Kind.REPOSITORY}
        acted = {act.act for act in self.done}
        pushed |= {name for act, name in RELEASED.items() if act in acted}
        reasons = {
            "the poll set in git is": "edit-poll-set-later" in acted,
            "the bridge's service polls": "edit-poll-set-later" in acted,
            "edits:": bool(acted & {"edit-checkout", "edit-checkout-later"}),
            "the checkout moved": "commit-in-checkout-later" in acted,
            "the host's checkout is not at cc-ci's head": "cc-ci" in pushed
            or "commit-in-checkout-later" in acted,
        }
        reasons |= {f"the mirror of {name} is not": True for name in pushed}
        return any(line.startswith(words) and holds for words, holds in reasons.items())


def run_with_people(parallel_world: ParallelWorld, *faults: str) -> PeopleRun:
    """Run once, in a world that muster starts itself, because the people act at its boundaries."""
    # Some faults can be shown only in a world that is seeded with them.
    if any(FAULTS[name].is_seeded for name in faults):
        parallel_world.begin("", *faults)
    else:
        parallel_world.begin(SEEDED)
    parallel_world.end()
    settings, options = parallel_world.settings, [word for name in faults for word in ("--fault", name)]
    before, census = parallel_world.world_state(), take_census(settings)
    reports = parallel_world.folder / f"reports-{'-'.join(faults)}"
    ran = parallel_world.run(
        "--roster", str(parallel_world.roster), *options, reports=reports, limit_s=2 * LIMIT_S
    )
    done = acts_done(parallel_world.world)
    return PeopleRun(
        FaultRun(before, ran, parallel_world.world_state()),
        census,
        take_census(settings),
        tuple(done),
        tuple(undone_by_run(settings, done)),
    )


@pytest.fixture(scope="module")
def people_runs(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Future[PeopleRun]]:
    """The busy night alone, with faults, and the acts alone; by the names of their faults."""
    wanted = [(NIGHT,), *((NIGHT, name) for name in BROKEN), *((name,) for name in ALONE)]

    def job(faults: tuple[str, ...]) -> Callable[[ParallelWorld], PeopleRun]:
        return lambda parallel_world: run_with_people(parallel_world, *faults)

    jobs = {"+".join(faults): job(faults) for faults in wanted}
    return in_parallel_worlds(tmp_path_factory.mktemp("people"), jobs)


def lost(run: PeopleRun) -> list[str]:
    """What others had before the run or left during it, and do not have any more without having removed it."""
    removed = {one.where for act in run.done for one in act.kept if not one.value}
    gone = [
        line
        for line in run.before.missing_in(run.after)
        if not any(line.startswith((f"{name}:", f"discussion {name}#")) for name in removed)
        and not any(where.replace(" refs/tags/", ": tag ") == line for where in removed)
        and not any(where.replace(" ", ": commit ").startswith(line) for where in removed)
    ]
    return [*gone, *run.undone]


def test_every_act_is_described() -> None:
    """The busy night has at least thirty kinds of act, and each boundary between phases can have one of them."""
    assert len(BUSY_NIGHT) >= 30
    assert len({act.name for act in ACTS}) == len(ACTS)
    for act in ACTS:
        assert act.when
        assert act.why
        assert FAULTS[act.name].exit == act.exit
    planned = schedule(BUSY_NIGHT, seed=602)
    assert {boundary for boundary, _ in planned} >= {*ANY_TIME, Boundary.PROPOSED, Boundary.TESTME}
    assert schedule(BUSY_NIGHT, seed=602) == planned != schedule(BUSY_NIGHT, seed=603)


def test_everything_of_the_busy_night_was_done(people_runs: Mapping[str, Future[PeopleRun]]) -> None:
    """Positive control: each act happened, and none failed."""
    done = people_runs[NIGHT].result().done
    assert [f"{act.act}: {act.error}" for act in done if act.error] == []
    assert sorted(act.act for act in done) == sorted(act.name for act in BUSY_NIGHT)


def test_busy_night_converges_and_undoes_nothing(people_runs: Mapping[str, Future[PeopleRun]]) -> None:
    """The run converges, records no regression, and undoes only what is temporary."""
    ran = people_runs[NIGHT].result().ran.demand(0)
    assert ran.summary["verdict"] == "converged"
    assert ran.summary["regressions"] == []
    undone = [one for one in ran.summary["changes"] if one["undone"] and not REGISTRY[one["kind"]].always]
    assert undone == []


@pytest.mark.parametrize("name", [act.name for act in BUSY_NIGHT if act.says])
def test_finding_names_what_somebody_did(people_runs: Mapping[str, Future[PeopleRun]], name: str) -> None:
    """A finding of the busy night names the act: what was changed, and by whom where the forge says so."""
    says = FAULTS[name].says
    texts = [one["what"] for one in people_runs[NIGHT].result().ran.summary["findings"]]
    assert [text for text in texts if says.lower() in text.lower()] != [], "\n".join(texts)


@pytest.mark.parametrize("faults", [NIGHT, *(f"{NIGHT}+{name}" for name in BROKEN), *ALONE])
def test_nothing_of_others_is_lost(people_runs: Mapping[str, Future[PeopleRun]], faults: str) -> None:
    """After the run, others have every commit, tag, pull request, issue and comment that they had or made."""
    run = people_runs[faults].result()
    assert run.done != ()
    assert lost(run) == []


@pytest.mark.parametrize("name", BROKEN)
def test_fault_is_rolled_back_while_people_work(people_runs: Mapping[str, Future[PeopleRun]], name: str) -> None:
    """A fault that ends with exit 11 alone ends with exit 11 in the busy night, with host and poll set restored."""
    run = people_runs[f"{NIGHT}+{name}"].result()
    run.ran.demand(11)
    if FAULTS[name].record is RecordLeft.WHOLE:
        assert run.ran.summary["verdict"] == "rolled-back"
    assert [line for line in differences(EndState.BASELINE_LIVE, run.seen) if not run.explained(line)] == []


@pytest.mark.parametrize("name", ALONE)
def test_act_alone_ends_as_described(people_runs: Mapping[str, Future[PeopleRun]], name: str) -> None:
    """A single act leads to the exit, the verdict, the words and the end state of its record."""
    run, fault = people_runs[name].result(), FAULTS[name]
    run.ran.demand(fault.exit)
    assert run.ran.summary["verdict"] == fault.verdict
    assert fault.says.lower() in run.ran.output.lower()
    left = differences(fault.state, run.seen, recipe=fault.recipe)
    assert [line for line in left if not run.explained(line)] == []


def test_census_shows_what_is_lost(people_runs: Mapping[str, Future[PeopleRun]]) -> None:
    """Positive control: a missing commit, tag, discussion or comment is named."""
    census = people_runs[NIGHT].result().before
    nobody = Census({}, {}, frozenset(), {}, {})
    missing = nobody.missing_in(census), census.missing_in(nobody)
    assert missing[0] == []
    for words in ("ghost: commit ", "ghost: tag ", "discussion ghost#2"):
        assert [line for line in missing[1] if line.startswith(words)], words
