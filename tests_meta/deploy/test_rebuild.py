"""A host that rebuilds itself: its script and module by the real tools, and whole runs that leave the switch to it.

Each run is in a world of its own with few recipes; the script that the host runs there is the one that is proposed.
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


class SelfServed(ParallelWorld):
    """A lane whose host has the service."""

    def start(self, *faults: str) -> None:
        self.end()
        self._running = rehearsal_world.start(
            folder=self.world, pace=PACE, faults=faults, recipes=self.recipes, parts=choose(["deploy=service"])
        )

    @property
    def own(self) -> Path:
        """The service's state."""
        return self.settings.host_dir / "var/lib/cc-ci-rebuild"

    def result(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.own / "result.json").read_text())
        return found


@dataclass(frozen=True)
class Rebuild(FaultRun):
    """An attack, and what the service left of it."""

    result: dict[str, Any]


def attacked(
    parallel_world: SelfServed, *faults: str, prepare: Callable[[SelfServed], None] | None = None
) -> Rebuild:
    parallel_world.begin(MIRRORED, *faults)
    try:
        if prepare:
            prepare(parallel_world)
        before = parallel_world.world_state()
        ran = parallel_world.visit()
        kept = parallel_world.own / "result.json"
        return Rebuild(
            before, ran, parallel_world.world_state(), parallel_world.result() if kept.exists() else {}
        )
    finally:
        parallel_world.end()


def not_forward(parallel_world: SelfServed) -> None:
    """What runs was built from a commit that main does not hold."""
    known = (parallel_world.own / "deployed").read_text().split()
    (parallel_world.own / "deployed").write_text(f"{known[0]} {FOREIGN} 2026-06-01T14:02:41Z\n")


def no_service(parallel_world: SelfServed) -> None:
    (parallel_world.settings.host_dir / "usr/local/lib/systemd/system/cc-ci-rebuild@.service").unlink()
    subprocess.run([str(parallel_world.settings.host_dir / "bin/systemctl"), "daemon-reload"], check=True)


RUNS: dict[str, Callable[[SelfServed], Rebuild]] = {
    "well": attacked,
    "build-fails": lambda parallel_world: attacked(parallel_world, "build-fails"),
    "switch-breaks-bridge": lambda parallel_world: attacked(parallel_world, "switch-breaks-bridge"),
    "not a fast-forward": lambda parallel_world: attacked(parallel_world, prepare=not_forward),
    "no service": lambda parallel_world: attacked(parallel_world, prepare=no_service),
}


@pytest.fixture(scope="module")
def parallel_world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SelfServed]:
    """One place for all runs: they share the slow way to the world that they begin in."""
    made = SelfServed(tmp_path_factory.mktemp("rebuild"), ROSTER)
    yield made
    made.clear()


@pytest.fixture(scope="module")
def told(parallel_world: SelfServed) -> Callable[[str], Rebuild]:
    """A run by its name, made when it is first asked for."""
    return functools.cache(lambda name: RUNS[name](parallel_world))


def test_a_whole_run_leaves_the_switch_to_the_host(told: Callable[[str], Rebuild]) -> None:
    """The host brings itself to the committed head, keeps the operator's checkout out of it, and says what it did."""
    one = told("well")
    one.ran.demand(0)
    assert one.ran.summary["verdict"] == "converged"
    result, after = one.result, one.after
    assert (result["state"], result["commit"]) == ("switched", after.forge["cc-ci"]["refs/heads/main"])
    assert result["built"] == result["after"]["path"] == after.host["running"] == after.host["boots"]
    assert (result["before"]["path"], result["before"]["number"]) == (one.before.host["running"], 42)
    assert after.host["checkout"] == one.before.host["checkout"]
    assert after.served == after.poll_set
    assert len(after.poll_set) > len(one.before.poll_set)
    assert after.left == ()
    assert "sync-checkout" not in {change["kind"] for change in one.ran.summary["changes"]}


@pytest.mark.parametrize(
    ("name", "state", "says"),
    [
        ("build-fails", "build-failed", "does not build"),
        ("switch-breaks-bridge", "went-back", "the bridge does not run"),
    ],
)
def test_what_the_host_cannot_do_is_taken_back(
    name: str, state: str, says: str, told: Callable[[str], Rebuild]
) -> None:
    """A build that fails, or a bridge that does not come up: the host says so, is what it was, and exit 11."""
    one = told(name)
    one.ran.demand(11)
    assert one.ran.summary["verdict"] == "rolled-back"
    assert one.result["state"] == state
    assert says in one.ran.output
    assert live_differences(one.before, one.after) == []


@pytest.mark.parametrize(
    ("name", "says"), [("not a fast-forward", "is not a fast-forward of"), ("no service", "has no unit")]
)
def test_what_the_host_refuses_is_withheld(name: str, says: str, told: Callable[[str], Rebuild]) -> None:
    """What it may not do is not begun: exit 13, the enrollment stands, and a finding says who should do what."""
    one = told(name)
    one.ran.demand(13)
    assert one.ran.summary["verdict"] == "withheld"
    (finding,) = (f for f in one.ran.summary["findings"] if f["id"] == "deploy-withheld")
    assert says in finding["what"]
    assert one.after.host == one.before.host
    assert one.after.served == one.before.served
    assert len(one.after.poll_set) > len(one.before.poll_set)
    assert one.after.left == ()


def test_the_script_is_plain_sh() -> None:
    """shellcheck has nothing to say about it as POSIX sh, and would have: an unquoted variable it names."""
    script = (PROPOSED / SCRIPT).read_text()

    def checked(text: str) -> subprocess.CompletedProcess[str]:
        words = [needs("shellcheck"), "--shell=sh", "--severity=style", "-"]
        return subprocess.run(words, input=text, capture_output=True, text=True, check=False)

    assert checked(script).stdout == ""
    assert "SC2086" in checked(script.replace('mkdir -p "$state"', "mkdir -p $state")).stdout


def test_the_module_gives_the_script_what_it_reads() -> None:
    """Every variable the script reads is set by the module, or is one that only another root folder needs."""
    given = {
        "services": {
            "cc-ci-rebuild": {"enable": True, "repository": "https://forge/cc-ci.git", "tokenFile": "/t"}
        }
    }
    services = evaluated(MODULE, given)["systemd"]["services"]
    assert set(services) == {"cc-ci-rebuild@", "cc-ci-rebuild-adopt@"}
    read = set(re.findall(r"\$\{(REBUILD_\w+):-", (PROPOSED / SCRIPT).read_text()))
    for name, words in (("cc-ci-rebuild@", "%i"), ("cc-ci-rebuild-adopt@", "adopt %i")):
        one = services[name]
        assert read - set(one["environment"]) == {"REBUILD_SYSTEM", "REBUILD_ROOT"}
        assert one["serviceConfig"]["ExecStart"].endswith(f"-{SCRIPT} {words}")
        assert one["serviceConfig"]["LoadCredential"] == ["forge-token:/t"]
        assert (one["restartIfChanged"], one["stopIfChanged"]) == (False, False)
    assert evaluated(MODULE, {"services": {"cc-ci-rebuild": {"enable": False}}}) == {}


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HostWorld]:
    """A host that is laid out and not running, with the forge that its checkout came from."""
    parts = choose()
    made = HostWorld(tmp_path_factory.mktemp("host") / "world", ssh=parts.ssh, nix=parts.nix)
    yield made
    made.close()


def rebuild_by_hand(host: HostWorld, words: str) -> tuple[Answer, dict[str, Any]]:
    """Run the script as its unit would; the answer, and the result that it left."""
    install_rebuild(host.settings, host.paths)
    unit = (host.paths.local_units / "cc-ci-rebuild@.service").read_text()
    given = " ".join(re.findall(r"^Environment=(\S+)", unit, flags=re.M))
    answer = host.local(f"env {given} /bin/sh {PROPOSED / SCRIPT} {words}")
    left = host.paths.rebuild / "result.json"
    return answer, json.loads(left.read_text()) if left.exists() else {}


def test_a_commit_is_adopted_only_when_it_is_what_runs(host: HostWorld) -> None:
    """At first nobody knows which commit runs: it is refused, then adopted by building it, and then it is known."""
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


def test_what_is_no_commit_of_the_branch_is_refused(host: HostWorld) -> None:
    """A word that is no commit, or a commit that main does not hold, is refused; the words cannot leave the JSON."""
    for word, says in (('x"y\\\\z', "40 hexadecimal digits"), (FOREIGN, "is not in main")):
        answer, left = rebuild_by_hand(host, f"'{word}'")
        assert (answer.status, left["state"]) == (3, "refused"), answer
        assert says in left["why"]
        assert left["commit"] == word


def test_one_rebuild_at_a_time(host: HostWorld) -> None:
    """A second rebuild ends at once with 7 and leaves the result of the first alone."""
    rebuild_by_hand(host, FOREIGN)
    left = host.paths.rebuild / "result.json"
    before = left.read_bytes()
    with (host.paths.rebuild / "lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        answer, _ = rebuild_by_hand(host, "")
    assert answer.status == 7
    assert left.read_bytes() == before


def test_a_result_is_read_or_refused() -> None:
    """A result is read whole; half of one, or something else, is no answer."""
    told = {
        "state": "switched", "commit": "c", "why": "", "invocation": "i", "built": "/p", "hostname": "h",
        "root_device": "/dev/x", "before": {"number": 42, "path": "/o"}, "after": {"number": 43, "path": "/p"},
    }  # fmt: skip
    there, result = rebuild.parse_status(f"LoadState=loaded\n{json.dumps(told)}\n")
    assert there
    assert result
    assert (result.succeeded, result.before.number, result.after.path) == (True, 42, "/p")
    assert rebuild.parse_status("LoadState=not-found\n") == (False, None)
    for text in ("{", "[]", json.dumps({**told, "after": 3}), json.dumps({"state": "switched"})):
        with pytest.raises(Unreachable, match="result is malformed"):
            rebuild.parse_status(f"LoadState=loaded\n{text}")
