"""A client of its own process: sends the bytes of stdin as they are, prints what comes back.

`python talk.py HOST PORT` connects first, so that it can stay silent for as long as stdin does.
"""

from __future__ import annotations

import contextlib
import os
import socket
import sys


def talk(host: str, port: int) -> None:
    """Copy stdin to the server, then the server to stdout; a reset ends that as EOF does."""
    with socket.create_connection((host, port), timeout=60) as sock:
        sock.sendall(sys.stdin.buffer.read())
        with contextlib.suppress(ConnectionResetError):
            while data := sock.recv(65536):
                os.write(1, data)


if __name__ == "__main__":
    talk(sys.argv[1], int(sys.argv[2]))
