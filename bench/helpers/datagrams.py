"""`datagrams.py HOST PORT SINK SINK_PORT SIZE TRAIN WINDOW SECONDS`: numbered datagrams, one way.

Sends datagrams of SIZE bytes, each starting with its number, to HOST; with TRAIN above 1 that many
for one system call (UDP_SEGMENT). The sink says over TCP, not through the relay, what number it has
seen, and no more than WINDOW datagrams are under way. Where nothing comes back for a moment, those
count as gone, and it goes on. Ends after SECONDS and says in JSON how many were sent and received,
how many came late (after one of a higher number), and the seconds it took.
"""

from __future__ import annotations

import json
import socket
import struct
import sys
import time

_RECORD = struct.Struct("!QQQ")  # the same as in sink.py: next number, received, late
_SOL_UDP, _UDP_SEGMENT = 17, 103
_STALL = 0.005
"""Seconds without a word from the sink after which what is under way is lost."""
_PATIENCE = 10.0
"""Seconds for the sink's last word."""


def _connect(host: str, port: int, size: int, train: int) -> socket.socket:
    sock = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_DGRAM)
    sock.connect((host, port))
    if train > 1:
        sock.setsockopt(_SOL_UDP, _UDP_SEGMENT, size)
    return sock


def _last(words: bytes) -> tuple[int, int, int]:
    """The last whole record of what the sink said; each is newer than those before it."""
    whole = len(words) // _RECORD.size
    next_number, received, late = _RECORD.unpack_from(words, (whole - 1) * _RECORD.size)
    return next_number, received, late


def _send(
    sock: socket.socket, sink: socket.socket, size: int, train: int, window: int, seconds: float
) -> tuple[int, float, bytes]:
    """How many were sent, in how many seconds, and the piece of a record that is left over."""
    numbers = struct.Struct("!" + f"Q{size - 8}x" * train)
    data = bytearray(size * train)
    sent = seen = 0
    rest = b""
    sink.settimeout(_STALL)
    begun = time.monotonic()
    while (now := time.monotonic()) < begun + seconds:
        while sent + train - seen <= window:
            numbers.pack_into(data, 0, *range(sent, sent + train))
            sock.send(data)
            sent += train
        try:
            rest += sink.recv(1 << 16)
        except TimeoutError:
            seen = sent
            continue
        if len(rest) >= _RECORD.size:
            seen = max(seen, _last(rest)[0])
            rest = rest[len(rest) // _RECORD.size * _RECORD.size :]
    return sent, now - begun, rest


def _rest(sink: socket.socket, words: bytes) -> bytes:
    """All that the sink still says, once it knows that we are done."""
    sink.shutdown(socket.SHUT_WR)
    sink.settimeout(_PATIENCE)
    while data := sink.recv(1 << 16):
        words += data
    return words


def _main(host: str, port: str, sink_host: str, sink_port: str, *numbers: str) -> None:
    size, train, window = (int(number) for number in numbers[:3])
    with (
        _connect(host, int(port), size, train) as sock,
        socket.create_connection((sink_host, int(sink_port)), _PATIENCE) as sink,
    ):
        sent, seconds, rest = _send(sock, sink, size, train, window, float(numbers[3]))
        _, received, late = _last(_rest(sink, rest))
    print(json.dumps({"sent": sent, "received": received, "late": late, "seconds": seconds}))


if __name__ == "__main__":
    _main(*sys.argv[1:])
