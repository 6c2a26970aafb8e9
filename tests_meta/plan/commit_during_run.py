"""A pytest plugin that changes cc-ci during a run: loaded with ``-p tests_meta.plan.commit_during_run``.

At the first boundary whose name begins with ``MUSTER_COMMIT_AT``, it commits an unreviewed file to the branch main
of the bare repository ``MUSTER_COMMIT_IN``.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from fixtures.journal.writer import Observer
from fixtures.plugin.session import OBSERVER
from tests_meta.bare_commits import commit_file


def pytest_configure(config: pytest.Config) -> None:
    at = os.environ["MUSTER_COMMIT_AT"]
    done: list[str] = []

    def commit_once(boundary: str) -> None:
        if boundary.startswith(at) and not done:
            done.append(commit_file(Path(os.environ["MUSTER_COMMIT_IN"]), "nix/unreviewed.nix", "{ }\n"))

    observer: Observer = commit_once
    config.stash[OBSERVER] = observer
