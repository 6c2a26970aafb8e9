"""A machine started by a test ends with that test, because leftover processes would disturb the next machine."""

from __future__ import annotations

import subprocess
from pathlib import Path

from tests_meta.deploy.real_systemd import boot_machine
from tests_meta.rehearsal.ci_world import until

LONG_COMMAND = "sleep 4714"


def running_commands() -> list[str]:
    listed = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=True).stdout
    return [line.strip() for line in listed.splitlines() if line.strip().endswith(LONG_COMMAND)]


def test_machine_and_its_processes_end_with_the_test(tmp_path: Path) -> None:
    """Its process 1 and everything in it are gone. Positive control: both are found while the machine runs."""
    with boot_machine(tmp_path / "machine") as machine:
        machine.out(f"systemd-run --quiet --unit=lasting --service-type=exec {LONG_COMMAND}")
        assert machine.process().exists()
        assert running_commands() != []
    until(lambda: running_commands() == [], what="its processes to end")
    assert not machine.process().exists()
