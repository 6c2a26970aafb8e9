"""Tests of the rebuild service: its script and NixOS module with the real tools, and whole runs that use it.

Each run has its own world with few recipes. The host there runs the shipped script.
"""

from __future__ import annotations

import fcntl
import functools
import json
import re
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from fixtures.clients import rebuild_service as rebuild
from fixtures.errors import Unreachable
from fixtures.rehearsal import world as rehearsal_world
from fixtures.rehearsal.host.rebuild import SCRIPT, install_rebuild
from fixtures.rehearsal.parts import choose
from tests_meta.deploy.disk_names import mount_by_kernels_name
from tests_meta.muster_runs import PACE, ROOT
from tests_meta.parallel_worlds import MIRRORED, FaultRun, ParallelWorld, live_differences
from tests_meta.rehearsal.host_world import Answer, HostWorld
from tests_meta.shipped.units import evaluated, needs

PROPOSED = ROOT / "fixtures" / "shipped" / "rebuild"
MODULE = PROPOSED / "cc-ci-rebuild.nix"
FOREIGN = "0" * 39 + "1"
ROSTER = """\
recipes = [
  { name = "keycloak", enroll = false },
  { name = "ghost", enroll = true, known_red = { reason = "restore", until = 9999-12-31 } },
]
canaries = ["ghost"]
deferred = [{ recipe = "ghost", item = "backup pull request 1" }]
"""


class RebuildServiceWorld(ParallelWorld):
    """A parallel world whose host has the rebuild service."""

    def start(self, *faults: str) -> None:
        self.end()
        self._running = rehearsal_world.start(
            folder=self.world, pace=PACE, faults=faults, recipes=self.recipes, parts=choose(["deploy=service"])
        )

    @property
    def state_folder(self) -> Path:
        """The folder of the service's state files."""
        return self.settings.host_dir / "var/lib/cc-ci-rebuild"

    def result(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.state_folder / "result.json").read_text())
        return found


@dataclass(frozen=True)
class Rebuild(FaultRun):
    """One run against a host with the rebuild service, and the result file that the service wrote."""

    result: dict[str, Any]


def run_rebuild(
    parallel_world: RebuildServiceWorld,
    *faults: str,
    prepare: Callable[[RebuildServiceWorld], None] | None = None,
) -> Rebuild:
    parallel_world.begin(MIRRORED, *faults)
    try:
        if prepare:
            prepare(parallel_world)
        before = parallel_world.world_state()
        ran = parallel_world.visit()
        kept = parallel_world.state_folder / "result.json"
        return Rebuild(
            before, ran, parallel_world.world_state(), parallel_world.result() if kept.exists() else {}
        )
    finally:
        parallel_world.end()


def prepare_kernels_name(parallel_world: RebuildServiceWorld) -> None:
    """Mount the root device by the kernel's name, which the site file has; the configuration has its label."""
    mount_by_kernels_name(parallel_world.settings, parallel_world.world / "site.toml")


def prepare_not_fast_forward(parallel_world: RebuildServiceWorld) -> None:
    """Record that the running system was built from a commit that is not in main."""
    known = (parallel_world.state_folder / "deployed").read_text().split()
    (parallel_world.state_folder / "deployed").write_text(f"{known[0]} {FOREIGN} 2026-06-01T14:02:41Z\n")


def remove_service(parallel_world: RebuildServiceWorld) -> None:
    (parallel_world.settings.host_dir / "usr/local/lib/systemd/system/cc-ci-rebuild@.service").unlink()
    subprocess.run([str(parallel_world.settings.host_dir / "bin/systemctl"), "daemon-reload"], check=True)


RUNS: dict[str, Callable[[RebuildServiceWorld], Rebuild]] = {
    "well": lambda parallel_world: run_rebuild(parallel_world, prepare=prepare_kernels_name),
    "build-fails": lambda parallel_world: run_rebuild(parallel_world, "build-fails"),
    "switch-breaks-bridge": lambda parallel_world: run_rebuild(parallel_world, "switch-breaks-bridge"),
    "not a fast-forward": lambda parallel_world: run_rebuild(parallel_world, prepare=prepare_not_fast_forward),
    "no service": lambda parallel_world: run_rebuild(parallel_world, prepare=remove_service),
}


@pytest.fixture(scope="module")
def parallel_world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RebuildServiceWorld]:
    """One world folder for all runs, because preparing its initial state is slow."""
    made = RebuildServiceWorld(tmp_path_factory.mktemp("rebuild"), ROSTER)
    yield made
    made.clear()


@pytest.fixture(scope="module")
def rebuilds(parallel_world: RebuildServiceWorld) -> Callable[[str], Rebuild]:
    """Runs by name; each is made on first use."""
    return functools.cache(lambda name: RUNS[name](parallel_world))


def test_rebuild_service_switches_the_host_to_the_committed_head(rebuilds: Callable[[str], Rebuild]) -> None:
    """The host deploys the committed head, does not touch the operator's checkout, and reports the result.

    The root device has two names there, the kernel's and the configuration's.
    """
    rebuild_run = rebuilds("well")
    rebuild_run.ran.demand(0)
    assert rebuild_run.ran.summary["verdict"] == "converged"
    result, after = rebuild_run.result, rebuild_run.after
    assert (result["state"], result["commit"]) == ("switched", after.forge["cc-ci"]["refs/heads/main"])
    assert result["built"] == result["after"]["path"] == after.host["running"] == after.host["boots"]
    assert (result["before"]["path"], result["before"]["number"]) == (rebuild_run.before.host["running"], 42)
    assert after.host["checkout"] == rebuild_run.before.host["checkout"]
    assert after.served == after.poll_set
    assert len(after.poll_set) > len(rebuild_run.before.poll_set)
    assert after.left == ()
    assert "sync-checkout" not in {change["kind"] for change in rebuild_run.ran.summary["changes"]}


@pytest.mark.parametrize(
    ("name", "state", "says"),
    [
        ("build-fails", "build-failed", "does not build"),
        ("switch-breaks-bridge", "went-back", "the bridge does not run"),
    ],
)
def test_failed_rebuild_is_rolled_back(
    name: str, state: str, says: str, rebuilds: Callable[[str], Rebuild]
) -> None:
    """When the build fails or the bridge does not start, the host reports it and is restored; the run exits with 11."""
    rebuild_run = rebuilds(name)
    rebuild_run.ran.demand(11)
    assert rebuild_run.ran.summary["verdict"] == "rolled-back"
    assert rebuild_run.result["state"] == state
    assert says in rebuild_run.ran.output
    assert live_differences(rebuild_run.before, rebuild_run.after) == []


@pytest.mark.parametrize(
    ("name", "says"), [("not a fast-forward", "is not a fast-forward of"), ("no service", "has no unit")]
)
def test_rebuild_refused_by_the_host_is_withheld(
    name: str, says: str, rebuilds: Callable[[str], Rebuild]
) -> None:
    """A refused rebuild changes nothing on the host and keeps the enrollment; exit 13 and a finding name the action."""
    rebuild_run = rebuilds(name)
    rebuild_run.ran.demand(13)
    assert rebuild_run.ran.summary["verdict"] == "withheld"
    (finding,) = (f for f in rebuild_run.ran.summary["findings"] if f["id"] == "deploy-withheld")
    assert says in finding["what"]
    assert rebuild_run.after.host == rebuild_run.before.host
    assert rebuild_run.after.served == rebuild_run.before.served
    assert len(rebuild_run.after.poll_set) > len(rebuild_run.before.poll_set)
    assert rebuild_run.after.left == ()


def test_rebuild_script_is_clean_posix_sh() -> None:
    """shellcheck reports nothing for POSIX sh. Positive control: it does report an unquoted variable."""
    script = (PROPOSED / SCRIPT).read_text()

    def checked(text: str) -> subprocess.CompletedProcess[str]:
        words = [needs("shellcheck"), "--shell=sh", "--severity=style", "-"]
        return subprocess.run(words, input=text, capture_output=True, text=True, check=False)

    assert checked(script).stdout == ""
    assert "SC2086" in checked(script.replace('mkdir -p "$state"', "mkdir -p $state")).stdout


def test_module_sets_every_variable_that_the_script_reads() -> None:
    """The module sets every variable that the script reads, except those for another root folder."""
    given = {
        "services": {
            "cc-ci-rebuild": {"enable": True, "repository": "https://forge/cc-ci.git", "tokenFile": "/t"}
        }
    }
    services = evaluated(MODULE, given)["systemd"]["services"]
    assert set(services) == {"cc-ci-rebuild@", "cc-ci-rebuild-adopt@"}
    read = set(re.findall(r"\$\{(REBUILD_\w+):-", (PROPOSED / SCRIPT).read_text()))
    for name, words in (("cc-ci-rebuild@", "%i"), ("cc-ci-rebuild-adopt@", "adopt %i")):
        service = services[name]
        assert read - set(service["environment"]) == {"REBUILD_SYSTEM", "REBUILD_ROOT"}
        assert service["serviceConfig"]["ExecStart"].endswith(f"-{SCRIPT} {words}")
        assert service["serviceConfig"]["LoadCredential"] == ["forge-token:/t"]
        assert (service["restartIfChanged"], service["stopIfChanged"]) == (False, False)
    assert evaluated(MODULE, {"services": {"cc-ci-rebuild": {"enable": False}}}) == {}


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HostWorld]:
    """A host whose files exist but whose services do not run, and the forge of its checkout."""
    parts = choose()
    made = HostWorld(tmp_path_factory.mktemp("host") / "world", ssh=parts.ssh, nix=parts.nix)
    yield made
    made.close()


def rebuild_by_hand(host: HostWorld, words: str) -> tuple[Answer, dict[str, Any]]:
    """Run the script as its unit does; return the answer and the result file's content."""
    install_rebuild(host.settings, host.paths)
    unit = (host.paths.local_units / "cc-ci-rebuild@.service").read_text()
    given = " ".join(re.findall(r"^Environment=(\S+)", unit, flags=re.M))
    answer = host.local(f"env {given} /bin/sh {PROPOSED / SCRIPT} {words}")
    left = host.paths.rebuild / "result.json"
    return answer, json.loads(left.read_text()) if left.exists() else {}


def test_only_the_running_commit_can_be_adopted(host: HostWorld) -> None:
    """A rebuild is refused until the running commit is adopted; another system than the running one is not adopted."""
    head = host.local(f"git -C {host.paths.checkout} rev-parse HEAD").out.strip()
    host.local(f"ln -sfn {host.paths.profile.resolve()} {host.paths.current_system}")
    answer, left = rebuild_by_hand(host, head)
    assert (answer.status, left["state"]) == (3, "refused"), answer
    assert "which commit runs now is not known" in left["why"]
    answer, left = rebuild_by_hand(host, f"adopt {head}")
    assert (answer.status, left["state"], left["why"]) == (0, "unchanged", "adopted"), answer
    answer, left = rebuild_by_hand(host, "")
    assert (answer.status, left["state"], left["commit"]) == (0, "unchanged", head), answer
    older = host.paths.profile.with_name("system-40-link").resolve()
    host.local(f"ln -sfn {older} {host.paths.current_system}")
    answer, left = rebuild_by_hand(host, f"adopt {head}")
    assert (answer.status, left["state"]) == (3, "refused"), answer
    assert str(older) in left["why"]


def test_word_that_is_not_a_commit_of_main_is_refused(host: HostWorld) -> None:
    """Neither a malformed commit nor a commit outside main is deployed; the result quotes the word as valid JSON."""
    for word, says in (('x"y\\\\z', "40 hexadecimal digits"), (FOREIGN, "is not in main")):
        answer, left = rebuild_by_hand(host, f"'{word}'")
        assert (answer.status, left["state"]) == (3, "refused"), answer
        assert says in left["why"]
        assert left["commit"] == word


def test_concurrent_rebuild_is_refused(host: HostWorld) -> None:
    """A second rebuild exits immediately with 7 and does not change the result of the first."""
    rebuild_by_hand(host, FOREIGN)
    left = host.paths.rebuild / "result.json"
    before = left.read_bytes()
    with (host.paths.rebuild / "lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        answer, _ = rebuild_by_hand(host, "")
    assert answer.status == 7
    assert left.read_bytes() == before


def test_malformed_rebuild_result_is_refused() -> None:
    """A complete result is parsed; a truncated or malformed one raises Unreachable."""
    fields = {
        "state": "switched", "commit": "c", "why": "", "invocation": "i", "built": "/p", "hostname": "h",
        "root_device": "/dev/x", "before": {"number": 42, "path": "/o"}, "after": {"number": 43, "path": "/p"},
    }  # fmt: skip
    there, result = rebuild.parse_status(f"LoadState=loaded\n{json.dumps(fields)}\n")
    assert there
    assert result
    assert (result.succeeded, result.before.number, result.after.path) == (True, 42, "/p")
    assert rebuild.parse_status("LoadState=not-found\n") == (False, None)
    for text in ("{", "[]", json.dumps({**fields, "after": 3}), json.dumps({"state": "switched"})):
        with pytest.raises(Unreachable, match=r"result\.json"):
            rebuild.parse_status(f"LoadState=loaded\n{text}")
