"""A machine with a real systemd as its process 1: this one's files in an overlay, started by systemd-nspawn.

What is tested on it are the scripts that muster runs on a host, as they are, where the embedded host's stand-in
for systemd cannot vouch for them. It has no network, and its services are few. A *system* is what NixOS would call
one, as far as a switch needs it: a store path with ``activate`` and ``bin/switch-to-configuration``, which asks for
the bus, installs its units, reloads systemd and starts what is wanted.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from fixtures.rehearsal.supervisor import descendants
from tests_meta.rehearsal.ci_world import until
from tests_meta.rehearsal.host_world import Answer

SYSTEMD = "/lib/systemd/systemd"
LOCK = Path(tempfile.gettempdir(), "muster-machine.lock")
PROFILE, CURRENT = "/nix/var/nix/profiles/system", "/run/current-system"
UNITS = "etc/systemd/system"
# A service that a person would miss: it stands for the ssh server.
SERVICE = "stands-for-sshd.service"
SERVICE_FILE = "[Service]\nExecStart=/bin/sleep infinity\n"
# Not needed, slow, or looking for what a container has not.
MASKED = (
    "apt-daily.timer", "apt-daily-upgrade.timer", "console-getty.service", "docker.service", "docker.socket",
    "dpkg-db-backup.timer", "e2scrub_all.timer", "e2scrub_reap.service", "fstrim.timer", "getty.target", "ssh.service",
    "systemd-firstboot.service", "systemd-logind.service", "systemd-networkd.service", "systemd-timesyncd.service",
    "systemd-tmpfiles-clean.timer",
)  # fmt: skip
ACTIVATE = f"""\
#!/bin/sh
out=$(dirname "$(readlink -f "$0")")
rm -rf /{UNITS}/*.mount /{UNITS}/local-fs.target.requires
cp -R "$out"/units/. /{UNITS}/
ln -sfn "$out" {CURRENT}
"""
SWITCH = """\
#!/bin/sh
out=$(dirname "$(dirname "$(readlink -f "$0")")")
busctl status >/dev/null 2>&1 || { echo "the bus does not answer" >&2; exit 1; }
exec 9>/run/switch.lock; flock -n 9 || { echo "Could not acquire lock" >&2; exit 1; }
echo "$1 $out" >> /switches
test "$1" = boot && { echo "$out" > /boot-default; exit 0; }
test "$1" = switch && echo "$out" > /boot-default
"$out"/activate
systemctl daemon-reload
systemctl reset-failed
"""
STARTS = "systemctl start local-fs.target default.target || exit 4\n"
# A root file system that this machine has not: the mistake that once cost a night.
WRONG_MOUNT = {
    "mnt-wrong.mount": "[Unit]\nBefore=local-fs.target\n[Mount]\nWhat=/dev/disk/by-uuid/not-here\nWhere=/mnt/wrong\n",
    "local-fs.target.requires/mnt-wrong.mount": "->../mnt-wrong.mount",
    "dev-disk-by\\x2duuid-not\\x2dhere.device.d/soon.conf": "[Unit]\nJobTimeoutSec=1\n",
}


class Machine:
    """One that is up. Scripts run in it as root, as over ssh, but without depending on any of its services."""

    def __init__(self, root: Path, pid: int) -> None:
        self._root = root
        self._pid = pid

    def run(self, script: str) -> Answer:
        enter = ["nsenter", "-t", str(self._pid), "-m", "-p", "-u", "-i", "-C", "-n", "-r", "-w"]
        clean = ["env", "-i", "PATH=/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin", "HOME=/root"]
        done = subprocess.run(
            [*enter, *clean, "/bin/sh", "-c", script], capture_output=True, text=True, timeout=60, check=False
        )
        return Answer(done.returncode, done.stdout.rstrip("\n"), done.stderr.strip())

    def out(self, script: str) -> str:
        """What a script that ends well prints."""
        done = self.run(script)
        assert done.status == 0, f"{script}: exit {done.status}: {done.err}"
        return done.out

    def process(self) -> Path:
        """Its process 1 in this machine's /proc; there only while the machine is."""
        return Path(f"/proc/{self._pid}")

    def until(self, script: str, wanted: str, *, within_s: float = 30.0) -> None:
        until(lambda: self.run(script).out == wanted, within_s=within_s, what=f"{script} to print {wanted!r}")

    def system(self, name: str, *, starts: str = STARTS, units: Mapping[str, str] | None = None) -> str:
        """The store path of a new system; `starts` is what its switch does last."""
        folder = self._root / "root" / name
        files = {"activate": ACTIVATE, "bin/switch-to-configuration": SWITCH + starts, "name": f"{name}\n"}
        files |= {f"units/{unit}": text for unit, text in {SERVICE: SERVICE_FILE, **(units or {})}.items()}
        for place, text in files.items():
            _put(folder / place, text)
        path = self.out(f"nix-store --add /root/{name}")
        shutil.rmtree(folder)
        return path


def _put(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if text.startswith("->"):
        path.symlink_to(text.removeprefix("->"))
    else:
        path.write_text(text)
        path.chmod(0o755 if text.startswith("#!") else 0o644)


@contextmanager
def booted(folder: Path) -> Iterator[Machine]:
    """A machine that has come up, until the block is over. Skips where none can be started.

    One at a time: two would share a control group, and stop each other's services.
    """
    _demand(folder)
    with open(LOCK, "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with _booted(folder) as machine:
            yield machine


@contextmanager
def _booted(folder: Path) -> Iterator[Machine]:
    root = folder / "root"
    for name in ("upper", "work", "root"):
        (folder / name).mkdir(parents=True)
    layers = f"lowerdir=/,upperdir={folder / 'upper'},workdir={folder / 'work'}"
    mounted = subprocess.run(["mount", "-t", "overlay", "overlay", "-o", layers, str(root)], capture_output=True)
    if mounted.returncode != 0:
        pytest.skip("mounting a file system over another is not allowed here")
    try:
        _lay(root)
        with open(folder / "console", "wb") as console:
            nspawn = subprocess.Popen(
                ["systemd-nspawn", "--quiet", f"--machine=muster-{os.getpid()}", "--register=no", "--keep-unit",
                 "--private-network", "--boot", "--console=pipe", "--directory", str(root)],
                stdin=subprocess.DEVNULL, stdout=console, stderr=console,
            )  # fmt: skip
        try:
            until(lambda: nspawn.poll() is not None or _first_process(nspawn.pid), what="its process 1")
            if (first := _first_process(nspawn.pid)) is None:
                pytest.skip(f"no machine can be started here: {(folder / 'console').read_text()[-300:]}")
            machine = Machine(root, first)
            up = ("running", "degraded")
            until(lambda: machine.run("systemctl is-system-running").out in up, what="the machine to be up")
            # What this machine's own units miss in a container is nothing here.
            machine.out("systemctl reset-failed")
            yield machine
        finally:
            # With its process 1 everything in it ends, and then nspawn. With nspawn, nspawn alone would end.
            if first := _first_process(nspawn.pid):
                os.kill(first, signal.SIGKILL)
            else:
                nspawn.kill()
            nspawn.wait()
    finally:
        subprocess.run(["umount", "--lazy", str(root)], check=True)


def _first_process(nspawn: int) -> int | None:
    """The machine's process 1, as this machine numbers it."""
    for pid in descendants(nspawn):
        with suppress(OSError):
            if Path(f"/proc/{pid}/comm").read_text().strip() == "systemd":
                return pid
    return None


def _demand(folder: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("a machine of its own needs root")
    for program in ("systemd-nspawn", "nsenter", "nix-env"):
        if shutil.which(program) is None or not Path(SYSTEMD).exists():
            pytest.skip(f"{program} and systemd are not installed here")
    folder.mkdir(parents=True, exist_ok=True)


def _lay(root: Path) -> None:
    """Leave of this machine's configuration nothing that starts by itself."""
    shutil.rmtree(root / UNITS)
    for name in MASKED:
        _put(root / UNITS / name, "->/dev/null")
    _put(root / UNITS / "default.target", "->/lib/systemd/system/multi-user.target")
    _put(root / UNITS / SERVICE, SERVICE_FILE)
    _put(root / UNITS / f"multi-user.target.wants/{SERVICE}", f"->../{SERVICE}")
    _put(root / "etc/fstab", "# nothing\n")
    shutil.rmtree(root / "nix", ignore_errors=True)
