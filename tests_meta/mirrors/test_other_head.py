"""An upstream whose HEAD is not main is a finding: work may go on elsewhere while main is stale."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from fixtures.clients.git import Refs
from fixtures.journal.run_record import Finding
from fixtures.mirrors.fixture import report_other_head

MAIN, OTHER = "a" * 40, "b" * 40


def report(upstream: Refs) -> list[Finding]:
    found: list[Finding] = []
    site = SimpleNamespace(upstream=SimpleNamespace(url="http://upstream", owner="coop"))
    context: Any = SimpleNamespace(site=site)
    record: Any = SimpleNamespace(find=found.append)
    surveys: Any = SimpleNamespace(now=SimpleNamespace(upstreams={"ghost": upstream}))
    report_other_head(context, record, surveys, "ghost")
    return found


@pytest.mark.parametrize(
    ("upstream", "words"),
    [
        (
            Refs("develop", {"main": MAIN, "develop": OTHER}),
            f"saw develop (at {OTHER[:10]}); main is at {MAIN[:10]}",
        ),
        (Refs("develop", {"main": MAIN, "develop": MAIN}), "saw develop (at the same commit as main)"),
        (Refs("develop", {"develop": OTHER}), "main is at no commit"),
        (Refs("", {"main": MAIN}, detached=OTHER), f"saw no branch (at {OTHER[:10]}); main is at {MAIN[:10]}"),
    ],
)
def test_head_that_is_not_main_is_a_finding(upstream: Refs, words: str) -> None:
    """Another branch, or a detached commit that is not main's, is named with its commit and main's."""
    (finding,) = report(upstream)
    assert words in finding.what


@pytest.mark.parametrize(
    "upstream",
    [
        Refs("main", {"main": MAIN, "develop": OTHER}),
        Refs("", {"main": MAIN}, detached=MAIN),
        Refs("", {"main": MAIN}),
    ],
)
def test_head_at_main_is_none(upstream: Refs) -> None:
    """HEAD at main, by name or by commit, and a server that does not say, are no finding."""
    assert report(upstream) == []
