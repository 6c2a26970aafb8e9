"""The bridge as a systemd unit of the host instead of a Swarm service: the same phases and checks apply."""

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


class SystemdWorld:
    """A kept world whose bridge is a systemd unit, migrated once."""

    def __init__(self, folder: Path) -> None:
        self.world, self.roster = folder / "world", folder / "roster.toml"
        self.roster.write_text(ROSTER)
        self.first = self.run(*UNIT)

    def run(self, *arguments: str) -> Ran:
        return muster("--world", str(self.world), "--roster", str(self.roster), *arguments)


@pytest.fixture(scope="module")
def systemd_world(tmp_path_factory: pytest.TempPathFactory) -> SystemdWorld:
    return SystemdWorld(tmp_path_factory.mktemp("systemd"))


def test_migration_with_a_systemd_bridge_converges(systemd_world: SystemdWorld) -> None:
    """The switch restarts the unit, and its environment and log contain the new poll set; exit 0."""
    systemd_world.first.demand(0)
    assert systemd_world.first.summary["verdict"] == "converged"
    assert systemd_world.first.of("run")[0]["parts"]["bridge"] == "systemd unit"
    rows = systemd_world.first.summary["recipes"]
    assert all(row["polled"] for row in rows.values())
    (switch,) = [line for line in systemd_world.first.summary["changes"] if line["kind"] == "switch"]
    assert re.fullmatch(r"[0-9a-f]{32}", switch["after"]["task"]), "known by its invocation id"


def test_second_run_with_a_systemd_bridge_changes_nothing(systemd_world: SystemdWorld) -> None:
    """A kept world keeps its systemd bridge, and a run in its converged state has nothing to do."""
    again = systemd_world.run().demand(0)
    assert again.summary["changes"] == []
    assert again.summary["verdict"] == "unchanged"


def test_site_file_with_a_systemd_bridge_passes_the_check(systemd_world: SystemdWorld) -> None:
    """The site check reads the bridge's unit, its poll set, its log and the stacks."""
    world, printed = rehearsal_world.start(folder=systemd_world.world, pace=0.02, parts=choose()), list[str]()
    try:
        code = check(world.site_file, systemd_world.roster, evaluate=False, parts=("host",), out=printed.append)
        output = "\n".join(printed)
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
def test_option_incompatible_with_a_systemd_bridge_is_refused(
    systemd_world: SystemdWorld, arguments: tuple[str, ...], words: str
) -> None:
    """A conflicting part or fault is refused with an explanation."""
    ran = systemd_world.run(*arguments)
    assert ran.exit != 0
    assert words in ran.output
