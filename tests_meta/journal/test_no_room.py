"""A full disk: no change is made without a journal, and the problem is reported once."""

from __future__ import annotations

import re
import resource
import shutil
import subprocess
from pathlib import Path

import pytest

from tests_meta.muster_runs import NIGHT, Ran, WorldPool, files_below, muster
from tests_meta.reference_night import ReferenceNight, prepare_initial_world
from tests_meta.world_view import WorldView


def in_a_small_disk(folder: Path, options: str) -> list[str]:
    """The prefix of a command that mounts a small file system at `folder`; skips the test without root."""
    unshare = shutil.which("unshare")
    probe = [unshare or "unshare", "--mount", "sh", "-c", f"mount -t tmpfs -o size=64k tmpfs {folder}"]
    if unshare is None or subprocess.run(probe, capture_output=True, check=False).returncode != 0:
        pytest.skip("mounting a small file system needs root")
    look = f'find {folder} -type f -printf "LEFT %f %s\\n"'
    script = f'mount -t tmpfs -o {options} tmpfs {folder} && "$@"; s=$?; {look}; exit $s'
    return [unshare, "--mount", "sh", "-c", script, "sh"]


def files_left(ran: Ran) -> dict[str, int]:
    """Names and sizes of the files on the small disk after the run."""
    return {name: int(size) for name, size in re.findall(r"^LEFT (\S+) (\d+)$", ran.output, re.M)}


def test_disk_without_room_for_a_folder_is_refused(night: WorldPool, tmp_path: Path) -> None:
    """The run exits 4 before it contacts any system, and names the option ``--reports``."""
    prefix = in_a_small_disk(tmp_path, "size=64k,nr_inodes=1")
    assert "--reports" in night.visit(reports=tmp_path / "full", prefix=prefix).refused()


@pytest.mark.parametrize("below", ["a file", "no right to write"])
def test_unusable_report_folder_is_refused(tmp_path: Path, below: str) -> None:
    """A report folder below a file or on a read-only file system is refused."""
    (tmp_path / "file").write_text("")
    reports = Path("/proc/muster") if below == "no right to write" else tmp_path / "file" / "reports"
    assert "--reports" in muster("--health", reports=reports).refused()
    assert files_below(tmp_path) == [tmp_path / "file"]


@pytest.mark.parametrize("size_kb", [4, 44])
def test_disk_that_fills_up_stops_the_run_before_any_change(
    night: WorldPool, tmp_path: Path, size_kb: int
) -> None:
    """A disk that fills up before phase 1 stops the run; the world did not change, and no empty file is left."""
    before = WorldView(night.settings).everything()
    folder = tmp_path / "small"
    folder.mkdir()
    ran = night.visit(reports=folder, prefix=in_a_small_disk(folder, f"size={size_kb}k"))
    ran.demand(2)
    assert "cannot be written: No space left on device" in ran.output
    assert ("\nreport: " in ran.output) is ("report.html" in files_left(ran))
    assert WorldView(night.settings).everything() == before
    assert all(files_left(ran).values()), files_left(ran)


def test_run_after_a_full_disk_continues_from_the_journal(world_pool: WorldPool, tmp_path: Path) -> None:
    """A disk that fills up between changes stops the run after its journalled changes; with room again, the next run
    reads that journal and converges."""
    prepare_initial_world(world_pool)
    folder = tmp_path / "small"
    folder.mkdir()
    with world_pool.live(NIGHT):

        def limit_file_size() -> None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (160 * 1024, 160 * 1024))

        ran = world_pool.visit(reports=folder, before=limit_file_size)
        assert ran.exit in (1, 2, 12), ran.output[-3000:]
        assert "Traceback" not in ran.output
        intents = ran.of("intent")
        assert {line["kind"] for line in intents} >= {"create-mirror"}
        assert "switch" not in {line["kind"] for line in intents}
        assert world_pool.visit(reports=folder).demand(0).summary["verdict"] == "converged"


def test_full_disk_at_the_end_does_not_change_the_exit(
    reference_night: ReferenceNight, night: WorldPool, tmp_path: Path
) -> None:
    """When only the report does not fit, the exit code is that of the run, and the problem is reported."""
    assert reference_night.planned.ran.folder is not None
    journal_kb = (reference_night.planned.ran.folder / "journal.jsonl").stat().st_size // 1024
    folder = tmp_path / "small"
    folder.mkdir()
    ran = night.visit("--plan", reports=folder, prefix=in_a_small_disk(folder, f"size={journal_kb + 60}k"))
    ran.demand(10)
    assert "No space left on device" in ran.output
    assert all(files_left(ran).values()), files_left(ran)
    assert "journal.jsonl" in files_left(ran)
