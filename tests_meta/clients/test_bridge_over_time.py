"""The bridge is judged by the history and age of its tasks; what docker does not say is unknown."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from fixtures.clients.bridge import ABSENT, BridgeTask, Swarm, Systemd, incomplete_services, unread_stacks
from fixtures.clients.decoding import Malformed
from fixtures.clients.probe_script import Section

NOW = datetime(2026, 11, 28, 3, 0, 0, tzinfo=UTC)
STABLE_S = 30.0
SWARM = Swarm("bridge_app", "POLL_REPOS", ("docker", "inspect", "{task}"), ("true",), ("bridge",))


def stamp(ago_s: float) -> str:
    """A time as docker prints it, with nine digits."""
    return (NOW - timedelta(seconds=ago_s)).strftime("%Y-%m-%dT%H:%M:%S.%f") + "789Z"


def task(state: str, *, created: float, since: float, force: int = 0) -> dict[str, Any]:
    """A task that was created and came into its state so many seconds ago."""
    return {
        "ID": f"task-{created:g}",
        "CreatedAt": stamp(created),
        "Spec": {"ContainerSpec": {"Env": ["POLL_REPOS=a/b"]}, "ForceUpdate": force},
        "Status": {"State": state, "Timestamp": stamp(since)},
    }


def printed(value: object) -> Section:
    text = json.dumps(value)
    return Section(text, 0, data=text.encode())


def look(
    *tasks: dict[str, Any], replicas: int = 1, update: str = "", broken: dict[str, Section] | None = None
) -> BridgeTask:
    """The bridge as the probe's sections describe it; the first task that has not ended is the current one."""
    service: dict[str, Any] = {"Spec": {"Mode": {"Replicated": {"Replicas": replicas}}}}
    if update:
        service["UpdateStatus"] = {"State": update}
    wanted = [one for one in tasks if one["Status"]["State"] in ("running", "starting", "preparing")]
    sections = {
        "clock": Section(f"{NOW.timestamp():.9f}\n", 0),
        "bridge-services": Section("proxy_app\nbridge_app\n", 0),
        "bridge-service": printed([service]),
        "bridge-history": printed(list(tasks)),
        "bridge-task": printed(wanted[:1]),
        "bridge-log": Section("watching\n", 0),
        "bridge-configured": Section("", 0),
    }
    return SWARM.task(sections | (broken or {}))


def test_task_without_failed_predecessors_is_well_at_once() -> None:
    """A running task is well however young it is, also after a restart on request."""
    bridge = look(task("running", created=4, since=2), task("shutdown", created=9000, since=4))
    assert bridge.age_s == pytest.approx(2.0, abs=0.01)
    assert (bridge.lives, bridge.trouble(STABLE_S)) == ((), "")
    forced = look(task("running", created=4, since=2, force=1), task("failed", created=20, since=4))
    assert forced.trouble(STABLE_S) == ""


@pytest.mark.parametrize("age", [0.5, 2.0, 12.0])
@pytest.mark.parametrize("deaths", [2, 4])
def test_crash_loop_is_trouble_at_every_moment(age: float, deaths: int) -> None:
    """Whenever the look falls between two deaths, the loop is seen, and nothing is waited for."""
    lives = [task("failed", created=age + 9 * n, since=age + 9 * n - 8) for n in range(1, deaths + 1)]
    bridge = look(task("running", created=age + 1, since=age), *lives)
    assert bridge.running
    assert f"{deaths} of its tasks in a row ended by themselves, the latest after 8 s" in bridge.trouble(STABLE_S)
    assert not bridge.may_settle(STABLE_S)


def test_gap_of_a_crash_loop_shows_the_state_of_the_latest_task() -> None:
    """While the next task waits for its restart delay, none is wanted to run."""
    bridge = look(
        task("ready", created=1, since=1),
        task("failed", created=9, since=1),
        task("failed", created=18, since=10),
    )
    assert bridge.trouble(STABLE_S).startswith("ready; 2 of its tasks")


def test_one_death_is_waited_for_until_the_task_is_old_enough() -> None:
    """A single failed start may settle; the next task counts when it is twice as old as the one that died."""
    died = task("failed", created=60, since=40)
    young = look(task("running", created=39, since=35), died)
    assert young.trouble(STABLE_S)
    assert young.may_settle(STABLE_S)
    assert look(task("running", created=49, since=41), died).trouble(STABLE_S) == ""


def test_death_after_a_long_life_is_no_failed_start() -> None:
    """A task that had run for hours and was killed once leaves no doubt about the next one."""
    assert (
        look(task("running", created=2, since=1), task("failed", created=9000, since=2)).trouble(STABLE_S) == ""
    )


def test_own_update_is_waited_for() -> None:
    """Between the old task and the new one, and while the new one starts, the bridge may settle."""
    stopping = task("shutdown", created=900, since=1)
    for bridge in (look(stopping, update="updating"), look(task("starting", created=1, since=0), stopping)):
        assert bridge.trouble(STABLE_S)
        assert bridge.may_settle(STABLE_S)


def test_missing_service_and_scaled_to_0_can_be_deployed_again() -> None:
    """Both are certain: docker lists its services without it, or its specification wants no task."""
    none = Section("[]\n", 1, "Error: no such service: bridge_app")
    gone = look(broken={"bridge-services": Section("proxy_app\n", 0), "bridge-service": none})
    assert gone == ABSENT
    scaled = look(task("shutdown", created=900, since=5), replicas=0)
    assert scaled.trouble(STABLE_S) == "scaled to 0"
    assert [one.deployable for one in (gone, scaled, look(task("running", created=2, since=1)))] == [
        True,
        True,
        False,
    ]
    assert not gone.may_settle(STABLE_S)


@pytest.mark.parametrize(
    "broken",
    [
        {"bridge-services": Section("", 1, "Cannot connect to the Docker daemon")},
        {"bridge-service": Section("[]\n", 1, "Cannot connect to the Docker daemon")},
        {"bridge-task": Section("", 1, "Cannot connect to the Docker daemon")},
    ],
)
def test_what_docker_does_not_say_is_unknown(broken: dict[str, Section]) -> None:
    """A daemon that does not answer, or in another form, is not a missing bridge."""
    bridge = look(task("running", created=900, since=890), broken=broken)
    assert bridge.unread
    assert bridge.trouble(STABLE_S).startswith("not known: docker does not")
    assert not bridge.deployable
    assert not bridge.may_settle(STABLE_S)


@pytest.mark.parametrize("silent", [{"bridge-services": Section("", 0)}, {"bridge-task": printed([])}])
def test_docker_that_contradicts_itself_is_unknown(silent: dict[str, Section]) -> None:
    """A list without the service or without its task, while docker inspects it, is no missing bridge."""
    bridge = look(task("running", created=900, since=890), broken=silent)
    assert "docker" in bridge.unread
    assert not bridge.deployable


@pytest.mark.parametrize(
    "broken",
    [
        {"bridge-task": Section("", 1, "Failed to connect to bus")},
        {"bridge-task": Section("", 0)},
        {"bridge-environment": Section("", 1, "tr: read error: Permission denied")},
        {"bridge-environment": Section("", 0)},
    ],
)
def test_unit_that_systemd_does_not_show_is_unknown(broken: dict[str, Section]) -> None:
    """A systemd that does not answer, or an environment that cannot be read, is no missing or silent bridge."""
    unit = Systemd("bridge.service", "POLL_REPOS", ("true",), ("true",))
    sections = {
        "bridge-task": Section("InvocationID=abc\nSubState=running\n", 0),
        "bridge-environment": Section("POLL_REPOS=a/b\n", 0),
        "bridge-log": Section("", 0),
        "bridge-configured": Section("", 0),
        "bridge-restarts": Section("", 0),
    }
    assert unit.task(sections).poll_set == "a/b"
    bridge = unit.task(sections | broken)
    assert bridge.unread
    assert not bridge.deployable


def test_answer_in_another_form_is_malformed() -> None:
    """A page in docker's place is no missing bridge either."""
    page = Section("<html>", 0, data=b"<html>")
    with pytest.raises(Malformed):
        look(task("running", created=900, since=890), broken={"bridge-history": page})


def test_stack_that_docker_cannot_list_is_unknown_and_one_without_services_is_missing() -> None:
    """Several missing stacks are all named; a daemon that is down makes no stack missing."""
    sections = {
        "stack-here": Section("here_app 1/1\n", 0),
        "stack-gone": Section("", 0, "Nothing found in stack: gone"),
        "stack-lost": Section("", 0, "Nothing found in stack: lost"),
        "stack-mute": Section("", 1, "Cannot connect to the Docker daemon"),
    }
    stacks = ["here", "gone", "lost", "mute"]
    assert incomplete_services(sections, stacks) == {"gone": "no answer", "lost": "no answer"}
    assert unread_stacks(sections, stacks) == {"mute": "Cannot connect to the Docker daemon"}


@pytest.mark.parametrize(("restarts", "age", "well"), [(0, 1, True), (3, 1, False), (3, 31, True)])
def test_systemd_bridge_is_judged_by_its_restarts_and_age(restarts: int, age: float, well: bool) -> None:
    """A unit that systemd restarts by itself counts when it has run for long enough."""
    unit = Systemd("bridge.service", "POLL_REPOS", ("true",), ("true",))
    started = f"NRestarts={restarts}\nActiveEnterTimestampMonotonic={(1000 - age) * 1_000_000:.0f}\n1000.00\n"
    bridge = unit.task(
        {
            "bridge-task": Section("InvocationID=abc\nSubState=running\n", 0),
            "bridge-environment": Section("POLL_REPOS=a/b\n", 0),
            "bridge-log": Section("", 0),
            "bridge-configured": Section("", 0),
            "bridge-restarts": Section(started, 0),
        }
    )
    assert (bridge.trouble(STABLE_S) == "") is well
    assert bridge.may_settle(STABLE_S) is not well


def test_answer_about_another_service_is_unknown() -> None:
    """A docker that describes another service, or shows another service's task, says nothing about the bridge."""
    running = task("running", created=100, since=99)
    mode = {"Mode": {"Replicated": {"Replicas": 1}}}
    described = printed([{"ID": "1", "Spec": {"Name": "proxy_app", **mode}}])
    other = look(running, broken={"bridge-service": described})
    assert "describes proxy_app" in other.unread
    ours = printed([{"ID": "1", "Spec": {"Name": "bridge_app", **mode}}])
    theirs = look(running | {"ServiceID": "2"}, broken={"bridge-service": ours})
    assert "a task of another service" in theirs.unread
    assert look(running | {"ServiceID": "1"}, broken={"bridge-service": ours}).unread == ""


def test_answer_about_another_stack_is_unknown() -> None:
    """Services of another stack neither make a stack complete nor incomplete."""
    sections = {"stack-a": Section("b_app 0/1\n", 0), "stack-c": Section("c_app 0/1\n", 0)}
    assert unread_stacks(sections, ["a", "c"]) == {"a": "docker answered with b_app, which is no service of it"}
    assert incomplete_services(sections, ["a", "c"]) == {"c_app": "0/1"}
