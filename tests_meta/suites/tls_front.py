"""A TLS front for an app that speaks plain http, as Traefik is one in reality: see ``--help``.

For runs of the suite by hand against a real HedgeDoc on this machine. It takes https on 127.0.0.1, says so to the
app (X-Forwarded-Proto), and passes everything else through, upgrades too. Only the first request of a connection
is marked so; the suite sends one each. The authority that SSL_CERT_FILE has to name is made in the folder given.

HedgeDoc builds its links from its settings; for a front on port 8443 it wants, on another loopback address,
CMD_HOST=127.0.0.2 CMD_PORT=8443 CMD_DOMAIN=localhost CMD_PROTOCOL_USESSL=true CMD_URL_ADDPORT=true.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
from pathlib import Path

from fixtures.rehearsal import tls

FORWARDED = b"X-Forwarded-Proto: https\r\nX-Forwarded-For: 127.0.0.1\r\n"
CHUNK = 65_536


async def pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Copy until the end of the stream, and end the other side with it."""
    with contextlib.suppress(ConnectionError):
        while chunk := await reader.read(CHUNK):
            writer.write(chunk)
            await writer.drain()
    writer.close()


async def serve(*, directory: Path, port: int, target: tuple[str, int]) -> None:
    """Listen until cancelled."""

    async def front(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        request_line = await reader.readline()
        try:
            app_reader, app_writer = await asyncio.open_connection(*target)
        except OSError:
            writer.write(b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
            writer.close()
            return
        app_writer.write(request_line + FORWARDED)
        await asyncio.gather(pass_on(reader, app_writer), pass_on(app_reader, writer))

    context = tls.ensure(directory).server_context()
    server = await asyncio.start_server(front, "127.0.0.1", port, ssl=context)
    print("READY", flush=True)
    async with server:
        await server.serve_forever()


def main() -> None:
    parser = argparse.ArgumentParser(prog="tests_meta.suites.tls_front", description=__doc__)
    parser.add_argument("directory", type=Path, help="where the certificates are made; SSL_CERT_FILE=<it>/ca.pem")
    parser.add_argument("port", type=int, help="the port to take https on")
    parser.add_argument("host", help="the app's address")
    parser.add_argument("app_port", type=int, help="the app's port")
    chosen = parser.parse_args()
    asyncio.run(serve(directory=chosen.directory, port=chosen.port, target=(chosen.host, chosen.app_port)))


if __name__ == "__main__":
    main()
