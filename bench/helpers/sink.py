"""`sink.py HOST PORT EVERY [--trains]`: counts the numbered datagrams of datagrams.py.

Takes them on UDP, and on TCP, on a port of the same number, their sender, to whom it says what has
come each time the numbers have grown by EVERY, and again at the end: the number after the highest,
how many were received, how many of these came late. One sender after the other; each begins with 0.
With --trains the socket takes trains whole (UDP_GRO).
"""

from __future__ import annotations

import contextlib
import socket
import struct
import sys
from dataclasses import dataclass

_RECORD = struct.Struct("!QQQ")  # the same as in datagrams.py
_SOL_UDP, _UDP_GRO = 17, 104
_SO_RCVBUFFORCE = 33
_BUFFER = 8 << 20
"""Bytes that wait for us: what is lost shall be the relay's loss."""
_QUIET = 0.1
"""Seconds without a datagram after which a sender that has ended is done."""


@dataclass(slots=True)
class Count:
    """What has come from one sender."""

    next: int = 0
    received: int = 0
    late: int = 0

    def take(self, numbers: tuple[int, ...]) -> None:
        """Count datagrams; those of a train are in order, unless its ends tell otherwise."""
        self.received += len(numbers)
        if numbers[0] >= self.next and numbers[-1] - numbers[0] == len(numbers) - 1:
            self.next = numbers[-1] + 1
            return
        for number in numbers:
            self.late += number < self.next
            self.next = max(self.next, number + 1)

    def record(self) -> bytes:
        """What the sender is told."""
        return _RECORD.pack(self.next, self.received, self.late)


def _listen(host: str, port: int, trains: bool) -> socket.socket:
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _BUFFER)
    except PermissionError:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _BUFFER)
    # The kernel's own timeout: Python's would cost a second system call each time.
    timeout = struct.pack("ll", 0, int(_QUIET * 1e6))
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, timeout)
    if trains:
        sock.setsockopt(_SOL_UDP, _UDP_GRO, 1)
    sock.bind((host, port))
    return sock


def _numbers(sock: socket.socket, trains: bool) -> tuple[int, ...]:
    """The numbers of the datagrams that one system call gives. Raises BlockingIOError."""
    if not trains:
        return (int.from_bytes(sock.recv(1 << 16)[:8], "big"),)
    data, extra, _, _ = sock.recvmsg(1 << 16, socket.CMSG_SPACE(4))
    segment = struct.unpack("i", extra[0][2])[0] if extra else len(data)
    return struct.unpack_from("!" + f"Q{segment - 8}x" * (len(data) // segment), data)


def _is_done(sender: socket.socket) -> bool:
    """Whether the sender has said that it sent all."""
    try:
        return not sender.recv(1, socket.MSG_DONTWAIT)
    except BlockingIOError:
        return False


def _count(sock: socket.socket, sender: socket.socket, every: int, trains: bool) -> None:
    count, told = Count(), 0
    while True:
        try:
            count.take(_numbers(sock, trains))
        except BlockingIOError:  # quiet
            if _is_done(sender):
                break
            continue
        if count.next - told >= every:
            told = count.next
            sender.sendall(count.record())
    sender.sendall(count.record())


def _main(host: str, port: int, every: int, trains: bool) -> None:
    with _listen(host, port, trains) as sock, socket.create_server((host, port)) as server:
        while True:
            sender, _ = server.accept()
            with sender, contextlib.suppress(ConnectionError):
                sender.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                _count(sock, sender, every, trains)


if __name__ == "__main__":
    _main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), "--trains" in sys.argv[4:])
