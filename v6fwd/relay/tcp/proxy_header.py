"""Waits for the PROXY header of a trusted client, before anything else is done for it."""

from __future__ import annotations

import os
import select

from v6fwd.client_ip.proxy.read import ProxyHeaderError, read_header
from v6fwd.relay.ends import End
from v6fwd.relay.pump import HeaderEvents
from v6fwd.relay.tcp.resources import TcpResources

_READ = select.EPOLLIN | select.EPOLLRDHUP | select.EPOLLET

PIECE = 1 << 16
"""Bytes read at once: what follows the header goes to the target with it."""


class HeaderReader:
    """Reads a header, however it is cut, until the time limit for it."""

    __slots__ = ("_data", "_fd", "_flow", "_resources")

    def __init__(self, flow: HeaderEvents, fd: int, resources: TcpResources) -> None:
        self._flow = flow
        self._fd = fd
        self._resources = resources
        self._data = b""
        resources.reactor.watch(fd, _READ, self)
        resources.headers.add(self)

    def on_event(self, mask: int) -> None:  # noqa: ARG002 - reading tells all
        """Read and parse until the header is whole or the client has no more for now."""
        while True:
            try:
                piece = os.read(self._fd, PIECE)
            except BlockingIOError:
                return
            except OSError:
                self.stop()
                self._flow.client_reset()
                return
            if not piece:
                self._ended()
                return
            if self._feed(piece):
                return

    def on_exception(self, error: Exception) -> None:
        """Give up the flow."""
        self.stop()
        self._flow.on_exception(error)

    def expired(self) -> None:
        """The time for the header is over."""
        self._flow.header_failed(f"no whole PROXY header in time, {len(self._data)} bytes came")

    def _feed(self, piece: bytes) -> bool:
        """Take more bytes; True where there is nothing left to wait for."""
        self._data += piece
        try:
            header = read_header(self._data)
        except ProxyHeaderError as error:
            self.stop()
            self._flow.header_failed(str(error))
            return True
        if header is None:
            return False
        self.stop()
        self._resources.reactor.unwatch(self._fd)
        self._flow.header_came(header, self._data[header.length :])
        return True

    def _ended(self) -> None:
        self.stop()
        if self._data:
            self._flow.header_failed("the client left in the middle of its PROXY header")
        else:  # how a load balancer looks whether a port is open: no words about that
            self._flow.abort(End.CLOSED_BEFORE_HEADER)

    def stop(self) -> None:
        """Stop the clock."""
        self._resources.headers.discard(self)
