"""A pipeline that runs nothing is recognised in its file, which is never executed."""

from __future__ import annotations

import pytest

from fixtures.ccci.pipeline import why_nothing_runs
from tests_meta.rehearsal.ci_world import ccci_tree

HEAD = "kind: pipeline\ntype: exec\nname: recipe-ci\n"
ON_CUSTOM = HEAD + "trigger:\n  event:\n    - custom\n"
STEP = "steps:\n  - name: recipe-ci\n    commands:\n"
RUN = "      - cc-ci-run runner/run_recipe_ci.py\n"
PUSH = HEAD + "trigger:\n  event:\n  - push\n" + STEP + RUN
NO_COMMAND, NO_EVENT = "no step of it runs a command", "no pipeline in it runs for the event custom"

NOTHING: dict[str, tuple[str, str]] = {
    "empty file": ("", NO_EVENT),
    "only comments": ("# nothing\n", NO_EVENT),
    "another event": (PUSH, NO_EVENT),
    "another event in one line": (HEAD + "trigger:\n  event: [push, cron]\n" + STEP + RUN, NO_EVENT),
    "event excluded": (HEAD + "trigger:\n  event:\n    exclude:\n      - custom\n" + STEP + RUN, NO_EVENT),
    "commands of another event": (f"{ON_CUSTOM}{STEP}      - 'true'\n---\n{PUSH}", NO_COMMAND),
    "no steps": (ON_CUSTOM, NO_COMMAND),
    "empty steps": (ON_CUSTOM + "steps: []\n", NO_COMMAND),
    "no commands": (ON_CUSTOM + "steps:\n  - name: recipe-ci\n    commands: []\n", NO_COMMAND),
    "true": (ON_CUSTOM + STEP + "      - true\n", NO_COMMAND),
    "echo": (ON_CUSTOM + STEP + '      - echo "run later"\n      - exit 0\n', NO_COMMAND),
    "commented out": (ON_CUSTOM + STEP + "      # - cc-ci-run runner/run_recipe_ci.py\n", NO_COMMAND),
    "failure swallowed": (ON_CUSTOM + STEP + RUN.replace("\n", " || true\n"), NO_COMMAND),
    "failure ignored": (
        ON_CUSTOM + STEP.replace("    commands", "    failure: ignore\n    commands") + RUN,
        NO_COMMAND,
    ),
    "step of another event": (
        ON_CUSTOM + STEP.replace("    commands", "    when:\n      event: push\n    commands") + RUN,
        NO_COMMAND,
    ),
}

SOMETHING = {
    "no trigger": HEAD + STEP + RUN,
    "events in one line": HEAD + "trigger:\n  event: [custom, push]\n" + STEP + RUN,
    "list at the key's depth": HEAD
    + "trigger:\n  event:\n  - custom\nsteps:\n- name: x\n  commands:\n  - make test\n",
    "block of lines": ON_CUSTOM
    + "steps:\n  - name: x\n    commands:\n      - |\n        set -e\n        make test\n",
    "plugin without commands": ON_CUSTOM + "steps:\n  - name: x\n    image: plugins/docker\n",
    "echo, then a command": ON_CUSTOM + STEP + "      - echo begin\n" + RUN,
    "another event excluded": HEAD + "trigger:\n  event:\n    exclude:\n      - push\n" + STEP + RUN,
    "second step": ON_CUSTOM + STEP + "      - true\n  - name: y\n    commands:\n" + RUN,
    "template": "kind: template\nload: recipe.yaml\n",
    "jsonnet": "local pipeline = { steps: [] };\n[pipeline]\n",
    "anchor": "kind: pipeline\nsteps: &steps\n- name: x\n---\nkind: pipeline\nsteps: *steps\n",
    "commands in one line": ON_CUSTOM + "steps:\n  - name: x\n    commands: [make, make test]\n",
}


@pytest.mark.parametrize("form", NOTHING)
def test_pipeline_that_runs_nothing_is_named_with_its_reason(form: str) -> None:
    """Its commands are gone, cannot fail, or are those of another event."""
    text, why = NOTHING[form]
    assert why_nothing_runs(text.encode()).startswith(why)


@pytest.mark.parametrize("form", SOMETHING)
def test_pipeline_that_runs_something_is_accepted(form: str) -> None:
    """A command that can fail suffices, and a form that is not recognised is not blamed."""
    assert why_nothing_runs(SOMETHING[form].encode()) == ""


def test_pipeline_of_the_rehearsal_runs_something() -> None:
    """Positive control: the pipeline of the initial state."""
    text = ccci_tree()[".drone.yml"]
    assert why_nothing_runs(text.encode() if isinstance(text, str) else text.read_bytes()) == ""
