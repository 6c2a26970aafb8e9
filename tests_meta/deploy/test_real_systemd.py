"""The scripts of `fixtures.deploy.revert_timer` under a real systemd, in a container.

The embedded host's service manager is a stand-in. These tests run the same scripts where process 1 is systemd: a
switch that is not confirmed, a switch that hangs, and a switch that ends in emergency mode.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from fixtures.clients import nixos
from fixtures.clients import probe_script as sections
from fixtures.clients.bridge import BridgeTask, Systemd
from fixtures.clients.nixos import Generation
from fixtures.clients.probe_script import Section
from fixtures.config.site import Bridge
from fixtures.deploy.revert_timer import (
    SURVIVE_EMERGENCY,
    SwitchPlan,
    SwitchState,
    SwitchUnits,
    active_state_command,
    parse_switch_state,
    state_command,
)
from tests_meta.deploy.real_systemd import CURRENT, PROFILE, SERVICE, STARTS, WRONG_MOUNT, Machine, boot_machine
from tests_meta.rehearsal.ci_world import until

STARTED, REVERTED = 0, 93
HANGS = "sleep infinity\n"
# When the revert timer fires. `NEVER_S` avoids a race in tests that start the revert themselves or disarm it.
SOON_S, LATER_S, NEVER_S = 1.5, 10.0, 3600.0


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    with boot_machine(tmp_path_factory.mktemp("machine")) as made:
        yield made


class Switch:
    """A switch from one system of the machine to another, as in a deploy."""

    def __init__(self, machine: Machine, request: pytest.FixtureRequest) -> None:
        self.machine = machine
        self._name = request.node.name.removeprefix("test_").replace("_", "-")[:60]
        self.home = machine.add_system("home")
        machine.out(f"nix-env -p {PROFILE} --set {self.home} && {self.home}/bin/switch-to-configuration switch")
        self.before = self._generation()
        machine.out(": > /switches")

    def _generation(self) -> Generation:
        link, path = self.machine.out(f"readlink {PROFILE}; readlink -f {PROFILE}").splitlines()
        return Generation(int(link.split("-")[1]), path)

    def plan(self, *, revert_after_s: float = NEVER_S, switch_s: float = 60.0, **system: object) -> SwitchPlan:
        units = SwitchUnits(f"20260602T001300Z-{self._name}")
        return SwitchPlan(
            units=units,
            before=self.before,
            running=self.home,
            to_path=self.machine.add_system("other", **system),  # type: ignore[arg-type]
            profile=PROFILE,
            current=CURRENT,
            script=f"{nixos.RUN}/{units.script}",
            roots=f"{nixos.GC_ROOTS}/{units.roots}",
            activation="switch",
            switch_s=switch_s,
            revert_after_s=revert_after_s,
        )

    def start(self, plan: SwitchPlan, guard: str = "true") -> None:
        assert self.machine.run(plan.start_script(guard)).status == STARTED

    def await_end(self, plan: SwitchPlan) -> SwitchState:
        def look() -> SwitchState | None:
            shown = self.machine.run(state_command(plan.units))
            if shown.status != 0:  # systemd itself is being replaced
                return None
            state = parse_switch_state(shown.out)
            return None if state.active else state

        return until(look, what="the switch to end")

    def left(self) -> set[str]:
        """muster's units and files on the machine, as the survey reads them."""
        commands = nixos.system_commands("", PROFILE)
        names, files = (Section(self.machine.out(commands[kind]), 0) for kind in ("own-units", "own-files"))
        return set(nixos.unit_names(names)) | set(files.lines)

    def await_nothing_left(self) -> None:
        """systemd forgets a unit a moment after it was stopped."""
        until(lambda: self.left() == set(), what="nothing left")

    def activations(self) -> list[str]:
        """The activations since the start, oldest first: ``switch /nix/store/…``."""
        return self.machine.out("cat /switches").splitlines()

    def fire(self, plan: SwitchPlan) -> None:
        """Start the revert service, as the timer does when it elapses."""
        self.machine.out(f"systemctl start --no-block {plan.units.revert}.service")

    def failed_units(self) -> set[str]:
        listed = self.machine.out(nixos.system_commands("", PROFILE)["failed-units"])
        return set(nixos.unit_names(Section(listed, 0)))

    def is_reverted(self) -> bool:
        running, service = (
            self.machine.run(c).out for c in (f"readlink -f {CURRENT}", f"systemctl is-active {SERVICE}")
        )
        return (running, self._generation(), service) == (self.home, self.before, "active")

    def await_reverted(self) -> None:
        until(self.is_reverted, within_s=30.0, what="the machine to be back")
        self.machine.until("cat /boot-default", self.home)

    def revert_now(self, plan: SwitchPlan) -> None:
        """Revert as muster does; files and units of the revert remain until `clear_script` runs."""
        self.machine.out(plan.revert_now_script())
        self.await_reverted()
        self.machine.until(active_state_command(plan.units.revert), "inactive")


def task_of(machine: Machine, bridge: Systemd) -> BridgeTask:
    """Read the bridge with muster's probe script."""
    commands = bridge.commands()
    return bridge.task(sections.parse(machine.out(sections.script(commands)), commands, where="machine"))


@pytest.fixture
def switch(machine: Machine, request: pytest.FixtureRequest) -> Iterator[Switch]:
    yield Switch(machine, request)
    machine.run("systemctl stop 'muster-*.timer' 'muster-*.service'; systemctl reset-failed")


def test_confirmed_switch_is_kept(machine: Machine, switch: Switch) -> None:
    """The revert is armed during the switch; disarming removes all of muster's units and keeps the new system."""
    plan = switch.plan()
    switch.start(plan)
    assert switch.await_end(plan) == SwitchState(active=False, result="success", exit_status=0)
    assert switch.left() == set(plan.units.all)
    assert machine.run(plan.disarm_script()).status == 0
    switch.await_nothing_left()
    assert not switch.is_reverted()
    assert machine.out(f"readlink -f {CURRENT}") == plan.to_path


def test_unconfirmed_switch_is_reverted(machine: Machine, switch: Switch) -> None:
    """The timer reverts the switch even though the switch has reloaded systemd's units."""
    plan = switch.plan(revert_after_s=SOON_S)
    switch.start(plan)
    switch.await_nothing_left()
    assert switch.activations() == [f"switch {plan.to_path}", f"switch {switch.home}"]
    switch.await_reverted()
    # A late confirmation is refused and changes nothing.
    assert machine.run(plan.disarm_script()).status == REVERTED
    assert switch.is_reverted()


def test_revert_timer_survives_emergency_mode(machine: Machine, switch: Switch) -> None:
    """Emergency mode stops all other units; the revert timer stays active and restores the machine."""
    plan = switch.plan(revert_after_s=LATER_S, units=WRONG_MOUNT)
    machine.out("systemd-run --quiet --unit=plain --on-active=3600 /bin/true")
    switch.start(plan)
    machine.until("systemctl is-active emergency.target", "active")
    machine.until(f"systemctl is-active {SERVICE} plain.timer dbus.service", "inactive\ninactive\ninactive")
    assert machine.out(f"systemctl is-active {plan.units.revert}.timer") == "active"
    switch.await_reverted()
    machine.until("systemctl is-active default.target", "active")
    machine.until("systemctl is-active emergency.target", "inactive")
    machine.out(plan.clear_script())
    switch.await_nothing_left()


def test_hanging_switch_is_stopped_at_its_time_limit(machine: Machine, switch: Switch) -> None:
    """muster then reverts with the machine's revert unit, and no unit or file remains."""
    plan = switch.plan(switch_s=5.0, starts=HANGS)
    switch.start(plan)
    assert switch.await_end(plan).result == "timeout"
    assert machine.out(f"readlink -f {CURRENT}") == plan.to_path
    switch.revert_now(plan)
    machine.out(plan.clear_script())
    switch.await_nothing_left()


def test_failed_switch_reports_its_exit_code(machine: Machine, switch: Switch) -> None:
    """The exit code is the one of NixOS, and only muster's switch unit is listed as failed."""
    plan = switch.plan(starts="exit 4\n")
    switch.start(plan)
    assert switch.await_end(plan) == SwitchState(active=False, result="exit-code", exit_status=4)
    assert switch.failed_units() == {f"{plan.units.switch}.service"}
    switch.revert_now(plan)
    machine.out(plan.clear_script())
    switch.await_nothing_left()
    assert switch.failed_units() == set()


def test_state_of_a_systemd_bridge_is_read(machine: Machine) -> None:
    """The probe returns whether the unit runs, its poll set and its log, and that a stopped unit does not run."""
    log_line = "watching all 2 repos"
    machine.out(
        "systemd-run --quiet --unit=ccci-bridge --service-type=exec -E POLL_REPOS=org/cc-ci,org/ghost "
        f"/bin/sh -c 'echo {log_line} && exec sleep infinity'"
    )
    site = Bridge(runtime="systemd", service="ccci-bridge.service")
    bridge = Systemd(site.service, "POLL_REPOS", site.inspect_command, site.log_command)
    until(lambda: task_of(machine, bridge).log != (), what="its first log line")
    task = task_of(machine, bridge)
    assert (task.running, task.poll_set, task.log) == (True, "org/cc-ci,org/ghost", (log_line,))
    machine.out("systemctl restart ccci-bridge || true; systemctl stop ccci-bridge")
    assert not task_of(machine, bridge).running


def test_revert_stops_a_running_switch(machine: Machine, switch: Switch) -> None:
    """A hanging switch holds the switch lock; the revert stops the switch and obtains the lock."""
    plan = switch.plan(starts=HANGS)
    switch.start(plan)
    machine.until(f"readlink -f {CURRENT}", plan.to_path)
    assert machine.run(f"{switch.home}/bin/switch-to-configuration switch").status == 1
    switch.fire(plan)
    switch.await_reverted()
    machine.out(plan.hold_script())
    machine.out(plan.clear_script())
    switch.await_nothing_left()


def test_unattended_revert_leaves_no_units_or_files(machine: Machine, switch: Switch) -> None:
    """After a hanging switch reaches its limit, the timer reverts it and the revert script removes itself."""
    plan = switch.plan(switch_s=5.0, revert_after_s=LATER_S, starts=HANGS)
    switch.start(plan)
    switch.await_nothing_left()
    assert switch.activations() == [f"switch {plan.to_path}", f"switch {switch.home}"]
    assert "Service reached runtime time limit" in machine.out(f"journalctl -u {plan.units.switch} -o cat")
    switch.await_reverted()


def test_revert_works_without_an_armed_timer(machine: Machine, switch: Switch) -> None:
    """The same script reverts the machine with a timer, without one, and after a failed revert."""
    plan = switch.plan()
    machine.out(plan.switch_script())
    switch.revert_now(plan)
    machine.out(plan.switch_script())
    machine.out(f"systemd-run --quiet --unit={plan.units.revert} /bin/false")
    machine.until(active_state_command(plan.units.revert), "failed")
    switch.revert_now(plan)
    switch.start(plan)
    assert switch.await_end(plan).result == "success"
    switch.revert_now(plan)
    machine.out(plan.clear_script())
    switch.await_nothing_left()


def test_armed_revert_survives_systemd_reexec(machine: Machine, switch: Switch) -> None:
    """The timer stays armed and fires after a switch that replaces systemd (``daemon-reexec``)."""
    plan = switch.plan(revert_after_s=LATER_S, starts=f"systemctl daemon-reexec\n{STARTS}")
    switch.start(plan)
    assert switch.await_end(plan).result == "success"
    assert f"{plan.units.revert}.timer" in switch.left()
    switch.await_reverted()


def test_revert_restores_both_the_running_system_and_the_boot_default(machine: Machine, switch: Switch) -> None:
    """On a host booted into an older system, the revert restores that system and the newer boot default."""
    newer = machine.add_system("newer")
    machine.out(f"nix-env -p {PROFILE} --set {newer} && {newer}/bin/switch-to-configuration boot")
    switch.before = Generation(switch.before.number + 1, newer)
    plan = switch.plan(revert_after_s=SOON_S)
    switch.start(plan)
    switch.await_nothing_left()
    assert switch.activations()[1:] == [f"switch {plan.to_path}", f"test {switch.home}", f"boot {newer}"]
    assert switch.is_reverted()
    assert machine.out("cat /boot-default") == newer


def test_armed_revert_survives_garbage_collection(machine: Machine, switch: Switch) -> None:
    """The collector deletes all old generations; a root keeps the revert's target until the revert is complete."""
    loose = machine.add_system("loose")
    plan = switch.plan()
    switch.start(plan)
    assert switch.await_end(plan).result == "success"
    machine.out("nix-collect-garbage --delete-old")
    assert machine.run(f"test -e {loose}").status != 0, "the collector does collect"
    assert machine.out(f"ls -d {switch.home}") == switch.home
    switch.fire(plan)
    until(lambda: machine.run(f"readlink -f {PROFILE}").out == switch.home, what="the profile to be back")
    machine.until("cat /boot-default", switch.home)
    machine.until(f"readlink -f {CURRENT}", switch.home)
    machine.out(plan.hold_script())
    machine.until(active_state_command(plan.units.revert), "inactive")
    machine.out(plan.clear_script())
    switch.await_nothing_left()


def test_nothing_is_armed_when_the_guard_fails(machine: Machine, switch: Switch) -> None:
    """When the machine guard fails: exit 90, no unit, no file. Positive control: when it passes, they exist."""
    plan = switch.plan()
    assert machine.run(plan.start_script("test x = y")).status == 90
    switch.await_nothing_left()
    switch.start(plan, guard="test x = x")
    assert switch.left() == set(plan.units.all)
    switch.revert_now(plan)
    machine.out(plan.clear_script())


@pytest.mark.parametrize("property_", SURVIVE_EMERGENCY)
def test_revert_units_survive_emergency_mode(machine: Machine, switch: Switch, property_: str) -> None:
    """Timer and service both have each property that emergency mode requires, because a revert needs both."""
    plan = switch.plan()
    switch.start(plan)
    name, value = property_.split("=")
    for unit in (f"{plan.units.revert}.timer", f"{plan.units.revert}.service"):
        assert machine.out(f"systemctl show -p {name} --value {unit}") == value
    assert machine.out(f"systemctl show -p AccuracyUSec --value {plan.units.revert}.timer") == "1s"
    assert switch.await_end(plan).result == "success"
    machine.out(plan.disarm_script())
