"""A flow of a stream from accept to its record, whatever it does with the bytes.

- An end of stream is passed on as shutdown(2). Everything else that ends a flow (RST, a lost
  peer, a time limit) resets both sides: nobody takes a cut stream for a whole one.
- After `close` nothing of a flow may be touched: callers return at once.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

from v6fwd.client_ip.first_answer import FirstAnswer, Sent
from v6fwd.model import Address, ClientIP, Forward
from v6fwd.model.lean import TYPE_CHECKING, Any
from v6fwd.relay.admission import NOT_PRESERVED, REFUSED, tell_refused
from v6fwd.relay.counters import Counters, count
from v6fwd.relay.ends import End
from v6fwd.relay.flows import Lull
from v6fwd.relay.pump import Wait
from v6fwd.relay.reactor import Reactor
from v6fwd.relay.sockets import address_of, end_writing, peer_address, reset_on_close
from v6fwd.relay.targets.target import for_client, tell_failed
from v6fwd.relay.tcp.answer_watch import AnswerWatch
from v6fwd.relay.tcp.connect import Connect
from v6fwd.relay.tcp.forward import TcpForward
from v6fwd.relay.tcp.last_bytes import LastBytes, is_hung_up
from v6fwd.relay.tcp.pipes import PipePool
from v6fwd.relay.tcp.resources import TcpResources
from v6fwd.relay.tcp.side import Side

if TYPE_CHECKING:
    from v6fwd.client_ip.proxy.read import Header


class StreamFlow(ABC):
    """One client's connection.

    Large because three contracts meet in it: what the pump tells
    (relay/pump.py), what the relay may ask of a flow (flows.Flow), and the two steps that
    subclasses add.
    """

    __slots__ = (
        "_client_fd",
        "_forward",
        "_slot",
        "_source",
        "_started",
        "_wait",
        "_watch",
        "client",
        "closed",
        "target",
    )

    client: Side
    """The client's end, once bytes of it may move."""
    target: Side
    """The target's end, once it is connected."""

    def __init__(self, forward: TcpForward, client_fd: int, slot: int) -> None:
        self._forward = forward
        self._slot = slot
        self._client_fd = client_fd
        self._source: Address | None = None
        self._wait: Wait | None = None
        self._watch: AnswerWatch | None = None
        self._started = forward.resources.reactor.clock()
        self.closed = False

    # -- who the client is --

    def start(self, sockaddr: Any) -> None:
        """Learn who the client is, from its header if it is trusted to send one."""
        forward = self._forward
        if forward.needs_source:
            self._source = source = address_of(sockaddr)
            if forward.trusted is not None and source.packed in forward.trusted:
                from v6fwd.relay.tcp.proxy_header import HeaderReader  # `forward` has loaded it

                self._wait = HeaderReader(self, self._client_fd, forward.resources)
                return
        self.identified(None, b"")

    def header_came(self, header: Header, rest: bytes) -> None:
        """A trusted client has said for whom it speaks; `rest` is what followed."""
        self._wait = None
        if header.source is not None:
            self._source = header.source
        if self._source is not None and self._forward.judge_banned(self._source) == REFUSED:
            self.abort(End.REFUSED, "banned")
            return
        admission = self._forward.admission
        if admission is not None and self._source is not None:
            self._slot = admission.admit(self._source)
            if self._slot == REFUSED:
                self.abort(End.REFUSED, "not let in")
                return
        self.identified(header, rest)

    def header_failed(self, why: str) -> None:
        """Reset a trusted client that sent no header, a bad one or half of one."""
        self._forward.counters.header_refused += 1
        self._refuse_client(why, "header")

    def _refuse_client(self, why: str, what: str) -> None:
        forward = self._forward
        client = self._source or peer_address(self._client_fd)
        tell_refused(forward.resources.log, what, client, forward.forward.listen, why)
        self.abort(End.REFUSED, why)

    @abstractmethod
    def identified(self, header: Header | None, rest: bytes) -> None:
        """Serve the client, whose address is known.

        `header` is what it sent if it was trusted to: whom it speaks for, and where to.
        `rest` is what it has said already.
        """

    # -- what it hears of the target --

    @abstractmethod
    def connected(
        self, fd: int, held: bytes, moved: int, *, watched: bool, client_ended: bool
    ) -> None:
        """Begin to move bytes; see pump.ConnectEvents."""

    def dialled(self, fd: int, first: bytes, header_size: int) -> bool:  # noqa: ARG002
        """Let the connect wait itself."""
        return False

    def is_joined(self) -> bool:
        """Say no: it is no pair."""
        return False

    def pair_connected(self) -> None:  # noqa: B027 - not abstract: most flows are none
        """Do nothing: it is none."""

    def become_pair(self) -> bool:
        """Stay as it is."""
        return False

    def leave_pair(self) -> None:  # noqa: B027 - not abstract: most flows are none
        """Do nothing: it is none."""

    def connect_failed(self, error: OSError) -> None:
        """Reset the client of a target that cannot be reached."""
        self.abort(End.TARGET_FAILED, self._tell_failed(error))

    def _tell_failed(self, error: OSError) -> str:
        forward = self._forward
        log, counters = forward.resources.log, forward.counters
        return tell_failed(log, counters, forward.forward, self.source, "connect to", error)

    def client_refused(self, why: str, label: str = NOT_PRESERVED) -> None:
        """Reset a client that the target must not get."""
        count(self._forward.counters.refused, label)
        self._refuse_client(why, "client")

    def client_reset(self) -> None:
        """Reset the target of a client that is gone."""
        self.abort(End.RESET_BY_CLIENT)

    # -- whether the target understands us --

    def _watch_answer(self, connect: Wait | None) -> None:
        """Look at the target's answer to what it has got from `connect`."""
        forward = self._forward
        if not isinstance(connect, Connect) or connect.went_to_hop:
            return
        mode = forward.forward.client_ip
        sent = Sent.FIELD if mode.is_http else Sent.NOTHING
        if connect.sent_header:
            if mode is ClientIP.TRANSPARENT:  # a fallback, for some of the clients
                return
            sent = Sent.HEADER
        answer = FirstAnswer(sent, forward.forward.target.port, connect.words)
        self._watch = watch = AnswerWatch(self, forward.looks, answer)
        watch.start()

    def answer_judged(self) -> None:
        """Look no more."""
        self._watch = None

    def _look_last(self, side: Side) -> None:
        """Look at what a broken target has said, before it is read."""
        if self._watch is not None and side is self.target:
            self._watch.look()

    # -- what it hears of its two ends --

    @property
    def reactor(self) -> Reactor:
        """The reactor that watches both sides."""
        return self._forward.resources.reactor

    @property
    def pipes(self) -> PipePool:
        """Where the sides borrow pipes."""
        return self._forward.resources.pipes

    def ended(self, side: Side) -> None:
        """Pass the end of stream of `side` on; close when both have ended."""
        if isinstance(self._wait, LastBytes):
            self._wait.read()
            return
        if side.other.ended and not side.other.blocked:
            self.close(End.CLOSED)
            return
        try:
            end_writing(side.other.fd)
        except OSError:
            self.broke(side.other)

    def broke(self, side: Side) -> None:
        """Pass a reset on, behind what its peer had sent."""
        self._look_last(side)
        if isinstance(self._wait, LastBytes):
            self._wait.broke(side)
        elif self._wait is None and self._has_sides() and is_hung_up(side.fd):
            self._wait = last_bytes = LastBytes(self, side)
            last_bytes.start()
        else:
            self._reset_by(side)

    def last_bytes_arrived(self, broken: Side) -> None:
        """Pass the reset on now."""
        self._reset_by(broken)

    def _reset_by(self, side: Side) -> None:
        self.abort(End.RESET_BY_CLIENT if side is self.client else End.RESET_BY_TARGET)

    def on_exception(self, error: Exception) -> None:
        """Give up this flow alone, after a defect of ours or for want of memory."""
        try:
            text = f"internal error: {error!r}{for_client(self.source)}"
            self._forward.resources.log.limited("defect", "defect", text)
        finally:  # memory for the line may be what is lacking
            self.abort(End.INTERNAL_ERROR)

    # -- the end --

    def abort(self, end: End, detail: str = "") -> None:
        """Reset both connections."""
        if self.closed:
            return
        try:
            reset_on_close(self._client_fd)
            if self._has_sides() and self.target.fd >= 0:
                reset_on_close(self.target.fd)
        finally:
            self.close(end, detail)

    def close(self, end: End, detail: str = "") -> None:
        """Close both descriptors, give everything back, record the end."""
        forward = self._forward
        resources = forward.resources
        self.closed = True
        try:
            forward.counters.flow_ended(end, *self.moved(), self.seconds())
            if resources.log_flows:
                self._record(end.told(detail))
        finally:  # whatever fails: descriptors and the flow's place are given back
            self._give_back(resources)

    def _give_back(self, resources: TcpResources) -> None:
        self._close_client()
        if self._wait is not None:
            self._wait.stop()
            self._wait = None
        if hasattr(self, "target"):
            self._close_target()
        if self._slot >= 0:
            resources.clients.leave(self._slot)
        resources.flows.remove(self)
        if self._watch is not None:
            self._watch.stop()

    def _close_client(self) -> None:
        self.reactor.close_fd(self._client_fd)

    def _close_target(self) -> None:
        """Close the target's descriptor, and leave no cycle for the collector."""
        client, target = self.client, self.target
        if target.fd >= 0:
            self._forward.resources.reactor.close_fd(target.fd)
        if client.pipe is not None:
            client.release()
        if target.pipe is not None:
            target.release()
        del client.other, target.other
        del self.client, self.target

    def retire(self) -> None:  # noqa: B027 - not abstract: most streams cannot do more
        """Do nothing: only its ends know when a stream of bytes is done."""

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
    def source(self) -> Address | None:
        """Who the client is; None if it is gone and nobody had asked before."""
        if self._source is None:
            self._source = peer_address(self._client_fd)
        return self._source

    def moved(self) -> tuple[int, int]:
        """Bytes up and down."""
        try:
            return self.client.moved, self.target.moved
        except AttributeError:  # it is not connected yet, or no more
            return 0, 0

    def progress(self) -> int:
        """Bytes moved so far, both ways."""
        return sum(self.moved())

    def descriptors(self) -> Sequence[int]:
        """The client's, and the target's while it is connected."""
        if self._has_sides() and self.target.fd >= 0:
            return self._client_fd, self.target.fd
        return (self._client_fd,)

    def lull(self, lull: Lull) -> int | None:
        """Bytes moved both ways, if it is idle or half-closed as the limit has it."""
        if lull is Lull.IDLE or (lull is Lull.HALF_CLOSED and self._is_half_closed()):
            return self.progress()
        return None

    def _is_half_closed(self) -> bool:
        return self._has_sides() and self.client.ended != self.target.ended

    def overdue(self, lull: Lull) -> None:
        """Reset both."""
        self.abort(End[lull.name])

    def seconds(self) -> float:
        """How long it lives."""
        return self._forward.resources.reactor.clock() - self._started

    def _has_sides(self) -> bool:
        return hasattr(self, "target")

    def _record(self, end: str, **counts: int) -> None:
        forward = self.forward
        (up, down), seconds = self.moved(), self.seconds()
        self._forward.resources.log.info(
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
