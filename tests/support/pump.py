"""For tests that drive one direction of a pump by hand: real sockets, system calls are counted.

Nothing here runs by itself: the test says which event comes, and looks at what was called.
"""

from __future__ import annotations

import array
import fcntl
import os
import socket
import termios
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from tests.support.process import PATIENCE, eventually
from v6fwd.relay.tcp.pipes import PipePool
from v6fwd.relay.tcp.side import Side

KIB = 1024


class Calls:
    """The module `os` for a pump: notes what is called on which descriptor, and can interfere."""

    def __init__(self) -> None:
        self.made: list[tuple[str, int]] = []
        self.sizes: list[int] = []
        self.before: Callable[[str, int], None] | None = None
        """Called before each system call; what it raises is what the call fails with."""

    def __getattr__(self, name: str) -> Any:
        return getattr(os, name)

    def count(self, name: str, fd: int = -1) -> int:
        """How often a call was made, on one descriptor or on any."""
        return sum(made == name and fd in (-1, on) for made, on in self.made)

    def readv(self, fd: int, buffers: Any) -> int:
        """os.readv, noted."""
        return int(self._call("readv", fd, os.readv, fd, buffers))

    def read(self, fd: int, size: int) -> Any:
        """os.read, noted as readv: which of them reads is all the same to a test."""
        return self._call("readv", fd, os.read, fd, size)

    def write(self, fd: int, data: Any) -> int:
        """os.write, noted."""
        return int(self._call("write", fd, os.write, fd, data))

    def writev(self, fd: int, pieces: Any) -> int:
        """os.writev, noted."""
        return int(self._call("writev", fd, os.writev, fd, pieces))

    def splice(self, src: int, dst: int, count: int, flags: int = 0) -> int:
        """os.splice, noted under the source: a socket's is the way in, a pipe's the way out."""
        self.sizes.append(count)
        return int(self._call("splice", src, lambda: os.splice(src, dst, count, flags=flags)))

    def _call(self, name: str, fd: int, call: Callable[..., Any], *arguments: Any) -> Any:
        if self.before is not None:
            self.before(name, fd)
        self.made.append((name, fd))
        return call(*arguments)


class Turns:
    """A reactor that does nothing but note what it is asked for."""

    def __init__(self) -> None:
        self.later: list[Any] = []
        self.masks: list[tuple[int, int]] = []

    def clock(self) -> float:
        """Stand still: nobody's time is over."""
        return 0.0

    def resume_later(self, resumable: Any) -> None:
        """See Reactor."""
        self.later.append(resumable)

    def change_mask(self, fd: int, mask: int) -> None:
        """See Reactor."""
        self.masks.append((fd, mask))

    def change_handler(self, fd: int, handler: object) -> None:
        """See Reactor."""

    def next(self) -> None:
        """Let everybody who waits for a turn have it."""
        waiting, self.later = self.later, []
        for resumable in waiting:
            resumable.resume()


class Flow:
    """What owns the sides: notes what they report. `then` may do more."""

    def __init__(self, pipes: int = 4, *, paced: bool = False) -> None:
        self.closed = False
        self.turns = Turns()
        self.reactor: Any = self.turns
        self.pipes = PipePool(pipes, spares=0, paced=paced)
        self.told: list[tuple[str, Any]] = []
        self.then: Callable[[], object] | None = None

    def ended(self, side: Side) -> None:
        """See Owner."""
        self.tell("ended", side)

    def broke(self, side: Side) -> None:
        """See Owner."""
        self.tell("broke", side)

    def on_exception(self, error: Exception) -> None:
        """See Owner."""
        self.tell("on_exception", error)

    def close(self) -> None:
        """For `then`: be closed as soon as something is reported."""
        self.closed = True

    def tell(self, word: str, what: Any) -> None:
        """Note a report."""
        self.told.append((word, what))
        if self.then is not None:
            self.then()


def connected(buffer: int = 0) -> tuple[socket.socket, socket.socket]:
    """Both ends of a TCP connection, the first without blocking; `buffer` bytes each if given."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)  # as much as may be had
        far = socket.socket()
        if buffer:
            far.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
        far.settimeout(PATIENCE)
        far.connect(server.getsockname())
        near = server.accept()[0]
    near.setblocking(False)
    if buffer:
        near.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, buffer)
    near.setsockopt(socket.SOL_SOCKET, socket.SO_OOBINLINE, 1)  # as sockets.tune does
    return near, far


class Stage:
    """A flow with the `source` of bytes as its client, and their `sink` as its target."""

    def __init__(
        self, make: Callable[[int, Any], Side] = Side, *, buffer: int = 0, flow: Flow | None = None
    ) -> None:
        self.flow = flow or Flow()
        self.turns = self.flow.turns
        self.near, self.source = connected()
        self.far, self.sink = connected(buffer)
        self.client, self.target = (
            make(self.near.fileno(), self.flow),
            make(self.far.fileno(), self.flow),
        )
        self.client.other, self.target.other = self.target, self.client

    def send(self, data: bytes, flags: int = 0) -> None:
        """Send from the source, and wait until all of it can be read by the client's side."""
        before = self.unread()
        self.source.sendall(data, flags)
        eventually(lambda: self.unread() >= before + len(data), f"{len(data)} bytes come")

    def end(self) -> None:
        """End the source's stream, and wait for the end to come."""
        self.source.shutdown(socket.SHUT_WR)
        eventually(lambda: _state(self.near) == CLOSE_WAIT, "the end of stream comes")

    def unread(self) -> int:
        """Bytes that wait for the client's side."""
        return _ioctl_inq(self.near)

    def got(self, size: int) -> bytes:
        """The next bytes that come to the sink."""
        data = bytearray()
        while len(data) < size and (piece := self.sink.recv(size - len(data))):
            data += piece
        return bytes(data)

    def is_quiet(self) -> bool:
        """Whether there is nothing to read at the sink now."""
        self.sink.setblocking(False)
        try:
            self.sink.recv(1, socket.MSG_PEEK)
        except BlockingIOError:
            return True
        finally:
            self.sink.settimeout(PATIENCE)
        return False

    def close(self) -> None:
        """Free everything."""
        for side in (self.client, self.target):
            side.release()
        assert self.flow.pipes.lent == 0, "a pipe was not given back"
        self.flow.pipes.close()
        for sock in (self.near, self.source, self.far, self.sink):
            sock.close()


CLOSE_WAIT = 8


def _state(sock: socket.socket) -> int:
    return sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0]


def _ioctl_inq(sock: socket.socket) -> int:
    size = array.array("i", [0])
    fcntl.ioctl(sock, termios.FIONREAD, size)
    return size[0]


@contextmanager
def stage(**options: Any) -> Iterator[Stage]:
    """A Stage, freed at the end."""
    made = Stage(**options)
    try:
        yield made
    finally:
        made.close()
