"""For tests of `v6fwd forward` as a process, with plain sockets as clients and as target."""

from __future__ import annotations

import contextlib
import hashlib
import os
import random
import select
import socket
import struct
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from tests.support.process import PATIENCE, ForwardProcess, eventually, free_port

MIB = 1 << 20
QUIET = 0.05
"""Seconds without room to write after which a writer is taken to be stalled. Too short a time
makes a test read earlier than it might, never fail."""


class Rig:
    """A relay process, and the listening socket that is its target."""

    def __init__(self, folder: Path) -> None:
        self.process = ForwardProcess(folder)
        self.port = free_port()
        self._open: list[socket.socket] = []
        self.server = socket.create_server(("127.0.0.1", 0), backlog=4096)
        self.server.settimeout(PATIENCE)
        self._baseline = 0

    def start(
        self,
        *options: str,
        target: str = "",
        prefix: Sequence[str] = (),
        preexec: Callable[[], object] | None = None,
    ) -> Rig:
        """Forward from `port` to `server`, or to `target`."""
        words = (f"[::]:{self.port}", target or self.target, *options)
        self.process.start(*words, prefix=prefix, preexec=preexec)
        self._baseline = self.sockets()
        return self

    @property
    def target(self) -> str:
        """Where `server` listens."""
        return f"127.0.0.1:{self.server.getsockname()[1]}"

    def keep(self, sock: socket.socket) -> socket.socket:
        """Close `sock` when the test is over, and let no call on it wait for ever."""
        sock.settimeout(PATIENCE)
        self._open.append(sock)
        return sock

    def connect(self, host: str = "::1", port: int = 0, source: str = "") -> socket.socket:
        """A client."""
        own = (source, 0) if source else None
        address = (host, port or self.port)
        return self.keep(socket.create_connection(address, PATIENCE, source_address=own))

    def accept(self) -> socket.socket:
        """The target's end of a flow."""
        return self.keep(self.server.accept()[0])

    def pair(self, host: str = "::1") -> tuple[socket.socket, socket.socket]:
        """Both ends of a new flow: the client's and the target's."""
        client = self.connect(host)
        return client, self.accept()

    def is_cut_off(self, port: int = 0) -> bool:
        """Whether a new client is reset; that can come before connect(2) has even returned."""
        try:
            return was_reset(self.connect(port=port))
        except ConnectionResetError:
            return True

    def sockets(self) -> int:
        """How many sockets the process holds."""
        folder = f"/proc/{self.process.pid}/fd"
        return sum(_link(f"{folder}/{fd}").startswith("socket:") for fd in os.listdir(folder))

    def settled(self) -> None:
        """Wait until the process holds no socket of any flow."""
        eventually(lambda: self.sockets() == self._baseline, "all sockets of flows closed")

    def probe(self) -> None:
        """Somebody else is served."""
        client, target = self.pair()
        with client, target:
            echoed(client, target, b"probe")
            echoed(target, client, b"answer")

    def drop(self) -> None:
        """Close all clients and the target's ends of all flows."""
        for sock in self._open:
            sock.close()
        self._open.clear()

    def end(self) -> None:
        """Close all sockets, end the process."""
        self.drop()
        self.server.close()
        self.process.end()


def _link(path: str) -> str:
    try:
        return os.readlink(path)
    except OSError:  # closed since it was listed
        return ""


def echoed(here: socket.socket, there: socket.socket, data: bytes) -> None:
    """What is sent here arrives there."""
    here.sendall(data)
    assert read_exactly(there, len(data)) == data


def read_exactly(sock: socket.socket, size: int) -> bytes:
    """The next `size` bytes."""
    data = bytearray()
    while len(data) < size:
        piece = sock.recv(size - len(data))
        assert piece, f"ended after {len(data)} of {size} bytes"
        data += piece
    return bytes(data)


def read_all(sock: socket.socket) -> bytes:
    """Everything up to a clean end of stream."""
    pieces = []
    while piece := sock.recv(MIB):
        pieces.append(piece)
    return b"".join(pieces)


def reset(sock: socket.socket) -> None:
    """End a connection with RST."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


def was_reset(sock: socket.socket) -> bool:
    """Whether the stream ends with RST; False where it ends as if it were whole."""
    try:
        while sock.recv(MIB):
            pass
    except ConnectionResetError:
        return True
    return False


def noise(size: int, seed: int) -> bytes:
    """Bytes that are the same for the same seed, and found at one offset only."""
    return random.Random(seed).randbytes(size)


@contextlib.contextmanager
def sending(sock: socket.socket, data: bytes, *, end: bool = True) -> Iterator[None]:
    """Send while the block runs, and the end of stream behind it; joined when it is left."""

    def send() -> None:
        sock.sendall(data)
        if end:
            sock.shutdown(socket.SHUT_WR)

    thread = threading.Thread(target=send)
    thread.start()
    try:
        yield
    finally:
        thread.join(PATIENCE)
        assert not thread.is_alive()


class Feed:
    """A long stream that goes out as fast as there is room, made while it is needed."""

    def __init__(self, sock: socket.socket, size: int, seed: int) -> None:
        sock.setblocking(False)
        self._sock = sock
        self._left = size
        self._random = random.Random(seed)
        self._block = memoryview(b"")
        self.sent = 0
        self.digest = hashlib.sha256()

    @property
    def done(self) -> bool:
        """Whether all has been sent."""
        return not (self._left or self._block)

    def until_stalled(self, quiet: float = QUIET) -> int:
        """Send until nothing more fits; gives how many bytes went out in all."""
        while not self.done and select.select([], [self._sock], [], quiet)[1]:
            self._push()
        return self.sent

    def stop(self) -> None:
        """Send the block that is begun, and then no more."""
        self._left = 0

    def _push(self) -> None:
        if not self._block:
            block = self._random.randbytes(min(MIB, self._left))
            self._left -= len(block)
            self.digest.update(block)
            self._block = memoryview(block)
        with contextlib.suppress(BlockingIOError):
            size = self._sock.send(self._block)
            self._block = self._block[size:]
            self.sent += size
