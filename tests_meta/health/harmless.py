"""Acts that are nobody's mistake: a health check of the world after each finds nothing."""

from __future__ import annotations

from collections.abc import Iterator

from tests_meta.health.mutation import When, mutation
from tests_meta.health.world import World


@mutation(survives="A bridge that was restarted polls the same set with the same settings.")
def the_bridge_was_restarted(world: World) -> Iterator[None]:
    """The bridge runs as a new task."""
    world.deploy_bridge({"cc-ci-bridge:": "cc-ci-bridge:x"})
    world.redeploy_bridge()
    yield


@mutation(when=When.OFFLINE, survives="A reboot into the same system starts the same units.")
def the_host_was_rebooted(world: World) -> Iterator[None]:
    """The host was shut down and started again."""
    yield


@mutation(
    survives="Old generations are deleted by garbage collection; the running one and the newest stay.",
    restores=False,
)
def an_old_generation_was_deleted(world: World) -> Iterator[None]:
    """The oldest generation was deleted."""
    profiles = world.host_folder / "nix/var/nix/profiles"
    oldest = min(profiles.glob("system-*-link"), key=lambda link: int(link.name.split("-")[1]))
    oldest.unlink()
    yield


@mutation(survives="A job that has ended well leaves nothing.")
def a_job_ran(world: World) -> Iterator[None]:
    """A transient unit ran and ended well."""
    world.on_host("systemd-run --unit=nightly-job true")
    yield


@mutation(survives="An alert that its service took back is over.")
def an_alert_came_and_went(world: World) -> Iterator[None]:
    """A service wrote an alert and deleted it again."""
    alert = world.host_folder / "var/lib/ci-warm/alerts/20260603T031500Z-backups-late.json"
    alert.write_text("{}")
    alert.unlink()
    yield


@mutation(survives="A build that runs has no verdict yet; the one before it counts.")
def a_build_is_running(world: World) -> Iterator[None]:
    """A build of a recipe is in progress."""
    with world.build("keycloak", status="running", finished=0):
        yield


@mutation(survives="cc-ci's notes change every day; the checkout has the same head.")
def ccci_has_a_new_commit(world: World) -> Iterator[None]:
    """Somebody committed to cc-ci and synced the host's checkout."""
    with world.ccci({"docs/notes.md": "notes\n"}):
        yield


@mutation(survives="Another repository of the organisation is none of muster's business.", restores=False)
def a_person_made_a_repository(world: World) -> Iterator[None]:
    """The organisation has a new repository that is not a recipe."""
    world.api("POST", f"/orgs/{world.org}/repos", {"name": "playground", "private": False, "auto_init": True})
    yield


@mutation(survives="A unit that was not there before is not missed, and it has not failed.")
def a_new_unit_runs(world: World) -> Iterator[None]:
    """The host has a new service."""
    world.on_host("systemd-run --unit=exporter sleep 600")
    yield
    world.on_host("systemctl stop exporter.service")


@mutation(survives="People discuss in issues.", restores=False)
def a_person_opened_an_issue(world: World) -> Iterator[None]:
    """A mirror has a new issue."""
    world.api("POST", f"/repos/{world.org}/ghost/issues", {"title": "A question"})
    yield
