"""Real parts in the place of embedded ones: the same runs, the same outcomes.

With ``MUSTER_GITEA_BIN`` naming a gitea, the night is migrated on it and faults are shown on it, in whole runs; with
``MUSTER_DRONE_BIN`` naming a drone-server as well, once more with both. The world is looked at by git, SQLite and
Gitea's own log of requests.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future
from pathlib import Path

import pytest

from fixtures.config.run_options import Parts
from fixtures.errors import BadSetting
from fixtures.rehearsal import world
from fixtures.rehearsal.faults.effects import Needs
from fixtures.rehearsal.faults.table import FAULTS, needing
from fixtures.rehearsal.parts import choose, find_gitea
from fixtures.rehearsal.settings import SEEDED, WorldSettings
from tests_meta.muster_runs import WorldPool, muster
from tests_meta.parallel_worlds import FaultRun, ParallelWorld, in_parallel_worlds
from tests_meta.reference_night import ReferenceNight, run_reference_night
from tests_meta.rehearsal.fault_runs import differences, run_with_fault
from tests_meta.world_view import WorldView

GITEA, DRONE = os.environ.get("MUSTER_GITEA_BIN", ""), os.environ.get("MUSTER_DRONE_BIN", "")
on_gitea = pytest.mark.skipif(not GITEA, reason="a real Gitea is only tried where MUSTER_GITEA_BIN names one")
on_drone = pytest.mark.skipif(
    not (GITEA and DRONE), reason="a real Drone is only tried where MUSTER_DRONE_BIN names one"
)
KINDS = [pytest.param("gitea", marks=on_gitea), pytest.param("drone", marks=on_drone)]
# A real forge is several processes for one request; two worlds are enough for a small machine.
WIDTH = 2
SCOPE_PROBE = "-muster-scope-probe"

SHOWN_ON_GITEA = (
    "build-fails",
    "checkout-dirty",
    "foreign-system",
    "host-key-changed",
    "mirror-diverged",
    "new-alert-file",
    "push-refused",
    "red-build",
    "switch-breaks-bridge",
    "switch-cuts-ssh-for-good",
    "switch-exit-4-old-unit",
    "upstream-gone",
    "upstream-master",
    "wrong-target",
)
SHOWN_ON_DRONE = ("build-stuck-pending", "red-build", "stale-green", "testme-ignored")
SHOWN = [pytest.param("gitea", name, marks=on_gitea) for name in SHOWN_ON_GITEA]
SHOWN += [pytest.param("drone", name, marks=on_drone) for name in SHOWN_ON_DRONE]


def a_gitea(folder: Path, says: str = "gitea version 1.25.4 built with go") -> Path:
    """A program that answers ``--version`` as Gitea does, and can do nothing else."""
    program = folder / "gitea"
    program.write_text(f"#!/bin/sh\necho '{says}'\n")
    program.chmod(0o755)
    return program


def test_without_a_gitea_the_run_is_refused() -> None:
    """`--part forge=gitea` where there is no gitea: one sentence that says how to name one, exit 4."""
    said = muster("--part", "forge=gitea", env={"PATH": "/usr/bin:/bin"}).refused()
    assert "no gitea on PATH" in said
    assert "--gitea-bin PATH" in said


def test_a_path_without_a_gitea_is_refused(tmp_path: Path) -> None:
    """`--gitea-bin` that names nothing, a folder, or another program: one sentence, exit 4."""
    nothing = str(tmp_path / "gitea")
    assert nothing in muster("--part", "forge=gitea", "--gitea-bin", nothing).refused()
    for path in (str(tmp_path), str(a_gitea(tmp_path, "git version 2.39.5"))):
        with pytest.raises(BadSetting, match=path):
            choose(["forge=gitea"], gitea=path)


def test_a_gitea_is_known_by_its_version(tmp_path: Path) -> None:
    """The version is what the binary says, with or without a `v`; on PATH it is found by its name."""
    assert find_gitea(str(a_gitea(tmp_path))).version == "1.25.4"
    assert find_gitea(str(a_gitea(tmp_path, "Gitea version v1.22.6"))).version == "1.22.6"


@pytest.mark.parametrize("fault", sorted(needing(Needs.EMBEDDED_FORGE)))
def test_a_fault_of_the_embedded_forge_is_refused_with_a_real_one(tmp_path: Path, fault: str) -> None:
    """A fault that only the embedded forge can show is refused, before any binary is looked for."""
    with pytest.raises(BadSetting, match=f"--fault {fault}"):
        choose(["forge=gitea"], gitea=str(tmp_path / "none"), faults=[fault])


def test_a_refused_fault_is_one_sentence() -> None:
    """On the command line the contradiction is one sentence that names both sides, exit 4."""
    said = muster("--part", "forge=gitea", "--fault", "forge-500").refused()
    assert "--fault forge-500" in said
    assert "--part forge=gitea" in said


@pytest.mark.parametrize("fault", sorted(needing(Needs.EMBEDDED_DRONE)))
def test_a_fault_of_the_embedded_drone_is_refused_with_a_real_one(tmp_path: Path, fault: str) -> None:
    """A fault that only the embedded Drone can show is refused, before any binary is looked for."""
    with pytest.raises(BadSetting, match=f"--fault {fault}"):
        choose(["forge=gitea", "ci=drone"], drone=str(tmp_path / "none"), faults=[fault])


def test_without_a_drone_the_run_is_refused(tmp_path: Path) -> None:
    """`--part ci=drone` where there is no drone-server, or no real Gitea beside it: one sentence, exit 4."""
    gitea = ("--part", "forge=gitea", "--gitea-bin", str(a_gitea(tmp_path)))
    said = muster(*gitea, "--part", "ci=drone", env={"PATH": "/usr/bin:/bin"}).refused()
    assert "no drone-server on PATH" in said
    assert "--drone-bin PATH" in said
    with pytest.raises(BadSetting, match="add --part forge=gitea"):
        choose(["ci=drone"])
    nothing = str(tmp_path / "drone-server")
    with pytest.raises(BadSetting, match=nothing):
        choose(["forge=gitea", "ci=drone"], gitea=str(a_gitea(tmp_path)), drone=nothing)


def test_faults_of_host_bridge_and_repositories_stay(tmp_path: Path) -> None:
    """What the embedded forge does not do itself can be asked for beside a real one."""
    others = [name for name in FAULTS if name not in needing(Needs.EMBEDDED_FORGE)]
    chosen = choose(["forge=gitea"], gitea=str(a_gitea(tmp_path)), faults=others)
    assert chosen.forge == "gitea"
    assert len(others) > 20


def test_a_kept_world_keeps_its_forge(tmp_path: Path) -> None:
    """A world that was made with one forge is not gone on with on another."""
    folder = tmp_path / "world"
    folder.mkdir()
    drawn = dict.fromkeys((*world.TOKENS,), "0" * 40) | dict.fromkeys(world.PORTS, 1)
    WorldSettings(root=folder, pace=0.02, **drawn).save()  # type: ignore[arg-type]
    (folder / SEEDED).touch()
    parts = choose(["forge=gitea"], gitea=str(a_gitea(tmp_path)))
    with pytest.raises(BadSetting, match="was made with forge=embedded and keeps it"):
        world.start(folder=folder, pace=0.02, parts=parts)


def parts_of(kind: str) -> Parts:
    """A real Gitea, and a real Drone with it where the kind is ``drone``."""
    asked = ["forge=gitea", "ci=drone"] if kind == "drone" else ["forge=gitea"]
    return choose(asked, gitea=GITEA, drone=DRONE if kind == "drone" else "")


@pytest.fixture(scope="module", params=KINDS)
def told(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ReferenceNight]:
    """Plan, apply, apply again and health, one after the other on the same real parts."""
    world_pool = WorldPool(tmp_path_factory.mktemp(request.param), parts_of(request.param))
    yield run_reference_night(world_pool)
    world_pool.clear()


def test_the_night_is_migrated_on_real_parts(told: ReferenceNight) -> None:
    """Everything is mirrored, covered and polled; the record says which parts were real, with their versions."""
    ran = told.applied.ran.demand(0)
    recipes = ran.summary["recipes"]
    assert len(recipes) == 19
    for column in ("mirrored", "covered", "polled"):
        assert [name for name, row in recipes.items() if not row[column]] == [], column
    assert ran.summary["verdict"] == "converged"
    parts, ci = ran.of("run")[0]["parts"], told.settings.ci
    assert parts["forge"] == f"Gitea {find_gitea(GITEA).version}"
    assert re.fullmatch(r"Drone \d+\.\d+\.\d+" if ci == "drone" else "embedded", parts["ci"])
    assert ran.folder is not None
    page = (ran.folder / "report.html").read_text()
    for what in (parts["forge"], parts["ci"]):
        assert what in page
        assert what in ran.output


def test_a_second_run_on_real_parts_changes_nothing(told: ReferenceNight) -> None:
    """Unchanged, no change, and no request to write but the two for what cannot be, which show a token's scopes."""
    ran = told.repeated.ran.demand(0)
    assert ran.summary["verdict"] == "unchanged"
    assert ran.summary["changes"] == []
    assert told.repeated.world == told.applied.world
    assert [write for write in told.repeated.writes if SCOPE_PROBE not in write] == []


def test_plan_and_health_on_real_parts_write_nothing(told: ReferenceNight) -> None:
    """Gitea's own log shows no write of theirs, and shows the writes of the run between them."""
    told.planned.ran.demand(10)
    told.checked.ran.demand(0)
    assert told.planned.world == told.before
    assert told.planned.writes == told.checked.writes == []
    assert [write for write in told.applied.writes if SCOPE_PROBE not in write] != []
    assert told.applied.world != told.before


def test_the_log_of_a_real_gitea_tells_who_wrote(told: ReferenceNight) -> None:
    """The log that shows that nothing was written has the requests of others in it as well."""
    agents = {entry["user_agent"] for entry in WorldView(told.settings).requests()}
    assert {"muster", "cc-ci-bridge"} <= agents


@pytest.fixture(scope="module")
def sweep(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Mapping[tuple[str, str], Future[FaultRun]]:
    """The faults that the chosen tests are about, each run once, on real parts of its own."""
    needs: set[tuple[str, str]] = {
        (item.callspec.params["kind"], item.callspec.params["name"])
        for item in request.session.items
        if item.path == request.path
        and hasattr(item, "callspec")
        and "sweep" in getattr(item, "fixturenames", ())
        and not any(mark.args[0] for mark in item.iter_markers("skipif"))
    }

    def job(name: str) -> Callable[[ParallelWorld], FaultRun]:
        return lambda parallel_world: run_with_fault(parallel_world, name)

    folder = tmp_path_factory.mktemp("faults")
    found: dict[tuple[str, str], Future[FaultRun]] = {}
    for kind in sorted({kind for kind, _ in needs}):
        jobs = {name: job(name) for of, name in sorted(needs) if of == kind}
        done = in_parallel_worlds(folder / kind, jobs, parts=parts_of(kind), width=WIDTH)
        found |= {(kind, name): outcome for name, outcome in done.items()}
    return found


@pytest.mark.parametrize(("kind", "name"), SHOWN)
def test_a_fault_ends_the_same_on_real_parts(
    sweep: Mapping[tuple[str, str], Future[FaultRun]], kind: str, name: str
) -> None:
    """Exit code, verdict, cause in words, and the state of the world: what the table of faults says."""
    entry, seen = FAULTS[name], sweep[kind, name].result()
    seen.ran.demand(entry.exit)
    assert seen.ran.summary["verdict"] == entry.verdict
    assert entry.says.lower() in seen.ran.output.lower()
    assert differences(entry.state, seen, recipe=entry.recipe) == []
