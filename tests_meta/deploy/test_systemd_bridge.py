"""The bridge as a unit of the host instead of a Swarm service: the same phases, read and judged its own way."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from fixtures.preflight.site_check.command import check
from fixtures.rehearsal import world as rehearsal_world
from fixtures.rehearsal.parts import choose
from tests_meta.muster_runs import Ran, muster
from tests_meta.parallel_worlds import ROSTER

UNIT = ("--part", "bridge=systemd")


class Kept:
    """One world with such a bridge, migrated once."""

    def __init__(self, folder: Path) -> None:
        self.world, self.roster = folder / "world", folder / "roster.toml"
        self.roster.write_text(ROSTER)
        self.first = self.run(*UNIT)

    def run(self, *arguments: str) -> Ran:
        return muster("--world", str(self.world), "--roster", str(self.roster), *arguments)


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Kept:
    return Kept(tmp_path_factory.mktemp("systemd"))


def test_a_migration_with_a_unit_as_its_bridge_converges(kept: Kept) -> None:
    """Exit 0: the switch restarted the unit, and its environment and its log hold the new poll set."""
    kept.first.demand(0)
    assert kept.first.summary["verdict"] == "converged"
    assert kept.first.of("run")[0]["parts"]["bridge"] == "systemd unit"
    rows = kept.first.summary["recipes"]
    assert all(row["polled"] for row in rows.values())
    (switch,) = [line for line in kept.first.summary["changes"] if line["kind"] == "switch"]
    assert re.fullmatch(r"[0-9a-f]{32}", switch["after"]["task"]), "known by its invocation id"


def test_a_second_run_changes_nothing(kept: Kept) -> None:
    """The kept world keeps its bridge; a healthy night finds nothing to do."""
    again = kept.run().demand(0)
    assert again.summary["changes"] == []
    assert again.summary["verdict"] == "unchanged"


def test_its_site_file_passes_the_check(kept: Kept) -> None:
    """Service, log, unit and the stacks beside it."""
    world, said = rehearsal_world.start(folder=kept.world, pace=0.02, parts=choose()), list[str]()
    try:
        code = check(world.site_file, kept.roster, evaluate=False, parts=("host",), out=said.append)
        output = "\n".join(said)
        assert code == 0, output
        assert re.search(r"^ok +bridge.service +ccci-bridge.service runs and polls 7", output, re.M), output
        assert re.search(r"^ok +bridge.log_command", output, re.M)
        assert re.search(r"^ok +bridge.stacks .*traefik", output, re.M)
    finally:
        world.end()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--part", "bridge=swarm"), "was made with bridge=systemd"),
        (("--fault", "bridge-not-replaced"), "Swarm service"),
    ],
)
def test_what_does_not_go_with_such_a_world_is_refused(
    kept: Kept, arguments: tuple[str, ...], words: str
) -> None:
    """One sentence, exit 4 or the world's own refusal; nothing is started."""
    ran = kept.run(*arguments)
    assert ran.exit != 0
    assert words in ran.output
