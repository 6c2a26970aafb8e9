"""Which earlier runs are recovered: decided by their last line where that is enough."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from fixtures.config.site import Site, load_site
from fixtures.journal.lines import FILE_NAME, JournalBroken
from fixtures.journal.memory import target_of
from fixtures.journal.writer import Journal
from fixtures.rollback.recovery import unfinished_runs
from tests_meta.config.site_files import MINIMAL, write


@pytest.fixture
def site(tmp_path: Path) -> Site:
    """A site of the fewest settings."""
    return load_site(write(tmp_path, MINIMAL))


def record(reports: Path, site: Site, name: str, *, exit_code: int | None, settled_by: str = "") -> Path:
    """A journal with one change that was made and not undone; without `exit_code` its run was killed."""
    folder = reports / "runs" / name
    folder.mkdir(parents=True)
    journal = Journal(folder / FILE_NAME)
    journal.write("run", run=name, target=target_of(site))
    with journal.change(
        "create-mirror", "org/mumble", before=None, after={}, undo={}, by_hand="delete it"
    ) as change:
        change.done()
    journal.write("undo", change=1, result="refused", why="a network that was down")
    if exit_code is not None:
        end: dict[str, Any] = {"settled_by": settled_by} if settled_by else {}
        journal.write("end", exit=exit_code, verdict="", **end)
    journal.close()
    return folder / FILE_NAME


def damage(journal: Path) -> None:
    """Alter a line in the middle."""
    journal.write_bytes(journal.read_bytes().replace(b"org/mumble", b"org/mailu!"))


def found(reports: Path, site: Site) -> list[str]:
    """The names of the runs that are to be recovered."""
    return [left.folder.name for left in unfinished_runs(reports, site, but=reports / "runs" / "own")]


def test_killed_runs_and_failed_rollbacks_are_recovered_until_they_are_settled(
    tmp_path: Path, site: Site
) -> None:
    """A run without an end and one with exit 12 are found; a run that ended otherwise and a settled one are not."""
    record(tmp_path, site, "1-ended", exit_code=0)
    record(tmp_path, site, "2-killed", exit_code=None)
    record(tmp_path, site, "3-owes", exit_code=12)
    record(tmp_path, site, "4-settled", exit_code=12, settled_by="3")
    assert found(tmp_path, site) == ["2-killed", "3-owes"]


def test_ended_run_is_known_by_its_last_line(tmp_path: Path, site: Site) -> None:
    """An edited line in the middle of an ended run is not read; in a run to be recovered it is refused."""
    damage(record(tmp_path, site, "1-ended", exit_code=0))
    assert found(tmp_path, site) == []
    damage(record(tmp_path, site, "2-killed", exit_code=None))
    with pytest.raises(JournalBroken, match="2-killed"):
        found(tmp_path, site)


def test_last_line_that_was_edited_settles_nothing(tmp_path: Path, site: Site) -> None:
    """An end whose exit was changed by hand is no end: its journal is read whole and refused."""
    journal = record(tmp_path, site, "1-owes", exit_code=12)
    journal.write_bytes(journal.read_bytes().replace(b'"exit": 12', b'"exit": 10'))
    with pytest.raises(JournalBroken, match="1-owes"):
        found(tmp_path, site)


def test_incomplete_last_line_settles_nothing(tmp_path: Path, site: Site) -> None:
    """A run whose end a power cut tore is recovered."""
    journal = record(tmp_path, site, "1-torn", exit_code=0)
    journal.write_bytes(journal.read_bytes()[:-1])
    assert found(tmp_path, site) == ["1-torn"]
