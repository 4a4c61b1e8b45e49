"""Many clients at once: `python crowd.py HOST PORT COUNT BODY` prints how they fared, as JSON.

`whole` got the answer with BODY, `refused` not a byte of it, `cut` a part: there must be none.
"""

from __future__ import annotations

import asyncio
import collections
import json
import resource
import sys

PATIENCE = 60.0


async def ask(host: str, port: int, body: bytes) -> str:
    """One request; what became of it."""
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


async def crowd(host: str, port: int, count: int, body: bytes) -> None:
    """Ask `count` times at once."""
    fates = await asyncio.gather(*(ask(host, port, body) for _ in range(count)))
    print(json.dumps(collections.Counter(fates)))


if __name__ == "__main__":
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    asyncio.run(crowd(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4].encode()))
