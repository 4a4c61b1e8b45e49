"""`python -m v6fwd.demo.client HOST PORT`: sends one HTTP request, exits 0 on the right answer."""

from __future__ import annotations

import http.client
import sys

from v6fwd.demo.target import BODY


def request(host: str, port: int) -> bool:
    """Send `GET /` and return whether the body is the target's. Raises OSError."""
    connection = http.client.HTTPConnection(host, port, timeout=10)
    try:
        connection.request("GET", "/")
        return connection.getresponse().read() == BODY
    finally:
        connection.close()


if __name__ == "__main__":
    sys.exit(0 if request(sys.argv[1], int(sys.argv[2])) else 1)
