"""For tests of HTTP over plain sockets: requests as bytes, and what a target reads and answers."""

from __future__ import annotations

import socket

from tests.support.rig import Rig, read_exactly

END = b"\r\n\r\n"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


def get(path: str = "/", *fields: str) -> bytes:
    """A GET request."""
    return request("GET", path, *fields)


def request(method: str, path: str, *fields: str, body: bytes = b"", host: str = "h") -> bytes:
    """A request of HTTP/1.1, its fields as given."""
    lines = [f"{method} {path} HTTP/1.1", f"Host: {host}", *fields]
    return "\r\n".join(lines).encode("latin-1") + END + body


def head_of(sock: socket.socket) -> bytes:
    """Bytes up to the next empty line, and not one more."""
    data = bytearray()
    while not data.endswith(END):
        piece = sock.recv(1)
        assert piece, f"ended in the middle of a head: {bytes(data)!r}"
        data += piece
    return bytes(data)


def fields_of(head: bytes) -> dict[str, list[str]]:
    """A head's fields by lower-case name."""
    found: dict[str, list[str]] = {}
    for line in head.decode("latin-1").split("\r\n")[1:-2]:
        name, _, value = line.partition(":")
        found.setdefault(name.lower(), []).append(value.strip())
    return found


def answer_of(sock: socket.socket) -> tuple[int, bytes]:
    """Status and body of the next answer, whose length must be known."""
    head = head_of(sock)
    size = int(fields_of(head)["content-length"][0])
    return int(head.split()[1]), read_exactly(sock, size)


def told(head: bytes) -> list[str]:
    """Every address that the head names for its client."""
    fields = fields_of(head)
    return [value for name in ("x-forwarded-for", "x-real-ip") for value in fields.get(name, [])]


def ok(body: bytes) -> bytes:
    """A whole answer."""
    return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body


def asked(
    rig: Rig, data: bytes = b"", host: str = "::1"
) -> tuple[socket.socket, socket.socket, bytes]:
    """A client that has sent a request, the target's end, and the head that came there."""
    client = rig.connect(host)
    client.sendall(data or get())
    target = rig.accept()
    return client, target, head_of(target)


def web_probe(rig: Rig) -> None:
    """Somebody else is served."""
    client, target, _ = asked(rig)
    target.sendall(OK)
    assert answer_of(client) == (200, b"ok")
