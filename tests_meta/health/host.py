"""Mutations of the host: units, alerts, stacks, systems, checkout, bridge."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator

from tests_meta.health.mutation import When, mutation, test
from tests_meta.health.world import World


@mutation(test("no unit failed that had not failed before"))
def a_unit_has_failed(world: World) -> Iterator[None]:
    """A unit that worked in the last healthy record has failed."""
    world.on_host("systemd-run --unit=backup-check sh -c 'exit 3' || true")
    world.await_unit("backup-check.service", "failed")
    yield
    world.on_host("systemctl reset-failed backup-check.service")


@mutation(test("no alert was written"))
def an_alert_was_written(world: World) -> Iterator[None]:
    """A service has left an alert file since the last healthy record."""
    alert = world.host_folder / "var/lib/ci-warm/alerts/20260603T031500Z-backups-failed.json"
    alert.write_text("{}")
    yield
    alert.unlink()


@mutation(test("no unit was stopped"))
def docker_is_stopped(world: World) -> Iterator[None]:
    """docker.service was stopped; it has not failed."""
    world.on_host("systemctl stop docker.service")
    yield
    world.on_host("systemctl start docker.service")


@mutation(test("no unit was stopped"))
def the_deploy_unit_is_stopped(world: World) -> Iterator[None]:
    """The unit that deploys the bridge was stopped."""
    world.on_host("systemctl stop deploy-bridge.service")
    yield
    world.on_host("systemctl start deploy-bridge.service")


@mutation(test("no unit was stopped"))
def another_deploy_unit_is_stopped(world: World) -> Iterator[None]:
    """A reconcile unit that the site file does not name was stopped."""
    world.on_host("systemctl stop deploy-backups.service")
    yield
    world.on_host("systemctl start deploy-backups.service")


@mutation(test("no unit was stopped"))
def a_timer_is_stopped(world: World) -> Iterator[None]:
    """The timer of the nightly copy was stopped."""
    world.on_host("systemctl stop offsite-copy.timer")
    yield
    world.on_host("systemctl start offsite-copy.timer")


@mutation(test("no other system replaced it"), apply=0)
def the_profile_was_set_back(world: World) -> Iterator[None]:
    """The profile names an older generation: the next boot starts another system than runs now."""
    profile = world.host_folder / "nix/var/nix/profiles/system"
    was = os.readlink(profile)
    world.point(profile, world.older_generation())
    yield
    world.point(profile, was)


@mutation(test("no other system replaced it"), apply=0)
def an_older_system_was_activated(world: World) -> Iterator[None]:
    """An older generation was activated as a test; the profile still names the newest."""
    profiles = world.host_folder / "nix/var/nix/profiles"
    newest = os.path.realpath(profiles / "system")
    world.on_host(f"{profiles / world.older_generation()}/bin/switch-to-configuration test || true")
    yield
    world.on_host(f"{newest}/bin/switch-to-configuration test || true")
    world.await_bridge()


@mutation(test("no other system replaced it"), apply=0)
def the_host_was_rolled_back(world: World) -> Iterator[None]:
    """Somebody rolled the host back: an older generation runs and boots, and the checkout is at cc-ci's head."""
    profile = world.host_folder / "nix/var/nix/profiles/system"
    was = os.readlink(profile)
    world.point(profile, world.older_generation())
    world.on_host(f"{profile}/bin/switch-to-configuration switch || true")
    yield
    world.point(profile, was)
    world.on_host(f"{profile}/bin/switch-to-configuration switch || true")
    world.await_bridge()


@mutation(test("the bridge gives a sign of life"))
def the_bridge_is_frozen(world: World) -> Iterator[None]:
    """The bridge's process was stopped (SIGSTOP) after it had logged what it watches."""
    world.await_bridge()
    pid = world.bridge_pid()
    os.kill(pid, signal.SIGSTOP)
    yield
    os.kill(pid, signal.SIGCONT)


@mutation(test("the bridge has the settings of its unit"))
def the_bridge_polls_once_an_hour(world: World) -> Iterator[None]:
    """The running bridge polls every hour, and its unit says every 30 seconds."""
    world.deploy_bridge({"POLL_INTERVAL=30": "POLL_INTERVAL=45"})
    yield
    world.redeploy_bridge()


@mutation(test("the bridge has the settings of its unit"))
def the_bridge_reports_to_another_dashboard(world: World) -> Iterator[None]:
    """The running bridge has another URL than in the last healthy record, and the system is the same."""
    world.deploy_bridge({"DASHBOARD_URL=${DASHBOARD_URL}": "DASHBOARD_URL=http://127.0.0.1:9"})
    yield
    world.redeploy_bridge()


@mutation(test("the bridge has the settings of its unit"))
def the_bridge_reads_another_token(world: World) -> Iterator[None]:
    """The running bridge reads its token from another file than in the last healthy record."""
    copy = world.host_folder / "root/token-copy"
    copy.write_text(world.settings.operator_token)
    world.deploy_bridge({"GITEA_TOKEN_FILE=${BRIDGE_GITEA_TOKEN_FILE}": f"GITEA_TOKEN_FILE={copy}"})
    yield
    world.redeploy_bridge()


@mutation(test("the bridge has the settings of its unit"))
def the_bridge_reports_another_context(world: World) -> Iterator[None]:
    """The running bridge reports its verdicts under another context than its unit says."""
    world.deploy_bridge({"STATUS_CONTEXT=cc-ci/testme": "STATUS_CONTEXT=cc-ci/other"})
    yield
    world.redeploy_bridge()


@mutation(test("every stack is complete"))
def a_service_has_no_replica(world: World) -> Iterator[None]:
    """A service of a stack was scaled to nothing."""
    stack = next(world.host_folder.glob("nix/store/*-backups-stack.json"))
    (by_hand := world.host_folder / "root/backups.json").write_text(
        stack.read_text().replace('"replicas":1', '"replicas":0')
    )
    world.on_host(f"docker stack deploy --detach=true --compose-file {by_hand} backups")
    yield
    world.on_host(f"docker stack deploy --detach=true --compose-file {stack} backups")


@mutation(test("every stack is complete"))
def another_service_has_no_replica(world: World) -> Iterator[None]:
    """The service of the dashboard was scaled to nothing."""
    stack = next(world.host_folder.glob("nix/store/*-dashboard-stack.json"))
    (by_hand := world.host_folder / "root/dashboard.json").write_text(
        stack.read_text().replace('"replicas":1', '"replicas":0')
    )
    world.on_host(f"docker stack deploy --detach=true --compose-file {by_hand} ccci-dashboard")
    yield
    world.on_host(f"docker stack deploy --detach=true --compose-file {stack} ccci-dashboard")


@mutation(test("the hosts own revert is disarmed"), apply=13)
def a_revert_timer_is_left(world: World) -> Iterator[None]:
    """A revert timer of an earlier run is armed."""
    world.on_host("systemd-run --unit=muster-revert-old --on-active=6h true")
    yield
    world.on_host("systemctl stop muster-revert-old.timer")


@mutation(test("the hosts own revert is disarmed"))
def a_root_of_the_garbage_collector_is_left(world: World) -> Iterator[None]:
    """A garbage collector root of an earlier run's revert is left."""
    root = world.host_folder / "nix/var/nix/gcroots/muster-revert-old"
    root.symlink_to("/")
    yield
    root.unlink()


@mutation(test("no unit failed that had not failed before"), when=When.OFFLINE, restores=False)
def a_unit_fails_at_every_boot(world: World) -> Iterator[None]:
    """A unit of the system fails since a reboot, because its script is broken."""
    script = next(world.host_folder.glob("nix/store/*-unit-script-deploy-reports-start"))
    script.chmod(0o644)
    script.write_text("exit 1\n")
    yield
