"""A client of UDP and TCP at once, told on stdin what to do: `python both.py HOST PORT`.

`tell udp TEXT` and `tell tcp TEXT` send a line; `hear udp` and `hear tcp` print the next line that
comes back.
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


def obey(host: str, port: int) -> None:
    """See above."""
    datagrams = connected(host, port, socket.SOCK_DGRAM)
    stream = connected(host, port, socket.SOCK_STREAM)
    lines = stream.makefile("rb")
    for command in sys.stdin:
        verb, protocol, *text = command.split(maxsplit=2)
        data = "".join(text).encode()
        if verb == "tell":
            (datagrams if protocol == "udp" else stream).sendall(data)
        else:
            heard = datagrams.recv(SIZE) if protocol == "udp" else lines.readline()
            print(heard.decode().strip(), flush=True)


if __name__ == "__main__":
    obey(sys.argv[1], int(sys.argv[2]))
