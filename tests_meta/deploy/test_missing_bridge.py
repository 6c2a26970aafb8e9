"""A bridge that was removed or scaled to 0: a health check names it, and an apply has its own unit deploy it again."""

from __future__ import annotations

import subprocess

import pytest

from tests_meta.muster_runs import CONVERGED, WorldPool
from tests_meta.reference_night import ReferenceNight

BRIDGE = "ccci-bridge_app"


def docker(pool: WorldPool, *words: str) -> None:
    """What somebody does on the host."""
    subprocess.run([str(pool.settings.host_dir / "bin/docker"), *words], check=True, capture_output=True)


@pytest.mark.parametrize(
    ("act", "state"),
    [(("service", "scale", f"{BRIDGE}=0"), "scaled to 0"), (("service", "rm", BRIDGE), "absent")],
    ids=["scaled to 0", "removed"],
)
def test_missing_bridge_is_drift_and_is_deployed_again(
    reference_night: ReferenceNight, world_pool: WorldPool, act: tuple[str, ...], state: str
) -> None:
    """Preflight does not stop the apply; its only change is the restart of the unit that deploys the bridge."""
    assert reference_night.applied.ran.exit == 0
    with world_pool.live(CONVERGED) as pool:
        docker(pool, *act)
        health = pool.visit("--health").demand(1)
        applied = pool.visit().demand(0)
        docker(pool, "service", "update", "--force", BRIDGE)
        replaced = pool.visit("--health").demand(0)
    assert health.summary["verdict"] == "drift"
    assert any(state in line["seen"] for line in health.of("assertion") if "the bridge runs" in line["title"])
    assert [change["kind"] for change in applied.summary["changes"]] == ["restart-bridge"]
    assert replaced.summary["verdict"] == "unchanged"
