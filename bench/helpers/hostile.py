"""`hostile.py client|target KIND HOST PORT COUNT_FILE SECONDS`: costly HTTP from either end.

The client holds AT_ONCE connections, sends as fast as it can and drops what comes. The target
answers as KIND has it. Both count the bytes that they send for ever in COUNT_FILE (8 bytes).
`hostile.py probe HOST PORT SECONDS`: a client that behaves; prints the ms of its requests.
"""

from __future__ import annotations

import mmap
import os
import random
import selectors
import socket
import struct
import sys
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

AT_ONCE = 4
_PIECE = 1 << 16
_SOCKET_BUFFER = 1 << 18
"""Bytes; what waits in buffers counts as sent, and shall be little."""
_PAUSE = 0.003
"""Seconds between requests of the client that behaves."""
_NICE = 10
"""The client that behaves shall wait for the relay, not for this load."""
_NAMES = 90

_COUNTER = struct.Struct("Q")

_POST = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
_OK = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
_CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
_GET = b"GET / HTTP/1.1\r\nHost: a\r\n"


@dataclass(frozen=True, slots=True)
class Kind:
    """What the client sends once and then for ever; and what the target answers."""

    first: bytes = b""
    again: bytes = b""
    segment: int = 0
    """Bytes in one segment; 0: as many as fit."""
    ends: int = 1
    """Empty lines in a request, after which `answer` is sent; 0: it answers nothing."""
    answer: bytes = _OK
    endless: bytes = b""
    """What the target sends for ever behind its first answer."""


def _chunks(sizes: Iterable[int]) -> bytes:
    return b"".join(b"%x\r\n%b\r\n" % (size, b"x" * size) for size in sizes)


def _differing() -> bytes:
    """Heads in which no field has been before."""
    heads = []
    for number in range(200):
        fields = b"".join(b"h%d-%d:\r\n" % (number, name) for name in range(_NAMES))
        heads.append(_GET + fields + b"\r\n")
    return b"".join(heads)


_FIELDS = b"".join(b"x-trailer-%d: v\r\n" % name for name in range(_NAMES))
KINDS = {
    "plain": Kind(),
    "request-chunks-1": Kind(_POST, _chunks([1] * 10_000), ends=0),
    "request-chunks-16": Kind(_POST, _chunks([16] * 4000), ends=0),
    "request-chunks-random": Kind(
        _POST, _chunks(random.Random(1).choices(range(1, 16), k=8000)), ends=0
    ),
    "request-chunks-1000": Kind(_POST, _chunks([1000] * 64), ends=0),
    "request-extensions": Kind(_POST, b"1;a\r\nx\r\n" * 8000, ends=0),
    "response-chunks-1": Kind(_GET + b"\r\n", answer=_CHUNKED, endless=_chunks([1] * 10_000)),
    "response-chunks-lf": Kind(_GET + b"\r\n", answer=_CHUNKED, endless=b"1\nx\n" * 10_000),
    "differing-heads": Kind(again=_differing()),
    "endless-1xx": Kind(
        _GET + b"\r\n", answer=b"", endless=b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n" * 500
    ),
    "trailers": Kind(again=(_POST + b"1\r\nx\r\n0\r\n" + _FIELDS + b"\r\n") * 40, ends=2),
    "small-segments": Kind(again=_GET + _FIELDS + b"\r\n", segment=8),
}


class Counter:
    """Bytes so far, where another process sees them."""

    def __init__(self, path: str) -> None:
        with Path(path).open("r+b") as file:
            self._shared = mmap.mmap(file.fileno(), _COUNTER.size)
        self._total = 0

    def add(self, size: int) -> None:
        """Count so many more."""
        self._total += size
        self._shared[:] = _COUNTER.pack(self._total)


class Sender:
    """A connection that always has something to send, or nothing."""

    def __init__(self, sock: socket.socket, counter: Counter, segment: int = 0) -> None:
        sock.setblocking(False)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SOCKET_BUFFER)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.sock = sock
        self.once = b""
        self.again = b""
        self._at = 0
        self._counter = counter
        self._most = segment or _PIECE

    @property
    def mask(self) -> int:
        """What to wait for."""
        return selectors.EVENT_READ | (selectors.EVENT_WRITE if self.once or self.again else 0)

    def send(self) -> None:
        """Send some. Raises OSError."""
        if self.once:
            self.once = self.once[self.sock.send(self.once) :]
        elif self.again:
            size = self.sock.send(memoryview(self.again)[self._at : self._at + self._most])
            self._counter.add(size)
            self._at = (self._at + size) % len(self.again)


def attack(kind: Kind, address: tuple[str, int], counter: Counter, until: float) -> None:
    """Hold AT_ONCE connections until then."""
    poll = selectors.DefaultSelector()

    def dial() -> None:
        sender = Sender(socket.create_connection(address), counter, kind.segment)
        sender.once, sender.again = kind.first, kind.again
        poll.register(sender.sock, sender.mask, sender)

    for _ in range(AT_ONCE):
        dial()
    while time.monotonic() < until:
        for key, mask in poll.select(0.1):
            sender: Sender = key.data
            if not _serve(sender, mask):
                poll.unregister(sender.sock)
                sender.sock.close()
                dial()
            elif key.events != sender.mask:
                poll.modify(sender.sock, sender.mask, sender)


def _serve(sender: Sender, mask: int) -> bool:
    """False: its connection is over."""
    try:
        if mask & selectors.EVENT_READ and not sender.sock.recv(_PIECE):
            return False
        if mask & selectors.EVENT_WRITE:
            sender.send()
    except BlockingIOError:
        pass
    except OSError:
        return False
    return True


class Answerer(Sender):
    """The target's end of a connection."""

    def __init__(self, sock: socket.socket, counter: Counter, kind: Kind) -> None:
        super().__init__(sock, counter)
        self._kind = kind
        self._tail = b""
        self._ends = 0

    def receive(self) -> bool:
        """Answer what is whole; False at the end of the stream. Raises OSError."""
        data = self.sock.recv(_PIECE)
        if not self._kind.ends:
            return bool(data)
        data = self._tail + data
        last = data.rfind(b"\r\n\r\n")
        self._tail = data[last + 4 :][-3:] if last >= 0 else data[-3:]
        self._ends += data.count(b"\r\n\r\n")
        if self._ends >= self._kind.ends:
            whole, self._ends = divmod(self._ends, self._kind.ends)
            self.once += self._kind.answer * whole
            self.again = self._kind.endless
        return bool(data)


def target(kind: Kind, address: tuple[str, int], counter: Counter, until: float) -> None:
    """Serve until then."""
    poll = selectors.DefaultSelector()
    server = socket.create_server(address, backlog=100)
    poll.register(server, selectors.EVENT_READ)
    while time.monotonic() < until:
        for key, mask in poll.select(0.1):
            if key.data is None:
                answerer = Answerer(server.accept()[0], counter, kind)
                poll.register(answerer.sock, answerer.mask, answerer)
                continue
            answerer = key.data
            if not _answer(answerer, mask):
                poll.unregister(answerer.sock)
                answerer.sock.close()
            elif key.events != answerer.mask:
                poll.modify(answerer.sock, answerer.mask, answerer)


def _answer(answerer: Answerer, mask: int) -> bool:
    """False: its connection is over."""
    try:
        if mask & selectors.EVENT_READ and not answerer.receive():
            return False
        if answerer.once or mask & selectors.EVENT_WRITE:
            answerer.send()
    except BlockingIOError:
        pass
    except OSError:
        return False
    return True


def probe(address: tuple[str, int], seconds: float) -> None:
    """Ask again and again on one connection; print how long each took, in ms."""
    times = []
    until = time.monotonic() + seconds
    with socket.create_connection(address, 20) as sock:
        while (began := time.monotonic()) < until:
            sock.sendall(_GET + b"\r\n")
            if not sock.recv(_PIECE):
                raise SystemExit("the connection of the client that behaves was closed")
            times.append(1000 * (time.monotonic() - began))
            time.sleep(_PAUSE)
    print(" ".join(f"{one:.3f}" for one in times))


def main(words: list[str]) -> None:
    """Be what the words say."""
    role, *rest = words
    if role == "probe":
        probe((rest[0], int(rest[1])), float(rest[2]))
        return
    os.nice(_NICE)
    name, host, port, path, seconds = rest
    does = attack if role == "client" else target
    does(KINDS[name], (host, int(port)), Counter(path), time.monotonic() + float(seconds))


if __name__ == "__main__":
    main(sys.argv[1:])
