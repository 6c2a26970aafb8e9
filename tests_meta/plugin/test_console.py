"""Nobody reads what a run says any more: a closed pipe, a full disk. The run and its exit code are none the worse."""

from __future__ import annotations

import shlex
import subprocess
from pathlib import Path

import pytest

from tests_meta.muster_runs import WorldPool, command

# How a run's output is lost, and how much of it is read before.
LOST = {
    "a pipe that is closed": ('"$@" 2>&1 | head -n 1; exit "${PIPESTATUS[0]}"', 1),
    "a full disk": ('"$@" >/dev/full 2>&1', 0),
}


@pytest.mark.parametrize("how", LOST)
def test_a_run_that_nobody_reads_goes_on(night: WorldPool, tmp_path: Path, how: str) -> None:
    """It ends as it would have, with its own exit code, its whole record and no traceback."""
    script, read_lines = LOST[how]
    ran = night.visit("--plan", prefix=["bash", "-c", script, "bash"], reports=tmp_path).demand(10)
    assert len(ran.output.splitlines()) == read_lines, ran.output
    assert ran.summary["exit"] == ran.lines[-1]["exit"] == 10
    assert ran.folder is not None
    assert (ran.folder / "report.html").exists()


def test_the_faults_can_be_read_by_a_pager_that_is_left() -> None:
    """The list goes to standard output, whole lines, and a reader that closes it early causes no traceback."""
    listing = shlex.join(command("phases/", "--fault", "list"))
    ran = subprocess.run(
        ["bash", "-c", f"{listing} | head -n 1"], capture_output=True, text=True, check=False, timeout=60
    )
    assert ran.stdout.startswith("bridge-not-replaced "), ran.stdout
    assert ran.stderr.strip() == "Exit: these are the faults that --fault NAME knows"
