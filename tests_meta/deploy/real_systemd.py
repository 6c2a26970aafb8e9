"""A container with a real systemd as process 1: this machine's files in an overlay, started by systemd-nspawn.

Tests run muster's host scripts unchanged in it, where the embedded host's stand-in for systemd is not sufficient.
The container has no network and few services. A *system* has the parts of a NixOS system that a switch needs: a
store path with ``activate`` and ``bin/switch-to-configuration``, which checks the bus, installs units, reloads
systemd and starts the wanted units.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from fixtures.rehearsal.supervisor import descendants
from tests_meta.rehearsal.ci_world import until
from tests_meta.rehearsal.host_world import Answer

SYSTEMD = "/lib/systemd/systemd"
LOCK = Path("/run/muster-machine.lock")
PROFILE, CURRENT = "/nix/var/nix/profiles/system", "/run/current-system"
UNITS = "etc/systemd/system"
# Represents the ssh server, which must survive a revert.
SERVICE = "stands-for-sshd.service"
SERVICE_FILE = "[Service]\nExecStart=/bin/sleep infinity\n"
# Not needed, slow, or dependent on something that a container does not have.
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
# A mount of a disk that this machine does not have. A switch to it ends in emergency mode.
WRONG_MOUNT = {
    "mnt-wrong.mount": "[Unit]\nBefore=local-fs.target\n[Mount]\nWhat=/dev/disk/by-uuid/not-here\nWhere=/mnt/wrong\n",
    "local-fs.target.requires/mnt-wrong.mount": "->../mnt-wrong.mount",
    "dev-disk-by\\x2duuid-not\\x2dhere.device.d/soon.conf": "[Unit]\nJobTimeoutSec=1\n",
}


class Machine:
    """A running container. Scripts run in it as root, as over ssh, but independently of its services."""

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
        """Run a script that must succeed, and return its standard output."""
        done = self.run(script)
        assert done.status == 0, f"{script}: exit {done.status}: {done.err}"
        return done.out

    def process(self) -> Path:
        """The folder of its process 1 in this machine's /proc; exists only while the container runs."""
        return Path(f"/proc/{self._pid}")

    def until(self, script: str, wanted: str, *, within_s: float = 30.0) -> None:
        until(lambda: self.run(script).out == wanted, within_s=within_s, what=f"{script} to print {wanted!r}")

    def add_system(self, name: str, *, starts: str = STARTS, units: Mapping[str, str] | None = None) -> str:
        """Add a system to the store and return its path; `starts` is the last part of its switch script."""
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
def boot_machine(folder: Path) -> Iterator[Machine]:
    """Yield a booted machine and stop it at the end of the block. Skip the test where no machine can be started.

    Only one runs at a time: two would share a control group and stop each other's services.
    """
    _skip_without_prerequisites(folder)
    with open(LOCK, "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with _boot_unlocked(folder) as machine:
            yield machine


@contextmanager
def _boot_unlocked(folder: Path) -> Iterator[Machine]:
    root = folder / "root"
    for name in ("upper", "work", "root"):
        (folder / name).mkdir(parents=True)
    layers = f"lowerdir=/,upperdir={folder / 'upper'},workdir={folder / 'work'}"
    mounted = subprocess.run(["mount", "-t", "overlay", "overlay", "-o", layers, str(root)], capture_output=True)
    if mounted.returncode != 0:
        pytest.skip("mounting a file system over another is not allowed here")
    try:
        _prepare_root(root)
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
            # Units of this machine that cannot work in a container are not failures of the test.
            machine.out("systemctl reset-failed")
            yield machine
        finally:
            # Killing process 1 ends everything in the container, and then nspawn. Killing nspawn would end only nspawn.
            if first := _first_process(nspawn.pid):
                os.kill(first, signal.SIGKILL)
            else:
                nspawn.kill()
            nspawn.wait()
    finally:
        subprocess.run(["umount", "--lazy", str(root)], check=True)


def _first_process(nspawn: int) -> int | None:
    """The pid of the container's process 1 on this machine, or None before it starts."""
    for pid in descendants(nspawn):
        with suppress(OSError):
            if Path(f"/proc/{pid}/comm").read_text().strip() == "systemd":
                return pid
    return None


def _skip_without_prerequisites(folder: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("a machine of its own needs root")
    for program in ("systemd-nspawn", "nsenter", "nix-env"):
        if shutil.which(program) is None or not Path(SYSTEMD).exists():
            pytest.skip(f"{program} and systemd are not installed here")
    folder.mkdir(parents=True, exist_ok=True)


def _prepare_root(root: Path) -> None:
    """Replace this machine's units so that only the test's service starts."""
    shutil.rmtree(root / UNITS)
    for name in MASKED:
        _put(root / UNITS / name, "->/dev/null")
    _put(root / UNITS / "default.target", "->/lib/systemd/system/multi-user.target")
    _put(root / UNITS / SERVICE, SERVICE_FILE)
    _put(root / UNITS / f"multi-user.target.wants/{SERVICE}", f"->../{SERVICE}")
    _put(root / "etc/fstab", "# nothing\n")
    shutil.rmtree(root / "nix", ignore_errors=True)
