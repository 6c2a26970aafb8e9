"""Switching the embedded host to another system, without faults and with each of its faults."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from enum import Enum

import paramiko
import pytest

from fixtures.rehearsal.faults.effects import At, ChangeHistory, Effect
from fixtures.rehearsal.faults.host import FAULTS
from fixtures.rehearsal.faults.table import effects
from fixtures.rehearsal.histories import Commit
from fixtures.rehearsal.host.misbehaviour import apply_damage
from fixtures.rehearsal.host.sshd import find_sshd
from tests_meta.rehearsal.host_world import BUILD, ENROLL, HostWorld, execute, until

BRIDGE = "ccci-bridge_app"
NEWEST = f"docker service ps --no-trunc -q {BRIDGE} | head -n 1"
TASK = f"docker service ps --no-trunc -q -f desired-state=running {BRIDGE} | head -n 1"
STATE = f"docker inspect $({TASK}) --format '{{{{.Status.State}}}}'"
ENVIRONMENT = f"docker inspect $({TASK}) --format '{{{{json .Spec.ContainerSpec.Env}}}}'"
CURRENT = "readlink -f $HOME/../run/current-system"
PROFILE = "nix-env -p $HOME/../nix/var/nix/profiles/system"
FAILED = "systemctl list-units --failed --plain --no-legend --no-pager"
OLD_FAILURE = "offsite-copy.service"


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HostWorld]:
    """A host with the real ssh server and nix where both are installed, else with their stand-ins."""
    real = find_sshd() is not None and shutil.which("nix") is not None
    ssh, nix = ("openssh", "nix") if real else ("paramiko", "stand-in")
    made = HostWorld(tmp_path_factory.mktemp("switch") / "world", ssh=ssh, nix=nix)
    yield made
    made.close()


class Switch:
    """A switch to a system that polls one more repository, with an armed revert timer, as in a deploy."""

    def __init__(
        self,
        world: HostWorld,
        *,
        revert_after_s: float = 3600.0,
        attribute: str = "cc-ci",
        properties: tuple[str, ...] = (),
    ) -> None:
        self.world = world
        world.until(STATE, "running")
        self.home = world.out(CURRENT)
        self.task = world.out(TASK)
        world.out(ENROLL)
        self.built = world.out(BUILD.format(attribute=attribute))
        self.revert = (
            "systemctl stop switch.service 2>/dev/null; "
            f"{PROFILE} --switch-generation 42; "
            f"if systemctl is-active --quiet emergency.target; then {self.home}/activate; systemctl daemon-reload; "
            f"systemctl start default.target; fi; {self.home}/bin/switch-to-configuration switch"
        )
        world.out(f"printf '%s\\n' '{self.revert}' > $HOME/revert.sh")
        words = " ".join(f"{option} {one}" for one in properties for option in ("--timer-property", "-p"))
        world.out(
            f"systemd-run -q --unit=revert --on-active={revert_after_s} {words} -E HOME=$HOME sh $HOME/revert.sh"
        )

    def start(self, *, limit_s: float = 60.0) -> None:
        script = f"{PROFILE} --set {self.built} && exec {self.built}/bin/switch-to-configuration switch"
        self.world.out(
            f"systemd-run -q --unit=switch --service-type=exec -r -p RuntimeMaxSec={limit_s} "
            f"-E HOME=$HOME sh -c '{script}'"
        )

    def wait_for_result(self) -> str:
        """Wait for the end of the switch; returns ``Result ExecMainStatus``."""
        shown = "systemctl show -p SubState --value switch.service"
        until(lambda: self.world.run(shown).out.strip() in {"exited", "failed"}, "the switch to end")
        return self.world.out("systemctl show -p Result,ExecMainStatus --value switch").replace("\n", " ")

    def revert_by_hand(self) -> None:
        """Run the revert by hand, and assert the previous system and poll set."""
        self.world.out(self.revert)
        assert self.world.out(CURRENT) == self.home
        self.wait_for_old_bridge()

    def wait_for_revert(self) -> None:
        """Wait until ssh is lost and the revert timer has restored ssh, system and poll set."""
        until(lambda: not self.world.reachable(), "ssh to be gone")
        until(self.world.reachable, "the host's own revert to bring ssh back")
        self.world.disconnect()
        self.world.until(CURRENT, self.home)
        self.wait_for_old_bridge()

    def wait_until_lost(self) -> None:
        """Wait until ssh is lost and the revert timer is stopped."""
        until(lambda: not self.world.reachable(), "ssh to be gone")
        until(lambda: is_disarmed(self.world), "the armed revert to be gone")
        self.world.disconnect()

    def wait_for_old_bridge(self) -> None:
        self.world.until(STATE, "running")
        assert "recipe-maintainers/ghost" not in self.world.out(ENVIRONMENT)


def test_switch_replaces_the_task_and_reverts_by_recorded_generation(world: HostWorld) -> None:
    """A switch starts a task with the new poll set, resets failed units and sets the boot default."""
    world.start()
    assert OLD_FAILURE in world.out(FAILED)
    switch = Switch(world)
    switch.start()
    assert switch.wait_for_result() == "success 0"
    assert world.out(CURRENT) == switch.built
    assert world.out(FAILED) == ""
    world.until(STATE, "running")
    assert world.out(TASK) != switch.task
    assert "recipe-maintainers/ghost" in world.out(ENVIRONMENT)
    said = world.out("journalctl -t nixos -o cat").splitlines()
    assert said[-1] == f"finished switching to system configuration {switch.built}"
    loader = world.paths.loader / "loader.conf"
    assert loader.read_text().endswith("default nixos-generation-43.conf\n")
    switch.revert_by_hand()
    assert world.out("readlink $HOME/../nix/var/nix/profiles/system") == "system-42-link"
    assert loader.read_text().endswith("default nixos-generation-42.conf\n")


def test_switch_to_the_same_system_keeps_the_bridge_task(world: HostWorld) -> None:
    """A switch to the same system and a deploy of the same spec do not replace the bridge's task."""
    world.start()
    world.until(STATE, "running")
    task = world.out(TASK)
    world.out(f"$({CURRENT})/bin/switch-to-configuration switch")
    world.out("systemctl restart deploy-bridge")
    assert "Updating service" in world.out("journalctl -u deploy-bridge -o cat -n 8")
    assert world.out(NEWEST) == task


def test_second_switch_is_refused_by_the_lock(world: HostWorld) -> None:
    """A second switch does not get the lock; dry-activate and an unknown action change nothing."""
    world.start("switch-hangs")
    switch = Switch(world)
    switch.start()
    world.until(CURRENT, switch.built)
    second = world.run(f"{switch.home}/bin/switch-to-configuration test")
    assert (second.status, second.err) == (1, "Could not acquire lock\n")
    assert world.run(f"{switch.home}/bin/switch-to-configuration nonsense").status == 1
    assert world.run(f"{switch.home}/bin/switch-to-configuration dry-activate").status == 0
    assert world.out(CURRENT) == switch.built
    switch.revert_by_hand()


def test_reboot_reverts_a_test_activation(world: HostWorld) -> None:
    """`test` activates without changing the boot default; a reboot reverts it and ends transient units."""
    world.start()
    switch = Switch(world)
    world.out(f"{switch.built}/bin/switch-to-configuration test")
    assert world.out(CURRENT) == switch.built
    world.boot()
    assert world.out(CURRENT) == switch.home
    assert world.run("systemctl is-active revert.timer").status == 4
    switch.wait_for_old_bridge()
    assert world.out(TASK) != switch.task


def test_nixos_rebuild_switches(world: HostWorld) -> None:
    """nixos-rebuild switch --flake builds, sets the profile and activates; list-generations shows the generation."""
    world.start()
    Switch(world)
    world.out('nixos-rebuild switch --flake "git+file://$HOME/cc-ci?submodules=1#cc-ci"')
    rows = json.loads(world.out("nixos-rebuild list-generations --json"))
    assert [row["generation"] for row in rows if row["current"]] == [43]
    world.until(STATE, "running")
    assert "recipe-maintainers/ghost" in world.out(ENVIRONMENT)


def is_disarmed(world: HostWorld) -> bool:
    """Whether the service manager has stopped the revert timer."""
    entries = (json.loads(line) for line in world.paths.journal.read_text().splitlines())
    return any(entry["unit"] == "revert.timer" and entry["message"].startswith("Stopped") for entry in entries)


def test_system_of_another_machine_ends_in_emergency_mode(world: HostWorld) -> None:
    """Activating the legacy configuration stops ssh, services and the revert timer; a reboot does not help."""
    world.start()
    switch = Switch(world, revert_after_s=60.0, attribute="cc-ci-incus")
    switch.start()
    until(lambda: not world.reachable(), "ssh to be gone")
    until(lambda: is_disarmed(world), "the armed revert to be gone")
    assert "You are in emergency mode." in world.paths.journal.read_text()
    world.boot()
    assert not world.reachable()


@pytest.mark.parametrize("fault", ["", "emergency-mode"])
def test_revert_without_default_dependencies_survives_emergency_mode(world: HostWorld, fault: str) -> None:
    """As on a real systemd (test_real_systemd), the timer fires and restores services and ssh."""
    world.start(*[fault] * bool(fault))
    attribute = "cc-ci" if fault else "cc-ci-incus"
    switch = Switch(world, revert_after_s=2.0, attribute=attribute, properties=("DefaultDependencies=no",))
    switch.start()
    switch.wait_for_revert()
    assert world.run("systemctl is-active emergency.target multi-user.target").out.split() == [
        "inactive",
        "active",
    ]


def test_daemon_reload_corrupts_a_transient_command_with_a_semicolon(world: HostWorld) -> None:
    """As in systemd 252, a reload reads the unit's command back with ``\\;``; a script in a file is not affected."""
    world.start()
    arm = "systemd-run -q --unit={name} --on-active=0.3 sh -c 'echo one; echo two'"
    world.out(arm.format(name="kept"))
    world.until("journalctl -u kept -o cat -t sh", "one\ntwo")
    world.out(arm.format(name="spoilt") + " && systemctl daemon-reload")
    world.until("journalctl -u spoilt -o cat -t sh", "one; echo two")


def test_stopped_host_leaves_no_process(world: HostWorld) -> None:
    """Stopping the host ends the bridge, sessions, and transient services with their children."""
    world.start()
    world.until(STATE, "running")
    world.out('systemd-run -q --unit=left --service-type=exec sh -c "setsid sleep 4713 & exec sleep 4713"')
    execute(world.connect(), "(setsid sleep 4713 >/dev/null 2>&1 </dev/null &)")
    until(
        lambda: sum("sleep 4713" in one for one in world.left_over()) == 3, "a service's two and a session's one"
    )
    world.stop()
    until(lambda: world.left_over() == [], f"no process of {world.paths.root}")


# -- faults ------------------------------------------------------------------------------------------------


def damaged(name: str, script: str, wanted: str) -> Callable[[HostWorld], None]:
    """A check of a fault in the host's files, made without booting."""

    def check(world: HostWorld) -> None:
        assert wanted not in world.local(script).out
        apply_damage(world.paths, [name])
        assert wanted in world.local(script).out

    return check


def _host_key_changed(world: HostWorld) -> None:
    with pytest.raises(paramiko.BadHostKeyException):
        world.connect()


def _build_fails(world: HostWorld) -> None:
    world.out(ENROLL)
    answer = world.run(BUILD.format(attribute="cc-ci").split("|")[0])
    assert answer.status == 1
    assert "unable to start any build" in answer.err


def _switch_fails(world: HostWorld) -> None:
    switch = Switch(world)
    switch.start()
    assert switch.wait_for_result() == "exit-code 2"
    assert world.out(CURRENT) == switch.built
    newest = f"docker inspect $({NEWEST}) --format '{{{{.Status.State}}}}'"
    until(lambda: "failed" in world.run(f"docker service ps {BRIDGE}").out.lower(), "a task to fail")
    assert world.run(newest).out.strip() != ""
    switch.revert_by_hand()


def _exit_4(*, unit: str, old: bool) -> Callable[[HostWorld], None]:
    def check(world: HostWorld) -> None:
        assert (unit in world.out(FAILED)) == old
        switch = Switch(world)
        switch.start()
        assert switch.wait_for_result() == "exit-code 4"
        assert world.out(FAILED).split()[0] == unit
        assert "failed (status 4)" in world.out("journalctl -t nixos -o cat")
        world.until(STATE, "running")
        assert "recipe-maintainers/ghost" in world.out(ENVIRONMENT)
        switch.revert_by_hand()
        assert unit not in world.out(FAILED)

    return check


def _switch_hangs(world: HostWorld) -> None:
    switch = Switch(world)
    switch.start(limit_s=0.6)
    assert switch.wait_for_result().split()[0] == "timeout"
    assert world.out(CURRENT) == switch.built
    switch.revert_by_hand()


def _refuses(*, status: int, says: str) -> Callable[[HostWorld], None]:
    def check(world: HostWorld) -> None:
        switch = Switch(world)
        switch.start()
        assert switch.wait_for_result() == f"exit-code {status}"
        assert world.out(CURRENT) == switch.home
        assert world.out(TASK) == switch.task
        assert says in world.out("journalctl _SYSTEMD_UNIT=switch.service -o cat")

    return check


def _breaks_bridge(world: HostWorld) -> None:
    switch = Switch(world)
    switch.start()
    assert switch.wait_for_result() == "success 0"
    until(lambda: "No such image" in world.run(f"docker service ps --no-trunc {BRIDGE}").out, "a rejection")
    replicas = "docker stack services ccci-bridge --format '{{.Replicas}}'"
    assert world.out(replicas) == "0/1"
    switch.revert_by_hand()
    world.until(replicas, "1/1")


def _crash_loop(world: HostWorld) -> None:
    """Between two deaths the new task runs with the new environment; the history has the deaths."""
    switch = Switch(world)
    switch.start()
    assert switch.wait_for_result() == "success 0"
    history = f"docker service ps --no-trunc --format '{{{{.CurrentState}}}}' {BRIDGE}"
    until(lambda: world.run(history).out.count("Failed") >= 2, "two deaths", limit_s=60.0)
    until(lambda: "recipe-maintainers/ghost" in world.run(ENVIRONMENT).out, "the new environment to run")
    switch.revert_by_hand()


def _ssh_gone_for_good(world: HostWorld) -> None:
    switch = Switch(world, revert_after_s=2.0)
    switch.start()
    switch.wait_for_revert()


def _ssh_gone_for_a_while(world: HostWorld) -> None:
    switch = Switch(world)
    switch.start()
    until(lambda: not world.reachable(), "ssh to be gone")
    until(world.reachable, "ssh to be back")
    world.disconnect()
    assert switch.wait_for_result() == "success 0"
    assert world.out(CURRENT) == switch.built


def _emergency(world: HostWorld) -> None:
    switch = Switch(world, revert_after_s=60.0)
    switch.start()
    switch.wait_until_lost()


def _freezes(world: HostWorld) -> None:
    """A frozen host also loses a revert timer without default dependencies."""
    switch = Switch(world, revert_after_s=60.0, properties=("DefaultDependencies=no",))
    switch.start()
    switch.wait_until_lost()


def _bridge_stays(world: HostWorld) -> None:
    switch = Switch(world)
    switch.start()
    assert switch.wait_for_result() == "success 0"
    assert world.out(TASK) == switch.task


def _bridge_old(world: HostWorld) -> None:
    switch = Switch(world)
    switch.start()
    assert switch.wait_for_result() == "success 0"
    until(lambda: world.run(TASK).out.strip() not in {"", switch.task}, "another task")
    switch.wait_for_old_bridge()


def _new_alert(world: HostWorld) -> None:
    before = set(world.paths.alerts.iterdir())
    assert len(before) == 1
    switch = Switch(world)
    switch.start()
    assert switch.wait_for_result() == "success 0"
    assert len(set(world.paths.alerts.iterdir()) - before) == 1


def _foreign(world: HostWorld) -> None:
    home = world.out(CURRENT)
    world.out(BUILD.format(attribute="cc-ci"))
    assert world.out(CURRENT) != home
    assert world.out("readlink $HOME/../nix/var/nix/profiles/system") == "system-40-link"


def _wrong_target(world: HostWorld) -> None:
    """Applies the fault to the checkout, because this world is seeded without it."""
    place = world.paths.checkout / "flake.nix"
    [fault] = effects(["wrong-target"], ChangeHistory)
    [commit] = fault.change([Commit("main", "flake", datetime.now(UTC), {"flake.nix": place.read_bytes()})])
    place.write_bytes(commit.files["flake.nix"] or b"")
    assert "nixos-system-cc-ci-" in world.local(BUILD.format(attribute="cc-ci")).out


IN_FILES: dict[str, Callable[[HostWorld], None]] = {
    "checkout-dirty": damaged("checkout-dirty", "git -C cc-ci status --porcelain", " M flake.nix"),
    "checkout-diverged": damaged("checkout-diverged", "git -C cc-ci rev-list --count origin/main..HEAD", "1"),
    "checkout-missing": damaged("checkout-missing", "git -C ../etc/cc-ci log -1 --format=%H:%s", ":"),
    "submodule-missing": damaged("submodule-missing", "git -C cc-ci submodule status", "-"),
    "wrong-target": _wrong_target,
}
EXPECTED: dict[str, Callable[[HostWorld], None]] = {
    "host-key-changed": _host_key_changed,
    "build-fails": _build_fails,
    "switch-inhibited": _refuses(status=1, says="Pre-switch checks failed"),
    "switch-lock-held": _refuses(status=1, says="Could not acquire lock"),
    "switch-needs-reboot": _refuses(status=100, says="won't take effect until you reboot"),
    "switch-fails": _switch_fails,
    "switch-exit-4-old-unit": _exit_4(unit=OLD_FAILURE, old=True),
    "switch-hangs": _switch_hangs,
    "switch-breaks-bridge": _breaks_bridge,
    "bridge-crash-loop": _crash_loop,
    "switch-cuts-ssh-for-good": _ssh_gone_for_good,
    "switch-cuts-ssh-for-a-while": _ssh_gone_for_a_while,
    "emergency-mode": _emergency,
    "host-freezes": _freezes,
    "bridge-not-replaced": _bridge_stays,
    "bridge-old-environment": _bridge_old,
    "new-failed-unit": _exit_4(unit="deploy-reports.service", old=False),
    "new-alert-file": _new_alert,
    "foreign-system": _foreign,
}


def kind(effect: Effect) -> object:
    """The kind of an effect: its moment, its member of an enumeration, or its type."""
    match effect:
        case At():
            return effect.moment
        case Enum():
            return effect
    return type(effect)


def test_every_kind_of_effect_on_the_host_is_tested() -> None:
    """The checked faults are faults of the host and cover every kind of effect on it."""
    checked = EXPECTED.keys() | IN_FILES.keys()
    assert checked <= {fault.name for fault in FAULTS}
    kinds = {kind(effect) for fault in FAULTS if fault.name in checked for effect in fault.does}
    assert kinds == {kind(effect) for fault in FAULTS for effect in fault.does}


@pytest.mark.parametrize("name", IN_FILES)
def test_fault_in_files_is_made_before_the_host_starts(world: HostWorld, name: str) -> None:
    """The files of a healthy host do not have the fault; after `apply_damage` they do."""
    world.lay_out()
    IN_FILES[name](world)


@pytest.mark.parametrize("name", EXPECTED)
def test_fault_has_its_effect(world: HostWorld, name: str) -> None:
    """With the fault the host shows its effect, and can be reverted where the fault allows."""
    world.start(name)
    EXPECTED[name](world)
