"""The wait for a client to close that has been told that this was all.

To close a socket with bytes unread is a reset, which can destroy the answer before the client has
read it (RFC 9112, section 9.6). So what still comes is read and dropped for a while.
"""

from __future__ import annotations

import os

from v6fwd.model.lean import Protocol
from v6fwd.relay.tcp.resources import TcpResources
from v6fwd.relay.tcp.side import COPY_ROUNDS, buffers


class LingerEvents(Protocol):
    """What a flow hears of it."""

    def lingered(self) -> None:
        """The client has closed, or had its time."""

    def on_exception(self, error: Exception) -> None:
        """An exception that nobody expected."""


class Linger:
    """Takes over the client's descriptor, which stays the flow's to close. Reports once."""

    __slots__ = ("_done", "_fd", "_flow", "_resources")

    def __init__(self, flow: LingerEvents, fd: int, resources: TcpResources) -> None:
        self._flow = flow
        self._fd = fd
        self._resources = resources
        self._done = False

    def start(self) -> None:
        """Drop what is there, and what comes. May report before it returns."""
        self._resources.lingers.add(self)
        self._resources.reactor.change_handler(self._fd, self)
        self.resume()

    def stop(self) -> None:
        """Report nothing any more."""
        self._done = True
        self._resources.lingers.discard(self)

    def on_event(self, mask: int) -> None:  # noqa: ARG002 - reading tells all
        """Drop what the client sent."""
        self.resume()

    def resume(self) -> None:
        """Drop what is there, some of it at a time."""
        if self._done:
            return
        for _ in range(COPY_ROUNDS):
            try:
                size = os.readv(self._fd, buffers)
            except BlockingIOError:
                return
            except OSError:
                size = 0
            if not size:
                self.expired()
                return
        self._resources.reactor.resume_later(self)

    def expired(self) -> None:
        """Wait no longer."""
        self.stop()
        self._flow.lingered()

    def on_exception(self, error: Exception) -> None:
        """Give up the flow."""
        self._flow.on_exception(error)
