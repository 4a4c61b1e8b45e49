"""Pipes for splice(2), lent while data is in transit and shared by all flows."""

from __future__ import annotations

import fcntl
import os
import socket

from v6fwd.model.lean import NamedTuple

PIPE_SIZE = 1 << 20
"""Bytes: the most that an unprivileged process may ask for (fs.pipe-max-size)."""
SMALL_SIZE = 64 * 1024
"""Bytes: 16 pages, as many as splice(2) gives to a socket at once (splice_to_socket).

What a larger pipe has goes on in such pieces, all but the last with MSG_MORE, so the send queue is
never empty. Where TCP paces (bbr) timers send it then: 40 % of the CPU, in a virtual machine.
"""
LARGE_FILLS, SMALL_FILLS = 4, 64
"""How often a pipe is filled in a row, 4 MiB, before the other flows get a turn."""
_PACES = ("bbr",)
"""Congestion controls that send by a clock."""


class Pipe(NamedTuple):
    """An empty pipe: its two descriptors, how many bytes it takes, how often in a row."""

    reader: int
    writer: int
    size: int
    fills: int
    is_small: bool


class PipePool:
    """Lends pipes. At most `limit` are out at once, at most `spares` are kept for later.

    `limit` bounds what stalled flows can hold in the kernel: limit x PIPE_SIZE. Whoever gets
    none copies instead.
    """

    def __init__(self, limit: int, spares: int = 16, *, paced: bool = False) -> None:
        """`paced`: lend small pipes, too."""
        self._limit = limit
        self._spares = spares
        self._paced = paced
        self._free: tuple[list[Pipe], list[Pipe]] = ([], [])
        """Large ones and small ones."""
        self.lent = 0

    def set_limit(self, limit: int) -> None:
        """Lend so many at most from now on."""
        self._limit = limit

    def take(self, *, sustained: bool) -> Pipe | None:
        """An empty pipe, or None where the limit or the descriptors do not allow one.

        `sustained`: so much moves that timers cost less than many calls.
        """
        if self.lent >= self._limit:
            return None
        is_small = self._paced and not sustained
        free, others = self._free[is_small], self._free[not is_small]
        if free:
            self.lent += 1
            return free.pop()
        if others and self.lent + len(others) >= self._limit:  # descriptors are counted by it, too
            _close_pipe(others.pop())
        try:
            pipe = _open_pipe(is_small=is_small)
        except OSError:  # EMFILE, ENFILE: copying needs no descriptor
            return None
        self.lent += 1
        return pipe

    def give_back(self, pipe: Pipe, *, empty: bool) -> None:
        """Return a pipe. One with bytes left in it is closed: they are nobody else's."""
        self.lent -= 1
        if empty and sum(map(len, self._free)) < self._spares:
            self._free[pipe.is_small].append(pipe)
        else:
            _close_pipe(pipe)

    def close(self) -> None:
        """Close the pipes that wait for work."""
        for free in self._free:
            for pipe in free:
                _close_pipe(pipe)
            free.clear()


def is_paced() -> bool:
    """Whether TCP paces new connections of this process itself; False where that is not told."""
    try:
        with socket.socket() as sock:
            name = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, 16)
    except OSError:  # no reason not to start
        return False
    return name.rstrip(b"\0").decode(errors="replace") in _PACES


def _open_pipe(*, is_small: bool) -> Pipe:
    reader, writer = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    if is_small:
        return Pipe(reader, writer, SMALL_SIZE, SMALL_FILLS, True)
    try:
        size = fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, PIPE_SIZE)
    except OSError:  # EPERM: the user's pipe pages are used up, pipe(7); the pipe works as it is
        size = fcntl.fcntl(writer, fcntl.F_GETPIPE_SZ)
    return Pipe(reader, writer, size, LARGE_FILLS, False)


def _close_pipe(pipe: Pipe) -> None:
    os.close(pipe.reader)
    os.close(pipe.writer)
