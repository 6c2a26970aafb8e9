"""One contract for both dockers: the same commands in the same states, answered by a real Swarm and by the stand-in.

The exit code, stdout and stderr have to be equal, but for ids, times and process numbers, the addresses that the real
one gives its networks, and the states that a task passes before it starts, which nobody can catch in one moment.
"""

from __future__ import annotations

import asyncio
import difflib
import fnmatch
import json
import re
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from fixtures.clients.bridge import Swarm as SwarmRuntime
from fixtures.rehearsal.host.calls import Call
from fixtures.rehearsal.host.layout import HostPaths
from fixtures.rehearsal.swarm.docker_cli import Docker
from fixtures.rehearsal.swarm.services import Swarm
from fixtures.rehearsal.swarm_docker.images import BASE
from fixtures.rehearsal.swarm_docker.requirements import knows_detached_deploys
from tests_meta.rehearsal import docker_world as alone
from tests_meta.rehearsal.docker_states import PROGRAMS, QUESTIONS, STATES, State, Step
from tests_meta.rehearsal.docker_world import DockerWorld, docker_world

LIMIT_S = 120.0
ATTEMPTS = 5
BEFORE_ITS_START = {"new", "pending", "assigned", "accepted", "preparing", "prepared", "ready", "starting"}
ID, CONTAINER = re.compile(r"\b[a-z0-9]{25}\b"), re.compile(r"\b[0-9a-f]{64}\b")
TIME = re.compile(r"\d{4}-\d\d-\d\dT[0-9:.]+Z")
# docker 20 to 27 wrap the message; 28 does not.
WRAPPED = re.compile(r"^Status: (.*), Code: \d+$", re.M)


@dataclass(frozen=True)
class Said:
    """One answer of either docker."""

    exit: int
    out: bytes
    err: bytes


Ask = Callable[[tuple[str, ...]], Awaitable[Said]]
Answers = Mapping[str, Mapping[str, object]]


def plain(value: Any, key: str = "") -> Any:
    """A parsed answer without what differs from run to run."""
    match value:
        case dict():
            kept = {name: plain(one, name) for name, one in value.items() if name != "NoNewPrivileges"}
            if kept.get("State") in BEFORE_ITS_START and "Timestamp" in kept:
                return "before its start"
            return kept
        case list():
            return [] if key in ("NetworksAttachments", "VirtualIPs") else [plain(one) for one in value]
        case int() if key == "Index" or (key == "PID" and value):
            return 1
        case str():
            return plain_text(value)
    return value


def plain_text(text: str) -> str:
    return WRAPPED.sub(r"\1", TIME.sub("TIME", CONTAINER.sub("CONTAINER", ID.sub("ID", text))))


def shown(said: Said, *, most: int | None = None) -> object:
    """An answer as it is compared; `most`: only so many of the elements of a list."""
    out = said.out.decode(errors="surrogateescape")
    err = plain_text(said.err.decode())
    if out.startswith("["):
        return said.exit, json.dumps(plain(json.loads(out)[:most]), indent=1), err
    if out.strip().isdigit():
        out = "no process" if out.strip() == "0" else "a process"
    return said.exit, plain_text(out), err


class Stacks:
    """Brings one docker into all states at once, each with a stack of its own, and asks everything in each."""

    def __init__(self, ask: Ask, folder: Path) -> None:
        self._ask, self._folder = ask, folder

    async def answers(self) -> dict[str, dict[str, object]]:
        found = await asyncio.gather(*(self._of(state) for state in STATES))
        return {state.name: one for state, one in zip(STATES, found, strict=True)}

    async def _of(self, state: State) -> dict[str, object]:
        acts: dict[str, object] = {}
        for number, step in enumerate(state.steps):
            said = await self._ask(self._words(state, step))
            acts[f"act {number}"] = (said.exit, plain_text(said.out.decode()), plain_text(said.err.decode()))
            await self._until(state, step)
        last = state.steps[-1] if state.steps else Step(tasks=())
        for _ in range(ATTEMPTS):
            before = await self._tasks(state)
            answered = await self._questions(state, last)
            # A state that comes and goes has to be the same one before and after.
            if before == await self._tasks(state) and (not state.steps or await self._holds(state, last)):
                return acts | answered
            await self._until(state, last)
        raise AssertionError(f"{state.name} did not last while it was asked about")

    def _words(self, state: State, step: Step) -> tuple[str, ...]:
        if step.deploy is None:
            return tuple(word.replace("NAME", state.name) for word in step.act)
        place = self._folder / f"{state.name}.json"
        place.write_text(json.dumps(step.deploy))
        return ("stack", "deploy", "--detach=true", "--compose-file", str(place), state.name)

    async def _until(self, state: State, step: Step) -> None:
        deadline = time.monotonic() + LIMIT_S
        while not await self._holds(state, step):
            assert time.monotonic() < deadline, f"{state.name}: {step} was not seen; {await self._tasks(state)}"
            await asyncio.sleep(0.1)

    async def _tasks(self, state: State) -> dict[str, str]:
        """The states of the service's tasks by their ids, newest first."""
        ids = (await self._ask(("service", "ps", "--no-trunc", "-q", f"{state.name}_app"))).out.decode().split()
        tasks = json.loads((await self._ask(("inspect", *ids))).out) if ids else []
        return {task["ID"]: f"{task['DesiredState']}/{_moment(task)}" for task in tasks}

    async def _holds(self, state: State, step: Step) -> bool:
        tasks = list((await self._tasks(state)).values())
        if not step.tasks and tasks:
            return False
        if len(tasks) < len(step.tasks) or not all(map(fnmatch.fnmatch, tasks, step.tasks)):
            return False
        if step.update is not None:
            service = json.loads((await self._ask(("service", "inspect", f"{state.name}_app"))).out)[0]
            if service.get("UpdateStatus", {}).get("State") != step.update:
                return False
        if step.lines:
            said = await self._ask(("service", "logs", "--raw", f"{state.name}_app"))
            return said.out.count(b"\n") >= step.lines
        return True

    async def _questions(self, state: State, last: Step) -> dict[str, object]:
        named: dict[str, list[str]] = {"NAME_app": [f"{state.name}_app"], "NAME": [state.name]}
        found: dict[str, object] = {}
        for name, words in QUESTIONS.items():
            if any(word in ("TASK", "TASKS") and not named.get(word) for word in words):
                continue
            said = await self._ask(tuple(one for word in words for one in named.get(word, [word])))
            lines = said.out.decode(errors="replace").split()
            if name == "all":
                named["TASKS"] = lines[: len(last.tasks)]
                said = Said(said.exit, "\n".join(named["TASKS"]).encode(), said.err)
            elif name == "current":
                named["TASK"] = lines[:1]
            elif name == "names":
                mine = [line for line in lines if line == f"{state.name}_app"]
                said = Said(said.exit, "\n".join(mine).encode(), said.err)
            found[name] = shown(said)
        return found


def _moment(task: dict[str, Any]) -> str:
    """The state of a task; ``waiting`` for all before its start, once the task has a node."""
    state = str(task["Status"]["State"])
    return "waiting" if state in BEFORE_ITS_START and task.get("NodeID") else state


@pytest.fixture(scope="module")
def real_answers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Answers]:
    """What a real Swarm answers in every state."""
    alone.demand_docker()
    with docker_world(tmp_path_factory.mktemp("docker") / alone.unique_name()) as world:
        for name, program in PROGRAMS.items():
            file = f"FROM {BASE}\nCMD {json.dumps([str(Path(sys.executable).resolve()), '-c', program])}\n"
            world.docker("build", "--quiet", "--tag", name, "-", given=file)
        yield asyncio.run(Stacks(_asking(world), world.settings.root).answers())


def _asking(world: DockerWorld) -> Ask:
    drop = () if knows_detached_deploys() else ("--detach=true",)
    width = asyncio.Semaphore(4)

    async def ask(words: tuple[str, ...]) -> Said:
        words = tuple(word for word in words if word not in drop)
        async with width:
            process = await asyncio.create_subprocess_exec(
                "docker", *words, env=world.environment,
                stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            )  # fmt: skip
            out, err = await process.communicate()
        return Said(process.returncode or 0, out, err)

    return ask


@pytest.fixture(scope="module")
def stand_in_answers(tmp_path_factory: pytest.TempPathFactory) -> Answers:
    """What the stand-in answers in every state."""
    root = tmp_path_factory.mktemp("stand-in")

    async def answers() -> Answers:
        def image(service: dict[str, Any]) -> str:
            return str(service["Spec"]["TaskTemplate"]["ContainerSpec"]["Image"])

        paths = HostPaths(root)
        swarm = Swarm(
            root / "swarm",
            pace=0.5,
            hostname="nixos",
            program_of=lambda service: [sys.executable, "-c", PROGRAMS[image(service)]],
            extra_environment={},
        )
        swarm.refused = lambda service: "" if image(service) in PROGRAMS else f"No such image: {image(service)}"
        docker = Docker(swarm, paths)

        async def ask(words: tuple[str, ...]) -> Said:
            call = Call("docker", list(words), str(root), {})
            status = await docker.run(call)
            out, err = ("".join(text for kind, text in call.said if kind == stream) for stream in (1, 2))
            return Said(status, out.encode(), err.encode())

        try:
            return await Stacks(ask, root).answers()
        finally:
            await swarm.stop()

    return asyncio.run(answers())


@pytest.mark.parametrize("name", [state.name for state in STATES])
def test_stand_in_answers_as_a_real_swarm(real_answers: Answers, stand_in_answers: Answers, name: str) -> None:
    """Every command that muster or a unit of the host sends, in this state: exit, stdout and stderr."""
    assert list(_differences(real_answers[name], stand_in_answers[name])) == []


def _differences(real: Mapping[str, object], stand_in: Mapping[str, object]) -> Iterator[str]:
    """The lines in which the answers differ, after the name of their question."""
    for question in sorted(real.keys() | stand_in.keys()):
        one, other = (str(said.get(question)).replace("\\n", "\n").splitlines() for said in (real, stand_in))
        for line in difflib.unified_diff(one, other, "real", "stand-in", n=0, lineterm=""):
            yield f"{question}: {line[:200]}"


def test_the_questions_are_those_that_muster_asks() -> None:
    """Each docker command in the text that muster sends to the host is one of the contract's."""
    inspect, log = ("docker", "inspect", "{task}"), ("docker", "service", "logs", "--raw", "{task}")
    runtime = SwarmRuntime("NAME_app", "POLL_REPOS", inspect, log, ("NAME",))
    text = "\n".join((*runtime.commands().values(), runtime.watch_command(limit_s=1, step_s=1)))
    sent = {_as_question(found) for found in re.findall(r"docker ((?:service|inspect|stack)[^;|&)\n]*)", text)}
    assert sent == {" ".join(words) for words in QUESTIONS.values()}


def _as_question(text: str) -> str:
    words = re.sub(r"2>.*|}$", "", text).replace("'", "").replace('"$task"', "TASK").replace("$tasks", "TASKS")
    return " ".join(words.split())
