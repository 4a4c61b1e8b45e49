"""Steady load on several addresses: `mesh_load.py PORT HOST...` has clients come until stdin ends.

A line on stdout for every 50 that were named; the last one has a count of everything, as JSON.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import sys
from collections import Counter

RATE = 60
PATIENCE = 9.0
EVERY = 50
REQUEST = b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"


async def _ask(host: str, port: int, results: Counter[str]) -> None:
    try:
        async with asyncio.timeout(PATIENCE):
            reader, writer = await asyncio.open_connection(host, port)
            writer.write(REQUEST)
            answer = await reader.read()
            writer.close()
    except (OSError, TimeoutError) as error:
        results[f"{type(error).__name__} {error}"] += 1
        return
    word = "served" if b"|PROXY TCP" in answer else f"answer {answer[:40]!r}"
    results[word] += 1
    if word == "served" and results[word] % EVERY == 0:
        print(results[word], flush=True)


async def main(port: str, *hosts: str) -> None:
    """Let clients come."""
    loop = asyncio.get_running_loop()
    results: Counter[str] = Counter()
    ended = loop.run_in_executor(None, sys.stdin.read)
    clients = set()
    for host in itertools.cycle(hosts):
        clients.add(asyncio.ensure_future(_ask(host, int(port), results)))
        await asyncio.sleep(1 / RATE)
        if ended.done():
            break
    await asyncio.gather(*clients)
    print(json.dumps(results), flush=True)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
