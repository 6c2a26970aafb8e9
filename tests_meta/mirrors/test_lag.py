"""A mirror behind upstream: a notice within the site's grace, drift after it, and since when in words."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from fixtures.clients.upstream import commits_since
from fixtures.errors import Unreachable
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
NAMES = ("level", "late", "fresh", "apart", "tagged", "moved")
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
}
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
        upstream.note_pushed(settings.upstream_owner, name)
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
    """A health check's look at the mirrors, up to what phase 1 says of each."""
    run, _ = Nights(world.settings, reports).look(ROSTER, keep_open=True, mirror_grace_h=grace_h)
    mirrors.measure_lags(run.context, run.surveys)
    outcomes = {
        r.name: mirrors.sync_mirror(run, plan_step(r, run.surveys.now)) for r in run.context.roster.recipes
    }
    lag.report_releases(run.context, run.record, run.surveys)
    close_run(run)
    return run, outcomes


def test_behind_for_less_than_the_grace_is_a_notice_and_for_longer_is_drift(world: World, tmp_path: Path) -> None:
    """Counted from the oldest missing commit: 5 hours are within a day, 30 are not."""
    run, outcomes = look(world, tmp_path)
    assert {name: outcome.state for name, outcome in outcomes.items()} == {
        "level": "unchanged",
        "late": "failed",
        "fresh": "unchanged",
        "apart": "failed",
        "tagged": "unchanged",
        "moved": "failed",
    }
    told = findings(run)
    assert {name: told.get(f"mirror-behind-{name}") for name in NAMES} == {
        "level": None,
        "late": "action",
        "fresh": "info",
        "apart": None,
        "tagged": "info",
        "moved": "action",
    }
    assert run.record.planned == []


def test_drift_says_which_recipe_since_when_how_much_and_what_to_run(world: World, tmp_path: Path) -> None:
    """In words that need no looking up."""
    _, outcomes = look(world, tmp_path)
    said = str(outcomes["late"].error)
    since = MIDNIGHT - timedelta(hours=30)
    assert f"{ORG}/late is 2 commits and 2 tags behind upstream, since {since:%Y-%m-%d %H:%M} UTC" in said
    assert "the site allows 24 h" in said
    assert "without --health" in said
    assert "1 tag behind" in outcomes["tagged"].message


def test_a_mirror_with_commits_of_its_own_is_apart_at_once(world: World, tmp_path: Path) -> None:
    """No grace: somebody's commits stand there, and an apply would not move it either."""
    run, outcomes = look(world, tmp_path, grace_h=8760)
    assert findings(run)["mirror-apart"] == "action"
    assert "--force-sync apart" in str(outcomes["apart"].error)
    assert outcomes["late"].state == "unchanged"


def test_a_commit_that_was_made_long_before_it_was_pushed_counts_from_when_the_mirror_was_level(
    world: World, tmp_path: Path
) -> None:
    """A record saw the mirror where upstream was; it cannot have been behind before that."""
    _, before = look(world, tmp_path)
    assert before["moved"].state == "failed"
    run, _ = Nights(world.settings, tmp_path).look(ROSTER, at=NIGHT + timedelta(hours=1), keep_open=True)
    level = {name: {"mirrored": {"ok": True, "evidence": {}}} for name in NAMES}
    run.record.journal.write("roll", moment="final", recipes=level)
    close_run(run)
    run, after = look(world, tmp_path)
    assert after["moved"].state == "unchanged"
    assert run.surveys.lags["moved"].since is not None
    assert run.surveys.lags["moved"].since > MIDNIGHT


def test_releases_that_the_mirror_does_not_know_are_reported(world: World, tmp_path: Path) -> None:
    """Versions are compared by number: 10.0.0 is newer than 9.0.0, and a commit without a tag is no release."""
    run, _ = look(world, tmp_path)
    told = {f.id: f.what for f in run.record.findings if f.id.startswith("upstream-release-")}
    assert set(told) == {"upstream-release-late", "upstream-release-apart", "upstream-release-tagged"}
    assert "10.0.0+10" in told["upstream-release-tagged"]
    assert lag.latest_release(["9.0.0+1", "10.0.0+1", "latest"]) == "10.0.0+1"
    assert lag.latest_release(["latest", "main"]) is None


def test_it_costs_one_request_for_each_mirror_that_is_not_level_and_none_for_the_others(
    world: World, tmp_path: Path
) -> None:
    """And they are counted apart, as what a night without news does not make."""
    run, _ = look(world, tmp_path)
    assert run.context.for_news["upstream"] == 5
    assert run.context.request_counts()["upstream"] == len(NAMES)


def test_upstream_that_does_not_tell_its_history_leaves_nobody_to_vouch_for_the_grace(
    world: World, tmp_path: Path
) -> None:
    """Then it is drift, and the words say that since when is not known."""
    rules = world.settings.root / "forge-faults.json"
    rules.write_text('[{"listener": "upstream", "path": "^/api/", "action": "status:404"}]')
    try:
        _, outcomes = look(world, tmp_path)
    finally:
        rules.unlink()
    assert outcomes["fresh"].state == "failed"
    assert "since when is not known" in str(outcomes["fresh"].error)


def test_a_history_that_is_not_a_list_of_commits_is_no_answer(world: World, tmp_path: Path) -> None:
    """A forge of another kind answers 200 with something else."""
    run, _ = Nights(world.settings, tmp_path).look({}, keep_open=True)
    with pytest.raises(Unreachable):
        commits_since(run.context.world.upstream, "coop-cloud/nowhere", head="main", known="x")
    close_run(run)
