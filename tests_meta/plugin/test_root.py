"""Which pytest runs are muster's: those whose arguments are phases/, a part of it, or the whole checkout."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from fixtures.plugin import hooks
from tests_meta.muster_runs import ROOT


def runs_phases(argument: Path, *, root: Path) -> bool:
    config: Any = SimpleNamespace(
        rootpath=root, invocation_params=SimpleNamespace(dir=root), args=[str(argument)]
    )
    return hooks._runs_phases(config)


@pytest.fixture
def link(tmp_path: Path) -> Path:
    """This checkout behind a symbolic link."""
    (tmp_path / "link").symlink_to(ROOT)
    return tmp_path / "link"


@pytest.mark.parametrize("argument", ["phases", "phases/test_1_mirrors.py::test_gate", "."])
def test_phases_are_recognised_behind_a_symbolic_link(link: Path, argument: str) -> None:
    """A checkout that is reached through a symbolic link is the same checkout, for the root and for the argument."""
    assert runs_phases(Path(argument), root=ROOT)
    assert runs_phases(Path(argument), root=link)
    assert runs_phases(link / argument, root=link)


def test_other_tests_are_no_run_of_muster(link: Path, tmp_path: Path) -> None:
    """muster's own tests, and a folder elsewhere, do not start it."""
    assert not runs_phases(link / "tests_meta", root=link)
    assert not runs_phases(tmp_path, root=link)
