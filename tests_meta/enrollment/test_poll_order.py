"""The order of the poll set: what is there keeps its order, what is new is appended in roster order."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from fixtures.enrollment import poll_order
from fixtures.enrollment.poll_order import wanted_poll_set
from fixtures.run.exclusions import Exclusion, Exclusions

ROSTER = ("alpha", "beta", "gamma", "delta")


def run_with(present: tuple[str, ...], *, failed: tuple[str, ...] = ()) -> Any:
    """As much of a run as the order depends on: all recipes are covered, `failed` are excluded."""
    excluded = Exclusions(ROSTER)
    for name in failed:
        excluded.exclude(name, Exclusion(1, "its mirror"))
    suites = {name: SimpleNamespace(covers=True) for name in ROSTER}
    ccci = SimpleNamespace(poll_file=present, suites=suites)
    world = SimpleNamespace(ccci="org/cc-ci", mirror=lambda name: f"org/{name}")
    return SimpleNamespace(
        context=SimpleNamespace(world=world, roster=SimpleNamespace(names=ROSTER)),
        record=SimpleNamespace(planned=[]),
        surveys=SimpleNamespace(now=SimpleNamespace(ccci=ccci, demand_ccci=lambda: ccci)),
        excluded=excluded,
    )


@pytest.fixture(autouse=True)
def poll_file(monkeypatch: pytest.MonkeyPatch) -> None:
    """The poll file of these runs is the tuple of its entries."""

    def read(_context: object, surveys: Any) -> Any:
        return SimpleNamespace(poll_set=SimpleNamespace(entries=surveys.now.ccci.poll_file))

    monkeypatch.setattr(poll_order, "read_in_git", read)


@pytest.mark.parametrize(
    ("present", "failed", "wanted"),
    [
        ((), (), ("alpha", "beta", "gamma", "delta")),
        (("org/cc-ci", "org/alpha"), (), ("alpha", "beta", "gamma", "delta")),
        (("org/cc-ci", "org/delta", "org/alpha"), (), ("delta", "alpha", "beta", "gamma")),
        (("org/cc-ci", "org/alpha"), ("beta",), ("alpha", "gamma", "delta")),
        (("org/cc-ci", "org/alpha", "org/gamma", "org/delta"), (), ("alpha", "gamma", "delta", "beta")),
        (("org/cc-ci", "org/beta"), ("beta",), ("beta", "alpha", "gamma", "delta")),
        (("org/cc-ci", "org/stranger", "org/beta"), (), ("beta", "alpha", "gamma", "delta")),
    ],
)
def test_what_is_polled_keeps_its_order(
    present: tuple[str, ...], failed: tuple[str, ...], wanted: tuple[str, ...]
) -> None:
    """A recipe that failed in one run is appended by the next one, behind the others."""
    entries = wanted_poll_set(run_with(present, failed=failed)).entries
    assert entries == ("org/cc-ci", *(f"org/{name}" for name in wanted))
