"""The clients of `bench.soak`, good and hostile, and the target that ends as it likes.

A client is a coroutine that gives a word for what became of it. A good one says `served`; any other
word of it is an accident. What becomes of a hostile one is only counted.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import socket
import struct
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

PATIENCE = 30.0
"""Seconds that a good client may wait for anything."""
LONG = (5.0, 20.0)
"""Seconds that a flow stays."""


@dataclass(frozen=True)
class Ports:
    """Where the daemon listens."""

    tcp: int
    proxied: int
    http: int
    udp: int
    guarded: int
    accepting: int
    odd: int
    odd_http: int


Word = Awaitable[str]
Client = Callable[[Ports], Word]
Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class BrokenError(Exception):
    """A connection broke that should not have."""

    def __init__(self, word: str, ports: tuple[int, int], began: float) -> None:
        """`began` is the time before it connected, in seconds since 1970."""
        super().__init__(word)
        self.word = word
        self.ports = ports
        self.began = began
        self.broke = time.time()


async def connect(port: int) -> Streams:
    """A connection to the daemon."""
    return await asyncio.open_connection("::1", port)


def cut(writer: asyncio.StreamWriter) -> None:
    """End a connection with RST."""
    sock = writer.get_extra_info("socket")
    with contextlib.suppress(OSError):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


# ---- good ones ------------------------------------------------------------------------------


async def served(port: int, visit: Callable[[Streams], Word]) -> str:
    """One good client's whole life. Raises BrokenError where its connection broke."""
    own, began = 0, time.time()
    writer = None
    try:
        async with asyncio.timeout(PATIENCE + LONG[1]):
            reader, writer = await connect(port)
            own = _own_port(writer)
            word = await visit((reader, writer))
    except ConnectionRefusedError:
        return "refused"
    except TimeoutError:
        return "left waiting"
    except asyncio.IncompleteReadError:
        word = "cut"
    except OSError:
        word = "reset"
    finally:
        if writer is not None:
            writer.close()
    if word in ("cut", "reset"):
        raise BrokenError(word, (own, port), began)
    return word


def _own_port(writer: asyncio.StreamWriter) -> int:
    return int(writer.get_extra_info("sockname")[1])


async def _once(streams: Streams) -> str:
    """A piece there and back, and the ends behind it."""
    reader, writer = streams
    piece = random.randbytes(int(2 ** random.uniform(0, 18)))
    writer.write(piece)
    writer.write_eof()
    answer = await reader.read(-1)
    if answer == piece:
        return "served"
    return "cut" if piece.startswith(answer) else "corrupted"


async def _stay(streams: Streams) -> str:
    """A piece every now and then, for some seconds."""
    reader, writer = streams
    loop = asyncio.get_running_loop()
    until = loop.time() + random.uniform(*LONG)
    while loop.time() < until:
        piece = random.randbytes(random.randrange(1, 4096))
        writer.write(piece)
        if await reader.readexactly(len(piece)) != piece:
            return "corrupted"
        await asyncio.sleep(0.1)
    return "served"


async def _ask(streams: Streams) -> str:
    """Some requests on one connection; each is answered with its own body."""
    reader, writer = streams
    for _ in range(random.randrange(1, 12)):
        body = random.randbytes(random.randrange(0, 20_000))
        head = (
            f"POST /{random.random()} HTTP/1.1\r\nHost: soak\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        writer.write(head.encode() + body)
        answer = await reader.readuntil(b"\r\n\r\n")
        if not answer.startswith(b"HTTP/1.1 200 "):
            return answer[9:12].decode("ascii", "replace")
        if await reader.readexactly(len(body)) != body:
            return "corrupted"
    return "served"


async def tcp_short(ports: Ports) -> str:
    """A short flow."""
    return await served(ports.tcp, _once)


async def tcp_long(ports: Ports) -> str:
    """One that stays."""
    return await served(ports.tcp, _stay)


async def proxied(ports: Ports) -> str:
    """A short flow with a PROXY header on its way to the target."""
    return await served(ports.proxied, _once)


async def http(ports: Ports) -> str:
    """A client of HTTP."""
    return await served(ports.http, _ask)


async def udp(ports: Ports) -> str:
    """Datagrams there and back; one that is lost is sent again."""
    loop = asyncio.get_running_loop()
    with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as sock:
        sock.setblocking(False)
        sock.connect(("::1", ports.udp))
        sent = set()
        for _ in range(random.randrange(1, 20)):
            piece = random.randbytes(random.randrange(16, 1200))
            sent.add(piece)
            for _ in range(10):
                await loop.sock_sendall(sock, piece)
                with contextlib.suppress(TimeoutError, ConnectionRefusedError):
                    async with asyncio.timeout(1):
                        answer = await loop.sock_recv(sock, 2048)
                    if answer not in sent:
                        return "somebody else's"
                    if answer == piece:
                        break
            else:
                return "left waiting"
    return "served"


# ---- hostile ones ---------------------------------------------------------------------------


async def slow_head(ports: Ports) -> str:
    """A head, a byte every tenth of a second, for as long as the daemon puts up with it."""
    reader, writer = await connect(ports.http)
    with contextlib.closing(writer):
        for byte in b"GET / HTTP/1.1\r\nHost: " + b"a" * 200:
            writer.write(bytes([byte]))
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(0.1):
                    return (await reader.read(12)).decode("ascii", "replace") or "closed"
    return "put up with"


async def one_byte_chunks(ports: Ports) -> str:
    """A body of 20,000 chunks of one byte each."""
    reader, writer = await connect(ports.odd_http)
    with contextlib.closing(writer):
        writer.write(b"POST / HTTP/1.1\r\nHost: soak\r\nTransfer-Encoding: chunked\r\n\r\n")
        for _ in range(200):
            writer.write(b"1\r\nx\r\n" * 100)
            await writer.drain()
        writer.write(b"0\r\n\r\n")
        return (await reader.read(12)).decode("ascii", "replace") or "closed"


async def flood(ports: Ports) -> str:
    """Fifty connections at once where ten a second may come."""
    made = await asyncio.gather(
        *(connect(ports.guarded) for _ in range(50)), return_exceptions=True
    )
    for streams in made:
        if not isinstance(streams, BaseException):
            cut(streams[1])
    return f"{sum(isinstance(one, BaseException) for one in made) // 10}0 refused at once"


async def resets(ports: Ports) -> str:
    """A transfer that is cut in the middle."""
    reader, writer = await connect(ports.tcp)
    writer.write(bytes(1 << 20))
    await reader.read(random.randrange(1, 1 << 18))
    cut(writer)
    return "done"


async def silent(ports: Ports) -> str:
    """Connections that say nothing."""
    made = [
        await connect(random.choice((ports.tcp, ports.http, ports.accepting))) for _ in range(5)
    ]
    await asyncio.sleep(3)
    for _, writer in made:
        writer.close()
    return "done"


async def garbage(ports: Ports) -> str:
    """Bytes that are no HTTP and no PROXY header."""
    _, writer = await connect(random.choice((ports.http, ports.accepting, ports.odd_http)))
    with contextlib.closing(writer):
        writer.write(
            random.choice((b"", b"PROXY TCP6 ", b"GET / HTTP/1.1\r\n")) + random.randbytes(300)
        )
        await writer.drain()
    return "done"


async def reads_nothing(ports: Ports) -> str:
    """Sends what comes back to it, and reads none of it."""
    _, writer = await connect(ports.tcp)
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(3):
            for _ in range(64):
                writer.write(bytes(1 << 20))
                await writer.drain()
    cut(writer)
    return "done"


async def odd_ends(ports: Ports) -> str:
    """A target that ends as it likes. What it says how long it is must not come short of that.

    Raises BrokenError where it did, and looked whole.
    """
    began = time.time()
    reader, writer = await connect(ports.odd)
    with contextlib.closing(writer):
        writer.write(b"well?")
        size = int.from_bytes(await reader.readexactly(4), "big")
        got = await reader.read(-1)
        if len(got) == size:
            return "whole"
        raise BrokenError("a cut stream looked whole", (_own_port(writer), ports.odd), began)


async def odd_target(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Serves `odd` and `odd_http`: now well, now not at all."""
    end = random.choice(("close", "close", "reset", "cut", "silent", "half"))
    with contextlib.suppress(OSError):
        if end in ("close", "cut", "half"):
            size = random.randrange(1, 1 << 17)
            writer.write(size.to_bytes(4, "big") + bytes(size if end != "cut" else size // 2))
            await writer.drain()
        if end == "half":
            writer.write_eof()
            await reader.read(-1)
        elif end == "silent":
            await asyncio.sleep(2)
        elif end == "close":  # what is not read would make a reset of it
            await reader.read(1 << 16)
    if end in ("close", "half"):
        writer.close()
    else:
        cut(writer)


GOOD: dict[Client, int] = {tcp_short: 8, tcp_long: 20, proxied: 4, http: 8, udp: 8}
"""Good clients, and how many of them there are at once."""
HOSTILE: dict[Client, int] = {
    slow_head: 10,
    one_byte_chunks: 1,
    flood: 1,
    resets: 2,
    silent: 4,
    garbage: 2,
    reads_nothing: 1,
    odd_ends: 4,
}
