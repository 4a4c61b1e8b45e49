"""WebSocket echo server and its client: `python websocket.py serve HOST PORT`, `... ask URL`.

The server first sends each client the X-Forwarded-For that it got; the client prints it, and
compares echoes of messages of many sizes.
"""

from __future__ import annotations

import asyncio
import random
import sys

from websockets.asyncio.client import connect
from websockets.asyncio.server import ServerConnection, serve

SIZES = (0, 1, 125, 126, 65_535, 65_536, 1 << 20)


async def echo(connection: ServerConnection) -> None:
    """One client."""
    assert connection.request is not None
    await connection.send(", ".join(connection.request.headers.get_all("X-Forwarded-For")))
    async for message in connection:
        await connection.send(message)


async def echoes(host: str, port: int) -> None:
    """Serve until the end."""
    async with serve(echo, host, port, max_size=None) as server:
        await server.serve_forever()


async def ask(url: str) -> None:
    """Messages of all sizes of header, whole and in fragments, text and not, and a ping."""
    async with asyncio.timeout(60), connect(url, max_size=None) as connection:
        print(await connection.recv())
        for size in SIZES:
            data = random.Random(size).randbytes(size)
            for message in (data, data.hex()):
                await connection.send(message)
                assert await connection.recv() == message
            await connection.send([data, data])
            assert await connection.recv() == data + data
        await (await connection.ping())


if __name__ == "__main__":
    if sys.argv[1] == "serve":
        asyncio.run(echoes(sys.argv[2], int(sys.argv[3])))
    else:
        asyncio.run(ask(sys.argv[2]))
