"""Who may read a run's record: its owner, unless the site says otherwise; what a monitor reads is for everyone."""

from __future__ import annotations

from pathlib import Path

import pytest

from fixtures.config.site import Record
from fixtures.journal import files
from fixtures.journal.lines import FILE_NAME
from fixtures.journal.load_record import load
from fixtures.journal.writer import Journal
from fixtures.notify.prometheus import write_textfile
from reports import finish
from tests_meta.muster_runs import Ran, muster


def mode_of(path: Path) -> int:
    return path.stat().st_mode & 0o777


@pytest.fixture(scope="module")
def refused(tmp_path_factory: pytest.TempPathFactory) -> Ran:
    """A run whose host does not answer: the shortest run that leaves a record, with this machine's usual umask."""
    folder = tmp_path_factory.mktemp("readers")
    (folder / "known_hosts").touch()
    site = folder / "site.toml"
    site.write_text(SITE.format(known_hosts=folder / "known_hosts"))
    env = {"MUSTER_TEST_TOKEN": "0" * 40}
    return muster("--site", str(site), "--health", reports=folder / "reports", env=env)


SITE = """\
name = "nowhere"
[forge]
url = "http://127.0.0.1:9"
org = "recipe-maintainers"
token = {{ env = "MUSTER_TEST_TOKEN" }}
[upstream]
url = "http://127.0.0.1:9"
[host]
address = "127.0.0.1"
port = 9
known_hosts = "{known_hosts}"
machine_id = "4f6b1c0d9e8a47f2b35d6c7e8f901a2b"
hostname = "nixos"
root_device = "/dev/sda1"
[drone]
url = "http://127.0.0.1:9"
token = {{ env = "MUSTER_TEST_TOKEN" }}
"""


def test_record_is_private_by_default(refused: Ran) -> None:
    """Nobody but the owner can read a run's folder, any of its files, or the history."""
    assert refused.folder is not None, refused.output
    open_to_others = [
        str(path)
        for path in (refused.reports, *refused.reports.rglob("*"))
        if not path.is_symlink() and mode_of(path) & 0o077
    ]
    assert open_to_others == []
    assert {path.name for path in refused.folder.iterdir()} >= {"report.html", "summary.json", "junit.xml"}
    assert (refused.reports / "index.html").is_file()


@pytest.mark.parametrize(
    ("readable_by", "folder", "file"), [("owner", 0o700, 0o600), ("group", 0o750, 0o640), ("everyone", 0o755, 0o644)]
)  # fmt: skip
def test_files_of_the_record_follow_their_folder(
    readable_by: str, folder: int, file: int, tmp_path: Path
) -> None:
    """Report, summary and history can be read by those who may read the run's folder; the journal by its owner."""
    assert Record(readable_by=readable_by).folder_mode == folder  # type: ignore[arg-type]
    run = tmp_path / "runs" / "20260602T001300000Z-rehearsal-health"
    run.mkdir(parents=True)
    for one in (run.parent, run):
        one.chmod(folder)
    journal = Journal(run / FILE_NAME)
    journal.write("run", run=run.name, site="rehearsal", mode="health", roster=["ghost"])
    journal.close()
    (run / "junit.xml").write_text("<testsuites/>")
    finish(run)
    assert {mode_of(run / name) for name in ("report.html", "summary.json", "junit.xml")} == {file}
    assert mode_of(tmp_path / "index.html") == file
    assert mode_of(run / FILE_NAME) == 0o600


def test_textfile_is_for_everyone(tmp_path: Path) -> None:
    """A monitor of another user can read the textfile, also in a private folder."""
    run = tmp_path / "run"
    run.mkdir(mode=0o700)
    journal = Journal(run / FILE_NAME)
    journal.write("run", run="r", site="s", mode="health", roster=["ghost"])
    journal.close()
    write_textfile(run / "muster.prom", load(run), tmp_path)
    assert mode_of(run / "muster.prom") == 0o644


def test_file_in_a_private_folder_is_private(tmp_path: Path) -> None:
    """A file follows the folder that is named, otherwise its own."""
    (private := tmp_path / "private").mkdir(mode=0o700)
    tmp_path.chmod(0o755)
    files.write(tmp_path / "a", "text")
    files.write(tmp_path / "b", "text", readers_of=private)
    files.write(private / "c", "text")
    assert [mode_of(path) for path in (tmp_path / "a", tmp_path / "b", private / "c")] == [0o644, 0o600, 0o600]
