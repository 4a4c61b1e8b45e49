"""`transfer.py HOST PORT BYTES [--http]`: sends random bytes to an echo, compares what comes back.

Says the SHA-256 when both are equal, else exits 1 with the reason. With --http they are the body
of a request, and of its answer.
"""

from __future__ import annotations

import hashlib
import http.client
import os
import socket
import sys
import threading
from collections.abc import Callable, Iterator

_TIMEOUT = 30.0
_CHUNK = 1 << 16


def _send(sock: socket.socket, data: bytes) -> None:
    sock.sendall(data)
    sock.shutdown(socket.SHUT_WR)


def _stream(host: str, port: int, data: bytes) -> Iterator[bytes]:
    with socket.create_connection((host, port), _TIMEOUT) as sock:
        sender = threading.Thread(target=_send, args=(sock, data), daemon=True)
        sender.start()
        while chunk := sock.recv(_CHUNK):
            yield chunk
        sender.join()


def _request(host: str, port: int, data: bytes) -> Iterator[bytes]:
    connection = http.client.HTTPConnection(host, port, timeout=_TIMEOUT)
    connection.request("POST", "/", body=data)
    answer = connection.getresponse()
    if answer.status != http.HTTPStatus.OK:
        raise SystemExit(f"the answer was {answer.status} {answer.reason}")
    yield answer.read()
    connection.close()


def _transfer(way: Callable[[bytes], Iterator[bytes]], size: int) -> str:
    data = os.urandom(size)
    got, count = hashlib.sha256(), 0
    for chunk in way(data):
        got.update(chunk)
        count += len(chunk)
    if count != size:
        raise SystemExit(f"{count} bytes came back of {size}")
    if got.digest() != hashlib.sha256(data).digest():
        raise SystemExit(f"{size} bytes came back, and they are not those that were sent")
    return got.hexdigest()


def _main(host: str, port: str, size: str, *options: str) -> None:
    way = _request if "--http" in options else _stream
    print(_transfer(lambda data: way(host, int(port), data), int(size)))


if __name__ == "__main__":
    _main(*sys.argv[1:])
