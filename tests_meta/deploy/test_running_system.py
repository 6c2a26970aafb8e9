"""What the host runs, where it is not the newest generation of its profile, and whether a deploy may replace it."""

from __future__ import annotations

import pytest

from fixtures.clients import nixos
from fixtures.clients.nixos import Generation, System
from fixtures.clients.probe_script import Section
from fixtures.deploy.running_system import (
    describe_running_system,
    is_somebodys_choice,
    name_generation,
    report_running_system,
)
from fixtures.journal.kinds import Severity

STORE = "/nix/store"
PROFILE = "/nix/var/nix/profiles/system"
OLD, NEW, DEBUG, OTHER = (f"{STORE}/{digit * 32}-nixos-system-nixos-24.11" for digit in "0123")
GENERATIONS = (
    f"{PROFILE}-41-link {OLD}\n{PROFILE}-42-link {NEW}\n"
    f"{PROFILE}-9-link {OLD}\n{PROFILE}-42-link/specialisation/debug {DEBUG}\n"
)


def read(running: str, *, boots: int = 42) -> System:
    """The system that the probe's sections describe."""
    profile = f"system-{boots}-link\n{NEW if boots == 42 else OLD}\n"
    texts = {"running": f"{running}\n", "profile": profile, "generations": GENERATIONS}
    return nixos.parse_system({name: Section(text, 0) for name, text in texts.items()})


def test_newest_generation_is_nothing_to_report() -> None:
    """The generations are ordered by number, and the newest one that runs is no finding."""
    system = read(NEW)
    assert [one.number for one in system.generations] == [9, 41, 42]
    assert (system.base, system.specialisation, system.numbers) == (NEW, "", (42,))
    assert report_running_system(system, "cc-ci") is None


def test_path_is_named_with_its_own_generation() -> None:
    """Where the next boot starts another generation, both are named, each with its own path."""
    assert name_generation(read(NEW)) == "generation 42"
    assert name_generation(read(NEW, boots=41)) == f"generation 42; generation 41, {OLD}, boots next"
    assert name_generation(read(OTHER)) == f"no generation of the profile; generation 42, {NEW}, boots next"


def test_specialisation_is_a_persons_choice() -> None:
    """The specialisation is named with its generation, and its base is that generation's system."""
    system = read(DEBUG)
    assert (system.base, system.specialisation, system.specialised) == (NEW, "debug", Generation(42, NEW))
    assert is_somebodys_choice(system)
    finding = report_running_system(system, "cc-ci")
    assert finding is not None
    assert finding.severity is Severity.ACTION
    assert "the specialisation debug of generation 42" in finding.what
    assert f"{NEW}/bin/switch-to-configuration switch" in finding.do


def test_system_outside_the_profile_is_a_persons_choice() -> None:
    """A system that is no generation, as after `nixos-rebuild test`, is named by its path."""
    system = read(OTHER)
    assert is_somebodys_choice(system)
    assert OTHER in describe_running_system(system)


@pytest.mark.parametrize("boots", [41, 42])
def test_older_generation_is_reported_and_may_be_replaced(boots: int) -> None:
    """An older generation, whether only booted or rolled back to, is a warning."""
    system = read(OLD, boots=boots)
    assert not is_somebodys_choice(system)
    finding = report_running_system(system, "cc-ci")
    assert finding is not None
    assert finding.severity is Severity.WARNING
    assert "runs generation 41; the newest generation of its profile is 42" in finding.what
    assert f"generation {boots} boots next" in finding.what
