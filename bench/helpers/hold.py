"""`hold.py HOST PORT COUNT [--udp]`: opens COUNT connections and holds them until its input ends.

Each sends 8 bytes of its own and must get them back, so that the flow stands from end to end.
Says `held COUNT`, then waits. With --udp they are sockets with a port each, and nothing is sent
again: a lost datagram ends it.
"""

from __future__ import annotations

import socket
import sys

_TIMEOUT = 10.0


def _open(host: str, port: int, udp: bool) -> socket.socket:
    if not udp:
        return socket.create_connection((host, port), _TIMEOUT)
    sock = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_DGRAM)
    sock.settimeout(_TIMEOUT)
    sock.connect((host, port))
    return sock


def _hold(host: str, port: int, count: int, udp: bool) -> list[socket.socket]:
    held = []
    for number in range(count):
        sock = _open(host, port, udp)
        token = number.to_bytes(8, "big")
        sock.send(token)
        if sock.recv(len(token), socket.MSG_WAITALL) != token:
            raise SystemExit(f"connection {number} of {count}: not the 8 bytes it sent")
        held.append(sock)
    return held


if __name__ == "__main__":
    connections = _hold(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), "--udp" in sys.argv[4:])
    print(f"held {len(connections)}", flush=True)
    sys.stdin.read()
