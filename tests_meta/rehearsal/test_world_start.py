"""The start of an embedded world: interrupted, refused, and repeated after a failure."""

from __future__ import annotations

import signal
import subprocess
from pathlib import Path

import pytest

from fixtures.config.run_options import Parts
from fixtures.errors import BadSetting
from fixtures.rehearsal import world as rehearsal_world
from fixtures.rehearsal.settings import SEEDED, SETTINGS_FILE
from fixtures.rehearsal.world import WorldBroken
from fixtures.run.waiting import Seen, Waiter
from tests_meta.muster_runs import ROOT, command, environment, processes_of

WAITER = Waiter(interval_s=0.05)


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM"])
def test_signal_while_the_world_starts_removes_it(name: str, tmp_path: Path) -> None:
    """The run exits with 2 long before the start's limit; no process and no folder of the world is left."""
    run = subprocess.Popen(
        command("phases/", "--reports", str(tmp_path / "reports"), "-p", "no:cacheprovider"),
        cwd=ROOT,
        env=environment(TMPDIR=str(tmp_path)),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )

    def begun() -> Path | Seen:
        assert run.poll() is None, run.communicate()[0]
        found = list(tmp_path.glob(f"muster-world-*/{SETTINGS_FILE}"))
        return found[0].parent if found else Seen("no world yet")

    world = WAITER.until("the world's folder", begun, limit_s=60)
    assert not (world / SEEDED).exists(), "the world has already started: this test would see nothing"
    run.send_signal(signal.Signals[name])
    output, _ = run.communicate(timeout=rehearsal_world.READY_LIMIT_S / 2)
    assert run.returncode == 2, output
    assert "Traceback" not in output
    assert processes_of(str(world)) == []
    assert [path.name for path in tmp_path.iterdir()] == ["reports"]


@pytest.mark.parametrize("name", ["a b", "100%", "it's"])
def test_path_that_nix_or_ssh_misread_is_refused(name: str, tmp_path: Path) -> None:
    """A space, a percent sign or a quote in the path is refused before a folder is made."""
    folder = tmp_path / name / "world"
    with pytest.raises(BadSetting, match="expected a path of letters"):
        rehearsal_world.start(folder=folder, pace=0.02)
    assert list(tmp_path.iterdir()) == []


def test_refused_settings_leave_no_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A gitea that does not exist is refused, and the folder of the new world is removed."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    parts = Parts("openssh", "nix", forge="gitea", gitea="/nowhere/gitea")
    with pytest.raises(BadSetting):
        rehearsal_world.start(folder=None, pace=0.02, parts=parts)
    assert list(tmp_path.iterdir()) == []


def test_slow_start_ends_at_its_limit_and_leaves_no_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At the limit the world is taken down in order; the message names the limit."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr(rehearsal_world, "READY_LIMIT_S", 0.2)
    with pytest.raises(WorldBroken, match=r"not ready within 0\.2 s"):
        rehearsal_world.start(folder=None, pace=0.02)
    assert processes_of(str(tmp_path / "muster-world-")) == []
    assert list(tmp_path.iterdir()) == []


def test_world_starts_again_after_a_failed_start(tmp_path: Path) -> None:
    """A first start that fails halfway does not prevent the next one; files of others are refused and kept."""
    folder = tmp_path / "world"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATH", str(tmp_path))  # no git
        with pytest.raises(WorldBroken):
            rehearsal_world.start(folder=folder, pace=0.02)
    assert (folder / SETTINGS_FILE).exists()
    assert not (folder / SEEDED).exists()
    (folder / "notes.txt").write_text("mine")
    with pytest.raises(BadSetting, match=r"other files in it: notes\.txt"):
        rehearsal_world.start(folder=folder, pace=0.02)
    (folder / "notes.txt").unlink()
    running = rehearsal_world.start(folder=folder, pace=0.02)
    running.end()
    assert (folder / SEEDED).exists()
