"""One muster at a time on a host, from a run's first write to its last: also where its link was lost in between."""

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

ASKED_FOR_S = 2.0

Make = Callable[[str], Lock]


@pytest.fixture
def site(night: WorldPool) -> Site:
    """The site of a running world, with a short patience."""
    found = load_site(night.site)
    return replace(found, limits=replace(found.limits, probe_s=ASKED_FOR_S))


@pytest.fixture
def make(site: Site) -> Iterator[Make]:
    """A lock for a run of this name, not taken yet; all are ended with the test."""
    made: list[Lock] = []

    def lock(run: str) -> Lock:
        made.append(Lock(open_host_writer(site, resolve_secrets(site)), site, run=run))
        return made[-1]

    yield lock
    for one in made:
        one.end()


def holders(site: Site) -> list[int]:
    """The processes on the host that have the lock's file open."""
    path = site.host.path("/run/lock/muster.lock")
    found = set()
    for link in glob.glob("/proc/[0-9]*/fd/*"):
        with suppress(OSError):  # it has ended meanwhile, or is none of ours
            if os.readlink(link) == path:
                found.add(int(link.split("/")[2]))
    return sorted(found)


def send(site: Site, number: signal.Signals) -> None:
    there = holders(site)
    assert there
    for process in there:
        os.kill(process, number)


def test_it_is_held_until_it_is_let_go(make: Make, site: Site) -> None:
    """The second one is told who has it, and gets it as soon as the first one ends."""
    first, second = make("first"), make("second")
    first.take()
    assert first.demand() is False
    with pytest.raises(Withheld, match=r"pid \d+ run first since 20"):
        second.take()
    first.end()
    until(lambda: not holders(site), what="the first one's session gone")
    second.take()
    assert second.demand() is False


def test_it_is_one_for_the_host_whatever_a_site_file_calls_it(make: Make, site: Site) -> None:
    """Two people's site files have two names for the same machine."""
    make("first").take()
    elsewhere = replace(site, name="elsewhere")
    second = Lock(open_host_writer(elsewhere, resolve_secrets(elsewhere)), elsewhere, run="second")
    with pytest.raises(Withheld, match="run first"):
        second.take()


def test_it_outlasts_the_connections_of_the_work(make: Make, site: Site) -> None:
    """Phase 4 drops its connection to prove that a new one can be made; the lock has one of its own."""
    first, second, world = make("first"), make("second"), open_write_world(site, resolve_secrets(site))
    first.take()
    assert world.host.probe("echo here", limit_s=ASKED_FOR_S).stdout == "here\n"
    world.host.reconnect()
    with pytest.raises(Withheld, match="run first"):
        second.take()


def test_one_that_was_lost_is_taken_again(make: Make, site: Site) -> None:
    """Its session dies with the link; nobody came in between, so the run goes on under a lock."""
    first, second = make("first"), make("second")
    first.take()
    send(site, signal.SIGKILL)
    assert first.demand() is True
    assert first.demand() is False
    with pytest.raises(Withheld, match="run first"):
        second.take()


def test_one_that_somebody_else_has_by_now_is_gone_for_good(make: Make, site: Site) -> None:
    """Nothing is written beside them, and nothing after them: what the run knows of the world is old."""
    first, second = make("first"), make("second")
    first.take()
    send(site, signal.SIGKILL)
    second.take()
    for _ in range(2):
        with pytest.raises(Withheld, match=r"Another muster works on .* run second"):
            first.demand()
        second.end()
        until(lambda: not holders(site), what="the second one's session gone")


def test_one_that_somebody_had_in_between_is_gone_too(make: Make, site: Site) -> None:
    """The other one has come and gone before this run asks: the file still says who it was."""
    first, second = make("first"), make("second")
    first.take()
    send(site, signal.SIGKILL)
    second.take()
    second.end()
    until(lambda: not holders(site), what="the second one's session gone")
    with pytest.raises(Withheld, match=r"has worked on .* while the link to it was lost: .* run second"):
        first.demand()


def test_a_session_of_ones_own_that_cannot_be_reached_keeps_others_out(make: Make, site: Site) -> None:
    """A link that died silently: the host still takes the old session for alive, and the lock for this run's."""
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


def test_another_machine_gets_no_lock_and_no_file(make: Make, site: Site, night: WorldPool) -> None:
    """It is asked who it is before its file is touched, the second time too."""
    path, identity = (
        site.host.path("/run/lock/muster.lock"),
        night.settings.host_dir / "etc/machine-id",
    )
    first, was = make("first"), identity.read_text()
    first.take()
    send(site, signal.SIGKILL)
    until(lambda: not holders(site), what="the session gone")
    with open(path) as file:
        said = file.read()
    identity.write_text("0" * 32 + "\n")
    try:
        with pytest.raises(WrongHost, match="Nothing was written"):
            first.demand()
    finally:
        identity.write_text(was)
    with open(path) as file:
        assert file.read() == said
    with pytest.raises(WrongHost):
        first.demand()


def test_a_host_that_is_away_can_be_asked_again(site: Site) -> None:
    """`Unreachable` is not the end: the lock is taken again when the host is back."""
    away = replace(site, host=replace(site.host, port=_closed_port()))
    lock = Lock(open_host_writer(away, resolve_secrets(away)), away, run="first")
    for _ in range(2):
        with pytest.raises(Unreachable, match="Without it nothing is written"):
            lock.demand()


def _closed_port() -> int:
    script = "import socket; s = socket.socket(); s.bind(('127.0.0.1', 0)); print(s.getsockname()[1])"
    return int(subprocess.run(["python3", "-c", script], capture_output=True, check=True).stdout)
