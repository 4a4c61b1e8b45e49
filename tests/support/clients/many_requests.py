"""Many clients at the same time: `python many_requests.py HOST PORT COUNT BODY` prints JSON.

It counts clients by result: `whole` got the answer with BODY, `refused` no byte, `cut` a part.
"""

from __future__ import annotations

import asyncio
import collections
import json
import resource
import sys

PATIENCE = 60.0


async def ask(host: str, port: int, body: bytes) -> str:
    """One request; its result."""
    answer = b""
    try:
        async with asyncio.timeout(PATIENCE):
            reader, writer = await asyncio.open_connection(host, port)
            writer.write(b"GET /one HTTP/1.1\r\nHost: crowd\r\nConnection: close\r\n\r\n")
            while data := await reader.read(4096):
                answer += data
            writer.close()
    except (OSError, TimeoutError):
        return "cut" if answer else "refused"
    whole = answer.startswith(b"HTTP/1.1 200 ") and answer.endswith(b"\r\n\r\n" + body)
    return "whole" if whole else "cut"


async def ask_all(host: str, port: int, count: int, body: bytes) -> None:
    """Ask `count` times at once."""
    results = await asyncio.gather(*(ask(host, port, body) for _ in range(count)))
    print(json.dumps(collections.Counter(results)))


if __name__ == "__main__":
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    asyncio.run(ask_all(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4].encode()))
