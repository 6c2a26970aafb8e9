"""The version strings of the outside systems, and what they say about the trials; no decision rests on them."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from fixtures.clients.versions import TRIED, drone_version, forge_version

TRIALS = Path(__file__).parents[2] / "fixtures/rehearsal/README.md"


@pytest.mark.parametrize(
    ("said", "words", "untried"),
    [
        ("1.25.4", "Gitea 1.25.4", ""),
        ("1.22.6+12-gabcdef", "Gitea 1.22.6+12-gabcdef", ""),
        ("1.19.4", "Gitea 1.19.4", "Gitea 1.22 to Gitea 1.25|Gitea 1.22 to 1.25"),
        ("1.250.0", "Gitea 1.250.0", "not on this version"),
        ("11.0.3+gitea-1.22.0", "Forgejo 11.0.3 (compatible with Gitea 1.22.0)", "Forgejo was not tried.*1.22"),
        ("9.0.0-dev-1+gitea-1.19.0", "Forgejo 9.0.0-dev-1 (compatible with Gitea 1.19.0)", "Gitea only"),
        ("development", "Gitea development", "not on this version"),
        ("", "Gitea ", "not on this version"),
    ],
)
def test_forge_is_known_by_its_version_string(said: str, words: str, untried: str) -> None:
    """Forgejo is recognised by its own form, and an untried version says what was tried instead."""
    version = forge_version(said)
    assert version.words == words
    assert re.search(untried, version.untried) if untried else version.untried == ""


def test_drone_version_says_what_was_tried() -> None:
    """Drone 2.25 was tried; another version says so."""
    assert drone_version("2.25.0").untried == ""
    assert "Drone 2.25" in drone_version("1.10.1").untried


def test_tried_versions_are_those_of_the_table_of_trials() -> None:
    """Every version that the clients call tried has a line in the table of rehearsals, and the other way round."""
    rows = [line for line in TRIALS.read_text().splitlines() if line.startswith("|")]
    for product in ("Gitea", "Drone"):
        listed = {series for row in rows for series in re.findall(rf"{product} (\d+\.\d+)", row)}
        assert listed == set(TRIED[product])
