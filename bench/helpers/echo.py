"""`echo.py HOST PORT [--udp] [--proxy] [--http]`: sends everything back, the end as well.

With --proxy each connection starts with a PROXY header, which is read and not sent back.
With --http it answers each request with its body, once that is whole.
With --udp it answers datagrams instead.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import socket
import sys

import uvloop

from v6fwd.client_ip.proxy.read import MAX_HEADER, read_header

_CHUNK = 1 << 18
_BACKLOG = 4096


async def _skip_header(reader: asyncio.StreamReader) -> None:
    data = b""
    while len(data) < MAX_HEADER:
        data += await reader.readexactly(1)  # so that what follows stays in the reader
        if read_header(data) is not None:
            return


async def _answer_requests(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError, asyncio.IncompleteReadError):
        while True:
            head = await reader.readuntil(b"\r\n\r\n")
            found = re.search(rb"(?i)\r\ncontent-length: *([0-9]+)\r\n", head)
            size = int(found[1]) if found else 0
            body = await reader.readexactly(size)
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size)
            writer.write(body)
            await writer.drain()
    writer.close()


async def _serve(host: str, port: int, proxy: bool, http: bool) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, ValueError, asyncio.IncompleteReadError):
            if proxy:
                await _skip_header(reader)
            while data := await reader.read(_CHUNK):
                writer.write(data)
                await writer.drain()
        writer.close()

    handler = _answer_requests if http else answer
    server = await asyncio.start_server(handler, host, port, backlog=_BACKLOG)
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
    options = sys.argv[3:]
    if "--udp" in options:
        _serve_datagrams(sys.argv[1], int(sys.argv[2]))
    uvloop.run(_serve(sys.argv[1], int(sys.argv[2]), "--proxy" in options, "--http" in options))
