"""Steady load on several addresses: `mesh_load.py PORT HOST...` has clients come until stdin ends.

One client an address, which asks again as soon as it has its answer: so many requests, and no more,
can be lost with a task, however slow the machine is. A line on stdout for every 50 that were named;
the last one has a count of everything, as JSON.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections import Counter
from concurrent.futures import Future

PAUSE = 0.05
"""Seconds between a client's requests."""
PATIENCE = 20.0
EVERY = 50
REQUEST = b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"


async def _ask(host: str, port: int) -> str:
    """What became of a request."""
    try:
        async with asyncio.timeout(PATIENCE):
            reader, writer = await asyncio.open_connection(host, port)
            writer.write(REQUEST)
            answer = await reader.read()
            writer.close()
    except (OSError, TimeoutError) as error:
        return f"{type(error).__name__} {error}"
    return "served" if b"|PROXY TCP" in answer else f"answer {answer[:40]!r}"


async def _client(host: str, port: int, ended: Future[str], results: Counter[str]) -> None:
    while not ended.done():
        word = await _ask(host, port)
        results[word] += 1
        if word == "served" and results[word] % EVERY == 0:
            print(results[word], flush=True)
        await asyncio.sleep(PAUSE)


async def main(port: str, *hosts: str) -> None:
    """Let clients come."""
    ended: Future[str] = Future()
    asyncio.get_running_loop().run_in_executor(None, lambda: ended.set_result(sys.stdin.read()))
    results: Counter[str] = Counter()
    await asyncio.gather(*(_client(host, int(port), ended, results) for host in hosts))
    print(json.dumps(results), flush=True)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
