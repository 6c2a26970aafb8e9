"""The comment bridge behaves as the real one, including its traps."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from fixtures.rehearsal.bridge.poller import parse_trigger
from fixtures.rehearsal.forge_embedded.store import Store
from fixtures.rehearsal.settings import WorldSettings
from tests_meta.rehearsal.ci_world import ORG, ROOT, World, git, running, until

BUILDS = f"/repos/{ORG}/cc-ci/builds"
CONTEXT = "cc-ci/testme"
RECIPES: dict[str, dict[str, str]] = {"uptime-kuma": {}, "mumble": {}, "crowded": {}}
CROWD = 55


@dataclass
class Bridge:
    """A running bridge; `lines` is what its log says so far."""

    process: subprocess.Popen[bytes]
    log: Path

    @property
    def lines(self) -> list[str]:
        return self.log.read_text().splitlines()

    def says(self, text: str) -> str:
        """Wait for a line that contains `text`."""
        return until(lambda: next((line for line in self.lines if text in line), None), what=f"log line {text!r}")


def environment(world: World, folder: Path, **changes: str) -> dict[str, str]:
    """The environment that the Swarm service gives the bridge."""
    settings = world.settings
    for name, token in (("gitea", settings.bridge_token), ("drone", settings.drone_token)):
        (folder / name).write_text(token + "\n")
    return {
        "PATH": os.environ["PATH"],
        "POLL_REPOS": ",".join(f"{ORG}/{name}" for name in ("cc-ci", *RECIPES)),
        "POLL_INTERVAL": "30",
        "CCCI_PACE": "0.005",
        "GITEA_URL": settings.forge_url,
        "GITEA_TOKEN_FILE": str(folder / "gitea"),
        "DRONE_URL": settings.ci_url,
        "DRONE_TOKEN_FILE": str(folder / "drone"),
        "DRONE_REPO": f"{ORG}/cc-ci",
        "CI_ORG_REPO": f"{ORG}/cc-ci",
        "STATUS_CONTEXT": CONTEXT,
        "DASHBOARD_URL": settings.dashboard_url,
        **changes,
    }


@contextmanager
def bridge(world: World, folder: Path, **changes: str) -> Iterator[Bridge]:
    """A bridge that has done its first poll."""
    log = folder / "bridge.log"
    with log.open("wb") as stream:
        process = subprocess.Popen(
            [sys.executable, "-m", "fixtures.rehearsal.bridge"],
            cwd=ROOT,
            env=environment(world, folder, **changes),
            stdout=stream,
            stderr=subprocess.STDOUT,
        )
    started = Bridge(process, log)
    try:
        started.says("first poll done")
        yield started
        assert process.poll() is None, log.read_text()
    finally:
        process.terminate()
        process.wait(timeout=15)


def crowd(settings: WorldSettings) -> None:
    """More open pull requests on one repository than a page holds."""
    store = Store(settings.forge_dir)
    bare = settings.forge_dir / "repos" / ORG / "crowded.git"
    sha = git(bare, "rev-parse", "refs/heads/change")
    refs = "".join(f"create refs/heads/change-{number} {sha}\n" for number in range(CROWD))
    git(bare, "update-ref", "--stdin", given=refs.encode())
    store.note_pushed(ORG, "crowded")
    for number in range(CROWD):
        store.create_pull(ORG, "crowded", head=f"change-{number}", title=f"Change {number}", author="alice")
    store.close()


@pytest.fixture(scope="module")
def idle(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """A world whose Drone takes builds and never runs one: for everything up to the trigger."""
    root = tmp_path_factory.mktemp("bridge") / "idle"
    with running(root, RECIPES, prepare=crowd, faults=("build-stuck-pending",)) as world:
        yield world


@pytest.fixture(scope="module")
def busy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """A world whose Drone runs builds."""
    with running(tmp_path_factory.mktemp("bridge") / "busy", RECIPES) as world:
        yield world


def comment(world: World, repo: str, body: str = "!testme", *, pull: int = 1, user: str = "") -> int:
    """Write a comment; its id."""
    answer = world.forge("POST", f"/repos/{ORG}/{repo}/issues/{pull}/comments", user=user, json={"body": body})
    assert answer.status_code == 201, answer.text
    return int(answer.json()["id"])


def builds_for(world: World, comment_id: int) -> list[dict[str, Any]]:
    """The builds that carry this comment's id."""
    builds = world.builds(per_page=100)
    return [build for build in builds if build.get("params", {}).get("COMMENT") == str(comment_id)]


def build_of(world: World, comment_id: int) -> dict[str, Any]:
    """The one build that this comment started."""
    [build] = until(lambda: builds_for(world, comment_id), what=f"a build for comment {comment_id}")
    return build


def verdicts(world: World, repo: str, sha: str) -> list[dict[str, Any]]:
    return [status for status in world.statuses(repo, sha) if status["context"] == CONTEXT]


# -- triggers -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ("!testme", (True, False)),
        ("!testme --quick", (True, True)),
        ("!testmexyz", (False, False)),
        ("!testme foo", (False, False)),
        (" !testme", (False, False)),
        ("!testme\n", (False, False)),
        ("please !testme", (False, False)),
        ("", (False, False)),
    ],
)
def test_grammar(body: str, expected: tuple[bool, bool]) -> None:
    """Exactly two comments are triggers, and nothing is trimmed."""
    assert parse_trigger(body) == expected


# -- log and ignored comments -------------------------------------------------------------------------------


def test_start_names_the_watched_set_and_idling_is_silent(idle: World, tmp_path: Path) -> None:
    """The log names every repository at the start and counts what was there; idle polls add nothing."""
    comment(idle, "mumble", "hello")
    with bridge(idle, tmp_path) as started:
        watched = [f"bridge: watching {ORG}/{name}" for name in ("cc-ci", *RECIPES)]
        assert started.lines[:-1] == ["bridge: watching all 4 repos", *watched]
        assert int(started.lines[-1].split()[-4]) >= 1
        before = polls(idle)
        until(lambda: polls(idle) >= before + 3, what="three more polls")
        assert len(started.lines) == len(watched) + 2


def polls(world: World) -> int:
    """How often the bridge has listed mumble's pull requests."""
    lines = (world.settings.logs_dir / "forge-requests.jsonl").read_text().splitlines()
    path = f"/api/v1/repos/{ORG}/mumble/pulls"
    return sum(1 for line in lines if json.loads(line)["path"] == path)


def test_first_poll_ignores_older_comments(idle: World, tmp_path: Path) -> None:
    """A !testme written while no bridge ran is never acted on, not even by the next bridge."""
    old = comment(idle, "uptime-kuma")
    with bridge(idle, tmp_path) as started:
        new = comment(idle, "uptime-kuma")
        build_of(idle, new)
        assert builds_for(idle, old) == []
        assert not any(f"comment {old} " in line for line in started.lines)


def test_unenrolled_closed_and_unrelated_are_ignored(idle: World, tmp_path: Path) -> None:
    """Nothing happens, and nothing is logged, for what is not polled, is closed, or is talk."""
    with bridge(idle, tmp_path, POLL_REPOS=f"{ORG}/uptime-kuma,{ORG}/crowded") as started:
        closed = f"/repos/{ORG}/crowded/pulls/3"
        assert idle.forge("PATCH", closed, json={"state": "closed"}).status_code == 201
        ignored = [
            comment(idle, "mumble"),
            comment(idle, "crowded", pull=3),
            comment(idle, "uptime-kuma", "!testmexyz"),
        ]
        build_of(idle, comment(idle, "uptime-kuma"))
        assert [builds_for(idle, each) for each in ignored] == [[], [], []]
        said = "\n".join(started.lines)
        assert not any(f"comment {each} " in said for each in ignored)
        assert verdicts(idle, "mumble", idle.head("mumble", "change")) == []


def test_strangers_are_refused_by_name(idle: World, tmp_path: Path) -> None:
    """A comment of somebody who is not a member starts nothing, and the log says whose it was and why."""
    with bridge(idle, tmp_path) as started:
        store = Store(idle.settings.forge_dir)
        refused = store.create_comment(ORG, "mumble", 1, author="mallory", body="!testme").id
        store.close()
        line = started.says(f"comment {refused} ")
        assert line == (f"bridge: ignored {ORG}/mumble#1 comment {refused} by mallory: not a member of {ORG}")
        build_of(idle, comment(idle, "mumble", user="alice"))
        assert builds_for(idle, refused) == []


# -- builds ------------------------------------------------------------------------------------------------


def test_trigger_carries_recipe_head_pull_and_comment(idle: World, tmp_path: Path) -> None:
    """A recipe's !testme builds cc-ci's main with the recipe, the head, the pull request and the comment."""
    with bridge(idle, tmp_path) as started:
        written = comment(idle, "mumble", "!testme --quick")
        build = build_of(idle, written)
        head = idle.head("mumble", "change")
        assert build["event"] == "custom"
        assert build["source"] == "main"
        assert build["params"] == {
            "RECIPE": "mumble",
            "REF": head,
            "PR": "1",
            "COMMENT": str(written),
            "CCCI_QUICK": "1",
        }
        assert started.says(f"comment {written} ") == (
            f"bridge: trigger {ORG}/mumble#1 comment {written} by {idle.settings.bot} -> build {build['number']}"
        )
        [pending] = until(lambda: verdicts(idle, "mumble", head)[:1], what="a status")
        assert pending["status"] == "pending"
        assert pending["creator"]["login"] == idle.settings.bot
        assert pending["target_url"] == f"{idle.settings.ci_url}/{ORG}/cc-ci/{build['number']}"


def test_every_open_pull_request_is_seen(idle: World, tmp_path: Path) -> None:
    """The oldest of more open pull requests than a page holds is watched like the newest."""
    with bridge(idle, tmp_path):
        for pull in (1, CROWD):
            assert build_of(idle, comment(idle, "crowded", pull=pull))["params"]["PR"] == str(pull)


def test_suite_proposal_builds_its_own_head(idle: World, tmp_path: Path) -> None:
    """On a pull request of cc-ci the changed suite is run from that head against the mirror's main."""
    head = idle.push("suite", {"tests/mumble/PARITY.md": "# Parity\n", "docs/x.md": "x\n"})
    pull = open_pull(idle, "suite")
    with bridge(idle, tmp_path):
        build = build_of(idle, comment(idle, "cc-ci", pull=pull))
        assert build["after"] == head
        assert build["source"] == "suite"
        assert (build["params"]["RECIPE"], build["params"]["REF"]) == ("mumble", idle.head("mumble"))
        until(lambda: verdicts(idle, "cc-ci", head), what="a status on the proposal's head")


@pytest.mark.parametrize(
    ("branch", "files", "count"),
    [
        ("docs", {"tests/conftest.py": "import pytest\n", "tests/unit/test_y.py": ""}, 0),
        ("two", {"tests/mumble/ops.py": "", "tests/ghost/ops.py": ""}, 2),
    ],
)
def test_proposal_that_is_not_of_one_suite(
    idle: World, tmp_path: Path, branch: str, files: dict[str, str | Path | None], count: int
) -> None:
    """A pull request of cc-ci that changes no suite, or several, is refused with the number of suites."""
    idle.push(branch, files)
    pull = open_pull(idle, branch)
    with bridge(idle, tmp_path) as started:
        written = comment(idle, "cc-ci", pull=pull)
        assert f"the suites of {count} recipes" in started.says(f"comment {written} ")
        assert builds_for(idle, written) == []


def open_pull(world: World, branch: str) -> int:
    """Open a pull request of cc-ci; its number."""
    body = {"head": branch, "base": "main", "title": branch}
    answer = world.forge("POST", f"/repos/{ORG}/cc-ci/pulls", json=body)
    assert answer.status_code == 201, answer.text
    return int(answer.json()["number"])


# -- reporting back -------------------------------------------------------------------------------------------


def test_verdict_is_a_status_and_one_comment_edited_in_place(busy: World, tmp_path: Path) -> None:
    """The verdict becomes a new status; a second run edits the same comment, whose creation time stays."""
    head = busy.head("uptime-kuma", "change")
    with bridge(busy, tmp_path) as started:
        first = build_of(busy, comment(busy, "uptime-kuma", user="alice"))
        started.says(f"build {first['number']} success")
        [before] = own_comments(busy)
        assert f"/{ORG}/cc-ci/{first['number']})" in before["body"]
        second = build_of(busy, comment(busy, "uptime-kuma"))
        started.says(f"build {second['number']} success")
        [after] = own_comments(busy)
        assert after["id"] == before["id"]
        assert after["created_at"] == before["created_at"]
        assert f"/{ORG}/cc-ci/{second['number']})" in after["body"]
        states = [
            (status["status"], status["target_url"].rsplit("/", 1)[1]) for status in oldest_first(busy, head)
        ]
        numbers = [str(build["number"]) for build in (first, first, second, second)]
        assert states == list(zip(["pending", "success"] * 2, numbers, strict=True))
        secret = busy.settings.bridge_token
        assert secret not in started.log.read_text()


def own_comments(world: World) -> list[dict[str, Any]]:
    found = world.forge("GET", f"/repos/{ORG}/uptime-kuma/issues/1/comments").json()
    return [each for each in found if "🌻" in each["body"]]


def oldest_first(world: World, sha: str) -> list[dict[str, Any]]:
    """The head's verdicts, oldest first."""
    return list(reversed(verdicts(world, "uptime-kuma", sha)))


def test_bridge_that_ends_forgets_its_builds(busy: World, tmp_path: Path) -> None:
    """A build whose bridge ended keeps its pending status for ever; the next bridge does not report it."""
    head = busy.head("mumble", "change")
    with bridge(busy, tmp_path):
        build = build_of(busy, comment(busy, "mumble"))
        until(lambda: verdicts(busy, "mumble", head), what="pending")
    assert busy.finished(build["number"])["status"] == "success"
    with bridge(busy, tmp_path):
        before = polls(busy)
        until(lambda: polls(busy) >= before + 2, what="two more polls")
        assert [status["status"] for status in verdicts(busy, "mumble", head)] == ["pending"]


# -- faults ---------------------------------------------------------------------------------------------------


def rules(world: World, part: str, *given: dict[str, Any]) -> Path:
    """Replace the file of rules whole, as the servers require."""
    file = world.settings.root / f"{part}-faults.json"
    draft = file.with_suffix(".new")
    draft.write_text(json.dumps(given))
    draft.replace(file)
    return file


@pytest.mark.parametrize("action", ["reset-after", "status:500", "truncate"])
def test_lost_trigger_answer_makes_no_second_build(idle: World, tmp_path: Path, action: str) -> None:
    """When the answer to a trigger is lost, the bridge finds the build it made, or makes the first one."""
    with bridge(idle, tmp_path) as started:
        rule = {"method": "POST", "path": "/builds$", "times": 1, "action": action}
        file = rules(idle, "ci", rule)
        written = comment(idle, "mumble")
        started.says("trying again")
        started.says(f"comment {written} by {idle.settings.bot} -> build")
        assert len(builds_for(idle, written)) == 1
        file.unlink()


def test_forge_errors_lose_no_comment(idle: World, tmp_path: Path) -> None:
    """Errors, half answers and resets of the forge cost time and a log line, and no comment is lost."""
    with bridge(idle, tmp_path) as started:
        path = f"/repos/{ORG}/mumble/(pulls|issues/1/comments)$"
        actions = ("status:500", "truncate", "reset", "status:429")
        file = rules(idle, "forge", *({"path": path, "times": 1, "action": action} for action in actions))
        written = comment(idle, "mumble", user="alice") if rules_are_spent(idle) else 0
        started.says("cannot poll")
        build_of(idle, written)
        started.says(f"{ORG}/mumble answers again")
        file.unlink()


def rules_are_spent(world: World) -> bool:
    """Wait until the bridge has used up the rules, so that they do not break the writing of the comment."""
    log = world.settings.logs_dir / "forge-requests.jsonl"

    def faults() -> int:
        return sum(1 for line in log.read_text().splitlines() if "fault" in json.loads(line))

    return bool(until(lambda: faults() >= 4, what="four broken answers"))


def test_null_from_drone_ends_the_job(tmp_path: Path) -> None:
    """When Drone answers null the bridge says so once and leaves no status behind."""
    with (
        running(tmp_path / "world", {"mumble": {}}, faults=("drone-returns-null",)) as world,
        bridge(world, tmp_path, POLL_REPOS=f"{ORG}/mumble") as started,
    ):
        comment(world, "mumble")
        started.says("Drone answered null")
        assert verdicts(world, "mumble", world.head("mumble", "change")) == []


def test_named_faults_of_the_bridge(idle: World, tmp_path: Path) -> None:
    """testme-ignored swallows a trigger in silence; stale-green shows an old green and never a new one."""
    head = idle.head("crowded", "change")
    with bridge(idle, tmp_path, CCCI_FAULTS="ignore-triggers") as started:
        lines = len(started.lines)
        ignored = comment(idle, "mumble")
        before = polls(idle)
        until(lambda: polls(idle) >= before + 3, what="three more polls")
        assert builds_for(idle, ignored) == []
        assert len(started.lines) == lines
    before_green = len(verdicts(idle, "crowded", head))
    with bridge(idle, tmp_path, CCCI_FAULTS="ignore-triggers,leave-stale-greens"):
        [green, *_] = until(lambda: verdicts(idle, "crowded", head), what="a green")
        assert green["status"] == "success"
        ignored = comment(idle, "crowded")
        before = polls(idle)
        until(lambda: polls(idle) >= before + 3, what="three more polls")
        assert builds_for(idle, ignored) == []
        assert len(verdicts(idle, "crowded", head)) == before_green + 1


def test_incomplete_environment_ends_it_at_once(idle: World, tmp_path: Path) -> None:
    """Without its settings the bridge ends with 2 and names what is missing."""
    given = environment(idle, tmp_path)
    del given["POLL_REPOS"]
    command = [sys.executable, "-m", "fixtures.rehearsal.bridge"]
    done = subprocess.run(command, cwd=ROOT, env=given, capture_output=True, text=True, timeout=30, check=False)
    assert (done.returncode, done.stderr) == (2, "bridge: POLL_REPOS is not set\n")
