"""A machine that the tests start ends with them: what runs on in the background would disturb the next one."""

from __future__ import annotations

import subprocess
from pathlib import Path

from tests_meta.deploy.real_systemd import booted
from tests_meta.rehearsal.ci_world import until

LASTING = "sleep 4714"


def running() -> list[str]:
    said = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=True).stdout
    return [line.strip() for line in said.splitlines() if line.strip().endswith(LASTING)]


def test_a_machine_ends_with_its_test(tmp_path: Path) -> None:
    """Its process 1, and with it everything that ran in it. Positive control: before that, both are seen."""
    with booted(tmp_path / "machine") as machine:
        machine.out(f"systemd-run --quiet --unit=lasting --service-type=exec {LASTING}")
        assert machine.process().exists()
        assert running() != []
    until(lambda: running() == [], what="everything in it to be gone")
    assert not machine.process().exists()
