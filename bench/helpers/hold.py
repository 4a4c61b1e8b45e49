"""`hold.py HOST PORT COUNT`: opens COUNT connections and holds them until its input ends.

Each sends 8 bytes of its own and must get them back, so that the flow stands from end to end.
Says `held COUNT`, then waits.
"""

from __future__ import annotations

import socket
import sys

_TIMEOUT = 10.0


def _hold(host: str, port: int, count: int) -> list[socket.socket]:
    held = []
    for number in range(count):
        sock = socket.create_connection((host, port), _TIMEOUT)
        token = number.to_bytes(8, "big")
        sock.sendall(token)
        if sock.recv(len(token), socket.MSG_WAITALL) != token:
            raise SystemExit(f"connection {number} of {count}: not the 8 bytes it sent")
        held.append(sock)
    return held


if __name__ == "__main__":
    connections = _hold(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
    print(f"held {len(connections)}", flush=True)
    sys.stdin.read()
