"""Loss of a run's output (a closed pipe, a full disk) does not change the run or its exit code."""

from __future__ import annotations

import shlex
import subprocess
from pathlib import Path

import pytest

from fixtures.rehearsal.faults.table import FAULTS
from tests_meta.muster_runs import WorldPool, command

# The shell command that loses a run's output, and the number of lines read before that.
OUTPUT_LOSSES = {
    "a pipe that is closed": ('"$@" 2>&1 | head -n 1; exit "${PIPESTATUS[0]}"', 1),
    "a full disk": ('"$@" >/dev/full 2>&1', 0),
}


@pytest.mark.parametrize("how", OUTPUT_LOSSES)
def test_run_completes_when_its_output_is_lost(night: WorldPool, tmp_path: Path, how: str) -> None:
    """The run keeps its exit code, writes its complete record and prints no traceback."""
    script, read_lines = OUTPUT_LOSSES[how]
    ran = night.visit("--plan", prefix=["bash", "-c", script, "bash"], reports=tmp_path).demand(10)
    assert len(ran.output.splitlines()) == read_lines, ran.output
    assert ran.summary["exit"] == ran.lines[-1]["exit"] == 10
    assert ran.folder is not None
    assert (ran.folder / "report.html").exists()


def test_fault_list_survives_a_closed_pipe() -> None:
    """The list is written to standard output in whole lines, and closing the pipe early causes no traceback."""
    listing = shlex.join(command("phases/", "--fault", "list"))
    ran = subprocess.run(
        ["bash", "-c", f"{listing} | head -n 1"], capture_output=True, text=True, check=False, timeout=60
    )
    assert ran.stdout.startswith(f"{min(FAULTS)} "), ran.stdout
    assert ran.stderr.strip() == "Exit: these are the faults that --fault NAME knows"
