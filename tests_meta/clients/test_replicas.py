"""Replicas in every form that ``docker stack services`` prints: services, limits by node, jobs, nothing at all."""

from __future__ import annotations

import pytest

from fixtures.clients.bridge import Replicas, incomplete_services
from fixtures.clients.probe_script import Section


@pytest.mark.parametrize(
    ("text", "complete"),
    [
        ("1/1", True),
        ("3/3", True),
        ("0/1", False),
        ("2/3", False),
        ("2/1", True),
        ("0/0", False),
        ("1/1 (max 1 per node)", True),
        ("0/1 (max 1 per node)", False),
        ("1/1 (0/1 completed)", True),
        ("0/1 (1/1 completed)", True),
        ("0/1 (0/1 completed)", False),
        ("2/5 (3/5 completed)", True),
    ],
)
def test_a_service_is_complete_if_nothing_is_missing(text: str, complete: bool) -> None:
    """A job that is done is complete, and a service that was scaled to 0 is not."""
    replicas = Replicas.parse(text)
    assert replicas is not None
    assert replicas.complete is complete


@pytest.mark.parametrize("text", ["", "one/two", "1", "1/1 completed", "1/1 (max 1 per node", "-1/1"])
def test_a_form_that_docker_does_not_print_is_no_answer(text: str) -> None:
    """An unknown form counts as incomplete, and is shown as it is."""
    assert Replicas.parse(text) is None
    found = incomplete_services({"stack-a": Section(f"a_app {text}\n", 0)}, ["a"])
    assert found == {"a_app": text}


def test_a_missing_stack_is_named_by_its_own_name() -> None:
    """Docker answers with exit 0, nothing on stdout, and a sentence on stderr."""
    sections = {
        "stack-here": Section("here_app 1/1\nhere_job 0/1 (1/1 completed)\n", 0),
        "stack-gone": Section("", 0, "Nothing found in stack: gone\n"),
    }
    assert incomplete_services(sections, ["here", "gone"]) == {"gone": "no answer"}
