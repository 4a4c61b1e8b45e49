"""TCP client that sends the bytes of stdin and prints what comes back: `send_stdin.py HOST PORT`.

It connects first, and then waits for stdin: a client that is silent as long as the test wants.
"""

from __future__ import annotations

import contextlib
import os
import socket
import sys


def run(host: str, port: int) -> None:
    """Copy stdin to the server, then the server to stdout; a reset ends that as EOF does."""
    with socket.create_connection((host, port), timeout=60) as sock:
        sock.sendall(sys.stdin.buffer.read())
        with contextlib.suppress(ConnectionResetError):
            while data := sock.recv(65536):
                os.write(1, data)


if __name__ == "__main__":
    run(sys.argv[1], int(sys.argv[2]))
