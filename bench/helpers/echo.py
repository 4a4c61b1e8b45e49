"""`echo.py HOST PORT [--udp] [--proxy]`: sends everything back, the end as well.

With --proxy each connection starts with a PROXY header, which is read and not sent back.
With --udp it answers datagrams instead.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import sys

import uvloop

from v6fwd.client_ip.proxy_read import MAX_HEADER, read_header

_CHUNK = 1 << 18
_BACKLOG = 4096


async def _skip_header(reader: asyncio.StreamReader) -> None:
    data = b""
    while len(data) < MAX_HEADER:
        data += await reader.readexactly(1)  # so that what follows stays in the reader
        if read_header(data) is not None:
            return


async def _serve(host: str, port: int, proxy: bool) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, ValueError, asyncio.IncompleteReadError):
            if proxy:
                await _skip_header(reader)
            while data := await reader.read(_CHUNK):
                writer.write(data)
                await writer.drain()
        writer.close()

    server = await asyncio.start_server(answer, host, port, backlog=_BACKLOG)
    async with server:
        await server.serve_forever()


def _serve_datagrams(host: str, port: int) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind((host, port))
        while True:
            data, client = sock.recvfrom(_CHUNK)
            with contextlib.suppress(OSError):  # told late that somebody was gone
                sock.sendto(data, client)


if __name__ == "__main__":
    if "--udp" in sys.argv[3:]:
        _serve_datagrams(sys.argv[1], int(sys.argv[2]))
    uvloop.run(_serve(sys.argv[1], int(sys.argv[2]), "--proxy" in sys.argv[3:]))
