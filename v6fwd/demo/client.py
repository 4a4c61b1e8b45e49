"""One HTTP request: `python -m v6fwd.demo.client HOST PORT` exits 0 when the answer is right."""

from __future__ import annotations

import http.client
import sys

from v6fwd.demo.target import BODY


def request(host: str, port: int) -> bool:
    """Send `GET /`; whether the target's own words came back. Raises OSError."""
    connection = http.client.HTTPConnection(host, port, timeout=10)
    try:
        connection.request("GET", "/")
        return connection.getresponse().read() == BODY
    finally:
        connection.close()


if __name__ == "__main__":
    sys.exit(0 if request(sys.argv[1], int(sys.argv[2])) else 1)
