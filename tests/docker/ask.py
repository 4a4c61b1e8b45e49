"""A client: `ask.py tcp|udp HOST PORT...` prints each port's answer to a question, in one line."""

from __future__ import annotations

import socket
import sys
import time

PATIENCE = 20.0


def main(protocol: str, host: str, *ports: str) -> None:
    """Ask all ports, one after the other."""
    for port in ports:
        answer = _ask(protocol, (host, int(port))).decode(errors="backslashreplace")
        print(" ".join(answer.split()))


def _ask(protocol: str, address: tuple[str, int]) -> bytes:
    """The answer; a server that is just starting is asked again."""
    until = time.monotonic() + PATIENCE
    while True:
        try:
            answer = _over_tcp(address) if protocol == "tcp" else _over_udp(address)
        except OSError:
            answer = b""
        if answer:
            return answer
        if time.monotonic() > until:
            raise SystemExit(f"no answer from {address}")
        time.sleep(0.02)


def _over_tcp(address: tuple[str, int]) -> bytes:
    with socket.create_connection(address, PATIENCE) as sock:
        sock.sendall(b"hello")
        sock.shutdown(socket.SHUT_WR)
        return b"".join(iter(lambda: sock.recv(4096), b""))


def _over_udp(address: tuple[str, int]) -> bytes:
    family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as sock:
        sock.settimeout(1)
        sock.connect(address)
        sock.send(b"hello")
        answer = b""
        while b"hello" not in answer:
            answer += sock.recv(4096)
        return answer


if __name__ == "__main__":
    main(*sys.argv[1:])
