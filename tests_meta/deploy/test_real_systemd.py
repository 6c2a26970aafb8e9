"""The revert on the host, under a real systemd: what `fixtures.deploy.revert_timer` sends, on a machine of its own.

The embedded host's service manager is a stand-in. Here the same scripts run where process 1 is systemd itself: a
switch that nobody confirms, one that hangs, and the one that ends in emergency mode.
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
from tests_meta.deploy.real_systemd import CURRENT, PROFILE, SERVICE, STARTS, WRONG_MOUNT, Machine, booted
from tests_meta.rehearsal.ci_world import until

STARTED, REVERTED = 0, 93
HANGS = "sleep infinity\n"
# A revert that fires while the test looks at other things would be a race: it fires soon, late enough, or when told to.
SOON_S, LATER_S, NEVER_S = 1.5, 10.0, 3600.0


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    with booted(tmp_path_factory.mktemp("machine")) as made:
        yield made


class Switch:
    """A switch from a system of the machine to another one, as a deploy makes it."""

    def __init__(self, machine: Machine, request: pytest.FixtureRequest) -> None:
        self.machine = machine
        self._name = request.node.name.removeprefix("test_").replace("_", "-")[:60]
        self.home = machine.system("home")
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
            to_path=self.machine.system("other", **system),  # type: ignore[arg-type]
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

    def ended(self, plan: SwitchPlan) -> SwitchState:
        def look() -> SwitchState | None:
            shown = self.machine.run(state_command(plan.units))
            if shown.status != 0:  # systemd itself is being replaced
                return None
            state = parse_switch_state(shown.out)
            return None if state.active else state

        return until(look, what="the switch to end")

    def left(self) -> set[str]:
        """What of muster's is on the machine, as its survey reads it."""
        commands = nixos.system_commands("", PROFILE)
        names, files = (Section(self.machine.out(commands[kind]), 0) for kind in ("own-units", "own-files"))
        return set(nixos.unit_names(names)) | set(files.lines)

    def await_nothing_left(self) -> None:
        """systemd forgets a unit a moment after it was stopped."""
        until(lambda: self.left() == set(), what="nothing left")

    def made(self) -> list[str]:
        """The activations since the start, in order: ``switch /nix/store/…``."""
        return self.machine.out("cat /switches").splitlines()

    def fire(self, plan: SwitchPlan) -> None:
        """What the timer does when its time has come."""
        self.machine.out(f"systemctl start --no-block {plan.units.revert}.service")

    def failed_units(self) -> set[str]:
        listed = self.machine.out(nixos.system_commands("", PROFILE)["failed-units"])
        return set(nixos.unit_names(Section(listed, 0)))

    def is_back(self) -> bool:
        running, service = (
            self.machine.run(c).out for c in (f"readlink -f {CURRENT}", f"systemctl is-active {SERVICE}")
        )
        return (running, self._generation(), service) == (self.home, self.before, "active")

    def await_back(self) -> None:
        until(self.is_back, within_s=30.0, what="the machine to be back")
        self.machine.until("cat /boot-default", self.home)

    def go_back(self, plan: SwitchPlan) -> None:
        """As muster does it; what the revert itself leaves is still there."""
        self.machine.out(plan.revert_now_script())
        self.await_back()
        self.machine.until(active_state_command(plan.units.revert), "inactive")


def task_of(machine: Machine, bridge: Systemd) -> BridgeTask:
    """The bridge as muster's probe script reads it."""
    commands = bridge.commands()
    return bridge.task(sections.parse(machine.out(sections.script(commands)), commands, where="machine"))


@pytest.fixture
def switch(machine: Machine, request: pytest.FixtureRequest) -> Iterator[Switch]:
    yield Switch(machine, request)
    machine.run("systemctl stop 'muster-*.timer' 'muster-*.service'; systemctl reset-failed")


def test_a_switch_that_is_confirmed_stays(machine: Machine, switch: Switch) -> None:
    """Armed while it runs; disarmed, nothing of muster's is left, and the machine stays where it is."""
    plan = switch.plan()
    switch.start(plan)
    assert switch.ended(plan) == SwitchState(active=False, result="success", exit_status=0)
    assert switch.left() == set(plan.units.all)
    assert machine.run(plan.disarm_script()).status == 0
    switch.await_nothing_left()
    assert not switch.is_back()
    assert machine.out(f"readlink -f {CURRENT}") == plan.to_path


def test_a_switch_that_nobody_confirms_is_taken_back(machine: Machine, switch: Switch) -> None:
    """The switch has reloaded systemd's units in between, and they say the same as before."""
    plan = switch.plan(revert_after_s=SOON_S)
    switch.start(plan)
    switch.await_nothing_left()
    assert switch.made() == [f"switch {plan.to_path}", f"switch {switch.home}"]
    switch.await_back()
    # Whoever comes back too late is told so, and takes nothing away.
    assert machine.run(plan.disarm_script()).status == REVERTED
    assert switch.is_back()


def test_emergency_mode_is_survived(machine: Machine, switch: Switch) -> None:
    """The system of another machine stops everything; only what was armed as muster arms it is still there."""
    plan = switch.plan(revert_after_s=LATER_S, units=WRONG_MOUNT)
    machine.out("systemd-run --quiet --unit=plain --on-active=3600 /bin/true")
    switch.start(plan)
    machine.until("systemctl is-active emergency.target", "active")
    machine.until(f"systemctl is-active {SERVICE} plain.timer dbus.service", "inactive\ninactive\ninactive")
    assert machine.out(f"systemctl is-active {plan.units.revert}.timer") == "active"
    switch.await_back()
    machine.until("systemctl is-active default.target", "active")
    machine.until("systemctl is-active emergency.target", "inactive")
    machine.out(plan.clear_script())
    switch.await_nothing_left()


def test_a_switch_that_hangs_is_stopped_at_its_time_limit(machine: Machine, switch: Switch) -> None:
    """Then muster goes back, by the machine's own unit, and nothing is left of either."""
    plan = switch.plan(switch_s=5.0, starts=HANGS)
    switch.start(plan)
    assert switch.ended(plan).result == "timeout"
    assert machine.out(f"readlink -f {CURRENT}") == plan.to_path
    switch.go_back(plan)
    machine.out(plan.clear_script())
    switch.await_nothing_left()


def test_a_switch_that_fails_tells_how(machine: Machine, switch: Switch) -> None:
    """Its exit code as NixOS means it; the failed unit is muster's own and none of the machine's."""
    plan = switch.plan(starts="exit 4\n")
    switch.start(plan)
    assert switch.ended(plan) == SwitchState(active=False, result="exit-code", exit_status=4)
    assert switch.failed_units() == {f"{plan.units.switch}.service"}
    switch.go_back(plan)
    machine.out(plan.clear_script())
    switch.await_nothing_left()
    assert switch.failed_units() == set()


def test_a_bridge_that_is_a_unit_is_read(machine: Machine) -> None:
    """Which start of it runs, what it polls, what it said; and that it is not there."""
    said = "watching all 2 repos"
    machine.out(
        "systemd-run --quiet --unit=ccci-bridge --service-type=exec -E POLL_REPOS=org/cc-ci,org/ghost "
        f"/bin/sh -c 'echo {said} && exec sleep infinity'"
    )
    site = Bridge(runtime="systemd", service="ccci-bridge.service")
    bridge = Systemd(site.service, "POLL_REPOS", site.inspect_command, site.log_command)
    until(lambda: task_of(machine, bridge).log != (), what="its first words")
    task = task_of(machine, bridge)
    assert (task.running, task.poll_set, task.log) == (True, "org/cc-ci,org/ghost", (said,))
    machine.out("systemctl restart ccci-bridge || true; systemctl stop ccci-bridge")
    assert not task_of(machine, bridge).running


def test_a_revert_stops_a_switch_that_still_runs(machine: Machine, switch: Switch) -> None:
    """It holds the lock without which nobody switches."""
    plan = switch.plan(starts=HANGS)
    switch.start(plan)
    machine.until(f"readlink -f {CURRENT}", plan.to_path)
    assert machine.run(f"{switch.home}/bin/switch-to-configuration switch").status == 1
    switch.fire(plan)
    switch.await_back()
    machine.out(plan.hold_script())
    machine.out(plan.clear_script())
    switch.await_nothing_left()


def test_a_revert_that_was_made_while_nobody_looked_leaves_nothing(machine: Machine, switch: Switch) -> None:
    """A hanging switch ran into its limit, later the revert fired; its script takes itself away."""
    plan = switch.plan(switch_s=5.0, revert_after_s=LATER_S, starts=HANGS)
    switch.start(plan)
    switch.await_nothing_left()
    assert switch.made() == [f"switch {plan.to_path}", f"switch {switch.home}"]
    assert "Service reached runtime time limit" in machine.out(f"journalctl -u {plan.units.switch} -o cat")
    switch.await_back()


def test_going_back_needs_no_timer(machine: Machine, switch: Switch) -> None:
    """Never armed, armed, and after a revert that failed: the same script brings the machine back."""
    plan = switch.plan()
    machine.out(plan.switch_script())
    switch.go_back(plan)
    machine.out(plan.switch_script())
    machine.out(f"systemd-run --quiet --unit={plan.units.revert} /bin/false")
    machine.until(active_state_command(plan.units.revert), "failed")
    switch.go_back(plan)
    switch.start(plan)
    assert switch.ended(plan).result == "success"
    switch.go_back(plan)
    machine.out(plan.clear_script())
    switch.await_nothing_left()


def test_an_armed_revert_outlives_systemd_itself(machine: Machine, switch: Switch) -> None:
    """A switch that brings another systemd lets it take over (``daemon-reexec``): the timer goes on."""
    plan = switch.plan(revert_after_s=LATER_S, starts=f"systemctl daemon-reexec\n{STARTS}")
    switch.start(plan)
    assert switch.ended(plan).result == "success"
    assert f"{plan.units.revert}.timer" in switch.left()
    switch.await_back()


def test_a_host_that_was_booted_into_an_older_system_goes_back_to_that(machine: Machine, switch: Switch) -> None:
    """What ran runs again, and what would boot would boot again."""
    newer = machine.system("newer")
    machine.out(f"nix-env -p {PROFILE} --set {newer} && {newer}/bin/switch-to-configuration boot")
    switch.before = Generation(switch.before.number + 1, newer)
    plan = switch.plan(revert_after_s=SOON_S)
    switch.start(plan)
    switch.await_nothing_left()
    assert switch.made()[1:] == [f"switch {plan.to_path}", f"test {switch.home}", f"boot {newer}"]
    assert switch.is_back()
    assert machine.out("cat /boot-default") == newer


def test_garbage_is_collected_while_a_revert_is_armed(machine: Machine, switch: Switch) -> None:
    """Every generation but the new one is deleted, number and all. What is gone back to is held, until it is back."""
    loose = machine.system("loose")
    plan = switch.plan()
    switch.start(plan)
    assert switch.ended(plan).result == "success"
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


def test_on_another_machine_nothing_is_armed(machine: Machine, switch: Switch) -> None:
    """The guard says no: 90, no unit, no file. Positive control: where it says yes, they are there."""
    plan = switch.plan()
    assert machine.run(plan.start_script("test x = y")).status == 90
    switch.await_nothing_left()
    switch.start(plan, guard="test x = x")
    assert switch.left() == set(plan.units.all)
    switch.go_back(plan)
    machine.out(plan.clear_script())


@pytest.mark.parametrize("property_", SURVIVE_EMERGENCY)
def test_a_unit_is_told_what_stops_it_not(machine: Machine, switch: Switch, property_: str) -> None:
    """Timer and service both: one that stops would take the other's work with it."""
    plan = switch.plan()
    switch.start(plan)
    name, value = property_.split("=")
    for unit in (f"{plan.units.revert}.timer", f"{plan.units.revert}.service"):
        assert machine.out(f"systemctl show -p {name} --value {unit}") == value
    assert machine.out(f"systemctl show -p AccuracyUSec --value {plan.units.revert}.timer") == "1s"
    assert switch.ended(plan).result == "success"
    machine.out(plan.disarm_script())
