"""A commit to cc-ci that does not change the system: the checkout is synced, and no switch is made."""

from __future__ import annotations

from pathlib import Path

from tests_meta.deploy.disk_names import mount_by_kernels_name
from tests_meta.muster_runs import CONVERGED, WorldPool
from tests_meta.people import Person
from tests_meta.reference_night import ReferenceNight


def test_commit_without_a_system_change_only_syncs_the_checkout(
    reference_night: ReferenceNight, world_pool: WorldPool, tmp_path: Path
) -> None:
    """The run takes a new survey after its sync, and the next run changes nothing.

    The site file and the host have the kernel's name for the root device, the configuration has its label.
    """
    assert reference_night.applied.ran.exit == 0
    with world_pool.live(CONVERGED) as pool, Person(pool, "cc-ci", tmp_path) as person:
        mount_by_kernels_name(pool.settings, pool.site)
        parity = person.folder / "tests" / "ghost" / "PARITY.md"
        parity.write_text(f"{parity.read_text()}\nOne more remark.\n")
        person.push()
        ran = pool.visit().demand(0)
        again = pool.visit().demand(0)
    assert [change["kind"] for change in ran.summary["changes"]] == ["sync-checkout"]
    assert again.summary["changes"] == []
