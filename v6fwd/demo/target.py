"""A small HTTP server with an access log in Apache's "common" format; can read PROXY headers.

`python -m v6fwd.demo.target HOST PORT [--proxy]` writes `listening PORT` to stdout, then a line
per request. It stands in for a container in the demo and is fit for nothing else.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
from datetime import datetime

from v6fwd.client_ip.proxy.read import MAX_HEADER, read_header
from v6fwd.model import Address
from v6fwd.relay.sockets import address_of

BODY = b"Hello world\n"
_TIMEOUT = 10.0


async def answer(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, proxy: bool
) -> None:
    """Answer one request and print its log line."""
    with contextlib.suppress(OSError, TimeoutError, ValueError, asyncio.IncompleteReadError):
        async with asyncio.timeout(_TIMEOUT):
            client = address_of(writer.get_extra_info("peername"))
            if proxy:
                client = await _client_in_header(reader) or client
            head = await reader.readuntil(b"\r\n\r\n")
            print(common_log_line(client, head.partition(b"\r\n")[0].decode("latin-1")), flush=True)
            writer.write(
                b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\nConnection: close\r\n\r\n" % len(BODY)
            )
            writer.write(BODY)
            await writer.drain()
    writer.close()


def common_log_line(client: Address, request: str) -> str:
    """A line in Apache's `common` format: `%h %l %u %t "%r" %>s %b`."""
    when = datetime.now().astimezone().strftime("%d/%b/%Y:%H:%M:%S %z")
    return f'{client.host} - - [{when}] "{request}" 200 {len(BODY)}'


async def _client_in_header(reader: asyncio.StreamReader) -> Address | None:
    data = b""
    while len(data) < MAX_HEADER:
        # One byte at a time: what follows the header must stay in the reader.
        data += await reader.readexactly(1)
        header = read_header(data)
        if header is not None:
            return header.source
    return None


async def serve(host: str, port: int, *, proxy: bool) -> None:
    """Serve until cancelled."""

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await answer(reader, writer, proxy=proxy)

    server = await asyncio.start_server(handle, host, port)
    print(f"listening {server.sockets[0].getsockname()[1]}", flush=True)
    async with server:
        await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(serve(sys.argv[1], int(sys.argv[2]), proxy="--proxy" in sys.argv[3:]))
