"""HTTP client that pauses in a download: `python pausing_download.py HOST PORT PATH SIZE`.

It requests PATH, prints `begun` when the first bytes are there, reads nothing more until a line
comes on stdin, and then prints the SHA-256 of the last SIZE bytes of the answer.
"""

from __future__ import annotations

import hashlib
import socket
import sys


def download(host: str, port: int, path: str, size: int) -> None:
    """Download PATH with a pause."""
    with socket.create_connection((host, port), timeout=60) as sock:
        sock.sendall(f"GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())
        answer = bytearray(sock.recv(1024))
        print("begun", flush=True)
        sys.stdin.readline()
        while data := sock.recv(1 << 20):
            answer += data
    print(hashlib.sha256(answer[-size:]).hexdigest(), flush=True)


if __name__ == "__main__":
    download(sys.argv[1], int(sys.argv[2]), sys.argv[3], int(sys.argv[4]))
