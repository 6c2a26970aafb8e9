"""Somebody who changes cc-ci while muster works: loaded into muster with ``-p tests_meta.plan.commit_during_run``.

At the boundary that ``MUSTER_MEDDLE_AT`` begins the name of, a commit that nobody reviewed is put on the branch
main of the bare repository ``MUSTER_MEDDLE_IN``, once.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from fixtures.journal.writer import Observer
from fixtures.plugin.session import OBSERVER
from tests_meta.bare_commits import commit_file


def pytest_configure(config: pytest.Config) -> None:
    at = os.environ["MUSTER_MEDDLE_AT"]
    done: list[str] = []

    def meddle(boundary: str) -> None:
        if boundary.startswith(at) and not done:
            done.append(commit_file(Path(os.environ["MUSTER_MEDDLE_IN"]), "nix/unreviewed.nix", "{ }\n"))

    observer: Observer = meddle
    config.stash[OBSERVER] = observer
