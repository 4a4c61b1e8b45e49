"""`gets.py HOST PORT PATH COUNT`: so many GET requests on one connection; says each body.

They claim to come from somebody else, which a relay that names clients must not pass on.
"""

from __future__ import annotations

import http.client
import sys

_TIMEOUT = 30.0
_CLAIM = {"X-Forwarded-For": "192.0.2.66"}


def _get(connection: http.client.HTTPConnection, path: str) -> str:
    connection.request("GET", path, headers=_CLAIM)
    answer = connection.getresponse()
    body = answer.read().decode()
    if answer.status != http.HTTPStatus.OK:
        raise SystemExit(f"{path} was answered with {answer.status} {answer.reason}")
    return body


if __name__ == "__main__":
    connection = http.client.HTTPConnection(sys.argv[1], int(sys.argv[2]), timeout=_TIMEOUT)
    for _ in range(int(sys.argv[4])):
        print(_get(connection, sys.argv[3]), end="", flush=True)
    connection.close()
