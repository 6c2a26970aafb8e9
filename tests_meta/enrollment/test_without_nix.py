"""Phase 3 on a machine without nix."""

from __future__ import annotations

from pathlib import Path

from fixtures.journal.kinds import Reason
from tests_meta.muster_runs import WorldPool

EVALUATED = "the file still evaluates"


def test_health_check_without_nix_reports_a_drifted_poll_set_and_continues(
    night: WorldPool, tmp_path: Path
) -> None:
    """The evaluation is skipped as unknown, the drift is reported, and phases 4 to 6 run."""
    ran = night.visit("--health", "-p", "tests_meta.enrollment.without_nix", reports=tmp_path).demand(1)
    lines = ran.of("assertion")
    (evaluated,) = (line for line in lines if line["title"] == EVALUATED)
    assert (evaluated["outcome"], evaluated["reason"]) == ("skipped", Reason.UNKNOWN)
    assert "nix-instantiate is not installed" in evaluated["message"]
    assert any(line["phase"] == 3 and line["reason"] == Reason.DRIFT for line in lines)
    waiting = [line["title"] for line in lines if line["phase"] > 3 and line["message"].startswith("phase 3")]
    assert waiting == []
    assert {line["phase"] for line in lines if line["outcome"] == "passed"} >= {4, 6}
