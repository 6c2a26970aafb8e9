"""A forge and a Drone with a prepared past, and nights that only read it.

Builds are planted into Drone's own store in the form of its API, with logs and results.json beside them; statuses are
posted to the forge. A night is a `Run` that reads and classifies verdicts, and leaves a journal that the next night
reads. This world has no host, because nothing here needs one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

from fixtures.config.roster import KnownRed, Recipe, Roster
from fixtures.config.run_options import Mode
from fixtures.config.site import load_site
from fixtures.journal.memory import target_of
from fixtures.rehearsal.drone_embedded import model
from fixtures.rehearsal.drone_embedded import results as ci_results
from fixtures.rehearsal.drone_embedded.model import Build, Stage, Step
from fixtures.rehearsal.drone_embedded.results import StageResult, TestRow
from fixtures.rehearsal.drone_embedded.store import Store
from fixtures.rehearsal.settings import WorldSettings
from fixtures.rehearsal.site_file import SITE_FILE, write_site
from fixtures.run.run import Run
from fixtures.triggers.fixture import read_and_classify
from fixtures.verdicts.classes import RecipeVerdict
from tests_meta.in_process_run import close_run, open_run
from tests_meta.rehearsal.ci_world import ORG, git

NIGHT = datetime(2026, 6, 2, 0, 13, tzinfo=UTC)
TODAY = NIGHT.date()


@dataclass(frozen=True, kw_only=True)
class Planted:
    """One build of the past: hours before (or, negative, after) the first night, and what it left.

    `suite` is the commit of cc-ci; empty: its head at the time of planting.
    """

    number: int
    recipe: str
    head: str
    hours: float
    status: str = model.SUCCESS
    log: str = "recipe-ci: exit 1\n"
    error: str = ""
    suite: str = ""
    sender: str = ""
    branch: str = "main"
    tests: Mapping[str, str] = field(default_factory=lambda: {"functional/test_front.py::test_front": "pass"})


def plant(settings: WorldSettings, builds: Sequence[Planted]) -> None:
    """Write builds, logs and results where the embedded Drone and its dashboard keep them; it may be running."""
    store = Store(settings.ci_dir)
    for one in builds:
        store.save(_build(settings, one))
        for step, text in enumerate(("clone\n", one.log), 1):
            store.save_log(one.number, 1, step, [{"pos": 0, "out": text, "time": 0}])
        if one.tests:
            _record(settings, one)
    store.note("counter", str(max(store.counter, *(one.number for one in builds))))
    store.close()


def _build(settings: WorldSettings, one: Planted) -> Build:
    finished = int((NIGHT - timedelta(hours=one.hours)).timestamp())
    failed = one.status != model.SUCCESS
    steps = (
        Step(number=1, name="clone", status=model.SUCCESS, started=finished - 400, stopped=finished - 390),
        Step(number=2, name="recipe-ci", status=one.status, exit_code=int(failed), started=finished - 390,
             stopped=finished),
    )  # fmt: skip
    stage = Stage(number=1, name="recipe-ci", status=one.status, machine="nixos", steps=steps)
    return Build(
        number=one.number,
        event=model.EVENT_CUSTOM,
        after=one.suite or git(settings.forge_dir / "repos" / ORG / "cc-ci.git", "rev-parse", "refs/heads/main"),
        status=one.status,
        error=one.error,
        ref="refs/heads/main",
        source="main",
        sender=one.sender or settings.bot,
        target=one.branch,
        params={"RECIPE": one.recipe, "REF": one.head, "PR": "1"},
        created=finished - 402,
        started=0 if one.status == model.PENDING else finished - 400,
        finished=0 if one.status in model.NOT_DONE else finished,
        stages=(stage,),
    )


def _record(settings: WorldSettings, one: Planted) -> None:
    rows = tuple(TestRow(name, status) for name, status in one.tests.items())
    stage = StageResult("custom", "fail" if "fail" in one.tests.values() else "pass", rows)
    document = ci_results.document(
        build=_build(settings, one),
        recipe=one.recipe,
        version="1.0.0+1",
        stages=(stage,),
        clean_teardown=True,
        no_secret_leak=True,
    )
    ci_results.write(settings.ci_dir / "runs" / str(one.number) / "results.json", document)


@dataclass
class Nights:
    """Runs in one world, one after the other; each reads the records that the ones before it left in `reports`."""

    settings: WorldSettings
    reports: Path
    runs: list[Run] = field(default_factory=list)

    def prepare(self) -> None:
        """Write the site file; the world has no host, so its machine-id is made up."""
        (self.settings.host_dir / "etc").mkdir(parents=True)
        (self.settings.host_dir / "etc" / "machine-id").write_text("0" * 32 + "\n")
        write_site(self.settings)
        (self.settings.root / "secrets" / "id_ed25519").touch(mode=0o600)

    def look(
        self,
        recipes: Mapping[str, KnownRed | None],
        *,
        at: datetime = NIGHT,
        today: date = TODAY,
        keep_open: bool = False,
        **limits: float,
    ) -> tuple[Run, dict[str, RecipeVerdict]]:
        """One night: survey, read, classify; the record is closed as a finished run's, unless `keep_open`."""
        count = len(list(self.reports.glob("runs/*")))
        folder = self.reports / "runs" / f"{at:%Y%m%dT%H%M%S}{count:03d}Z-rehearsal-health"
        folder.mkdir(parents=True)
        site = load_site(self.settings.root / SITE_FILE)
        for name, value in limits.items():
            object.__setattr__(site.limits, name, value)
        roster = Roster(recipes=tuple(Recipe(name=n, upstream=n, known_red=red) for n, red in recipes.items()))
        run = open_run(site, roster, folder, mode=Mode.HEALTH, reports=self.reports, today=today, started=at)
        run.record.journal.write("run", run=folder.name, site=site.name, mode="health", target=target_of(site))
        self.runs.append(run)
        verdicts = read_and_classify(run.context, run.record, run.surveys, run.context.memory, {})
        if not keep_open:
            run.record.journal.write("end", exit=0, verdict="unchanged")
            close_run(run)
        return run, verdicts


def findings(run: Run) -> dict[str, str]:
    """Each finding's severity, by its id."""
    return {finding.id: finding.severity for finding in run.record.findings}
