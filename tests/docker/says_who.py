"""A server of TCP and UDP: `says_who.py PORT` says from where it is asked, and what it was told."""

from __future__ import annotations

import socket
import sys
import threading


def serve_udp(sock: socket.socket) -> None:
    """Answer every datagram."""
    while True:
        data, (host, _) = sock.recvfrom(2048)
        sock.sendto(f"from {host}\n".encode() + data, (host, _))


def serve_tcp(sock: socket.socket) -> None:
    """Answer every connection at its end; several threads do so."""
    while True:
        client, (host, _) = sock.accept()
        try:
            with client:
                client.settimeout(5)
                answer = f"from {host}\n".encode()
                while data := client.recv(4096):
                    answer += data
                client.sendall(answer)
        except OSError:
            pass


def main(port: str) -> None:
    """Serve for good."""
    udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    udp.bind(("0.0.0.0", int(port)))
    tcp = socket.create_server(("0.0.0.0", int(port)), backlog=512)
    for _ in range(16):
        threading.Thread(target=serve_tcp, args=(tcp,)).start()
    serve_udp(udp)


if __name__ == "__main__":
    main(*sys.argv[1:])
