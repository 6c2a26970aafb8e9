"""The embedded Drone answers as Drone 2.25 does: access, lists, how builds are made and ended."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from fixtures.rehearsal.drone_embedded import pipelines
from fixtures.rehearsal.drone_embedded.model import Build
from fixtures.rehearsal.drone_embedded.store import Store
from fixtures.rehearsal.settings import WorldSettings
from tests_meta.rehearsal.ci_world import (
    NO_SUCH_COMMIT,
    ORG,
    PACKAGE,
    World,
    functional_tests,
    running,
    until,
)

BUILDS = f"/repos/{ORG}/cc-ci/builds"
BUILD_KEYS = """
    id repo_id trigger number status event action link timestamp message before after ref source_repo source
    target author_login author_name author_email author_avatar sender started finished created updated version
"""
RECIPES: dict[str, dict[str, str]] = {
    "uptime-kuma": {},
    "newcomer": {},
}


def older_builds(settings: WorldSettings) -> None:
    """Sixty builds of the past, so that there is something to page through."""
    store = Store(settings.ci_dir)
    for number in range(1, 61):
        store.save(Build(number=number, event="custom", after="a" * 40, status="success", ref="refs/heads/main"))
    store.note("counter", "60")
    store.close()


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with running(tmp_path_factory.mktemp("ci") / "world", RECIPES, prepare=older_builds) as started:
        until(lambda: [build for build in started.builds() if build["event"] == "push"], what="first push build")
        yield started


# -- who may --------------------------------------------------------------------------------------------------


def test_wrong_token_is_a_guest(world: World) -> None:
    """An unknown token makes the caller a guest: 401 on a private repository, and never 403."""
    for path in ("/user", BUILDS, f"{BUILDS}/1", f"/repos/{ORG}/no-such-repo/builds"):
        assert world.drone("GET", path, token="wrong").status_code == 401
        assert world.drone("GET", path, token="").status_code == 401
    assert world.drone("POST", BUILDS, token="wrong").json() == {"message": "Unauthorized"}


def test_known_caller_gets_404_for_unknown_repositories(world: World) -> None:
    """A known caller gets 404, not 401, for a repository that Drone never synced."""
    answer = world.drone("GET", f"/repos/{ORG}/ghost/builds")
    assert (answer.status_code, answer.json()) == (404, {"message": "Not Found"})


def test_forms_of_the_token(world: World) -> None:
    """A bare token works as ``Bearer X`` does; ``token X`` and ``bearer X`` do not."""
    token, url = world.settings.drone_token, f"{world.settings.ci_url}/api/user"

    def ask(header: str) -> int:
        return httpx.get(url, headers={"Authorization": header}, trust_env=False).status_code

    assert [ask(token), ask(f"Bearer {token}"), ask(f"token {token}"), ask(f"bearer {token}")] == [
        200,
        200,
        401,
        401,
    ]


# -- reading --------------------------------------------------------------------------------------------------


def test_list_is_paged_as_drone_pages(world: World) -> None:
    """Newest first and without stages; a ``per_page`` above 100 is 25, page 0 is page 1, past the end ``[]``."""
    newest = world.builds(per_page=5)
    numbers = [build["number"] for build in newest]
    assert numbers == sorted(numbers, reverse=True)
    assert all("stages" not in build for build in newest)
    assert len(world.builds(per_page=200)) == len(world.builds(per_page=0)) == len(world.builds()) == 25
    assert len(world.builds(per_page=50)) == 50
    assert world.builds(page=0, per_page=5) == world.builds(page=1, per_page=5)
    assert world.builds(page=2, per_page=5)[0]["number"] < numbers[-1]
    assert world.builds(page=99) == []


def test_unknown_builds(world: World) -> None:
    """Text in place of a number is a 400, an unknown number a 404 with the database's message."""
    assert world.drone("GET", f"{BUILDS}/abc").status_code == 400
    missing = world.drone("GET", f"{BUILDS}/99999")
    assert (missing.status_code, missing.json()) == (404, {"message": "sql: no rows in result set"})
    assert world.drone("GET", f"{BUILDS}/1/logs/1/1").status_code == 404


# -- custom builds --------------------------------------------------------------------------------------------


def test_custom_build_from_trigger_to_results(world: World) -> None:
    """A custom build echoes its parameters, reports to cc-ci only, and leaves every test's name and outcome."""
    head = world.head("uptime-kuma", "change")
    build = world.trigger("uptime-kuma", head, PR="1", COMMENT="77")
    main = world.head("cc-ci")
    assert build["event"] == "custom"
    assert build["status"] == "pending"
    assert build["params"] == {"RECIPE": "uptime-kuma", "REF": head, "PR": "1", "COMMENT": "77"}
    assert build["before"] == build["after"] == main
    assert (build["source"], build["target"], build["ref"]) == ("main", "main", "refs/heads/main")
    assert (build["started"], build["finished"], build["timestamp"]) == (0, 0, 0)
    assert build["id"] != build["number"]

    done = world.finished(build["number"])
    assert done["status"] == "success"
    assert 0 < done["created"] <= done["started"] <= done["finished"]
    [stage] = done["stages"]
    assert [step["name"] for step in stage["steps"]] == ["clone", "recipe-ci"]
    assert {step["step_id"] for step in stage["steps"]} == {stage["id"]}

    run = world.results(build["number"])
    assert (run["recipe"], run["ref"], run["suite_commit"], run["pr"]) == ("uptime-kuma", head, main, "1")
    assert run["schema"] == 2
    assert run["level"] == 4
    assert run["flags"] == {"clean_teardown": True, "no_secret_leak": True}
    custom = next(stage for stage in run["stages"] if stage["name"] == "custom")
    assert {test["name"] for test in custom["tests"]} == functional_tests("uptime-kuma")
    assert {test["status"] for test in custom["tests"]} == {"pass"}

    def reported() -> list[dict[str, Any]] | None:
        """This build's statuses, once the last is there: Drone ends a build first and tells the forge then."""
        page = f"/{ORG}/cc-ci/{build['number']}"
        found = [each for each in world.statuses("cc-ci", main) if each["target_url"].endswith(page)]
        return found if found and found[0]["status"] != "pending" else None

    statuses = until(reported, what="the build's last status")
    assert {status["context"] for status in statuses} == {"continuous-integration/drone"}
    assert [status["status"] for status in statuses] == ["success", "pending", "pending"]
    assert world.statuses("uptime-kuma", head) == []


def test_build_json_has_drones_fields(world: World) -> None:
    """The keys of a build are those of Drone's struct, the empty ones that it omits left out (core/build.go)."""
    always = set(BUILD_KEYS.split())
    assert set(world.builds(per_page=1, page=1)[0]) - {"params", "error"} == always
    assert set(world.build(1)) == always


def test_a_build_names_its_commit_as_the_forge_does(world: World) -> None:
    """A push links to the comparison, with git's author; a custom build to the API's commit, with the account's."""
    pushed = next(build for build in world.builds() if build["event"] == "push")
    assert pushed["link"] == (
        f"{world.settings.forge_url}/{ORG}/cc-ci/compare/{pushed['before']}...{pushed['after']}"
    )
    custom = world.drone("POST", BUILDS, params={"branch": "main", "RECIPE": "newcomer"}).json()
    path = f"/repos/{ORG}/cc-ci/git/commits/{custom['after']}"
    account = world.forge("GET", path).json()["author"] or {}
    assert custom["link"] == f"{world.settings.forge_url}/api/v1{path}"
    assert custom["author_avatar"] == account.get("avatar_url", "")
    assert custom["author_name"] == account.get("full_name", "")


@pytest.mark.parametrize("path", ["/user", BUILDS, f"{BUILDS}/1", f"{BUILDS}/9999", f"{BUILDS}/x"])
def test_json_is_sent_without_a_charset(world: World, path: str) -> None:
    """Answers and refusals are ``application/json`` and nothing more."""
    assert world.drone("GET", path).headers["Content-Type"] == "application/json"


def test_unknown_commit_or_branch(world: World) -> None:
    """A commit or branch that the forge does not have is a 404, and takes no number."""
    before = world.builds(per_page=1)[0]["number"]
    for query in ({"branch": "no-such-branch"}, {"branch": "main", "commit": "0" * 40}):
        answer = world.drone("POST", BUILDS, params={**query, "RECIPE": "ghost", "REF": "x"})
        assert (answer.status_code, answer.json()) == (404, {"message": "Not Found"})
    assert world.builds(per_page=1)[0]["number"] == before


def test_builds_run_one_at_a_time(world: World) -> None:
    """With a capacity of one the second build waits for the first; a step's log is a 404 until the step ends."""
    head = world.head("uptime-kuma")
    first = world.trigger("uptime-kuma", head)["number"]
    second = world.trigger("newcomer", NO_SUCH_COMMIT)["number"]
    states: list[tuple[str, str]] = []
    early: list[int] = []

    def look() -> bool:
        log = world.drone("GET", f"{BUILDS}/{first}/logs/1/2").status_code
        # The second is read first: what it waited for then can only have gone on since.
        behind = world.build(second)["status"]
        states.append((world.build(first)["status"], behind))
        if states[-1][0] == "running":
            early.append(log)
        return states[-1][1] == "failure"

    until(look, what="both builds done")
    assert ("running", "pending") in states
    assert not any(one in ("pending", "running") and other == "running" for one, other in states)
    assert set(early) == {404}
    lines = world.drone("GET", f"{BUILDS}/{first}/logs/1/2").json()
    assert [line["pos"] for line in lines] == list(range(len(lines)))
    assert set(lines[0]) == {"pos", "out", "time"}
    assert "custom=pass (6 tests)\n" in [line["out"] for line in lines]
    assert world.drone("GET", f"{BUILDS}/{first}/logs/x/2").status_code == 400


# -- ending builds --------------------------------------------------------------------------------------------


def test_cancel_kills_what_runs_and_what_waits(world: World) -> None:
    """Cancelled builds are ``killed`` at once, report ``error`` to the forge, and the slot is free again."""
    head = world.head("uptime-kuma")
    running_, waiting = (world.trigger("uptime-kuma", head)["number"] for _ in range(2))
    until(lambda: world.build(running_)["status"] == "running", what="running")
    for number in (waiting, running_):
        assert world.drone("DELETE", f"{BUILDS}/{number}").json()["status"] == "killed"
    killed = world.build(running_)
    assert killed["stages"][0]["status"] == "killed"
    assert world.build(waiting)["stages"][0]["status"] == "skipped"
    assert world.drone("DELETE", f"{BUILDS}/{running_}").json() == killed
    assert world.finished(world.trigger("newcomer", NO_SUCH_COMMIT)["number"])["status"] == "failure"
    ends = [s for s in world.statuses("cc-ci", world.head("cc-ci")) if s["target_url"].endswith(f"/{waiting}")]
    assert ends[0]["status"] == "error"


# -- configuration --------------------------------------------------------------------------------------------


def test_no_matching_pipeline_is_null(world: World) -> None:
    """When no pipeline wants the event the answer is 200 ``null`` and nothing is built."""
    text = (PACKAGE / "initial_state" / "ccci" / ".drone.yml").read_text().replace("- custom", "- promote")
    commit = world.push("no-pipeline", {".drone.yml": text})
    answer = world.drone("POST", BUILDS, params={"branch": "no-pipeline", "RECIPE": "ghost", "REF": commit})
    assert (answer.status_code, answer.json()) == (200, None)


def test_unreadable_configuration_is_a_build_in_error(world: World) -> None:
    """A configuration that does not parse takes a number and gives a build in status ``error`` that says why."""
    commit = world.push("bad-yaml", {".drone.yml": "kind: pipeline\n\tname: x\n"})
    build = world.drone("POST", BUILDS, params={"branch": "bad-yaml", "commit": commit}).json()
    assert build["status"] == "error"
    assert "yaml" in build["error"]


def test_missing_configuration_is_a_500(world: World) -> None:
    """Without a configuration the caller waits through three tries and gets a 500."""
    commit = world.push("no-yaml", {".drone.yml": None})
    answer = world.drone("POST", BUILDS, params={"branch": "no-yaml", "commit": commit})
    assert (answer.status_code, answer.json()) == (500, {"message": "Not Found"})


def test_pipelines_of_ccci() -> None:
    """The repository's own configuration has the two pipelines that its documentation names."""
    found = pipelines.parse((PACKAGE / "initial_state" / "ccci" / ".drone.yml").read_text())
    assert [(pipeline.name, pipeline.events) for pipeline in found] == [
        ("recipe-ci", ("custom",)),
        ("self-test", ("push",)),
    ]
    assert [step.name for step in found[1].steps] == ["lint", "unit"]


@pytest.mark.parametrize("text", ["kind: pipeline\n", "steps\n", "kind: pipeline\n   name: x\n", ""])
def test_unreadable_pipelines(text: str) -> None:
    """What is not a list of pipelines is refused, not guessed at."""
    with pytest.raises(pipelines.BadPipeline):
        pipelines.parse(text)


# -- what else must hold --------------------------------------------------------------------------------------


def test_forge_token_is_in_no_log_and_no_artifact(world: World) -> None:
    """The token with which builds clone is in no log and no file of the ci; a word that must be there is."""
    token = world.settings.drone_forge_token.encode()
    world.finished(world.trigger("newcomer", NO_SUCH_COMMIT)["number"])
    files = [path for path in world.settings.ci_dir.rglob("*") if path.is_file()]
    files.append(world.settings.root / "ci.log")
    contents = [path.read_bytes() for path in files]
    assert not any(token in content for content in contents)
    assert any(b"recipe-maintainers/newcomer.git" in content for content in contents)
    until(lambda: not list((world.settings.ci_dir / "work").iterdir()), what="no work folder left")


def test_rules_break_chosen_requests(world: World) -> None:
    """A rule in ci-faults.json breaks the request it names, as often as it says, and the server goes on."""
    rules = [{"method": "GET", "path": "/builds/1$", "times": 1, "action": "status:429"}]
    rules.append({"method": "GET", "path": "/builds/2$", "times": 1, "action": "truncate"})
    file = world.settings.root / "ci-faults.json"
    file.write_text(json.dumps(rules))
    refused = world.drone("GET", f"{BUILDS}/1")
    assert (refused.status_code, refused.headers["Retry-After"]) == (429, "1")
    with pytest.raises(httpx.RemoteProtocolError):
        world.drone("GET", f"{BUILDS}/2")
    assert world.build(1)["number"] == 1
    assert world.build(2)["number"] == 2
    file.unlink()
    lines = (world.settings.logs_dir / "ci-requests.jsonl").read_text().splitlines()
    assert {"status:429", "truncate"} <= {json.loads(line).get("fault") for line in lines}


def test_builds_outlive_the_server(world: World) -> None:
    """A stopped and started server has the same builds; what it was running is in error, what waited is run."""
    head = world.head("uptime-kuma")
    interrupted, waiting = (world.trigger("uptime-kuma", head)["number"] for _ in range(2))
    until(lambda: world.build(interrupted)["status"] == "running", what="running")
    world.stop("ci")
    world.start("ci")
    assert world.finished(interrupted)["status"] == "error"
    assert world.finished(waiting)["status"] == "success"
    assert world.build(1)["status"] == "success"


# -- named faults ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fault", ["drone-500", "drone-token-bad", "drone-returns-null", "build-stuck-pending"])
def test_named_faults(tmp_path: Path, fault: str) -> None:
    """Each named fault shows itself to a caller as its line in the list says."""
    # The first two are answered before the forge is asked for anything.
    parts = ("ci",) if fault in ("drone-500", "drone-token-bad") else ("forge", "ci")
    with running(tmp_path / "world", {"ghost": {}}, parts=parts, faults=(fault,)) as world:
        answer = world.drone("POST", BUILDS, params={"RECIPE": "ghost", "REF": NO_SUCH_COMMIT})
        match fault:
            case "drone-500":
                assert answer.status_code == 500
            case "drone-token-bad":
                assert answer.status_code == 401
            case "drone-returns-null":
                assert (answer.status_code, answer.json()) == (200, None)
            case "build-stuck-pending":
                assert world.build(answer.json()["number"])["status"] == "pending"
