"""The states of a service that the contract of both dockers compares, and the commands that are asked in each.

A state is a list of steps; each step is a deploy of the stack with another compose file, or another act, and what has
to be seen before the next one. The commands are those that muster sends, with the names of this stack in them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

Json = dict[str, Any]
LOUD, DYING, HEAVY, JOB = "loud:1", "dying:1", "heavy:1", "job:1"
SAY = "import sys,time,signal; signal.signal(15, lambda *_: sys.exit(0)); print('watching all 2 repos', flush=True); "
# The programs of the images, for `python -c`.
PROGRAMS = {
    LOUD: SAY + "time.sleep(9999)",
    DYING: SAY + "time.sleep(0.1); sys.exit(1)",
    HEAVY: SAY + "b = bytes(one for one in range(256) if one != 10)\n"
    "for n in range(2000): sys.stdout.buffer.write(b'%d ' % n + b + b'\\n')\n"
    "sys.stdout.flush(); time.sleep(9999)",
    JOB: "print('done', flush=True)",
}
HEAVY_LINES = 2_000
REPLACED = ("running/running", "shutdown/shutdown")
ROLL_BACK = {"order": "stop-first", "failure_action": "rollback"}
JOB_COMPOSE: Json = {"version": "3.8", "services": {"app": {"image": JOB, "deploy": {"mode": "replicated-job"}}}}


def compose(image: str = LOUD, environment: tuple[str, ...] = ("POLL_REPOS=o/a",), **service: Any) -> Json:
    """A compose file with one service, as the bridge's module writes it."""
    deploy = {
        "replicas": 1,
        "restart_policy": {"condition": "any", "delay": "5s"},
        "update_config": {"order": "stop-first", "failure_action": "pause"},
    } | service.pop("deploy", {})
    if deploy.get("mode") in ("global", "replicated-job"):
        del deploy["replicas"]
    one = {"image": image, "environment": list(environment), "deploy": deploy, **service}
    return {"version": "3.8", "services": {"app": one}}


@dataclass(frozen=True)
class Step:
    """One act on the stack ``NAME``, and when it has shown.

    `deploy`: the compose file; `act`: the words of a docker command. `tasks`: the states of the newest tasks that have
    to be seen, as ``DesiredState/State``; `update`: that of the update; `lines`: so many lines of log.
    """

    deploy: Json | None = None
    act: tuple[str, ...] = ()
    tasks: tuple[str, ...] = ("running/running",)
    update: str | None = None
    lines: int = 0


@dataclass(frozen=True)
class State:
    """One state by its name."""

    name: str
    steps: tuple[Step, ...] = field(default=())


NEW = ("POLL_REPOS=o/a,o/b",)
# The next task waits long enough for every question to be asked meanwhile.
SLOW = {"restart_policy": {"condition": "any", "delay": "90s"}}
WELL = Step(compose())
FAILS = ("ready/waiting", "shutdown/failed")
# A task is prepared while it waits, and rejected then.
REJECTED = ("ready/rejected", "shutdown/rejected")


def act(*words: str, tasks: tuple[str, ...], update: str | None = None) -> Step:
    return Step(act=words, tasks=tasks, update=update)


STATES = (
    State("never-deployed"),
    State("running", (Step(compose(), lines=1),)),
    State("updated", (WELL, Step(compose(environment=NEW), tasks=REPLACED, update="completed"))),
    State("missing-image", (WELL, Step(compose("nowhere:1", NEW, deploy=SLOW), tasks=REJECTED, update="paused"))),
    State(
        "rejected-mount",
        (
            WELL,
            Step(
                compose(environment=NEW, volumes=["/nowhere/at/all:/x:ro"], deploy=SLOW),
                tasks=REJECTED,
                update="paused",
            ),
        ),
    ),
    State("crash-loop", (WELL, Step(compose(DYING, NEW, deploy=SLOW), tasks=FAILS, update="paused"))),
    State(
        "rolled-back",
        (WELL, Step(compose(DYING, NEW, deploy={"update_config": ROLL_BACK}), update="rollback_completed")),
    ),
    State("global", (Step(compose(deploy={"mode": "global"})),)),
    State("two-replicas", (Step(compose(deploy={"replicas": 2}), tasks=("running/running",) * 2),)),
    State("scaled-to-0", (WELL, act("service", "scale", "--detach", "NAME_app=0", tasks=()))),
    State("removed", (WELL, act("service", "rm", "NAME_app", tasks=()))),
    State(
        "forced",
        (WELL, act("service", "update", "--detach", "--force", "NAME_app", tasks=REPLACED, update="completed")),
    ),
    State("log-driver-none", (Step(compose(logging={"driver": "none"})),)),
    State("heavy-log", (Step(compose(HEAVY), lines=HEAVY_LINES + 1),)),
    State(
        "plain",
        (Step({"version": "3.8", "services": {"app": {"image": LOUD, "deploy": {"replicas": 1}}}}, lines=1),),
    ),
    State("job", (Step(JOB_COMPOSE, tasks=("complete/complete",)),)),
    State("job-with-updates", (Step(compose(JOB, deploy={"mode": "replicated-job"}), tasks=()),)),
)

# The commands of `fixtures.clients.bridge.Swarm` and of the site check; TASK and TASKS are what the third and the
# second of them print.
QUESTIONS: Mapping[str, tuple[str, ...]] = {
    "names": ("service", "ls", "--format", "{{.Name}}"),
    "all": ("service", "ps", "--no-trunc", "-q", "NAME_app"),
    "current": ("service", "ps", "--no-trunc", "-q", "-f", "desired-state=running", "NAME_app"),
    "service": ("service", "inspect", "NAME_app"),
    "history": ("inspect", "TASKS"),
    "task": ("inspect", "TASK"),
    "process": ("inspect", "--format", "{{.Status.ContainerStatus.PID}}", "TASK"),
    "log": ("service", "logs", "--raw", "TASK"),
    "stack": ("stack", "services", "NAME", "--format", "{{.Name}} {{.Replicas}}"),
}
