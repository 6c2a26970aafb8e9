"""The main job, from outside: a plan, the migration, the same command again, a health check.

All four were run once, by a process of their own each, in one kept world (`tests_meta.reference_night`). What is
asserted here about the world was read without muster: by git in the bare repositories, HTTP, SQLite and /proc.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from threading import Timer
from typing import Any

import pytest

from fixtures.rehearsal.initial_state import night
from tests_meta.muster_runs import CONVERGED, ROOT, WorldPool, command, environment, processes_of
from tests_meta.reference_night import RecordedRun, ReferenceNight
from tests_meta.rehearsal.ci_world import until
from tests_meta.reports.statements import Finished, untrue_statements
from tests_meta.world_view import POLL_FILE, WorldView

RECIPES = night.RECIPES
ENDED = {"planned": 10, "applied": 0, "repeated": 0, "checked": 0}
CANARIES = ("ghost", "immich", "plausible")
SEEDED = 112  # the newest build that Drone had before the rehearsal


@pytest.fixture(scope="module")
def world_view(reference_night: ReferenceNight, world_pool: WorldPool) -> WorldView:
    """A look into the migrated world, which runs."""
    return WorldView(world_pool.untouched(CONVERGED).settings)


def bridge_lines(text: str) -> list[str]:
    return [line for line in text.splitlines() if "POLL_REPOS=" not in line]


@pytest.mark.parametrize("name", ENDED)
def test_each_run_ends_as_the_table_of_exits_says(reference_night: ReferenceNight, name: str) -> None:
    """`--plan` with changes pending ends with 10; apply, a second apply and `--health` end with 0."""
    getattr(reference_night, name).ran.demand(ENDED[name])


def test_the_verdicts_are_told_in_one_word(reference_night: ReferenceNight) -> None:
    """planned, converged, unchanged, unchanged; nobody can take a repetition for a migration."""
    chapters = (
        reference_night.planned,
        reference_night.applied,
        reference_night.repeated,
        reference_night.checked,
    )
    verdicts = [recorded_run.ran.summary["verdict"] for recorded_run in chapters]
    assert verdicts == ["planned", "converged", "unchanged", "unchanged"]


@pytest.mark.parametrize("name", ENDED)
def test_each_record_states_only_what_is_so(reference_night: ReferenceNight, name: str) -> None:
    """Each statement of report and summary agrees with the journal; faults and other endings: `test_faults`."""
    assert untrue_statements(Finished(getattr(reference_night, name).ran)) == []


@pytest.mark.parametrize("recipe", RECIPES)
def test_every_recipe_is_mirrored(reference_night: ReferenceNight, recipe: str) -> None:
    """Its mirror is there with upstream's main and every tag of upstream's."""
    mirror = reference_night.applied.world["forge"][recipe]
    upstream = reference_night.applied.world["upstream"][recipe]
    assert upstream["refs/heads/main"]
    wanted = {
        ref: sha for ref, sha in upstream.items() if ref == "refs/heads/main" or ref.startswith("refs/tags/")
    }
    assert {ref: mirror.get(ref) for ref in wanted} == wanted


@pytest.mark.parametrize("recipe", night.MIRROR_MISSING)
def test_a_created_mirror_holds_what_upstream_has_and_nothing_else(
    reference_night: ReferenceNight, recipe: str
) -> None:
    """It was missing before; now its refs are main and the tags, and no pull request was opened on it."""
    assert recipe not in reference_night.before["forge"]
    upstream = reference_night.applied.world["upstream"][recipe]
    assert reference_night.applied.world["forge"][recipe] == upstream
    assert not [ref for ref in upstream if not ref.startswith(("refs/tags/", "refs/heads/main"))]


def test_every_mirror_is_private_and_its_default_branch_is_main(world_view: WorldView) -> None:
    """Nobody without a token sees one; HEAD of the bare repository and the API both say main."""
    for recipe in RECIPES:
        assert world_view.git(recipe, "symbolic-ref", "HEAD") == "refs/heads/main"
        status, repository = world_view.api(f"/repos/{world_view.settings.org}/{recipe}")
        assert (status, repository["private"], repository["empty"]) == (200, True, False)
        assert repository["default_branch"] == "main"
        assert world_view.api(f"/repos/{world_view.settings.org}/{recipe}", token="")[0] == 404


def test_upstream_was_only_read(reference_night: ReferenceNight) -> None:
    """Not one ref of the upstream forge moved."""
    assert reference_night.before["upstream"]
    assert reference_night.applied.world["upstream"] == reference_night.before["upstream"]


def test_open_pull_requests_are_open_with_the_same_head(
    reference_night: ReferenceNight, world_view: WorldView
) -> None:
    """bluesky-pds #1, ghost #1 and #2, hedgedoc #1: a sync of their mirror leaves them alone."""
    for pull in night.PULLS:
        pulls = {
            name: refs for name, refs in reference_night.before["forge"][pull.recipe].items() if "/pull/" in name
        }
        assert pulls
        after = reference_night.applied.world["forge"][pull.recipe]
        assert {name: after[name] for name in pulls} == pulls
        _, found = world_view.api(f"/repos/{world_view.settings.org}/{pull.recipe}/pulls?state=open")
        assert pull.title in [item["title"] for item in found]


def test_nothing_of_a_scratch_pull_request_is_left(reference_night: ReferenceNight) -> None:
    """Every branch of every mirror is upstream's main or was there before."""
    for recipe in RECIPES:
        branches = {
            ref for ref in reference_night.applied.world["forge"][recipe] if ref.startswith("refs/heads/")
        }
        before = {ref for ref in reference_night.before["forge"].get(recipe, {}) if ref.startswith("refs/heads/")}
        assert branches - before <= {"refs/heads/main"}


def test_no_trigger_comment_is_left(reference_night: ReferenceNight) -> None:
    """The comments that asked for verdicts are gone; the bridge's own answers stay."""
    bodies = [body for _, body, _ in reference_night.applied.world["discussions"]["comments"]]
    assert bodies, "the bridge answered nobody: this test would see nothing"
    assert "!testme" not in bodies


@pytest.mark.parametrize("recipe", RECIPES)
def test_every_recipe_is_covered(world_view: WorldView, recipe: str) -> None:
    """cc-ci's main holds tests/<recipe>/ with recipe_meta.py and tests of its own."""
    files = world_view.git("cc-ci", "ls-tree", "-r", "--name-only", "main", f"tests/{recipe}/").splitlines()
    assert f"tests/{recipe}/recipe_meta.py" in files
    assert [name for name in files if "/functional/test_" in name]


def test_the_suite_for_hedgedoc_came_as_one_pull_request_of_one_commit(
    reference_night: ReferenceNight, world_view: WorldView
) -> None:
    """cc-ci #1: one commit that adds only tests/hedgedoc/, merged at the head that was proven; its branch is gone."""
    _, pull = world_view.api(f"/repos/{world_view.settings.org}/cc-ci/pulls/1")
    assert (pull["merged"], pull["state"]) == (True, "closed")
    head = pull["head"]["sha"]
    base = reference_night.before["forge"]["cc-ci"]["refs/heads/main"]
    assert world_view.git("cc-ci", "rev-list", "--count", f"{base}..{head}") == "1"
    changed = world_view.git("cc-ci", "diff", "--name-status", base, head).splitlines()
    assert changed
    assert all(line.startswith("A\ttests/hedgedoc/") for line in changed)
    assert world_view.git("cc-ci", "merge-base", "--is-ancestor", head, "main") == ""
    assert "refs/heads/muster/suite-hedgedoc" not in reference_night.applied.world["forge"]["cc-ci"]


def test_the_suite_for_hedgedoc_was_proven_by_a_build_of_its_own_head(world_view: WorldView) -> None:
    """A custom build of RECIPE=hedgedoc at the proposed commit is green, and it is younger than the proposal."""
    _, pull = world_view.api(f"/repos/{world_view.settings.org}/cc-ci/pulls/1")
    builds = [build for build in world_view.builds() if build["after"] == pull["head"]["sha"]]
    proof = [build for build in builds if build["event"] == "custom"]
    assert [(build["params"]["RECIPE"], build["status"]) for build in proof] == [("hedgedoc", "success")]
    committed = int(world_view.git("cc-ci", "log", "-1", "--format=%ct", pull["head"]["sha"]))
    assert proof[0]["created"] >= committed


def test_the_poll_set_is_ccci_and_all_recipes_in_append_order(
    reference_night: ReferenceNight, world_view: WorldView
) -> None:
    """What stood there stands first and as it stood; the nine newly enrolled follow in the roster's order."""
    org = world_view.settings.org
    before = world_view.poll_set(reference_night.before["forge"]["cc-ci"]["refs/heads/main"])
    after = world_view.poll_set()
    assert before == [f"{org}/{name}" for name in ("cc-ci", *night.POLLED)]
    assert after == [*before, *(f"{org}/{name}" for name in night.NOT_POLLED)]
    assert len(after) == 20


def test_enrollment_is_one_commit_that_changes_one_value(
    reference_night: ReferenceNight, world_view: WorldView
) -> None:
    """Beside the merged suite, main has one new commit; it touches one line of bridge.nix."""
    base = reference_night.before["forge"]["cc-ci"]["refs/heads/main"]
    _, pull = world_view.api(f"/repos/{world_view.settings.org}/cc-ci/pulls/1")
    assert world_view.git("cc-ci", "rev-list", "--first-parent", "--count", f"{base}..main") == "2"
    files = world_view.git("cc-ci", "diff", "--name-only", pull["merge_commit_sha"], "main").splitlines()
    assert files == [POLL_FILE]
    old, new = (world_view.git("cc-ci", "show", f"{commit}:{POLL_FILE}") for commit in (base, "main"))
    assert bridge_lines(old) == bridge_lines(new)
    assert len(old.splitlines()) == len(new.splitlines()) == len(bridge_lines(old)) + 1


def test_the_running_bridge_polls_all_twenty(world_view: WorldView) -> None:
    """In the environment of the bridge's process, not only in git."""
    assert world_view.running_poll_set() == world_view.poll_set()
    assert len(set(world_view.running_poll_set())) == 20


def test_the_host_runs_and_boots_a_new_generation_of_the_committed_head(reference_night: ReferenceNight) -> None:
    """The checkout is cc-ci's main; the running system is the profile's newest generation, one above the last."""
    before, after = reference_night.before["host"], reference_night.applied.world["host"]
    assert after["checkout"] == reference_night.applied.world["forge"]["cc-ci"]["refs/heads/main"]
    assert after["running"] == after["boots"] != before["running"]
    assert (before["generation"], after["generation"]) == ("system-42-link", "system-43-link")
    assert after["alerts"] == before["alerts"] != ""


@pytest.mark.parametrize("canary", CANARIES)
def test_each_canary_was_built_and_answered(
    reference_night: ReferenceNight, world_view: WorldView, canary: str
) -> None:
    """A custom build of it ran to its end, and its outcome stands as cc-ci/testme on the commit it built."""
    builds = [b for b in world_view.builds() if b["event"] == "custom" and b["params"].get("RECIPE") == canary]
    assert [build["status"] for build in builds] == ["failure"], "known red, as on that night"
    head = builds[0]["params"]["REF"]
    _, statuses = world_view.api(f"/repos/{world_view.settings.org}/{canary}/statuses/{head}")
    mine = [
        s
        for s in statuses
        if s["context"] == "cc-ci/testme" and s["target_url"].endswith(f"/{builds[0]['number']}")
    ]
    assert "failure" in [status["status"] for status in mine]
    assert {status["creator"]["login"] for status in mine} == {world_view.settings.bot}
    recorded = reference_night.applied.ran.summary["recipes"][canary]
    assert (recorded["triggerable"], recorded["green"], recorded["build"]) == (
        True,
        False,
        builds[0]["number"],
    )


def test_the_summary_counts_what_the_world_holds(reference_night: ReferenceNight) -> None:
    """19 of 19 mirrored, covered and polled; every recipe has its row; nothing to do is left."""
    summary = reference_night.applied.ran.summary
    assert [summary[key] for key in ("expected", "mirrored", "covered", "polled")] == [19] * 4
    assert list(summary["recipes"]) == list(RECIPES)
    assert summary["regressions"] == summary["planned"] == []
    answered = [name for name, cells in summary["recipes"].items() if cells["triggerable"]]
    assert summary["triggered"] == answered
    assert set(CANARIES) | {"hedgedoc"} < set(answered) < set(RECIPES)
    assert [phase["phase"] for phase in summary["phases"]] == list(range(7))
    assert all(phase["passed"] and not phase["failed"] and not phase["skipped"] for phase in summary["phases"])


def test_every_write_that_the_forge_saw_stands_in_the_record(reference_night: ReferenceNight) -> None:
    """Created repositories, commits, merges and comments: as many requests as changes of that kind."""
    kinds = [change["kind"] for change in reference_night.applied.ran.summary["changes"]]
    created = [
        w for w in reference_night.applied.writes if w.startswith("POST /api/v1/orgs/") and "-muster-" not in w
    ]
    assert len(created) == kinds.count("create-mirror") == 3
    comments = [
        w
        for w in reference_night.applied.writes
        if w.startswith("POST") and w.endswith("/comments") and "-muster-" not in w
    ]
    assert len(comments) == kinds.count("testme-comment") == 4
    commits = [
        w for w in reference_night.applied.writes if w.startswith("POST") and w.endswith("/cc-ci/contents")
    ]
    assert len(commits) == kinds.count("propose-suite") + kinds.count("enroll") == 2
    assert (
        len([w for w in reference_night.applied.writes if w.endswith("/merge")])
        == kinds.count("merge-suite")
        == 1
    )


def test_the_record_is_a_chain(reference_night: ReferenceNight) -> None:
    """Each line's hash is that of its text and of the line before; recomputed here from the file's bytes."""
    previous = "0" * 64
    for line in reference_night.applied.ran.lines:
        body = {key: value for key, value in line.items() if key != "hash"}
        digest = hashlib.sha256(json.dumps(body, ensure_ascii=False, sort_keys=True).encode()).hexdigest()
        assert (line["prev"], line["hash"]) == (previous, digest)
        previous = line["hash"]
    assert reference_night.applied.ran.lines[-1]["type"] == "end"


def test_every_change_was_recorded_before_it_was_made(reference_night: ReferenceNight) -> None:
    """Each has an intent, then an outcome, and how to undo it by hand."""
    lines = reference_night.applied.ran.lines
    intents = {line["change"]: line for line in lines if line["type"] == "intent"}
    outcomes = {line["change"]: line for line in lines if line["type"] == "outcome"}
    assert set(intents) == set(outcomes) == set(range(1, len(intents) + 1))
    for number, intent in intents.items():
        assert intent["seq"] < outcomes[number]["seq"]
        assert outcomes[number]["result"] == "done"
        assert intent["by_hand"]


def test_the_record_says_what_it_cost_to_be_safe(reference_night: ReferenceNight) -> None:
    """Seconds of the lock, the journal, the dead-man and the comparison; a run that changes nothing has no dead-man."""
    (applied,), (repeated,) = (
        told.ran.of("cost") for told in (reference_night.applied, reference_night.repeated)
    )
    for name in ("journal_s", "lock_s", "dead_man_s", "comparison_s"):
        assert applied[name] > 0
    assert (repeated["dead_man_s"], repeated["comparison_s"]) == (0, 0)
    assert sum(value for name, value in applied.items() if name.endswith("_s")) < applied["t"]


def test_waits_can_be_watched(reference_night: ReferenceNight) -> None:
    """For each push, switch and build: what for, how long, and how long at most."""
    waits = reference_night.applied.ran.of("wait")
    said = " / ".join(wait["what"] for wait in waits)
    for words in (
        "to show main",
        "the switch on",
        "the new bridge",
        "a build of ghost",
        "the verdict of build",
    ):
        assert words in said
    assert all(wait["result"] == "reached" and wait["seconds"] <= wait["limit_s"] for wait in waits)
    long = [wait for wait in waits if wait["seconds"] >= 1]
    assert len(re.findall(r"^  waited [\d.]+ s for ", reference_night.applied.ran.output, re.M)) == len(long) > 0


def test_it_says_rehearsal_where_nobody_can_overlook_it(reference_night: ReferenceNight) -> None:
    """In the header, in the last line, in the report and in the summary."""
    output, folder = reference_night.applied.ran.output, reference_night.applied.ran.folder
    assert folder is not None
    assert "REHEARSAL" in output[: output.index("collected")]
    assert "REHEARSAL" in output[output.index("mirrored 19/19") :]
    assert "REHEARSAL" in (folder / "report.html").read_text()
    assert reference_night.applied.ran.summary["rehearsal"] is True


def test_no_secret_is_in_anything_that_was_written_or_said(reference_night: ReferenceNight) -> None:
    """Neither tokens nor the ssh key; and the same search finds each of them where it belongs."""
    settings = reference_night.settings
    key = (settings.secrets_dir / "id_ed25519").read_text().splitlines()[2]
    names = ("operator_token", "bridge_token", "drone_forge_token", "checkout_token", "drone_token")
    secrets = [getattr(settings, name).encode() for name in names] + [key.encode()]

    def found_in(data: bytes) -> list[bytes]:
        return [secret for secret in secrets if secret in data]

    homes = b"".join(
        path.read_bytes() for path in (settings.root / "world.json", settings.secrets_dir / "id_ed25519")
    )
    assert found_in(homes) == secrets, "the search finds nothing: this test would see nothing"
    for recorded_run in (
        reference_night.planned,
        reference_night.applied,
        reference_night.repeated,
        reference_night.checked,
    ):
        assert found_in(recorded_run.ran.output.encode()) == []
        assert recorded_run.ran.folder is not None
        files = [path for path in recorded_run.ran.folder.rglob("*") if path.is_file()]
        assert len(files) >= 4
        assert [path for path in files if found_in(path.read_bytes())] == []


def test_a_plan_foretells_what_apply_then_does(reference_night: ReferenceNight) -> None:
    """It writes nothing, and names the mirrors, the suite, the enrollment, the switch and the triggers."""
    planned = reference_night.planned.ran.summary["planned"]
    steps = {(step["kind"], step["target"]) for step in planned}
    org = reference_night.settings.org
    assert {(kind, f"{org}/{name}") for kind, names in (("create", night.MIRROR_MISSING), ("sync", night.BEHIND))
            for name in names} <= steps  # fmt: skip
    assert {kind for kind, _ in steps} >= {"propose-suite", "enroll", "sync-checkout", "switch", "trigger"}
    assert reference_night.planned.ran.summary["changes"] == []


@pytest.mark.parametrize("name", ["planned", "checked"])
def test_a_mode_that_only_reads_changed_nothing(reference_night: ReferenceNight, name: str) -> None:
    """Repositories, talk, upstream and host are what they were, and the forge saw no write of muster's."""
    before = {"planned": reference_night.before, "checked": reference_night.repeated.world}[name]
    recorded_run: RecordedRun = getattr(reference_night, name)
    assert recorded_run.world == before
    assert recorded_run.writes == []
    assert reference_night.applied.writes, "the forge's log shows no writes at all: this test would see nothing"


def test_the_second_run_changes_nothing_and_asks_nobody(
    reference_night: ReferenceNight, world_view: WorldView
) -> None:
    """No change in its record, the world as the first run left it, and no request but the questions about scopes."""
    assert reference_night.repeated.ran.summary["changes"] == []
    assert reference_night.repeated.ran.of("intent") == []
    assert reference_night.repeated.world == reference_night.applied.world
    assert [write for write in reference_night.repeated.writes if "-muster-scope-probe" not in write] == []
    assert (
        len([build for build in world_view.builds() if build["event"] == "custom" and build["number"] > SEEDED])
        == 4
    )


def test_the_second_run_checks_as_much_as_the_first(reference_night: ReferenceNight) -> None:
    """What has to be so is asserted whether or not something had to be done for it."""
    first, second = (
        len(recorded_run.ran.titles("passed"))
        for recorded_run in (reference_night.applied, reference_night.repeated)
    )
    assert first == second > 300


def test_a_health_check_stays_within_its_budget(reference_night: ReferenceNight) -> None:
    """2R+12 requests, two sessions (the second watches the bridge) over one connection; news is counted apart."""
    made = reference_night.checked.ran.summary["requests"]
    assert 0 < made["forge"] + made["upstream"] + made["drone"] <= 2 * len(RECIPES) + 12
    assert (made["host_sessions"], made["host_connections"]) == (2, 1)


@pytest.fixture
def temporary(tmp_path: Path) -> Iterator[Path]:
    """A folder for temporary files of a run, short enough for a socket's path."""
    with tempfile.TemporaryDirectory(prefix="m-") as folder:
        yield Path(folder)


def test_a_killed_run_leaves_no_process_and_no_world(temporary: Path, tmp_path: Path) -> None:
    """kill -9 in the middle of the migration: the world's processes end and its folder goes, without us."""
    run = subprocess.Popen(
        command("phases/", "--reports", str(tmp_path / "reports"), "-o", f"cache_dir={tmp_path}"),
        cwd=ROOT,
        env=environment(TMPDIR=str(temporary)),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert run.stdout is not None
    late = Timer(120, run.kill)
    late.start()
    for line in run.stdout:
        if "test_1_mirrors" in line:
            break
    late.cancel()
    world = next(temporary.glob("muster-world-*"))
    assert len(processes_of(str(world))) >= 4, "the world does not run: this test would see nothing"
    os.kill(run.pid, signal.SIGKILL)
    run.wait()
    run.stdout.close()
    until(lambda: not world.exists(), what="the world's folder gone")
    until(lambda: not processes_of(str(world)), what="the world's processes gone")
    journals = list((tmp_path / "reports" / "runs").glob("*/journal.jsonl"))
    kinds: list[Any] = [json.loads(line)["type"] for line in journals[0].read_text().splitlines()]
    assert "run" in kinds
    assert "end" not in kinds
