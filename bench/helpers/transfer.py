"""`transfer.py HOST PORT BYTES`: sends random bytes to an echo and compares what comes back.

Says the SHA-256 when both are equal, else exits 1 with the reason.
"""

from __future__ import annotations

import hashlib
import os
import socket
import sys
import threading

_TIMEOUT = 30.0
_CHUNK = 1 << 16


def _send(sock: socket.socket, data: bytes) -> None:
    sock.sendall(data)
    sock.shutdown(socket.SHUT_WR)


def _transfer(host: str, port: int, size: int) -> str:
    data = os.urandom(size)
    got, count = hashlib.sha256(), 0
    with socket.create_connection((host, port), _TIMEOUT) as sock:
        sender = threading.Thread(target=_send, args=(sock, data), daemon=True)
        sender.start()
        while chunk := sock.recv(_CHUNK):
            got.update(chunk)
            count += len(chunk)
        sender.join()
    if count != size:
        raise SystemExit(f"{count} bytes came back of {size}")
    if got.digest() != hashlib.sha256(data).digest():
        raise SystemExit(f"{size} bytes came back, and they are not those that were sent")
    return got.hexdigest()


if __name__ == "__main__":
    print(_transfer(sys.argv[1], int(sys.argv[2]), int(sys.argv[3])))
