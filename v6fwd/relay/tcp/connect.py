"""A TCP flow before it has a target: who the client is, what it has said, and the dial.

Whoever calls what may end in `abort` or `close` returns at once, and touches nothing any more.
"""

from __future__ import annotations

import errno
import os
import select
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from v6fwd.client_ip.proxy.read import Header
from v6fwd.errors import ClientRefusedError
from v6fwd.model import Address
from v6fwd.relay.admission import NOT_PRESERVED, REFUSED, tell_refused
from v6fwd.relay.counters import count
from v6fwd.relay.ends import End
from v6fwd.relay.sockets import (
    address_of,
    is_connected,
    local_address,
    pending_error,
    reset_on_close,
)
from v6fwd.relay.target import tell_failed
from v6fwd.relay.tcp.proxy_header import HeaderReader
from v6fwd.relay.tcp.side import NOT_OUT, READ_WRITE, Side, buffer

if TYPE_CHECKING:
    from v6fwd.relay.tcp.forward import TcpForward

FIRST_SIZE = 16 * 1024
"""Bytes read from a client before its target is connected: all that a dial under way holds."""
RETRY = 0.010
"""Seconds until a dial is tried again for which there was no descriptor, or no room in the queue
of a unix socket."""
_NO_DESCRIPTOR = {errno.EMFILE, errno.ENFILE}

_first_buffers: Sequence[memoryview] = [buffer[:FIRST_SIZE]]


class Dial:
    """A client's connection until there is a target. What it becomes then, a subclass says."""

    __slots__ = (
        "_attempt",
        "_client_ended",
        "_client_fd",
        "_destination",
        "_first",
        "_forward",
        "_header_size",
        "_refreshed",
        "_slot",
        "_source",
        "_started",
        "_target_fd",
        "closed",
        "target",
    )

    target: Side
    """The target's end, from `_begin` on."""

    def __init__(self, forward: TcpForward, client_fd: int, slot: int) -> None:
        self._forward = forward
        self._slot = slot
        self._client_fd = client_fd
        self._target_fd = -1
        self._source: Address | None = None
        self._destination: Address | None = None
        self._first: bytes | None = None
        self._header_size = 0
        self._attempt = 0
        self._client_ended = False
        self._refreshed = False
        self._started = forward.resources.reactor.clock()
        self.closed = False

    # -- who the client is --

    def start(self, sockaddr: Any) -> None:
        """Learn who the client is, from its header if it is trusted to send one, and dial."""
        forward = self._forward
        if forward.needs_source:
            self._source = source = address_of(sockaddr)
            if forward.trusted is not None and source.packed in forward.trusted:
                HeaderReader(self, self._client_fd, forward.resources)
                return
        self._serve(b"")

    def header_came(self, header: Header, rest: bytes) -> None:
        """A trusted client has said for whom it speaks; `rest` is what followed."""
        if header.source is not None:
            self._source, self._destination = header.source, header.destination
        keeper = self._forward.admission
        if keeper is not None and self._source is not None:
            self._slot = keeper.admit(self._source)
            if self._slot == REFUSED:
                self.abort(End.REFUSED, "not let in")
                return
        self._serve(rest)

    def header_failed(self, why: str) -> None:
        """A trusted client sent no header, a bad one or half of one."""
        if not self.closed:
            self._forward.counters.header_refused += 1
            self._turn_away(why, "header")

    def _turn_away(self, why: str, what: str) -> None:
        forward = self._forward
        tell_refused(forward.resources.log, what, self._source, forward.forward.listen, why)
        self.abort(End.REFUSED, why)

    def _serve(self, rest: bytes) -> None:
        """It is known who the client is; `rest` is what it has said already."""
        if rest:
            self._first = self._greeting() + rest
        self._dial()

    def _greeting(self) -> bytes:
        """The header for the target; b"" in a mode without one."""
        write = self._forward.write_header
        if write is None or self._source is None:
            return b""
        if self._destination is None:
            self._destination = local_address(self._client_fd)
        header = write(self._source, self._destination)
        self._header_size = len(header)
        return header

    # -- the dial --

    def _dial(self) -> None:
        try:
            fd = self._forward.target.dial(self._attempt, self._source)
        except ClientRefusedError as error:
            count(self._forward.counters.refused, NOT_PRESERVED)
            self._turn_away(str(error), "client")
            return
        except OSError as error:
            if error.errno in _NO_DESCRIPTOR or self._is_full(error):
                self._dial_again_later()
            else:
                self._dial_failed(error)
            return
        self._target_fd = fd
        try:
            if self._first is None:
                self._first = self._greeting()
            self._listen_to_client()
        except OSError:
            self.abort(End.RESET_BY_CLIENT)
            return
        if self._first and self._try_to_begin():
            return
        if not self.closed and self._target_fd == fd:
            self._forward.resources.reactor.watch(fd, READ_WRITE, self)
            self._forward.resources.dials.add(self)

    def _is_full(self, error: OSError) -> bool:
        """A unix socket whose queue is full refuses with EAGAIN, and tells nobody of room."""
        return error.errno == errno.EAGAIN and bool(self._forward.forward.target.path)

    def _dial_again_later(self) -> None:
        """Until the connect timeout: the client has been let in, and others will leave."""
        resources = self._forward.resources
        if self not in resources.dials:
            resources.dials.add(self)
        resources.reactor.loop.call_later(RETRY, self._redial_unless_closed)

    def _redial_unless_closed(self) -> None:
        if not self.closed:
            self._dial()

    def _listen_to_client(self) -> None:
        """Put what the client has said already behind the header: one segment for both."""
        if self._client_ended or len(self._first or b"") > self._header_size:
            return
        try:
            size = os.readv(self._client_fd, _first_buffers)
        except BlockingIOError:
            return
        if size:
            self._first = (self._first or b"") + bytes(buffer[:size])
        else:
            self._client_ended = True

    def _try_to_begin(self) -> bool:
        """Write the first bytes; True where the dial is over, well or badly.

        Across a bridge or loopback the handshake is usually done when connect(2) returns.
        """
        first = self._first or b""
        try:
            sent = os.write(self._target_fd, first)
        except BlockingIOError:
            return False
        except OSError as error:
            self._dial_failed(error)
            return True
        self._forward.resources.dials.discard(self)
        self._begin(first, sent, watched=False)
        return True

    def on_event(self, mask: int) -> None:
        """The target answered the dial, or the kernel gave up on it."""
        fd = self._target_fd
        if mask & (select.EPOLLERR | select.EPOLLHUP):
            error = pending_error(fd)
            if error:
                self._dial_failed(OSError(error, ""))
                return
        if not is_connected(fd):
            return
        try:
            self._listen_to_client()
        except OSError:
            self.abort(End.RESET_BY_CLIENT)
            return
        first = self._first or b""
        try:
            sent = os.write(fd, first) if first else 0
        except BlockingIOError:
            return
        except OSError as failure:
            self._dial_failed(failure)
            return
        self._forward.resources.dials.discard(self)
        self._begin(first, sent, watched=True)
        if not self.closed and mask & NOT_OUT:
            self.target.on_event(mask & NOT_OUT)

    def dial_expired(self) -> None:
        """The connect timeout has passed."""
        self._attempt, self._refreshed = len(self._forward.target), True  # no time for another
        self._dial_failed(OSError(errno.ETIMEDOUT, ""))

    def _dial_failed(self, error: OSError) -> None:
        """Try the next address, then what the resolver says now, then give up."""
        resources, target = self._forward.resources, self._forward.target
        resources.dials.discard(self)
        if self._target_fd >= 0:
            reset_on_close(self._target_fd)  # it may have been connected: no clean end for it
            resources.reactor.close_fd(self._target_fd)
            self._target_fd = -1
        self._attempt += 1
        if self._attempt < len(target):
            self._dial()
        elif not self._refreshed and target.refresh(self._redial):
            self._refreshed = True
            resources.dials.add(self)
        else:
            self._give_up(error)

    def _redial(self) -> None:
        """The resolver has answered: once more from its first address, and then no more."""
        self._forward.resources.dials.discard(self)
        self._attempt = 0
        if self._first is not None and not self.closed:  # what the target is told may have changed
            rest = self._first[self._header_size :]
            self._first = self._greeting() + rest
        self._redial_unless_closed()

    def _give_up(self, error: OSError) -> None:
        self.abort(End.TARGET_FAILED, self._tell_dial_failed(error))

    def _tell_dial_failed(self, error: OSError) -> str:
        """A line in the log; gives the reason that it names."""
        forward = self._forward
        log, counters = forward.resources.log, forward.counters
        return tell_failed(log, counters, forward.forward, "connect to", error)

    def on_exception(self, error: Exception) -> None:
        """A defect of ours, or no memory: it costs this flow alone."""
        self._forward.resources.log.limited("defect", "defect", f"internal error: {error!r}")
        self.abort(End.INTERNAL_ERROR)

    # -- what it becomes --

    def _begin(self, first: bytes, sent: int, *, watched: bool) -> None:
        """The target has taken `sent` bytes of `first`; `watched`: the reactor knows it."""
        raise NotImplementedError

    def abort(self, end: End, detail: str = "") -> None:
        """Reset both connections."""
        raise NotImplementedError
