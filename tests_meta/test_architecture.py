"""The import graph of the project: no circle, base rooms below all others, reports apart from the rest."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests_meta.import_graph import Graph, read, room_of

# Whoever runs a session writes its report at the end; nothing else of fixtures knows reports.
THE_ONE_CALLER = "fixtures.plugin.session"


@pytest.fixture(scope="module")
def graph() -> Graph:
    return read()


def test_no_import_circle(graph: Graph) -> None:
    """No module imports itself through others, also not inside a function or for types only."""
    assert graph.circles == []


def test_base_rooms_import_nothing_above_them(graph: Graph) -> None:
    """Settings, clients and the record's format know nothing of the phases, the run or the rehearsal."""
    assert graph.arrows_back() == []


def test_reports_knows_the_record_and_nothing_else(graph: Graph) -> None:
    """Of fixtures, reports imports only the room of the record's format."""
    rooms = {room_of(target) for module, target in graph.arrows if room_of(module) == "reports"}
    assert rooms - {"reports"} == {"fixtures.journal"}


def test_reports_is_called_in_one_place(graph: Graph) -> None:
    """One module of fixtures imports reports."""
    callers = {module for module, target in graph.arrows if room_of(target) == "reports" != room_of(module)}
    assert callers == {THE_ONE_CALLER}


def test_the_graph_sees_every_kind_of_import(tmp_path: Path) -> None:
    """Positive control: imports at the top, relative, in a function and for types are arrows; a circle shows."""
    package = tmp_path / "fixtures"
    (package / "journal").mkdir(parents=True)
    for name, text in {
        "__init__.py": "",
        "top.py": "import fixtures.middle\n",
        "middle.py": "def f():\n    from . import low\n",
        "low.py": "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from fixtures.middle import f\n",
        "alone.py": "from .low import TYPE_CHECKING\n",
        "journal/__init__.py": "",
        "journal/lines.py": "from ..alone import TYPE_CHECKING\n",
    }.items():
        (package / name).write_text(text, encoding="utf-8")
    found = read(tmp_path, ["fixtures"])
    assert found.circles == [("fixtures.low", "fixtures.middle")]
    assert found.arrows_back() == [("fixtures.journal.lines", "fixtures.alone")]
    assert (found.floors["fixtures.low"], found.floors["fixtures.top"]) == (1, 2)
    assert len(found.arrows) == 5
