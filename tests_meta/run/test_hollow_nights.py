"""A run that checks nothing, or less than requested, must fail.

A scheduled retest of cc-ci passed for weeks with an empty list of recipes. This module lists every known way to make
a run check nothing or less than requested.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests_meta.muster_runs import ROOT, WorldPool, muster

EMPTY_ROSTER = "recipes = []\ncanaries = []\n"


@pytest.mark.parametrize(
    "text", [EMPTY_ROSTER, "", "canaries = ['ghost']\n"], ids=["empty", "no words", "no recipes"]
)
def test_empty_roster_is_refused(text: str, tmp_path: Path) -> None:
    """The refusal names the key and requires at least one recipe."""
    roster = tmp_path / "roster.toml"
    roster.write_text(text)
    message = muster("--health", "--roster", str(roster), reports=tmp_path / "reports").refused()
    assert "recipes" in message
    assert "at least one recipe" in message


# -- runs that start and check less than requested ------------------------------------------------------------


def test_run_without_the_later_phases_fails(converged: WorldPool) -> None:
    """With all but phase 0 deselected on a healthy system, the run fails and names the missing phases."""
    later = [f"phases/{path.name}" for path in sorted((ROOT / "phases").glob("test_[1-6]*.py"))]
    ran = converged.visit("--health", *(word for name in later for word in ("--deselect", name))).demand(1)
    assert ran.failed == set()
    assert ran.summary["verdict"] == "drift"
    (left_out,) = [one for one in ran.summary["findings"] if one["id"] == "phases-left-out"]
    assert "1 (mirrors)" in left_out["what"]
    assert "6 (resume)" in left_out["what"]


@pytest.fixture
def copy(tmp_path: Path) -> Iterator[Path]:
    """A copy of the project that the test may damage."""
    folder = tmp_path / "copy"
    unwanted = shutil.ignore_patterns(".*", "*.egg-info", "runs", "tests_meta", "__pycache__", "latest")
    shutil.copytree(ROOT, folder, ignore=unwanted)
    return (yield folder)


@pytest.mark.parametrize("damage", ["emptied", "a link to nowhere", "not Python", "all skipped"])
def test_run_with_an_unreadable_phase_fails(converged: WorldPool, copy: Path, damage: str) -> None:
    """When the last phase's file is damaged, the run fails although the six phases before it pass."""
    file = copy / "phases" / "test_6_resume.py"
    text = file.read_text()
    file.unlink()
    if damage == "emptied":
        file.write_text("")
    elif damage == "a link to nowhere":
        file.symlink_to("nowhere.py")
    elif damage == "not Python":
        file.write_text("def test_(:\n")
    else:
        file.write_text(text.replace("pytestmark = ", "pytestmark = pytest.mark.skip('not tonight')\n_ = "))
    ran = converged.visit("--health", cwd=copy)
    assert ran.exit in (1, 2), ran.output[-3000:]
    assert not re.search(r"^muster: OK", ran.output, re.M)


def test_site_file_with_another_organisation_fails(converged: WorldPool, tmp_path: Path) -> None:
    """The health check fails when the organisation has no repository that the token can read."""
    other = converged.site.parent / "other-site.toml"
    other.write_text(converged.site.read_text().replace('org = "recipe-maintainers"', 'org = "somebody-else"'))
    try:
        ran = converged.visit("--health", site=other).demand(1)
    finally:
        other.unlink()
    assert ran.failed
