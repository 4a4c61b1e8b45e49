"""Client with a UDP socket and a TCP connection: `python udp_and_tcp.py HOST PORT`.

It reads commands from stdin: `send udp TEXT` and `send tcp TEXT` send a line; `receive udp` and
`receive tcp` print the next line that comes back.
"""

from __future__ import annotations

import socket
import sys

TIMEOUT = 60
SIZE = 4096


def connected(host: str, port: int, kind: int) -> socket.socket:
    """A socket of that kind, connected."""
    sock = socket.socket(socket.AF_INET6, kind)
    sock.settimeout(TIMEOUT)
    sock.connect((host, port))
    return sock


def run_commands(host: str, port: int) -> None:
    """Until stdin ends."""
    datagrams = connected(host, port, socket.SOCK_DGRAM)
    stream = connected(host, port, socket.SOCK_STREAM)
    lines = stream.makefile("rb")
    for command in sys.stdin:
        verb, protocol, *text = command.split(maxsplit=2)
        data = "".join(text).encode()
        if verb == "send":
            (datagrams if protocol == "udp" else stream).sendall(data)
        else:
            received = datagrams.recv(SIZE) if protocol == "udp" else lines.readline()
            print(received.decode().strip(), flush=True)


if __name__ == "__main__":
    run_commands(sys.argv[1], int(sys.argv[2]))
