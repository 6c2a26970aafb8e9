"""The lag of a mirror: a notice within the grace period, drift after it, and since when it is behind."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from fixtures.clients.upstream import commits_since
from fixtures.errors import Refused
from fixtures.journal import memory
from fixtures.journal.reader import StoredJournal
from fixtures.mirrors import fixture as mirrors
from fixtures.mirrors import lag
from fixtures.mirrors.step import plan_step
from fixtures.rehearsal import histories
from fixtures.rehearsal.forge_embedded.store import Store
from fixtures.rehearsal.histories import Commit
from fixtures.rehearsal.settings import WorldSettings
from fixtures.run.outcome import Outcome
from fixtures.run.run import Run
from tests_meta.in_process_run import close_run
from tests_meta.rehearsal.ci_world import ORG, World, running
from tests_meta.verdicts.verdict_world import NIGHT, Nights, findings

MIDNIGHT = NIGHT - timedelta(minutes=13)  # by which a rehearsal counts the age of what was there before it
NAMES = ("level", "late", "fresh", "apart", "tagged", "moved", "future")
ROSTER = dict.fromkeys(NAMES)


def release(number: int, hours: float, *, tag: bool = True) -> Commit:
    at, name = MIDNIGHT - timedelta(hours=hours), f"{number}.0.0+{number}"
    return Commit("main", f"release {name}", at, {"compose.yml": name.encode()}, tag=name if tag else "")


FIRST = release(1, 1000)
UPSTREAM = {
    "level": [FIRST],
    "late": [FIRST, release(2, 30), release(3, 10)],
    "fresh": [FIRST, release(2, 5, tag=False)],
    "apart": [FIRST, release(2, 90)],
    "tagged": [FIRST, release(10, 3)],
    "moved": [FIRST, release(2, 500, tag=False)],
    "future": [FIRST, Commit("main", "from the future", datetime(2099, 1, 1, tzinfo=UTC), {"compose.yml": b"9"})],
}
# When upstream's forge last saw a push, in hours before the night.
PUSHED = {"level": 1000, "late": 30, "fresh": 5, "apart": 90, "tagged": 3, "moved": 40, "future": 30}
MIRRORS = {name: [FIRST] for name in NAMES} | {
    "apart": [FIRST, Commit("main", "our own", MIDNIGHT, {"own": b"1"})],
    "tagged": [FIRST, release(10, 3, tag=False)],
}


def prepare(settings: WorldSettings) -> None:
    Nights(settings, Path()).prepare()
    upstream, forge = Store(settings.upstream_dir), Store(settings.forge_dir)
    upstream.create_user("upstream-bot", id=2)
    upstream.create_org(settings.upstream_owner, owners=["upstream-bot"])
    for name in NAMES:
        histories.write(upstream.create_repo(settings.upstream_owner, name), UPSTREAM[name])
        upstream.note_pushed(settings.upstream_owner, name, at=MIDNIGHT - timedelta(hours=PUSHED[name]))
        histories.write(settings.forge_dir / "repos" / ORG / f"{name}.git", MIRRORS[name])
        forge.note_pushed(ORG, name)
    upstream.close()
    forge.close()


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    folder = tmp_path_factory.mktemp("behind") / "world"
    with running(folder, {name: {} for name in NAMES}, prepare=prepare) as started:
        yield started


def look(world: World, reports: Path, grace_h: int = 24) -> tuple[Run, dict[str, Outcome]]:
    """Phase 1 of a health check: the outcome of each mirror."""
    run, _ = Nights(world.settings, reports).look(ROSTER, keep_open=True, mirror_grace_h=grace_h)
    mirrors.measure_lags(run.context, run.surveys)
    outcomes = {
        r.name: mirrors.sync_mirror(run, plan_step(r, run.surveys.now)) for r in run.context.roster.recipes
    }
    for name in NAMES:
        mirrors.report_other_head(run.context, run.record, run.surveys, name)
    lag.report_releases(run.context, run.record, run.surveys)
    close_run(run)
    return run, outcomes


def test_lag_is_a_notice_within_the_grace_period_and_drift_after_it(world: World, tmp_path: Path) -> None:
    """The lag counts from upstream's last push; with a day of grace, 5 hours are a notice and 30 are drift."""
    run, outcomes = look(world, tmp_path)
    assert {name: outcome.state for name, outcome in outcomes.items()} == {
        "level": "unchanged",
        "late": "failed",
        "fresh": "unchanged",
        "apart": "failed",
        "tagged": "unchanged",
        "moved": "failed",
        "future": "failed",
    }
    found = findings(run)
    assert {name: found.get(f"mirror-behind-{name}") for name in NAMES} == {
        "level": None,
        "late": "action",
        "fresh": "info",
        "apart": None,
        "tagged": "info",
        "moved": "action",
        "future": "action",
    }
    assert run.record.planned == []


def test_drift_message_has_recipe_time_count_and_command(world: World, tmp_path: Path) -> None:
    """The message of a drift has the recipe, since when, how many commits, and the command to run."""
    _, outcomes = look(world, tmp_path)
    said = str(outcomes["late"].error)
    since = MIDNIGHT - timedelta(hours=30)
    # Upstream's time by our clock, whose offset is known to half a second: the minute before is right too.
    minutes = [since, since - timedelta(minutes=1)]
    behind = f"{ORG}/late is 2 commits and 2 tags behind upstream, since"
    assert any(f"{behind} {minute:%Y-%m-%d %H:%M} UTC" in said for minute in minutes), said
    assert f"(the oldest is dated {since:%Y-%m-%d})" in said
    assert "the site allows 24 h" in said
    assert "without --health" in said
    assert "1 tag behind" in outcomes["tagged"].message


def test_mirror_with_own_commits_is_diverged_without_grace(world: World, tmp_path: Path) -> None:
    """A mirror with commits of its own has no grace period, because an apply would not move it."""
    run, outcomes = look(world, tmp_path, grace_h=8760)
    assert findings(run)["mirror-apart"] == "action"
    assert "--force-sync apart" in str(outcomes["apart"].error)
    assert outcomes["late"].state == "unchanged"


def test_date_of_a_commit_is_shown_and_not_believed(world: World, tmp_path: Path) -> None:
    """A commit dated 2099 does not suspend the grace, and one dated months ago does not use it up."""
    run, outcomes = look(world, tmp_path)
    assert outcomes["future"].state == "failed"
    assert "dated 2099-01-01" in str(outcomes["future"].error)
    upstream = Store(world.settings.upstream_dir)
    repo = upstream.repo(world.settings.upstream_owner, "moved")
    upstream.repositories.change(repo, updated=int((MIDNIGHT - timedelta(hours=2)).timestamp()))
    run, outcomes = look(world, tmp_path)
    upstream.repositories.change(repo, updated=int((MIDNIGHT - timedelta(hours=PUSHED["moved"])).timestamp()))
    upstream.close()
    assert outcomes["moved"].state == "unchanged"
    since = run.surveys.lags["moved"].since
    assert since is not None
    assert abs(since - (MIDNIGHT - timedelta(hours=2))) < timedelta(seconds=5)


def record_night(world: World, reports: Path, at: datetime, name: str, *, level: bool) -> None:
    """Leave a record of a night that saw the mirror level or behind, written at `at`."""
    run, _ = Nights(world.settings, reports).look(ROSTER, at=at, keep_open=True)
    heads = {"mirror main": "a" * 40, "upstream main": ("a" if level else "b") * 40}
    run.record.journal.write(
        "roll", moment="final", recipes={name: {"mirrored": {"ok": level, "evidence": heads}}}
    )
    close_run(run)


def test_lag_does_not_start_before_the_last_run_that_saw_the_mirror_level(world: World, tmp_path: Path) -> None:
    """A push that upstream's forge dates before the last level record counts from that record."""
    _, before = look(world, tmp_path)
    assert before["moved"].state == "failed"
    record_night(world, tmp_path, NIGHT + timedelta(hours=1), "moved", level=True)
    run, after = look(world, tmp_path)
    assert after["moved"].state == "unchanged"
    assert run.surveys.lags["moved"].since is not None
    assert run.surveys.lags["moved"].since > MIDNIGHT


def test_later_pushes_do_not_restart_the_lag(tmp_path: Path) -> None:
    """The lag starts with the first record after the last level one that saw it; unreadable ones do not count."""

    def roll(hour: int, ok: bool | None, **evidence: str) -> StoredJournal:
        cell = {"mirrored": {"ok": ok, "evidence": evidence}}
        line = {"type": "roll", "at": f"2026-06-02T{hour:02}:00:00Z", "recipes": {"ghost": cell}}
        return StoredJournal(tmp_path, (line,), torn=False)

    behind = {"mirror main": "a" * 40, "upstream main": "b" * 40}
    level, later, first, unread = roll(1, True), roll(9, False, **behind), roll(3, False, **behind), roll(2, None)
    seen = memory.when_behind(iter([later, first, unread, level]), "ghost")
    assert seen.first_behind == datetime(2026, 6, 2, 3, tzinfo=UTC)
    assert seen.last_level == datetime(2026, 6, 2, 1, tzinfo=UTC)
    tolerated = roll(4, True, **behind, behind="1 commit behind, within the site's grace")
    assert memory.when_behind(iter([later, tolerated]), "ghost").first_behind == datetime(
        2026, 6, 2, 4, tzinfo=UTC
    )
    assert memory.when_behind(iter([level]), "ghost").first_behind is None


def test_upstream_whose_head_is_another_branch_is_reported(world: World, tmp_path: Path) -> None:
    """A mirror may be level with a main that upstream no longer works on: the finding names both branches."""
    run, outcomes = look(world, tmp_path)
    assert not [name for name in findings(run) if name.startswith("upstream-head-")]
    bare = world.settings.upstream_dir / "repos" / world.settings.upstream_owner / "level.git"
    git = ["git", "-C", str(bare)]
    subprocess.run([*git, "branch", "develop", "main"], check=True)
    subprocess.run([*git, "symbolic-ref", "HEAD", "refs/heads/develop"], check=True)
    run, outcomes = look(world, tmp_path)
    subprocess.run([*git, "symbolic-ref", "HEAD", "refs/heads/main"], check=True)
    assert outcomes["level"].state == "unchanged"
    (found,) = [finding for finding in run.record.findings if finding.id == "upstream-head-level"]
    assert "expected upstream's HEAD to be main, saw develop (at the same commit as main)" in found.what
    assert found.severity == "warning"


def test_missing_releases_are_reported(world: World, tmp_path: Path) -> None:
    """Releases are ordered by version number (10.0.0 after 9.0.0), and a commit without a tag is no release."""
    run, _ = look(world, tmp_path)
    releases = {f.id: f.what for f in run.record.findings if f.id.startswith("upstream-release-")}
    assert set(releases) == {"upstream-release-late", "upstream-release-apart", "upstream-release-tagged"}
    assert "10.0.0+10" in releases["upstream-release-tagged"]
    assert lag.latest_release(["9.0.0+1", "10.0.0+1", "latest"]) == "10.0.0+1"
    assert lag.latest_release(["latest", "main"]) is None


def test_lag_costs_two_requests_per_mirror_that_is_behind(world: World, tmp_path: Path) -> None:
    """A mirror that is level costs none; the extra requests are counted as news."""
    run, _ = look(world, tmp_path)
    assert run.context.for_news["upstream"] == 11
    assert run.context.request_counts()["upstream"] == len(NAMES)


def test_lag_without_upstreams_history_is_drift(world: World, tmp_path: Path) -> None:
    """Without upstream's history the lag is drift at once, and its message says that the start is unknown."""
    rules = world.settings.root / "forge-faults.json"
    rules.write_text('[{"listener": "upstream", "path": "^/api/", "action": "status:404"}]')
    try:
        _, outcomes = look(world, tmp_path)
    finally:
        rules.unlink()
    assert outcomes["fresh"].state == "failed"
    assert "since when is not known" in str(outcomes["fresh"].error)


def test_history_of_a_missing_repository_is_refused(world: World, tmp_path: Path) -> None:
    """A 404 for the list of commits raises `Refused`, which names the request."""
    run, _ = Nights(world.settings, tmp_path).look({}, keep_open=True)
    with pytest.raises(Refused, match="coop-cloud/nowhere"):
        commits_since(run.context.world.upstream, "coop-cloud/nowhere", head="main", known="x")
    close_run(run)
