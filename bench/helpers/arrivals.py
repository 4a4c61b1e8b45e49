"""`arrivals.py RATE SECONDS PORT CLIENT@HOST...`: so many new connections a second.

Each has one request. They come whether or not the earlier ones have been served. The last line on
stdout is JSON: how many came, what went wrong how often, and how long the slowest took in seconds.
An answer that does not name CLIENT is wrong; an empty CLIENT stands for any.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections import Counter

PATIENCE = 10.0
"""Seconds after which a client hangs."""
REQUEST = b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"


async def _ask(host: str, port: int) -> bytes:
    async with asyncio.timeout(PATIENCE):
        reader, writer = await asyncio.open_connection(host, port)
        try:
            writer.write(REQUEST)
            return await reader.read()
        finally:
            writer.close()


async def _one(client: str, host: str, port: int, found: Counter[str], took: list[float]) -> None:
    since = time.monotonic()
    try:
        answer = await _ask(host, port)
    except TimeoutError:
        found["hung"] += 1
    except OSError as error:
        found[type(error).__name__] += 1
    else:
        body = answer.partition(b"\r\n\r\n")[2].strip()
        named = body == client.encode() if client else bool(body)
        if not named:
            found["wrong" if answer else "empty"] += 1
    took.append(time.monotonic() - since)


async def main(rate: float, seconds: float, port: int, places: list[tuple[str, str]]) -> None:
    """Let clients come, and tell what became of them."""
    found: Counter[str] = Counter()
    took: list[float] = []
    asking = []
    since = time.monotonic()
    for number in range(int(rate * seconds)):
        client, host = places[number % len(places)]
        asking.append(asyncio.ensure_future(_one(client, host, port, found, took)))
        await asyncio.sleep(max(0.0, since + (number + 1) / rate - time.monotonic()))
    await asyncio.gather(*asking)
    took.sort()
    told = {"came": len(took), "failed": found, "p99": took[len(took) * 99 // 100]}
    print(json.dumps(told | {"slowest": took[-1]}), flush=True)


if __name__ == "__main__":
    RATE, SECONDS, PORT, *PLACES = sys.argv[1:]
    asyncio.run(
        main(
            float(RATE),
            float(SECONDS),
            int(PORT),
            [(client, host) for client, _, host in (each.partition("@") for each in PLACES)],
        )
    )
