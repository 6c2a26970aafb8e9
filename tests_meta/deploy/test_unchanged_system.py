"""A commit of cc-ci that changes no system: the checkout is synced, nothing is switched, and the night is green."""

from __future__ import annotations

from pathlib import Path

from tests_meta.muster_runs import CONVERGED, WorldPool
from tests_meta.people import Person
from tests_meta.reference_night import ReferenceNight


def test_only_the_checkout_is_synced(
    reference_night: ReferenceNight, world_pool: WorldPool, tmp_path: Path
) -> None:
    """The run asserts on a survey that was taken after its own sync; the one after it changes nothing."""
    assert reference_night.applied.ran.exit == 0
    with world_pool.live(CONVERGED) as pool, Person(pool, "cc-ci", tmp_path) as person:
        parity = person.folder / "tests" / "ghost" / "PARITY.md"
        parity.write_text(f"{parity.read_text()}\nOne more remark.\n")
        person.push()
        ran = pool.visit().demand(0)
        again = pool.visit().demand(0)
    assert [change["kind"] for change in ran.summary["changes"]] == ["sync-checkout"]
    assert again.summary["changes"] == []
