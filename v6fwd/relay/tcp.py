"""A TCP flow: who the client is, the dial, the end and its record. `side` moves the bytes.

- An end of stream is passed on as shutdown(2). Everything else that ends a flow (RST, a lost
  peer, a time limit) resets both sides: nobody takes a cut stream for a whole one.
- After `close` nothing of a flow may be touched: callers return at once.
"""

from __future__ import annotations

import errno
import os
import select
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from v6fwd.client_ip.proxy_read import Header
from v6fwd.client_ip.proxy_write import HeaderWriter, header_writer
from v6fwd.client_ip.trust import TrustedNetworks
from v6fwd.log import Log
from v6fwd.model import Address, ClientIP, Forward
from v6fwd.relay.clients import Clients
from v6fwd.relay.counters import Counters, count
from v6fwd.relay.deadlines import Deadlines
from v6fwd.relay.engine import Engine
from v6fwd.relay.flows import Flows
from v6fwd.relay.guard import NOT_SHOWN, REFUSED, UNCOUNTED, Doorkeeper, doorkeeper
from v6fwd.relay.header import HeaderReader
from v6fwd.relay.pipes import PipePool
from v6fwd.relay.side import NOT_OUT, READ, READ_WRITE, Side, buffer
from v6fwd.relay.sockets import (
    ClientRefusedError,
    address_of,
    end_writing,
    is_connected,
    local_address,
    peer_address,
    pending_error,
    reset_on_close,
)
from v6fwd.relay.target import Target, tell_failed

if TYPE_CHECKING:
    from v6fwd.relay.http import HttpFlow

FIRST_SIZE = 16 * 1024
"""Bytes read from a client before its target is connected: all that a dial under way holds."""
RETRY = 0.010
"""Seconds until a dial is tried again for which there was no descriptor, or no room in the queue
of a unix socket."""
_NO_DESCRIPTOR = {errno.EMFILE, errno.ENFILE}

_first_buffers: Sequence[memoryview] = [buffer[:FIRST_SIZE]]


@dataclass(slots=True)
class TcpContext:
    """What all flows with the same time limits share."""

    engine: Engine
    flows: Flows
    pipes: PipePool
    log: Log
    clients: Clients
    dials: Deadlines[TcpFlow]
    headers: Deadlines[HeaderReader]
    heads: Deadlines[HttpFlow]
    partings: Deadlines[HttpFlow]
    log_flows: bool = False


@dataclass(slots=True)
class TcpForward:
    """A Forward at work."""

    forward: Forward
    target: Target
    context: TcpContext
    counters: Counters = field(default_factory=Counters)
    trusted: TrustedNetworks | None = field(init=False)
    write_header: HeaderWriter | None = field(init=False)
    names_clients: bool = field(init=False)
    doorkeeper: Doorkeeper | None = field(init=False)

    def __post_init__(self) -> None:
        networks = self.forward.accept_proxy
        self.trusted = TrustedNetworks(networks) if networks else None
        mode = self.forward.client_ip
        self.write_header = self.target.header_writer(header_writer(mode))
        self.names_clients = (
            bool(self.write_header or networks or self.context.log_flows)
            or mode is ClientIP.TRANSPARENT
        )
        context = self.context
        refused = self.counters.refused
        self.doorkeeper = doorkeeper(self.forward, context.clients, refused, context.log)

    def begin(self, fd: int, sockaddr: Any) -> None:
        """Take an accepted, non-blocking descriptor and its client's address."""
        seat = UNCOUNTED
        if self.doorkeeper is not None:
            seat = self._seat(self.doorkeeper, fd, sockaddr)
            if seat == REFUSED:
                return
        flow = self.make_flow(fd, seat)
        self.context.flows.add(flow)
        self.counters.flows += 1
        try:
            flow.start(sockaddr)
        except Exception as error:
            flow.on_defect(error)

    def make_flow(self, fd: int, seat: int) -> TcpFlow:
        """The flow of a client that has just come."""
        return TcpFlow(self, fd, seat)

    def _seat(self, keeper: Doorkeeper, fd: int, sockaddr: Any) -> int:
        """What the doorkeeper says of a new client; who is refused is reset.

        Whoever is trusted to name another one is asked for that name first.
        """
        try:
            client = address_of(sockaddr)
            if self.trusted is not None and client.packed in self.trusted:
                return UNCOUNTED
            seat = keeper.admit(client)
        except Exception as error:
            self.context.log.limited("defect", "defect", f"internal error: {error!r}")
            seat = REFUSED
        if seat == REFUSED:
            reset_on_close(fd)
            os.close(fd)
        return seat


class TcpFlow:
    """One client's connection: its life, and the dial until there is a target."""

    __slots__ = (
        "_attempt",
        "_client_ended",
        "_client_fd",
        "_destination",
        "_first",
        "_forward",
        "_header_size",
        "_refreshed",
        "_seat",
        "_source",
        "_started",
        "_target_fd",
        "client",
        "closed",
        "target",
    )

    client: Side
    target: Side

    def __init__(self, forward: TcpForward, client_fd: int, seat: int) -> None:
        self._forward = forward
        self._seat = seat
        self._client_fd = client_fd
        self._target_fd = -1
        self._source: Address | None = None
        self._destination: Address | None = None
        self._first: bytes | None = None
        self._header_size = 0
        self._attempt = 0
        self._client_ended = False
        self._refreshed = False
        self._started = forward.context.engine.clock()
        self.closed = False

    # -- who the client is --

    def start(self, sockaddr: Any) -> None:
        """Learn who the client is, from its header if it is trusted to send one, and dial."""
        forward = self._forward
        if forward.names_clients:
            self._source = source = address_of(sockaddr)
            if forward.trusted is not None and source.packed in forward.trusted:
                HeaderReader(self, self._client_fd, forward.context)
                return
        self._serve(b"")

    def header_came(self, header: Header, rest: bytes) -> None:
        """A trusted client has said for whom it speaks; `rest` is what followed."""
        if header.source is not None:
            self._source, self._destination = header.source, header.destination
        keeper = self._forward.doorkeeper
        if keeper is not None and self._source is not None:
            self._seat = keeper.admit(self._source)
            if self._seat == REFUSED:
                self.abort("refused: not let in")
                return
        self._serve(rest)

    def header_failed(self, why: str) -> None:
        """A trusted client sent no header, a bad one or half of one."""
        if not self.closed:
            self._forward.counters.header_refused += 1
            self._turn_away(why, "header")

    def _turn_away(self, why: str, what: str) -> None:
        forward = self._forward
        forward.context.log.limited(
            f"{what} {forward.forward.listen}",
            f"{what}-refused",
            f"refused {self._source} on {forward.forward.listen}: {why}",
            client=self._source,
            listen=forward.forward.listen,
            why=why,
        )
        self.abort(f"refused: {why}")

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
            count(self._forward.counters.refused, NOT_SHOWN)
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
            self.abort("reset by client")
            return
        if self._first and self._try_to_begin():
            return
        if not self.closed and self._target_fd == fd:
            self._forward.context.engine.watch(fd, READ_WRITE, self)
            self._forward.context.dials.add(self)

    def _is_full(self, error: OSError) -> bool:
        """A unix socket whose queue is full refuses with EAGAIN, and tells nobody of room."""
        return error.errno == errno.EAGAIN and bool(self._forward.forward.target.path)

    def _dial_again_later(self) -> None:
        """Until the connect timeout: the client has been let in, and others will leave."""
        context = self._forward.context
        if self not in context.dials:
            context.dials.add(self)
        context.engine.loop.call_later(RETRY, self._redial_unless_closed)

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
        self._forward.context.dials.discard(self)
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
            self.abort("reset by client")
            return
        first = self._first or b""
        try:
            sent = os.write(fd, first) if first else 0
        except BlockingIOError:
            return
        except OSError as failure:
            self._dial_failed(failure)
            return
        self._forward.context.dials.discard(self)
        self._begin(first, sent, watched=True)
        if not self.closed and mask & NOT_OUT:
            self.target.on_event(mask & NOT_OUT)

    def dial_expired(self) -> None:
        """The connect timeout has passed."""
        self._attempt, self._refreshed = len(self._forward.target), True  # no time for another
        self._dial_failed(OSError(errno.ETIMEDOUT, ""))

    def _dial_failed(self, error: OSError) -> None:
        """Try the next address, then what the resolver says now, then give up."""
        context, target = self._forward.context, self._forward.target
        context.dials.discard(self)
        if self._target_fd >= 0:
            reset_on_close(self._target_fd)  # it may have been connected: no clean end for it
            context.engine.close_fd(self._target_fd)
            self._target_fd = -1
        self._attempt += 1
        if self._attempt < len(target):
            self._dial()
        elif not self._refreshed and target.refresh(self._redial):
            self._refreshed = True
            context.dials.add(self)
        else:
            self._give_up(error)

    def _redial(self) -> None:
        """The resolver has answered: once more from its first address, and then no more."""
        self._forward.context.dials.discard(self)
        self._attempt = 0
        if self._first is not None and not self.closed:  # what the target is told may have changed
            rest = self._first[self._header_size :]
            self._first = self._greeting() + rest
        self._redial_unless_closed()

    def _give_up(self, error: OSError) -> None:
        self.abort(f"target failed: {self._tell_dial_failed(error)}")

    def _tell_dial_failed(self, error: OSError) -> str:
        """A line in the log; gives the reason that it names."""
        forward = self._forward
        log, counters = forward.context.log, forward.counters
        return tell_failed(log, counters, forward.forward, "connect to", error)

    # -- the flow --

    def _begin(self, first: bytes, sent: int, *, watched: bool) -> None:
        """The target has taken `sent` bytes of `first`: from here on the sides move the bytes."""
        client, target = Side(self._client_fd, self), Side(self._target_fd, self)
        self._join(client, target, first, sent, watched=watched)
        self._forward.context.engine.watch(client.fd, READ, client)
        if self._client_ended:
            client.ended = True
            if not client.blocked:
                self.half_ended(client)

    def _join(self, client: Side, target: Side, first: bytes, sent: int, *, watched: bool) -> None:
        """Put the two sides together, and watch the target's for what they do."""
        client.other, target.other = target, client
        self.client, self.target = client, target
        self._first = None
        client.moved = sent - self._header_size
        client.held = first[sent:]
        client.blocked = sent < len(first)
        target.watches_out = watched or client.blocked
        if watched:
            self.engine.change_handler(target.fd, target)
        else:
            self.engine.watch(target.fd, READ_WRITE if client.blocked else READ, target)

    @property
    def engine(self) -> Engine:
        """The engine that watches both sides."""
        return self._forward.context.engine

    @property
    def pipes(self) -> PipePool:
        """Where the sides borrow pipes."""
        return self._forward.context.pipes

    def half_ended(self, side: Side) -> None:
        """All that `side` will ever send has been passed on: pass the end on, too."""
        if side.other.ended and not side.other.blocked:
            self.close("closed")
            return
        try:
            end_writing(side.other.fd)
        except OSError:
            self.broke(side.other)

    def broke(self, side: Side) -> None:
        """The connection of `side` was reset or died."""
        self.abort("reset by client" if side is self.client else "reset by target")

    def abort(self, end: str) -> None:
        """Reset both connections."""
        if self.closed:
            return
        reset_on_close(self._client_fd)
        if self._target_fd >= 0:
            reset_on_close(self._target_fd)
        self.close(end)

    def close(self, end: str) -> None:
        """Close both descriptors, give everything back, record the end."""
        forward = self._forward
        context = forward.context
        self.closed = True
        forward.counters.flow_ended(end, *self.moved(), self.seconds())
        if context.log_flows:
            self._record(end)
        context.engine.close_fd(self._client_fd)
        if self._target_fd >= 0:
            context.engine.close_fd(self._target_fd)
        context.dials.discard(self)
        if self._has_sides():
            self.client.release()
            self.target.release()
            del self.client.other, self.target.other  # no cycle is left for the collector
            del self.client, self.target
        if self._seat >= 0:
            context.clients.leave(self._seat)
        context.flows.remove(self)

    def retire(self) -> None:
        """See flows.Flow: only its ends know when a stream of bytes is done."""

    def on_defect(self, error: Exception) -> None:
        """A defect of ours, or no memory: it costs this flow alone."""
        self._forward.context.log.limited("defect", "defect", f"internal error: {error!r}")
        self.abort("internal error")

    def progress(self) -> int:
        """Bytes moved so far, both ways."""
        return self.client.moved + self.target.moved if self._has_sides() else 0

    # -- what may be asked --

    @property
    def forward(self) -> Forward:
        """The forward that it began with."""
        return self._forward.forward

    @property
    def counters(self) -> Counters:
        """Those of its forward, whatever that has become meanwhile."""
        return self._forward.counters

    @property
    def idle_timeout(self) -> float:
        """See flows.Flow; that of its forward as it began."""
        return self._forward.forward.limits.idle_timeout

    @property
    def source(self) -> Address | None:
        """Who the client is; None if it is gone and nobody had asked before."""
        if self._source is None:
            self._source = peer_address(self._client_fd)
        return self._source

    def moved(self) -> tuple[int, int]:
        """Bytes up and down."""
        return (self.client.moved, self.target.moved) if self._has_sides() else (0, 0)

    def seconds(self) -> float:
        """How long it lives."""
        return self.engine.clock() - self._started

    def _has_sides(self) -> bool:
        return hasattr(self, "target")

    def _record(self, end: str, **counts: int) -> None:
        forward = self.forward
        (up, down), seconds = self.moved(), self.seconds()
        self._forward.context.log.info(
            "flow",
            f"flow {self._source} -> {forward.listen} -> {forward.target} {forward.client_ip}:"
            f"{''.join(f' {count} {name},' for name, count in counts.items())}"
            f" {up} bytes up, {down} down, {seconds:.3f} s, {end}",
            client=self._source,
            listen=forward.listen,
            target=forward.target,
            client_ip=forward.client_ip,
            bytes_up=up,
            bytes_down=down,
            seconds=round(seconds, 6),
            end=end,
            **counts,
        )
