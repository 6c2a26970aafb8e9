"""An ssh server on loopback, and a relay that can interrupt the connection to it."""

from __future__ import annotations

import asyncio
import contextlib
import getpass
import socket
import threading
from dataclasses import replace
from pathlib import Path

from fixtures.clients.ssh_config import HostAddress
from fixtures.rehearsal.host.keys import key_pair
from fixtures.rehearsal.host.layout import HostPaths
from fixtures.rehearsal.host.sshd import OpenSsh, SshServer
from fixtures.rehearsal.host.sshd_paramiko import ParamikoSsh
from fixtures.rehearsal.world import free_ports


class RunningSshServer:
    """A running ssh server on loopback, and the files that a client needs to connect."""

    def __init__(self, folder: Path, kind: str) -> None:
        self.folder, self.port = folder, free_ports(1)[0]
        self.paths = HostPaths(folder / "far")
        for place in (self.paths.ssh, self.paths.home, self.paths.libexec, self.paths.root / "var" / "log"):
            place.mkdir(parents=True)
        (self.paths.libexec / "session").write_text('exec /bin/sh -c "$SSH_ORIGINAL_COMMAND"\n')
        self.host_key, client_key = self.paths.ssh / "host_key", folder / "id_ed25519"
        public = key_pair(self.host_key)
        authorized = self.paths.ssh / "authorized_keys"
        authorized.write_text(key_pair(client_key) + "\n")
        self.known_hosts = folder / "known_hosts"
        self.known_hosts.write_text(f"[127.0.0.1]:{self.port} {public}\n")
        self.address = HostAddress(address="127.0.0.1", user=getpass.getuser(), port=self.port,
                                   known_hosts=self.known_hosts, identity_file=client_key, connect_s=5.0)  # fmt: skip
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self.server: SshServer = (
            OpenSsh(self.paths, port=self.port, host_key=self.host_key)
            if kind == "openssh"
            else ParamikoSsh(self.paths, port=self.port, host_key=self.host_key, authorized_keys=authorized)
        )

    def start(self) -> None:
        asyncio.run_coroutine_threadsafe(self.server.start(), self._loop).result(20)

    def stop(self) -> None:
        """Close the listener and every connection."""
        asyncio.run_coroutine_threadsafe(self.server.stop(), self._loop).result(20)

    def close(self) -> None:
        self.stop()
        asyncio.run_coroutine_threadsafe(_others_end(), self._loop).result(20)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()


async def _others_end() -> None:
    """Wait for the tasks that still run in this loop."""
    others = asyncio.all_tasks() - {asyncio.current_task()}
    await asyncio.gather(*others, return_exceptions=True)


class Relay:
    """A relay between client and server that can be interrupted."""

    def __init__(self, far: RunningSshServer) -> None:
        self._far = far
        self._links: list[socket.socket] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        port = self._listener.getsockname()[1]
        known = far.folder / f"known_hosts_{port}"
        known.write_text(far.known_hosts.read_text().replace(str(far.port), str(port)))
        self.address = replace(far.address, port=port, known_hosts=known)
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self) -> None:
        """Break every present connection as a dead network does; new connections work."""
        links, self._links = self._links, []
        for link in links:
            with contextlib.suppress(OSError):
                link.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.cut()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                near, _ = self._listener.accept()
                beyond = socket.create_connection(("127.0.0.1", self._far.port))
                self._links += [near, beyond]
                for source, target in ((near, beyond), (beyond, near)):
                    threading.Thread(target=_copy, args=(source, target), daemon=True).start()


def _copy(source: socket.socket, target: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(65536):
            target.sendall(data)
    with contextlib.suppress(OSError):
        target.shutdown(socket.SHUT_RDWR)
