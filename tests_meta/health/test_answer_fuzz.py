"""Every recorded answer of forge, upstream, Drone and host is mutated, and muster must understand it, or name it.

In one process a survey, the dry run of an apply, the verdicts and the status of each recipe are made from recorded
answers of a converged world, with one answer changed (`tests_meta.health.answer_mutations`). For each mutation:

- nothing but this project's errors leaves a client, and each names the request or the part that it is about;
- the dry run plans no write that the true answers do not ask for;
- no recipe's fact becomes true by it, and a broken answer is never taken for the true one in silence;
- a command of the host that failed never leaves everything as it was: none of them is asked for nothing.

Whole runs with a changed answer, forked from a warm process, must also end with an exit of the table and no traceback,
an apply must write nothing, and a health check whose answer was broken must not end as if nothing were wrong. CI tries
a few hundred, always with the same seed; with ``MUSTER_LONG=1`` each of the two tests goes on for ``MUSTER_LONG_S``
seconds. ``MUSTER_SEED`` chooses the mutations. The output says how many were tried and how each class ended.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from random import Random
from typing import Any

import pytest

from fixtures import survey as survey_module
from fixtures.clients.clock_offset import ClockOffset
from fixtures.clients.retry import repeat_probe
from fixtures.config.roster import load_roster
from fixtures.config.run_options import Mode
from fixtures.config.site import load_site
from fixtures.errors import MusterError
from fixtures.journal.memory import Memory
from fixtures.plan.dry_run import run_dry
from fixtures.run.exclusions import Exclusions
from fixtures.run.recipe_status import list_statuses
from fixtures.run.recorder import Recorder
from fixtures.run.run import Run
from fixtures.run.surveys import Surveys
from fixtures.run.unreadable import report_unreadable
from fixtures.survey import Survey, take
from fixtures.triggers.fixture import read_and_classify
from tests_meta.health.answer_mutations import MUTATIONS
from tests_meta.health.answer_script import Script
from tests_meta.health.laboratory import Laboratory, laboratory
from tests_meta.in_process_run import close_run, open_run

__all__ = ["laboratory"]

LONG = bool(os.environ.get("MUSTER_LONG"))
SEED = int(os.environ.get("MUSTER_SEED") or 2026)
# Both bounds hold: so many mutations, and so many seconds of CPU (of the clock, for whole runs).
TRIES, SECONDS = (20_000, float(os.environ.get("MUSTER_LONG_S", "1800"))) if LONG else (400, 30.0)
RUNS, LEAST_RUNS = (200, 3) if LONG else (3, 3)
EXITS = {0, 1, 10, 11, 12, 13}
SENTENCE = re.compile(r"[.!?)]$")


@dataclass(frozen=True)
class Belief:
    """What muster makes of one set of answers."""

    survey: Survey
    steps: tuple[str, ...]
    facts: dict[str, object]
    unreadable: tuple[str, ...]
    findings: tuple[str, ...]

    @property
    def problems(self) -> dict[str, MusterError]:
        return dict(self.survey.problems)

    @property
    def comparable(self) -> Survey:
        host = self.survey.host
        if host is not None:  # without what only tells how much later it was read
            host = replace(host, clock_skew_s=0.0, bridge=replace(host.bridge, age_s=0.0))
        return replace(self.survey, taken=datetime(2026, 6, 2, tzinfo=UTC), host=host, problems={})


@dataclass
class Bench:
    """The recorded answers of a converged world, what muster makes of them, and a run to make it in.

    `surveyed` are the answers of a survey, which every run asks for.
    """

    run: Run
    script: Script
    folder: Path
    true: Belief = field(init=False)
    again: Belief = field(init=False)
    surveyed: frozenset[str] = field(init=False)

    def __post_init__(self) -> None:
        self.surveyed = frozenset(self.script.recorded)
        self.true = self.believe()
        self.script.replay = True
        self.again = self.believe()

    def believe(self) -> Belief:
        """Survey, dry run, verdicts and status of each recipe, from the answers of `script`."""
        world, roster = self.run.context.world, self.run.context.roster
        for http in (world.forge._http, world.drone._http, world.upstream):
            http.unreadable.clear()
            http.clock = ClockOffset(grain_s=1.0)
        survey = take(world, roster)
        surveys = Surveys(world, roster, baseline=survey, now=survey)
        run = Run(self.run.context, Recorder.unwritten(), surveys, Exclusions(roster.names))
        steps = run_dry(run, world).steps
        read_and_classify(run.context, run.record, surveys, Memory(), {})
        report_unreadable(run.context, run.record, surveys)
        facts = {
            f"{recipe}: {name}": cell.get("ok")
            for recipe, row in list_statuses(run.context, run.record, surveys, survey).items()
            for name, cell in row.items()
            if isinstance(cell, dict)
        }
        return Belief(
            survey,
            tuple(f"{step.kind} {step.target}" for step in steps),
            facts,
            tuple(item.message for item in world.unreadable_items()),
            tuple(finding.id for finding in run.record.findings),
        )


@pytest.fixture(scope="module")
def bench(laboratory: Laboratory) -> Iterator[Bench]:
    folder = laboratory.folder / "bench"
    folder.mkdir()
    parallel, script = laboratory.world.parallel, Script()
    kept = dict(repeat_probe.__kwdefaults__ or {})
    repeat_probe.__kwdefaults__ = {**kept, "pause_s": 0.0}
    with script.between(), pytest.MonkeyPatch.context() as patch:
        # Parsing every suite of cc-ci is nine tenths of a survey, and only its own answers change it.
        for name in ("read_test_names", "read_files"):
            patch.setattr(survey_module, name, remembering(getattr(survey_module, name)))
        run = open_run(load_site(parallel.site), load_roster(parallel.roster), folder, mode=Mode.PLAN)
        yield Bench(run, script, folder)
        close_run(run)
    repeat_probe.__kwdefaults__ = kept


def remembering(function: Callable[..., Any]) -> Callable[..., Any]:
    """`function`, called once for equal arguments."""
    known: dict[str, Any] = {}

    def call(*arguments: Any, **named: Any) -> Any:
        key = hashlib.sha256(repr((arguments, named)).encode()).hexdigest()
        if key not in known:
            known[key] = function(*arguments, **named)
        return known[key]

    return call


def place_of(key: str) -> str:
    """The key without ports and ids, which differ from world to world: the same seed tries the same mutations."""
    return re.sub(r":[0-9]+/|[0-9a-f]{40}", "", key)


def choices(recorded: Iterable[str], random: Random) -> Iterator[tuple[str, str, int]]:
    """Every answer with every mutation, in a random order, again and again with other seeds."""
    while True:
        # One script reads the whole host, so that its answer is tried as often as those of ten requests.
        keys = [
            key for key in sorted(recorded, key=place_of) for _ in range(10 if key.startswith("host ") else 1)
        ]
        pairs = [(key, name) for key in keys for name in MUTATIONS.all]
        random.shuffle(pairs)
        for key, name in pairs:
            yield key, name, random.randrange(2**32)


def end_of(bench: Bench, mutation: str) -> tuple[str, list[str]]:
    """How one mutation ended, and what was wrong with that."""
    try:
        seen = bench.believe()
    except Exception:  # noqa: BLE001  (whatever leaves a client here is the finding)
        return "traceback", [traceback.format_exc(limit=-6)]
    wrong = [f"plans {step}" for step in seen.steps if step not in bench.true.steps]
    wrong += [
        f"{fact} became true"
        for fact, ok in seen.facts.items()
        if ok is True and bench.true.facts.get(fact) is not True
    ]
    for part, problem in seen.problems.items():
        if not SENTENCE.search(problem.message) or "Traceback" in problem.message or len(problem.message) > 1500:
            wrong.append(f"no sentence: {part}: {problem.message!r}")
        try:
            str(problem).encode()
        except UnicodeEncodeError:
            wrong.append(f"text that no encoding takes: {problem.message!r}")
    named = set(seen.problems) - set(bench.true.problems)
    same = seen.comparable == bench.true.comparable and seen.facts == bench.true.facts
    if named:
        return "named", wrong
    if seen.unreadable:
        return "item left out and named", wrong
    if set(seen.findings) - set(bench.true.findings):
        return "finding", wrong
    if same:
        if mutation == "command failed":
            wrong.append("a command that failed left everything as it was")
        return "same belief", wrong
    if mutation in MUTATIONS.broken:
        wrong.append("a broken answer changed the belief in silence")
    return "other value believed", wrong


def test_mutated_answers_are_understood_or_named(bench: Bench, capsys: pytest.CaptureFixture[str]) -> None:
    """No mutation of an answer breaks a client, plans a write, makes a fact true, or passes in silence."""
    assert bench.again.steps == bench.true.steps, "the control: played back unchanged, the answers say the same"
    assert bench.again.comparable == bench.true.comparable
    assert not bench.true.problems
    random, started = Random(SEED), time.process_time()
    ended: dict[str, Counter[str]] = {}
    wrong: list[str] = []
    tried = 0
    for key, mutation, seed in choices(bench.script.recorded, random):
        if tried >= TRIES or time.process_time() - started > SECONDS:
            break
        if not bench.script.choose(key, mutation, seed):
            continue
        end, problems = end_of(bench, mutation)
        tried += 1
        ended.setdefault(mutation, Counter())[end] += 1
        wrong += [f"{mutation} (seed {seed}) of {key[:160]}: {problem}" for problem in problems]
    bench.script.restore()
    lines = [f"{tried} mutations of {len(bench.script.recorded)} answers, seed {SEED}:"]
    lines += [f"  {name:28} " + ", ".join(f"{count} {end}" for end, count in sorted(ends.items()))
              for name, ends in sorted(ended.items())]  # fmt: skip
    with capsys.disabled():
        print("\n" + "\n".join(lines))
    assert tried > 50
    assert not wrong, f"{len(wrong)} wrong:\n" + "\n".join(wrong[:40])


def test_the_bench_sees_a_wrong_belief(bench: Bench) -> None:
    """Positive control: answers that lie consistently make the dry run plan a write, and the bench says so."""
    script = bench.script
    key = next(key for key in script.recorded if "ghost.git/info/refs" in key and "coop-cloud" in key)
    true = script.recorded[key]
    main = bench.true.survey.upstreams["ghost"].branches["main"].encode()
    script.changed_key, script.changed = key, replace(true, body=true.body.replace(main, b"b" * 40))
    _, wrong = end_of(bench, "a lie")
    script.restore()
    assert any("plans" in one for one in wrong), wrong


def test_whole_runs_with_a_mutated_answer_end_in_order(
    bench: Bench, laboratory: Laboratory, capsys: pytest.CaptureFixture[str]
) -> None:
    """A health check and an apply whose answer is changed end with an exit of the table, a sentence and no write."""
    random = Random(SEED)
    picked = choices(bench.surveyed, random)
    ended: Counter[str] = Counter()
    usual, mark = laboratory.usual("health"), laboratory.folder / "given"
    started = time.monotonic()
    for number in range(RUNS):
        if number >= LEAST_RUNS and time.monotonic() - started > SECONDS:
            break
        key, mutation, seed = next(one for one in picked if bench.script.choose(*one))
        bench.script.restore()
        mode = "apply" if number % 3 == 2 else "health"
        mark.unlink(missing_ok=True)
        order = json.dumps({"key": key, "mutation": mutation, "seed": seed, "mark": str(mark)})
        ran = laboratory.run(
            mode, "-p", "tests_meta.health.changed_answer_plugin", env={"MUSTER_CHANGED_ANSWER": order}
        )
        what = f"{mode}: {mutation} (seed {seed}) of {key[:200]}\n{ran.output[-3000:]}"
        assert ran.exit in EXITS, what
        assert "Traceback (most recent call last)" not in ran.output, what
        assert "INTERNALERROR" not in ran.output, what
        assert re.search(r"^muster: ", ran.output, re.M), what
        if ran.folder is not None:
            errors = [line for line in ran.of("assertion") if "Error" in str(line["message"]).split(":")[0]]
            assert not [one for one in errors if not str(one["message"]).startswith(("Failed", "E "))], what
            assert not ran.of("intent"), what
        if mode == "health" and mutation in MUTATIONS.broken and ran.exit == 0:
            found = {str(line["id"]) for line in ran.of("finding")}
            assert found - usual, f"green, and nothing named: {what}"
        assert mark.exists(), f"the answer was never given: {what}"
        ended[f"{mode} exit {ran.exit}"] += 1
    with capsys.disabled():
        print("\n  whole runs: " + ", ".join(f"{count} {end}" for end, count in sorted(ended.items())))
