"""Latest verdicts: read without triggering a build, classified against the roster and the records of earlier runs."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import replace
from datetime import date, timedelta
from pathlib import Path

import pytest

from fixtures.clients.drone import DroneReader
from fixtures.clients.drone_values import Build
from fixtures.config.roster import KnownRed
from fixtures.errors import Unreachable
from fixtures.journal.kinds import Answer
from fixtures.rehearsal.drone_embedded import model
from tests_meta.rehearsal.ci_world import ORG, World, commit_tree, git, running
from tests_meta.verdicts.verdict_world import NIGHT, Nights, Planted, findings, plant

FAIL = {"restore/test_restore.py::test_marker": "fail", "functional/test_front.py::test_front": "pass"}
LIMIT = "Error response from daemon: toomanyrequests: You have reached your pull rate limit.\n"
CRASH = "plausible_app.1  task: non-zero exit (1)  Failed 3 minutes ago\nconnection refused\n"
ALLOWED = KnownRed(reason="restore loses the table", until=date(2027, 6, 2))
ENDED = KnownRed(reason="restore loses the table", until=date(2026, 6, 1))
ROSTER: dict[str, KnownRed | None] = {
    "calm": None,
    "broken": None,
    "known": ALLOWED,
    "ended": ENDED,
    "mended": ALLOWED,
    "unstable": None,
    "limited": None,
    "lost": None,
    "ancient": None,
    "remembered": None,
    "untested": None,
    "running": None,
}
FIRST = {
    "calm": "green",
    "broken": "red-before",
    "known": "known-red",
    "ended": "expired",
    "mended": "fixed",
    "unstable": "flaky",
    "limited": "environmental",
    "lost": "environmental",
    "ancient": "too-old",
    "remembered": "unproven",
    "untested": "none",
    "running": "green",
}


def past(world: World) -> list[Planted]:
    main = {name: world.head(name) for name in ROSTER}
    change = world.head("known", "change")
    repositories = world.settings.forge_dir / "repos" / ORG
    # Commits that the forge still has, and that are no head any more.
    gone = unnamed_commit(repositories / "broken.git", {"compose.yml": "version: '3.7'\n"})
    older = git(repositories / "cc-ci.git", "rev-parse", "refs/heads/main")
    git(repositories / "cc-ci.git", "update-ref", "refs/heads/older", older)
    commit_tree(repositories / "cc-ci.git", "main", {"NOTES.md": "newer\n"}, parent=older)
    red = {"status": model.FAILURE, "tests": FAIL}
    return [
        Planted(number=200, recipe="calm", head=main["calm"], hours=5),
        Planted(number=190, recipe="calm", head=main["calm"], hours=90, status=model.FAILURE, suite=older),
        Planted(number=201, recipe="broken", head=gone, hours=6, log=CRASH, **red),  # type: ignore[arg-type]
        Planted(number=202, recipe="known", head=change, hours=7, **red),  # type: ignore[arg-type]
        Planted(number=203, recipe="ended", head=main["ended"], hours=8, **red),  # type: ignore[arg-type]
        Planted(number=204, recipe="mended", head=main["mended"], hours=9),
        Planted(number=205, recipe="unstable", head=main["unstable"], hours=30),
        Planted(number=206, recipe="unstable", head=main["unstable"], hours=20, **red),  # type: ignore[arg-type]
        Planted(number=207, recipe="limited", head=main["limited"], hours=2, status=model.FAILURE, log=LIMIT),
        Planted(number=199, recipe="limited", head=main["limited"], hours=40),
        Planted(
            number=208, recipe="lost", head=main["lost"], hours=3, status=model.ERROR, error="the runner was lost"
        ),
        Planted(number=209, recipe="ancient", head=main["ancient"], hours=24 * 20),
        Planted(number=210, recipe="running", head=main["running"], hours=50),
        Planted(number=211, recipe="running", head=main["running"], hours=0.1, status=model.RUNNING),
    ]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with running(tmp_path_factory.mktemp("verdicts") / "world", {name: {} for name in ROSTER}) as started:
        Nights(started.settings, Path()).prepare()
        plant(started.settings, past(started))
        # Of this one only a status is left: the Drone that built it is gone.
        report(started, "remembered", number=153)
        yield started


def unnamed_commit(bare: Path, files: dict[str, str]) -> str:
    """A commit on main's head that no ref names."""
    made = commit_tree(bare, "unnamed", {**files}, parent=git(bare, "rev-parse", "refs/heads/main"))
    git(bare, "update-ref", "-d", "refs/heads/unnamed")
    return made


def report(world: World, recipe: str, *, number: int, user: str = "", state: str = "success") -> None:
    body = {
        "state": state,
        "context": "cc-ci/testme",
        "target_url": f"{world.settings.ci_url}/{ORG}/cc-ci/{number}",
        "description": "level 4",
    }
    path = f"/repos/{ORG}/{recipe}/statuses/{world.head(recipe)}"
    who = {"user": user} if user else {}
    assert world.forge("POST", path, json=body, **who).status_code == 201


@pytest.fixture
def nights(world: World, tmp_path: Path) -> Nights:
    return Nights(world.settings, tmp_path)


def test_each_latest_verdict_gets_its_class(nights: Nights) -> None:
    """On the first night, a recipe that was red before it and is not in the roster is `red-before`, not `new-red`."""
    _, recipes = nights.look(ROSTER)
    assert {name: one.verdict_class for name, one in recipes.items()} == FIRST


def test_a_verdict_names_its_head_age_tests_and_suite(nights: Nights, world: World) -> None:
    """The head is main, an open pull request, or a commit that is no longer a head; the failed test is named."""
    _, recipes = nights.look(ROSTER)
    assert recipes["calm"].about == "the current main"
    assert recipes["known"].about == "open pull request #1"
    assert recipes["broken"].about == "a commit that is no longer a head"
    calm, broken = recipes["calm"].latest, recipes["broken"].latest
    assert calm is not None
    assert broken is not None
    assert calm.suite_commit == world.head("cc-ci")
    assert calm.tests == (("custom::functional/test_front.py::test_front", "passed"),)
    assert "custom::restore/test_restore.py::test_marker" in recipes["broken"].words
    assert recipes["broken"].age_s == pytest.approx(6 * 3600 - 13 * 60)
    assert "build 201 is failure" in recipes["broken"].words


def test_findings_have_stable_ids_and_severities(nights: Nights) -> None:
    """The id is class and recipe; infrastructure failures, flaky and old verdicts warn, failing classes need action."""
    first, _ = nights.look(ROSTER)
    second, _ = nights.look(ROSTER, at=NIGHT + timedelta(days=1))
    wanted = {
        "red-before-broken": "action",
        "expired-ended": "action",
        "fixed-mended": "action",
        "flaky-unstable": "warning",
        "environmental-limited": "warning",
        "environmental-lost": "warning",
        "unproven-remembered": "warning",
        "verdicts-too-old": "warning",
        "verdicts-missing": "info",
    }
    assert findings(first) == findings(second) == wanted
    by_id = {finding.id: finding for finding in first.record.findings}
    assert "pull limit" in by_id["environmental-limited"].what
    assert "remove" in by_id["fixed-mended"].do.lower()
    assert by_id["red-before-broken"].where.endswith("/cc-ci/201")


def test_a_night_without_news_makes_no_request_for_verdicts(nights: Nights) -> None:
    """Results and logs of a finished build, statuses, and heads without a status are read once and then recorded."""
    first, _ = nights.look(ROSTER)
    second, recipes = nights.look(ROSTER, at=NIGHT + timedelta(days=1))
    # 10 results; steps and log of 5 reds (the sixth build itself says that its runner was lost); a status with its
    # results; main and the open pull request of the recipe without a verdict; the list of builds to its end.
    # Of the commits that were tested, one is no head: a request.
    assert first.context.request_counts()["news"] == 10 + 2 * 5 + 2 + 2 + 2 + 1
    assert second.context.request_counts()["news"] == 0
    assert {name: one.verdict_class for name, one in recipes.items()} == FIRST
    assert recipes["limited"].latest
    assert recipes["limited"].latest.infrastructure_failure
    # The account, the builds, and a seventh of the remembered verdicts' evidence again.
    assert second.context.request_counts()["drone"] == 2 + 2


def test_a_red_after_the_first_look_is_new_until_it_is_green_or_in_the_roster(
    nights: Nights, world: World
) -> None:
    """It stays new every night, with its date; an infrastructure failure after it does not end that."""
    main = world.head("calm")
    roster: dict[str, KnownRed | None] = {"calm": None}
    kept = world.settings.ci_dir / "drone.sqlite"
    assert kept.exists()

    def night(day: int, *builds: Planted) -> str:
        if builds:
            plant(world.settings, builds)
        _, recipes = nights.look(roster, at=NIGHT + timedelta(days=day), verdict_age_d=3650)
        return f"{recipes['calm'].verdict_class} {recipes['calm'].since:%d}"

    assert night(0) == "green 01"
    red = Planted(
        number=300,
        recipe="calm",
        head=main,
        hours=-10,
        status=model.FAILURE,
        tests=FAIL,
        suite=world.head("cc-ci", "older"),
    )
    assert night(1, red) == "new-red 02"
    assert night(2) == "new-red 02"
    machine = Planted(number=301, recipe="calm", head=main, hours=-60, status=model.FAILURE, log=LIMIT, tests={})
    assert night(3, machine) == "new-red 02"
    roster["calm"] = ALLOWED
    assert night(4) == "environmental 04"
    roster["calm"] = None
    green = Planted(number=302, recipe="calm", head=main, hours=-110)
    assert night(5, green) == "green 06"


def test_an_infrastructure_failure_does_not_make_a_recipe_flaky(nights: Nights, world: World) -> None:
    """Red by the registry's limit, then green at the same commit and suite: that is not flaky."""
    main = world.head("limited")
    roster: dict[str, KnownRed | None] = {"limited": None}
    _, before = nights.look(roster)
    assert before["limited"].verdict_class == "environmental"
    plant(world.settings, [Planted(number=310, recipe="limited", head=main, hours=-2)])
    _, after = nights.look(roster, at=NIGHT + timedelta(days=1), verdict_age_d=3650)
    assert after["limited"].verdict_class == "green"


def test_a_status_counts_only_from_the_bridges_account(nights: Nights, world: World) -> None:
    """A status that somebody else wrote to the mirror is ignored."""
    report(world, "untested", number=400, user="alice")
    _, recipes = nights.look({"untested": None})
    assert recipes["untested"].verdict_class == "none"


def test_results_of_another_recipe_under_the_same_number_are_ignored(nights: Nights, world: World) -> None:
    """Numbers began anew when the server moved: the dashboard's run 153 belongs to another recipe."""
    folder = world.settings.ci_dir / "runs"
    shutil.copytree(folder / "200", folder / "153")
    _, recipes = nights.look({"remembered": None})
    assert recipes["remembered"].latest
    assert recipes["remembered"].latest.tests == ()


def test_results_that_cannot_be_read_are_reported_and_read_by_the_next_night(
    nights: Nights, world: World
) -> None:
    """The class follows from the build alone until then."""
    server = world.settings.ci_dir / "runs" / "204" / "results.json"
    kept = server.read_text()
    server.write_text("no json")
    roster: dict[str, KnownRed | None] = {"mended": None}
    first, recipes = nights.look(roster)
    assert recipes["mended"].verdict_class == "green"
    assert findings(first) == {"verdicts-unread": "warning"}
    server.write_text(kept)
    second, _ = nights.look(roster, at=NIGHT + timedelta(days=1))
    assert findings(second) == {}
    assert second.context.request_counts()["news"] == 1


def test_older_builds_are_searched_once_but_again_after_a_failure(
    nights: Nights, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A recipe without a build is remembered as searched for in vain, unless the older pages could not be read."""
    asked: list[int] = []
    read = DroneReader.builds

    def builds(self: DroneReader, *, pages: int = 1) -> Iterator[Build]:
        asked.append(pages)
        if pages > 1 and asked.count(pages) == 1:
            raise Unreachable("drone: the connection was lost.")
        return read(self, pages=pages)

    monkeypatch.setattr(DroneReader, "builds", builds)
    roster: dict[str, KnownRed | None] = {"untested": None}
    first, _ = nights.look(roster)
    assert findings(first).get("verdicts-unread") == "warning"
    assert asked[-1] > 1
    nights.look(roster, at=NIGHT + timedelta(days=1))
    assert asked[-1] > 1
    nights.look(roster, at=NIGHT + timedelta(days=2))
    assert asked[-1] == 1


def test_records_of_another_site_are_ignored(nights: Nights, world: World) -> None:
    """A record of the same site name with another host or forge does not count."""
    nights.look({"broken": None})
    site = world.settings.root / "site.toml"
    kept = site.read_text()
    site.write_text(kept.replace("0" * 32, "1" * 32))
    run, _ = nights.look({"broken": None}, at=NIGHT + timedelta(days=1))
    site.write_text(kept)
    # Its results, its steps and their log, and whether the mirror has its commit.
    assert run.context.request_counts()["news"] == 4


FOREIGN: dict[str, dict[str, object]] = {
    "not started by the bridge's account": {"sender": "mallory", "suite": "f" * 40},
    "of another branch of cc-ci": {"branch": "a-suite-of-mine"},
    "is no commit": {"head": "main"},
    "dated in the future": {"hours": -24 * 365 * 20},
    "is not in the history of": {"suite": "f" * 40},
    "does not have the commit": {"head": "f" * 40},
}


@pytest.mark.parametrize("why", FOREIGN)
def test_build_that_the_bridge_did_not_start_does_not_replace_a_verdict(
    nights: Nights, world: World, why: str
) -> None:
    """A red stays red whatever a stranger builds; the build is named, and one of the bridge counts (control)."""
    build: dict[str, object] = {"number": 500, "recipe": "broken", "head": world.head("broken"), "hours": 1}
    plant(world.settings, [Planted(**(build | FOREIGN[why]))])  # type: ignore[arg-type]
    run, recipes = nights.look({"broken": None})
    assert recipes["broken"].verdict_class == "red-before"
    (foreign,) = [one for one in run.record.findings if one.id == "foreign-build-broken"]
    assert why in foreign.what
    plant(world.settings, [Planted(**build)])  # type: ignore[arg-type]
    _, recipes = nights.look({"broken": None}, at=NIGHT + timedelta(days=1), verdict_age_d=3650)
    assert recipes["broken"].verdict_class == "green"
    plant(world.settings, [Planted(**(build | {"sender": "mallory"}))])  # type: ignore[arg-type]


def test_commit_of_ccci_off_its_branch_does_not_count(nights: Nights, world: World) -> None:
    """A commit that cc-ci has on no branch is not in its history; an older one of its branch is (control)."""
    bare = world.settings.forge_dir / "repos" / ORG / "cc-ci.git"
    build: dict[str, object] = {"number": 510, "recipe": "ended", "head": world.head("ended"), "hours": 1}
    for suite, counts in (
        (unnamed_commit(bare, {"tests/ended/x": ""}), False),
        (world.head("cc-ci", "older"), True),
    ):
        plant(world.settings, [Planted(**build, suite=suite)])  # type: ignore[arg-type]
        run, recipes = nights.look({"ended": None}, verdict_age_d=3650)
        latest = recipes["ended"].latest
        assert latest is not None
        assert (latest.build == 510) is counts
        assert ("foreign-build-ended" in findings(run)) is not counts


def test_commit_is_looked_up_once(nights: Nights, world: World) -> None:
    """What the forge said about a commit is in the record, whether it has it or not."""
    roster: dict[str, KnownRed | None] = {"lost": None}
    build = Planted(number=520, recipe="lost", head="e" * 40, hours=1)
    plant(world.settings, [build])
    first, _ = nights.look(roster)
    second, recipes = nights.look(roster, at=NIGHT + timedelta(days=1))
    assert "foreign-build-lost" in findings(first)
    assert "foreign-build-lost" in findings(second)
    assert recipes["lost"].latest
    assert recipes["lost"].latest.build == 208
    assert first.context.request_counts()["news"] > 0
    assert second.context.request_counts()["news"] == 0
    plant(world.settings, [replace(build, sender="mallory", hours=900)])


def test_green_that_its_results_contradict_is_no_green(nights: Nights, world: World) -> None:
    """The build says success and results.json says that a test failed: unproven, urgent, and tested first."""
    failed = {"functional/test_front.py::test_front": "fail"}
    plant(
        world.settings, [Planted(number=600, recipe="running", head=world.head("running"), hours=1, tests=failed)]
    )
    run, recipes = nights.look({"running": None})
    assert recipes["running"].verdict_class == "unproven"
    assert "tests failed in its results.json" in recipes["running"].words
    assert findings(run) == {"unproven-running": "action"}
    assert run.record.verdicts["running"].green is Answer.UNKNOWN


def test_changed_evidence_of_a_remembered_verdict_is_found_within_a_week(nights: Nights, world: World) -> None:
    """Without the host's digests, a few results are read again each night; a change is read anew and reported."""
    mended: dict[str, KnownRed | None] = {"mended": None}
    for day in range(2):
        run, recipes = nights.look(mended, at=NIGHT + timedelta(days=day), verdict_age_d=3650)
        assert recipes["mended"].verdict_class == "green"
    assert recipes["mended"].latest is not None
    results = world.settings.ci_dir / "runs" / str(recipes["mended"].latest.build) / "results.json"
    kept = results.read_text()
    results.write_text(kept.replace('"pass"', '"fail"'))
    seen = []
    for day in range(2, 9):
        run, recipes = nights.look(mended, at=NIGHT + timedelta(days=day), verdict_age_d=3650)
        seen.append((findings(run).get("evidence-changed-mended"), recipes["mended"].verdict_class))
    results.write_text(kept)
    assert ("action", "unproven") in seen
    assert seen[-1] == (None, "unproven")


@pytest.mark.parametrize(
    ("path", "stale"),
    [
        ("tests/mended/functional/test_front.py", True),
        ("tests/_generic/test_generic_install.py", True),
        ("runner/harness/http.py", True),
        (".drone.yml", True),
        ("tests/other/functional/test_front.py", False),
        ("README.md", False),
    ],
)
def test_green_of_an_older_suite_is_stale(nights: Nights, world: World, path: str, stale: bool) -> None:
    """A change of the suite, of what it shares, or of the pipeline makes a green stale the same night."""
    roster: dict[str, KnownRed | None] = {"ancient": None, "mended": None}
    _, before = nights.look(roster, verdict_age_d=3650)
    assert before["mended"].verdict_class == "green"
    bare, head = world.settings.forge_dir / "repos" / ORG / "cc-ci.git", world.head("cc-ci")
    commit_tree(bare, "main", {path: "# changed\n"}, parent=head)
    try:
        run, after = nights.look(roster, at=NIGHT + timedelta(days=1), verdict_age_d=3650)
    finally:
        git(bare, "update-ref", "refs/heads/main", head)
    assert after["mended"].verdict_class == ("stale" if stale else "green")
    assert (after["mended"].since == run.context.started) == stale
    assert (findings(run).get("stale-mended") == "warning") == stale
    assert (path in after["mended"].words) == stale
    assert run.context.request_counts()["news"] == 0


def test_green_from_before_its_suite_is_stale_and_no_contradiction(nights: Nights, world: World) -> None:
    """A suite that was added after the latest green was run by no build: tested first, and nothing fails."""
    bare, head = world.settings.forge_dir / "repos" / ORG / "cc-ci.git", world.head("cc-ci")
    files = {"recipe_meta.py": "", "functional/test_new.py": "def test_new(live_app):\n    assert live_app\n"}
    commit_tree(bare, "main", {f"tests/ancient/{path}": text for path, text in files.items()}, parent=head)
    roster: dict[str, KnownRed | None] = {"ancient": None}
    try:
        _, first = nights.look(roster, verdict_age_d=3650)
        _, second = nights.look(roster, at=NIGHT + timedelta(days=1), verdict_age_d=3650)
    finally:
        git(bare, "update-ref", "refs/heads/main", head)
    for night in (first, second):
        assert night["ancient"].verdict_class == "stale"
        assert "tests/ancient/functional/test_new.py" in night["ancient"].words


def test_green_of_another_head_is_stale(nights: Nights, world: World) -> None:
    """When the recipe's main moved on from the tested head, the green says nothing about it."""
    roster: dict[str, KnownRed | None] = {"mended": None}
    nights.look(roster, verdict_age_d=3650)
    bare, head = world.settings.forge_dir / "repos" / ORG / "mended.git", world.head("mended")
    commit_tree(bare, "main", {"compose.yml": "version: '3.9'\n"}, parent=head)
    try:
        _, after = nights.look(roster, at=NIGHT + timedelta(days=1), verdict_age_d=3650)
    finally:
        git(bare, "update-ref", "refs/heads/main", head)
    assert after["mended"].verdict_class == "stale"
    assert head[:10] in after["mended"].words
