"""Pipes for splice(2), lent while data is in transit and shared by all flows."""

from __future__ import annotations

import fcntl
import os

from v6fwd.model.lean import NamedTuple

PIPE_SIZE = 1 << 20
"""Bytes: the most that an unprivileged process may ask for (fs.pipe-max-size)."""


class Pipe(NamedTuple):
    """An empty pipe: its two descriptors and how many bytes it takes."""

    reader: int
    writer: int
    size: int


class PipePool:
    """Lends pipes. At most `limit` are out at once, at most `spares` are kept for later.

    `limit` bounds what stalled flows can hold in the kernel: limit x PIPE_SIZE. Whoever gets
    none copies instead.
    """

    def __init__(self, limit: int, spares: int = 16) -> None:
        self._limit = limit
        self._spares = spares
        self._free: list[Pipe] = []
        self.lent = 0

    def set_limit(self, limit: int) -> None:
        """Lend so many at most from now on."""
        self._limit = limit

    def take(self) -> Pipe | None:
        """An empty pipe, or None where the limit or the descriptors do not allow one."""
        if self._free:
            self.lent += 1
            return self._free.pop()
        if self.lent >= self._limit:
            return None
        try:
            pipe = _open_pipe()
        except OSError:  # EMFILE, ENFILE: copying needs no descriptor
            return None
        self.lent += 1
        return pipe

    def give_back(self, pipe: Pipe, *, empty: bool) -> None:
        """Return a pipe. One with bytes left in it is closed: they are nobody else's."""
        self.lent -= 1
        if empty and len(self._free) < self._spares:
            self._free.append(pipe)
        else:
            _close_pipe(pipe)

    def close(self) -> None:
        """Close the pipes that wait for work."""
        for pipe in self._free:
            _close_pipe(pipe)
        self._free.clear()


def _open_pipe() -> Pipe:
    reader, writer = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        size = fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, PIPE_SIZE)
    except OSError:  # EPERM: the user's pipe pages are used up, pipe(7); the pipe works as it is
        size = fcntl.fcntl(writer, fcntl.F_GETPIPE_SZ)
    return Pipe(reader, writer, size)


def _close_pipe(pipe: Pipe) -> None:
    os.close(pipe.reader)
    os.close(pipe.writer)
