"""TCP client of any protocol: `say.py HOST PORT TIMES [+HEX | -HEX]...`: says, or waits for.

It prints all that came, as text of one byte a sign; an end or a reset ends a connection at once.
"""

from __future__ import annotations

import contextlib
import socket
import sys
from collections.abc import Sequence


def talk(sock: socket.socket, steps: Sequence[str]) -> None:
    """Take the steps in turn, until the server ends the connection."""
    heard = b""
    for step in steps:
        words = bytes.fromhex(step[1:])
        if step[0] == "+":
            sock.sendall(words)
            continue
        while words not in heard:
            data = sock.recv(65536)
            if not data:
                return
            sys.stdout.write(data.decode("latin-1"))
            heard += data


def run(host: str, port: int, times: int, steps: Sequence[str]) -> None:
    """Make that many connections, one after the other."""
    for _ in range(times):
        with (
            socket.create_connection((host, port), timeout=60) as sock,
            contextlib.suppress(ConnectionError),
        ):
            talk(sock, steps)


if __name__ == "__main__":
    run(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4:])
