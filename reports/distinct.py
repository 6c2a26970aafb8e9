"""What a run has to tell people, as distinct findings: one for each thing that somebody would mend as one thing.

A dead host fails a dozen assertions, an upstream that is down fails one for each of nineteen recipes, and a
diverged mirror is a finding, a failed assertion and a row of skipped ones. Told one by one, the one that matters
drowns. So they are brought together by recipe and kind; where more than three recipes have the same kind of
trouble in one night, that has one cause until somebody shows otherwise, and is told as one.

Titles are muster's own words and names of the roster; everything else may quote other people.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from fixtures.journal.run_record import PHASES, Assertion, Finding, RunRecord
from reports.sections.todo import tasks
from reports.words import verdict_word

FEW = 3
ORDER = {"action": 0, "warning": 1, "info": 2}
KIND_OF_PHASE = {0: "preflight", 1: "mirror", 2: "suite", 3: "enrollment", 4: "deploy", 5: "trigger", 6: "resume"}
PHASE_OF_KIND = {
    "enrollment": 3,
    "deploy": 4,
    "deploy-withheld": 4,
    "deploy-failed": 4,
}
TITLES = {
    "mirror": "a mirror is not its upstream",
    "suite": "a suite does not cover its recipe",
    "suite-branch": "a proposed suite was changed by hand",
    "hollow": "a green build ran no test of its recipe",
    "trigger": "a trigger or its verdict is not as it should be",
    "resume": "deferred work is not released",
    "enrollment": "the poll set is not what it should be",
    "deploy": "the host is not what git says",
    "deploy-withheld": "the deploy is withheld",
    "deploy-failed": "the deploy failed",
    "preflight": "upstream does not have the recipe",
    "preflight-forge": "the forge does not answer as it should",
    "preflight-drone": "Drone does not answer as it should",
    "preflight-host": "the host does not answer as it should",
    "polled-but-uncovered": "polled without tests of its own",
    "covered-but-unpolled": "covered, but not polled",
    "new-red": "newly red",
    "red-before": "red since before the first look",
    "expired": "red, and its excuse has expired",
    "fixed": "green, and still excused as known red",
    "flaky": "red and green in turn",
    "environmental": "red by the machine's fault",
    "verdicts-too-old": "verdicts are too old",
    "verdicts-missing": "recipes without a verdict",
    "verdicts-unread": "verdicts could not be read",
    "nights-missed": "nights were missed",
    "tags-moved": "a tag was moved upstream",
    "regression": "what worked before got worse",
    "undo": "a change was not taken back",
    "open": "nobody knows whether a change was made",
    "settle": "what an earlier run left was not taken back",
    "unfinished": "an earlier run was not settled",
    "not-begun": "the run could not begin",
    "run": "the run did not end well",
}
_RUNS_OWN = re.compile(r"-?\d{8}T\d{6,}Z.*$|-\d+$")
_VARIES = re.compile(r"\b[0-9a-f]{7,64}\b|\d+")
# Of findings that the run itself makes about its own reading of a plan.
_NOT_TOLD = ("plan-differs", "plan-not-written", "not-in-the-plan")


@dataclass(frozen=True)
class Said:
    """One thing that is wrong: what, where, what to do, and a command that shows it again."""

    what: str
    where: str = ""
    do: str = ""
    command: str = ""


@dataclass(frozen=True)
class Distinct:
    """One thing to tell. `id` stays the same from night to night; `digest` changes when its words do."""

    id: str
    kind: str
    severity: str
    recipes: tuple[str, ...]
    said: tuple[Said, ...]

    @property
    def title(self) -> str:
        words = TITLES.get(self.kind, self.kind.replace("-", " "))
        of = f": {', '.join(self.recipes[:5])}" if self.recipes else ""
        return f"muster: {words}{of}" + (" …" if len(self.recipes) > 5 else "")

    @property
    def digest(self) -> str:
        """Over its words without numbers and commits: a mirror that is behind by two commits is still behind."""
        words = sorted({_VARIES.sub("#", one.what) for one in self.said})
        return hashlib.sha256("\n".join([*self.recipes, *words]).encode()).hexdigest()[:16]


@dataclass
class _Unit:
    kind: str
    recipe: str | None
    severity: str
    said: list[Said] = field(default_factory=list)

    def add(self, said: Said, severity: str) -> None:
        if said not in self.said:
            self.said.append(said)
        self.severity = min(self.severity, severity, key=lambda one: ORDER.get(one, 1))


class _Units:
    """The things found so far, by kind and recipe, in the order in which they were found."""

    def __init__(self) -> None:
        self.all: dict[tuple[str, str | None], _Unit] = {}

    def add(self, kind: str, recipe: str | None, said: Said, severity: str) -> None:
        self.all.setdefault((kind, recipe), _Unit(kind, recipe, severity)).add(said, severity)

    def about(self, recipe: str) -> _Unit | None:
        """What is known of a recipe already, beside what only informs."""
        return next((u for u in self.all.values() if u.recipe == recipe and u.severity != "info"), None)

    def of_phase(self, phase: int) -> _Unit | None:
        return next((u for u in self.all.values() if not u.recipe and PHASE_OF_KIND.get(u.kind) == phase), None)

    def pending(self, recipe: str | None, phase: int) -> _Unit | None:
        """The pending change that a drift comes from: the recipe's own, a missing suite, or the way to the host."""
        own = self.all.get(("mirror", recipe)) if recipe else None
        suite, deploy = self.all.get(("suite", None)), self.all.get(("deploy", None))
        return own or (suite or deploy if KIND_OF_PHASE.get(phase) == "suite" else deploy or suite)


def distinct(record: RunRecord, *, severity: str, together: Iterable[str] = ()) -> tuple[Distinct, ...]:
    """What this run has to tell that is at least as severe as `severity`, worst first.

    `together` are kinds that are told as one already, and stay so until the last recipe of them is healed.
    """
    units = _Units()
    for finding in record.findings:
        if not finding.id.startswith(_NOT_TOLD):
            units.add(*_kind(finding), Said(finding.what, finding.where, finding.do), finding.severity)
    _left_open(record, units)
    if record.mode == "health":
        _pending(record, units)
    for assertion in record.assertions:
        if assertion.outcome not in ("passed", "skipped"):
            _assertion(assertion, units)
    _regressions(record, units)
    if record.exit not in (0, 10) and not any(unit.severity != "info" for unit in units.all.values()):
        units.add("run", None, Said(verdict_word(record.verdict).meaning, f"exit {record.exit}"), "action")
    found = list(_brought_together(units.all.values(), record.roster, set(together)))
    told = [one for one in found if ORDER.get(one.severity, 1) <= ORDER[severity]]
    return tuple(sorted(told, key=lambda one: (ORDER.get(one.severity, 1), one.id)))


def looked_everywhere(record: RunRecord) -> bool:
    """Whether this run would have seen everything that there is: it came to its end through every phase."""
    executed = {phase.number for phase in record.phases if phase.ended and phase.passed + phase.failed}
    return record.exit is not None and executed >= set(PHASES)


def _kind(finding: Finding) -> tuple[str, str | None]:
    """A finding's kind and recipe; run ids and running numbers in its id tell nights apart, not findings."""
    recipe = finding.recipe
    if recipe and finding.id.endswith(f"-{recipe}"):
        return finding.id.removesuffix(f"-{recipe}"), recipe
    return _RUNS_OWN.sub("", finding.id) or "finding", recipe


def _regressions(record: RunRecord, units: _Units) -> None:
    for what, recipe in record.regressions:
        known = units.about(recipe) if recipe else units.of_phase(4)
        if known:
            known.add(Said(what), "action")
        else:
            units.add("regression", recipe, Said(what, "", verdict_word(record.verdict).meaning), "action")


def _left_open(record: RunRecord, units: _Units) -> None:
    """What the journal leaves to a person whether or not a finding says so."""
    for task in tasks(record):
        kind, _, number = task.key.partition("-")
        if kind in ("open", "undo") and number.isdigit() and (kind, None) not in units.all:
            units.add(kind, None, Said(task.what, task.where, task.do, task.command), "action")
        elif task.key in ("broken", "hollow"):
            units.add("run", None, Said(task.what, task.where, task.do), "action")


def _pending(record: RunRecord, units: _Units) -> None:
    """In a health check a pending change is the drift itself; enrollment, deploy and triggers are one."""
    for step in record.planned:
        recipe = next((name for name in record.roster if step.target.endswith(f"/{name}")), None)
        early = step.kind in ("create", "fill", "sync", "tags")
        kind = "mirror" if early else "suite" if step.kind.endswith("-suite") else "deploy"
        said = Said(
            f"An apply would {step.kind} {step.target}: {step.why}.", "", "Run pytest phases/ for this site."
        )
        units.add(kind, recipe if early else None, said, "warning")


def _assertion(one: Assertion, units: _Units) -> None:
    """A failed assertion belongs to what is known of its recipe, or of its phase, or stands for itself."""
    phase = one.phase if one.phase is not None else 6
    seen = f": expected {one.expected}, seen {one.seen}" if one.expected or one.seen else ""
    said = Said(f"{one.title}{seen}.", one.where, "", one.check)
    kind = KIND_OF_PHASE.get(phase, "run")
    known = units.about(one.recipe) if one.recipe else units.of_phase(phase)
    if one.drifted and (pending := units.pending(one.recipe, phase)):
        pending.add(said, "warning")
    elif known:
        known.add(said, "action")
    else:
        units.add(_part(one.title) if phase == 0 and not one.recipe else kind, one.recipe, said, "action")


def _part(title: str) -> str:
    """Which system a preflight assertion is about."""
    if "drone" in title:
        return "preflight-drone"
    if "host" in title or "come back to" in title or "written" in title:
        return "preflight-host"
    return "preflight-forge"


def _brought_together(units: Iterable[_Unit], roster: tuple[str, ...], together: set[str]) -> Iterator[Distinct]:
    place = {name: number for number, name in enumerate(roster)}
    by_kind: dict[str, list[_Unit]] = {}
    for unit in units:
        by_kind.setdefault(unit.kind, []).append(unit)
    for kind, alike in by_kind.items():
        recipes = {unit.recipe for unit in alike if unit.recipe}
        if len(recipes) > FEW or (recipes and kind in together):
            yield _told(kind, tuple(sorted(recipes, key=lambda name: place.get(name, 0))), alike, lone=True)
            alike = [unit for unit in alike if not unit.recipe and not recipes]
        for unit in alike:
            yield _told(kind, (unit.recipe,) if unit.recipe else (), [unit], lone=False)


def _told(kind: str, recipes: tuple[str, ...], units: list[_Unit], *, lone: bool) -> Distinct:
    worst = min((unit.severity for unit in units), key=lambda one: ORDER.get(one, 1))
    said = tuple(one for unit in units for one in unit.said)
    name = f"{kind}-all" if lone else "-".join([kind, *recipes])
    safe = re.sub(r"[^a-z0-9.]+", "-", name.lower()).strip("-")[:100]
    return Distinct(safe or "finding", kind, worst, recipes, said)
