"""Keep-alive client with a browser's fields: `browser.py HOST PORT CONNECTIONS REQUESTS PATH...`

Each connection requests one path after the other, and claims another address in X-Forwarded-For.
It prints as JSON how many answers were `whole` (`This is PATH`) and how many `wrong`.
"""

from __future__ import annotations

import asyncio
import collections
import json
import sys

FIELDS = """\
Connection: keep-alive\r
User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0\r
Accept: text/html,application/xhtml+xml,application/xml;q=0.9,image/webp,*/*;q=0.8\r
Accept-Language: en-US,en;q=0.5\r
Accept-Encoding: gzip, deflate\r
Cookie: session=0123456789abcdef; theme=dark\r
X-Forwarded-For: 192.0.2.66\r
X-Real-IP: 192.0.2.66\r
Upgrade-Insecure-Requests: 1\r
\r
"""


async def connection(host: str, port: int, requests: int, paths: list[str]) -> list[str]:
    """One connection; the result of each request."""
    reader, writer = await asyncio.open_connection(host, port)
    results = []
    for number in range(requests):
        path = paths[number % len(paths)]
        writer.write(f"GET {path} HTTP/1.1\r\nHost: example\r\n{FIELDS}".encode())
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        size = int(head.lower().partition("content-length: ")[2].split()[0])
        body = (await reader.readexactly(size)).decode()
        good = " 200 " in head.splitlines()[0] and body == f"This is {path}\n"
        results.append("whole" if good else "wrong")
    writer.close()
    return results


async def browse(host: str, port: int, connections: int, requests: int, paths: list[str]) -> None:
    """All connections at once."""
    async with asyncio.timeout(60):
        found = await asyncio.gather(
            *(connection(host, port, requests, paths) for _ in range(connections))
        )
    print(json.dumps(collections.Counter(result for results in found for result in results)))


if __name__ == "__main__":
    _, host, port, connections, requests, *paths = sys.argv
    asyncio.run(browse(host, int(port), int(connections), int(requests), paths))
