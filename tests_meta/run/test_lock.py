"""The lock permits one run at a time on a host, from a run's first write to its last, even if the link is lost."""

from __future__ import annotations

import glob
import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace

import pytest

from fixtures.clients.world import open_host_writer, open_write_world, resolve_secrets
from fixtures.config.site import Site, load_site
from fixtures.errors import Unreachable, Withheld, WrongHost
from fixtures.run.lock import Lock
from tests_meta.muster_runs import WorldPool
from tests_meta.rehearsal.ci_world import until

PROBE_S = 2.0

Make = Callable[[str], Lock]


@pytest.fixture
def site(night: WorldPool) -> Site:
    """The site of a running world, with a short time limit for probes."""
    found = load_site(night.site)
    return replace(found, limits=replace(found.limits, probe_s=PROBE_S))


@pytest.fixture
def make(site: Site) -> Iterator[Make]:
    """Make a lock that is not yet taken for the named run; all locks are released after the test."""
    made: list[Lock] = []

    def lock(run: str) -> Lock:
        made.append(Lock(open_host_writer(site, resolve_secrets(site)), site, run=run))
        return made[-1]

    yield lock
    for taken in made:
        taken.end()


def holders(site: Site) -> list[int]:
    """The processes on the host that have the lock's file open."""
    path = site.host.path("/run/lock/muster.lock")
    found = set()
    for link in glob.glob("/proc/[0-9]*/fd/*"):
        with suppress(OSError):  # it has ended meanwhile, or belongs to another user
            if os.readlink(link) == path:
                found.add(int(link.split("/")[2]))
    return sorted(found)


def send(site: Site, number: signal.Signals) -> None:
    there = holders(site)
    assert there
    for process in there:
        os.kill(process, number)


def test_lock_is_held_until_it_is_released(make: Make, site: Site) -> None:
    """A second run is refused with the holder's name, and gets the lock after the first run ends."""
    first, second = make("first"), make("second")
    first.take()
    assert first.demand() is False
    with pytest.raises(Withheld, match=r"pid \d+ run first since 20"):
        second.take()
    first.end()
    until(lambda: not holders(site), what="the first one's session gone")
    second.take()
    assert second.demand() is False


def test_lock_does_not_depend_on_the_site_name(make: Make, site: Site) -> None:
    """Two site files that name one machine differently share its lock."""
    make("first").take()
    elsewhere = replace(site, name="elsewhere")
    second = Lock(open_host_writer(elsewhere, resolve_secrets(elsewhere)), elsewhere, run="second")
    with pytest.raises(Withheld, match="run first"):
        second.take()


def test_lock_survives_a_reconnect(make: Make, site: Site) -> None:
    """The lock has its own connection, because phase 4 drops the main one to prove that a new login works."""
    first, second, world = make("first"), make("second"), open_write_world(site, resolve_secrets(site))
    first.take()
    assert world.host.probe("echo here", limit_s=PROBE_S).stdout == "here\n"
    world.host.reconnect()
    with pytest.raises(Withheld, match="run first"):
        second.take()


def test_lost_lock_is_taken_again(make: Make, site: Site) -> None:
    """When the lock's session dies and no other run took the lock, the run takes it again and continues."""
    first, second = make("first"), make("second")
    first.take()
    send(site, signal.SIGKILL)
    assert first.demand() is True
    assert first.demand() is False
    with pytest.raises(Withheld, match="run first"):
        second.take()


def test_lock_that_another_run_took_is_never_taken_back(make: Make, site: Site) -> None:
    """The run writes nothing during or after the other run, because its survey is outdated."""
    first, second = make("first"), make("second")
    first.take()
    send(site, signal.SIGKILL)
    second.take()
    for _ in range(2):
        with pytest.raises(Withheld, match=r"Another muster works on .* run second"):
            first.demand()
        second.end()
        until(lambda: not holders(site), what="the second one's session gone")


def test_lock_that_another_run_held_meanwhile_is_not_taken_back(make: Make, site: Site) -> None:
    """The lock file names the other run even after that run has ended."""
    first, second = make("first"), make("second")
    first.take()
    send(site, signal.SIGKILL)
    second.take()
    second.end()
    until(lambda: not holders(site), what="the second one's session gone")
    with pytest.raises(Withheld, match=r"has worked on .* while the link to it was lost: .* run second"):
        first.demand()


def test_unreachable_session_still_holds_the_lock(make: Make, site: Site) -> None:
    """After a silent link failure, the old session on the host excludes other runs until it ends."""
    first, second = make("first"), make("second")
    first.take()
    old = holders(site)
    send(site, signal.SIGSTOP)
    try:
        assert first.demand() is True
        with pytest.raises(Withheld, match="run first"):
            second.take()
    finally:
        for process in old:
            os.kill(process, signal.SIGKILL)
    until(lambda: not set(old) & set(holders(site)), what="the old session gone")
    assert first.demand() is True
    assert first.demand() is False


def test_lock_file_of_another_machine_is_not_touched(make: Make, site: Site, night: WorldPool) -> None:
    """The machine id is checked before the lock file is written, each time the lock is taken."""
    path, identity = (
        site.host.path("/run/lock/muster.lock"),
        night.settings.host_dir / "etc/machine-id",
    )
    first, was = make("first"), identity.read_text()
    first.take()
    send(site, signal.SIGKILL)
    until(lambda: not holders(site), what="the session gone")
    with open(path) as file:
        content = file.read()
    identity.write_text("0" * 32 + "\n")
    try:
        with pytest.raises(WrongHost, match="Nothing was written"):
            first.demand()
    finally:
        identity.write_text(was)
    with open(path) as file:
        assert file.read() == content
    with pytest.raises(WrongHost):
        first.demand()


def test_lock_of_an_unreachable_host_can_be_retried(site: Site) -> None:
    """Each attempt raises `Unreachable`, so that the caller may retry when the host is back."""
    away = replace(site, host=replace(site.host, port=_closed_port()))
    lock = Lock(open_host_writer(away, resolve_secrets(away)), away, run="first")
    for _ in range(2):
        with pytest.raises(Unreachable, match="Without it nothing is written"):
            lock.demand()


def _closed_port() -> int:
    script = "import socket; s = socket.socket(); s.bind(('127.0.0.1', 0)); print(s.getsockname()[1])"
    return int(subprocess.run(["python3", "-c", script], capture_output=True, check=True).stdout)
