"""`visit.py HOST PORT SOURCE RATE AT_ONCE SECONDS`: a client that comes again and again.

RATE visits a second, whatever becomes of those before; 0: AT_ONCE at a time, as fast as it goes.
A visit is a connection from SOURCE, 64 bytes there and back, and its end. Says in JSON how many
were served, refused (reset) and failed otherwise, and the milliseconds of the slowest 1 %.
"""

from __future__ import annotations

import asyncio
import json
import socket
import struct
import sys
import time
from collections import Counter

import uvloop

_PATIENCE = 5.0
_WARM_UP = 1.0
"""Seconds whose latencies do not count: four interpreters have just started."""
_TOKEN = bytes(range(64))
_RESET = struct.pack("ii", 1, 0)  # no port is kept in TIME_WAIT, of which there are 28,000


class Visitor:
    """One client."""

    def __init__(self, host: str, port: int, source: str) -> None:
        self.results: Counter[str] = Counter()
        self.times: list[float] = []
        self._warm = time.perf_counter() + _WARM_UP
        self._address = host, port
        self._source = source

    async def visit(self) -> None:
        """Come once."""
        began = time.perf_counter()
        try:
            async with asyncio.timeout(_PATIENCE):
                served = await self._exchange()
        except (OSError, TimeoutError) as error:
            refused = isinstance(error, ConnectionResetError | BrokenPipeError)
            self.results["refused" if refused else "failed"] += 1
        else:
            self.results["served" if served else "failed"] += 1
            if began > self._warm:
                self.times.append(time.perf_counter() - began)

    async def _exchange(self) -> bool:
        loop = asyncio.get_running_loop()
        with socket.socket(socket.AF_INET6, socket.SOCK_STREAM) as sock:
            sock.setblocking(False)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            sock.bind((self._source, 0))
            await loop.sock_connect(sock, self._address)
            await loop.sock_sendall(sock, _TOKEN)
            got = b""
            while len(got) < len(_TOKEN):
                piece = await loop.sock_recv(sock, 64)
                if not piece:
                    return False
                got += piece
            return got == _TOKEN

    async def steadily(self, rate: float, seconds: float) -> None:
        """`rate` visits a second."""
        begin = time.perf_counter()
        async with asyncio.TaskGroup() as group:
            for number in range(int(rate * seconds)):
                await asyncio.sleep(begin + number / rate - time.perf_counter())
                group.create_task(self.visit())

    async def without_pause(self, at_once: int, seconds: float) -> None:
        """Visit after visit."""
        until = time.perf_counter() + seconds

        async def again() -> None:
            while time.perf_counter() < until:
                await self.visit()

        await asyncio.gather(*(again() for _ in range(at_once)))


async def _main(words: list[str]) -> None:
    host, port, source, rate, at_once, seconds = words
    visitor = Visitor(host, int(port), source)
    if float(rate):
        await visitor.steadily(float(rate), float(seconds))
    else:
        await visitor.without_pause(int(at_once), float(seconds))
    times = sorted(visitor.times)
    slowest = 1000 * times[len(times) * 99 // 100] if times else 0.0
    print(json.dumps({"served": 0, "refused": 0, "failed": 0, **visitor.results, "p99": slowest}))


if __name__ == "__main__":
    uvloop.run(_main(sys.argv[1:]))
