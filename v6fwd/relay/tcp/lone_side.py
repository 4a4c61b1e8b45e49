"""The end of a plain flow where no pump of pairs can be had: all its messages go through Python."""

from __future__ import annotations

import os
import select

from v6fwd.relay.tcp.side import COPY_SIZE, Side, buffer, buffers

_MESSAGE = select.EPOLLIN
"""The mask of an event that tells of nothing but bytes."""
_readv, _write = os.readv, os.write


class LoneSide(Side):
    """A side of a plain flow where there is no pump of pairs."""

    __slots__ = ()

    def on_event(self, mask: int) -> None:
        """Copy a message without asking further: a request and its answer need nothing else."""
        if mask != _MESSAGE or self.blocked or self.ended or self.queued or self.full_reads:
            super().on_event(mask)
            return
        other = self.other
        try:
            size = _readv(self.fd, buffers)
        except BlockingIOError:
            return
        except OSError:
            self.flow.broke(self)
            return
        if not size:
            self._end()
            return
        try:
            sent = _write(other.fd, buffer[:size])
        except BlockingIOError:
            sent = 0
        except OSError:
            self.flow.broke(other)
            return
        self.moved += sent
        if sent < size:
            self.held = bytes(buffer[sent:size])
            self._block()
        elif size == COPY_SIZE:
            self.full_reads = 1
            self._copy(to_end=False)
