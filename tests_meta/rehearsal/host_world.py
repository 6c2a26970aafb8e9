"""A world of a forge and a host, for tests of the host; its files are restored before every start."""

from __future__ import annotations

import dataclasses
import os
import pwd
import secrets
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import paramiko

from fixtures.rehearsal.forge_embedded.store import Store
from fixtures.rehearsal.host.layout import HostPaths
from fixtures.rehearsal.host.prepare import prepare
from fixtures.rehearsal.host.removal import remove
from fixtures.rehearsal.initial_state import ccci_repository
from fixtures.rehearsal.settings import WorldSettings

PROJECT = Path(__file__).resolve().parents[2]
BUILD = (
    'nix build --no-link --json "git+file://$HOME/cc-ci?submodules=1#nixosConfigurations.{attribute}'
    '.config.system.build.toplevel" | sed \'s/.*"out":"\\([^"]*\\)".*/\\1/\''
)
ENROLL = (
    "cd ~/cc-ci && sed -i 's#uptime-kuma\"#uptime-kuma,recipe-maintainers/ghost\"#' nix/modules/bridge.nix"
    " && git commit -qam enroll"
)
# The module behind each part that these tests start alone.
MODULES = {"forge": "forge_embedded", "ci": "drone_embedded", "drone": "drone_real"}


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


def commit(repository: Path, files: Mapping[str, bytes], *, extra: str = "") -> str:
    """One commit on main of a bare repository; returns its hash."""
    contents = b"".join(
        f"M 100644 inline {name}\ndata {len(text)}\n".encode() + text + b"\n" for name, text in files.items()
    )
    head = b"commit refs/heads/main\ncommitter x <x@x> 1780000000 +0000\ndata 1\nx\n"
    script = head + contents + extra.encode() + b"\n"
    git = ["git", "-C", str(repository)]
    subprocess.run([*git, "fast-import", "--quiet"], input=script, check=True)
    return subprocess.run([*git, "rev-parse", "main"], check=True, capture_output=True, text=True).stdout.strip()


@dataclasses.dataclass(frozen=True)
class Answer:
    """The result of a command over ssh."""

    status: int
    out: str
    err: str


class HostWorld:
    """`start` boots the host on a fresh copy of its files, with `faults`; `run` is one command over ssh."""

    def __init__(self, root: Path, *, ssh: str, nix: str, pace: float = 0.02) -> None:
        self.settings = WorldSettings(
            root=root,
            pace=pace,
            forge_port=free_port(),
            upstream_port=free_port(),
            ci_port=free_port(),
            dashboard_port=free_port(),
            ssh_port=free_port(),
            operator_token=secrets.token_hex(20),
            bridge_token=secrets.token_hex(20),
            drone_forge_token=secrets.token_hex(20),
            checkout_token=secrets.token_hex(20),
            drone_token=secrets.token_hex(20),
            ssh=ssh,
            nix=nix,
        )
        self.paths = HostPaths(self.settings.host_dir)
        self._pristine = root / "pristine"
        self._host: subprocess.Popen[str] | None = None
        self._client: paramiko.SSHClient | None = None
        self.settings.logs_dir.mkdir(parents=True)
        self._seed()
        self._forge = self._process("forge")
        prepare(self.settings)
        shutil.copytree(self.settings.host_dir, self._pristine, symlinks=True)

    def _seed(self) -> None:
        settings = self.settings
        upstream = Store(settings.upstream_dir)
        upstream.create_user("publisher")
        upstream.create_org(settings.upstream_owner, owners=["publisher"])
        commit(upstream.create_repo(settings.upstream_owner, "mumble"), {"compose.yml": b"version: '3.8'\n"})
        upstream.note_pushed(settings.upstream_owner, "mumble")
        upstream.close()
        forge = Store(settings.forge_dir)
        forge.create_user(settings.bot, id=64)
        forge.create_org(settings.org, private=True, owners=[settings.bot])
        forge.create_token(settings.bot, settings.checkout_token, "read:repository")
        scopes = "read:organization,write:repository,write:issue,read:user"
        forge.create_token(settings.bot, settings.bridge_token, scopes)
        name = ccci_repository.SECRETS
        head = commit(forge.create_repo(settings.org, name, private=True), ccci_repository.secrets_files())
        forge.note_pushed(settings.org, name)
        commit(
            forge.create_repo(settings.org, "cc-ci", private=True),
            ccci_repository.nix_files(forge_url=settings.forge_url, org=settings.org),
            extra=f"M 160000 {head} secrets\n",
        )
        forge.note_pushed(settings.org, "cc-ci")
        forge.close()
        settings.save()

    def _process(self, part: str) -> subprocess.Popen[str]:
        """Start a process of the world; returns when it has printed READY."""
        log = (self.settings.logs_dir / f"{part}.log").open("a")
        process = subprocess.Popen(
            [sys.executable, "-m", f"fixtures.rehearsal.{MODULES.get(part, part)}", str(self.settings.root)],
            cwd=PROJECT,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
        )
        assert process.stdout is not None
        said = process.stdout.readline()
        assert said == "READY\n", f"{part} said {said!r}; {Path(log.name).read_text()[-2000:]}"
        return process

    def lay_out(self) -> None:
        """Restore the host's files as `prepare` made them."""
        self.stop()
        remove(self.settings.host_dir)
        shutil.copytree(self._pristine, self.settings.host_dir, symlinks=True)

    def start(self, *names: str) -> None:
        """Restore the host's files and boot it with the faults `names`."""
        self.lay_out()
        self.boot(*names)

    def local(self, script: str) -> Answer:
        """Run a script with the host's environment, without booting the host."""
        done = subprocess.run(
            ["/bin/sh", "-c", script],
            cwd=self.paths.home,
            env=self.paths.environment(),
            capture_output=True,
            text=True,
            check=False,
        )
        return Answer(done.returncode, done.stdout, done.stderr)

    def boot(self, *names: str) -> None:
        """Boot the host with its current files and the faults `names`."""
        self.stop()
        dataclasses.replace(self.settings, faults=names).save()
        self._host = self._process("host")

    def stop(self) -> None:
        self.disconnect()
        host, self._host = self._host, None
        if host is not None:
            host.terminate()
            assert host.wait(20) == 0
            if host.stdout is not None:
                host.stdout.close()

    def close(self) -> None:
        self.stop()
        self._forge.terminate()
        self._forge.wait(20)

    def left_over(self) -> list[str]:
        """Running commands that have the host's folder in their arguments or environment."""
        found = []
        for place in Path("/proc").glob("[0-9]*"):
            try:
                words, environment = ((place / name).read_bytes() for name in ("cmdline", "environ"))
            except OSError:
                continue
            if str(self.settings.host_dir).encode() in words + environment:
                found.append(words.replace(b"\0", b" ").decode(errors="replace"))
        return found

    # -- ssh ---------------------------------------------------------------------------------------------

    def connect(self) -> paramiko.SSHClient:
        """A new connection, with the pinned host key."""
        client = paramiko.SSHClient()
        client.load_host_keys(str(self.settings.secrets_dir / "known_hosts"))
        client.set_missing_host_key_policy(paramiko.RejectPolicy())
        link = socket.create_connection(("127.0.0.1", self.settings.ssh_port), timeout=10)
        link.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        client.connect(
            "127.0.0.1",
            port=self.settings.ssh_port,
            sock=link,
            username=pwd.getpwuid(os.geteuid()).pw_name,
            key_filename=str(self.settings.secrets_dir / "id_ed25519"),
            allow_agent=False,
            look_for_keys=False,
            timeout=10,
            banner_timeout=10,
        )
        return client

    def disconnect(self) -> None:
        if self._client is not None:
            self._client.close()
            self._client = None

    def run(self, script: str, *, given: bytes = b"", limit_s: float = 30.0) -> Answer:
        """Run a script over the shared connection."""
        if self._client is None:
            self._client = self.connect()
        return execute(self._client, script, given=given, limit_s=limit_s)

    def out(self, script: str) -> str:
        """The output of a script that must succeed."""
        answer = self.run(script)
        assert answer.status == 0, f"{script}\n{answer}"
        return answer.out.strip()

    def reachable(self) -> bool:
        try:
            self.connect().close()
        except (OSError, EOFError, paramiko.SSHException):
            return False
        return True

    def until(self, script: str, wanted: str, *, limit_s: float = 30.0) -> None:
        """Repeat `script` until it prints `wanted`."""
        until(lambda: self.run(script).out.strip() == wanted, f"{script} to print {wanted}", limit_s=limit_s)


def until(holds: Callable[[], bool], what: str, *, limit_s: float = 30.0) -> None:
    """Poll until `holds` is true; fails after `limit_s`."""
    deadline, pause = time.monotonic() + limit_s, threading.Event()
    while not holds():
        assert time.monotonic() < deadline, f"{what}: not within {limit_s} s"
        pause.wait(0.1)


def execute(client: paramiko.SSHClient, script: str, *, given: bytes = b"", limit_s: float = 30.0) -> Answer:
    """Run one command on one channel; the status is -1 (paramiko) when no exit status was sent."""
    transport = client.get_transport()
    assert transport is not None
    channel = transport.open_session(timeout=limit_s)
    channel.settimeout(limit_s)
    channel.exec_command(script)
    errors: list[bytes] = []

    def drain() -> None:
        while piece := channel.recv_stderr(65536):
            errors.append(piece)

    reader = threading.Thread(target=drain)
    reader.start()
    if given:
        channel.sendall(given)
    channel.shutdown_write()
    pieces = []
    while piece := channel.recv(65536):
        pieces.append(piece)
    reader.join(limit_s)
    assert channel.status_event.wait(limit_s), f"{script}: no end within {limit_s} s"
    status = channel.exit_status
    channel.close()
    return Answer(status, b"".join(pieces).decode(errors="replace"), b"".join(errors).decode(errors="replace"))
