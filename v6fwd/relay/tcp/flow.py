"""A TCP flow: whatever one end says, the other hears.

Where there is a `PairPump` (the native epoll, the ring), it has both descriptors while nothing
unusual happens; `_pair` is their number there. Otherwise they are two `Side` objects.
"""

from __future__ import annotations

from collections.abc import Sequence

from v6fwd.model import ClientIP
from v6fwd.model.lean import TYPE_CHECKING
from v6fwd.relay.ends import End
from v6fwd.relay.pump import Flags, PairPump, Reason, Stopped
from v6fwd.relay.sockets import local_address, reset_on_close
from v6fwd.relay.tcp.connect import Connect
from v6fwd.relay.tcp.first_bytes import FirstBytes
from v6fwd.relay.tcp.forward import TcpForward
from v6fwd.relay.tcp.lone_side import LoneSide
from v6fwd.relay.tcp.side import BULK_AFTER, READ, READ_WRITE, PlainSide, join
from v6fwd.relay.tcp.stream import StreamFlow
from v6fwd.relay.tcp.unix_side import UnixSide

if TYPE_CHECKING:
    from v6fwd.client_ip.proxy.read import Header

NO_PAIR = -1
ALMOST_BULK = BULK_AFTER - 1
"""The next full buffer of what the ring has called bulk is the last that is copied."""


class TcpFlow(StreamFlow):
    """Connects at once, and passes everything on."""

    __slots__ = ("_pair", "_pump", "_target_fd")

    _pump: PairPump
    """While there is a pair."""

    def __init__(self, forward: TcpForward, client_fd: int, slot: int) -> None:
        super().__init__(forward, client_fd, slot)
        self._pair = NO_PAIR
        self._target_fd = -1  # while there is a pair, and until there are sides

    def identified(self, header: Header | None, rest: bytes) -> None:
        """Connect to the target; `rest` goes behind the PROXY header."""
        if header is None and self._dial_straight():
            return
        self._wait = connect = self._new_connect(header, rest)
        connect.start()

    def _new_connect(self, header: Header | None, rest: bytes) -> Connect:
        forward = self._forward
        first = FirstBytes(forward, self._client_fd, self._source, header, rest)
        return Connect(self, forward, first)

    def connected(
        self, fd: int, held: bytes, moved: int, *, watched: bool, client_ended: bool
    ) -> None:
        """Let the sides move the bytes from here on."""
        forward = self._forward
        # Only where there is a pump of pairs it is asked at each event: 8 % of a request.
        plain = PlainSide if forward.resources.pumps else LoneSide
        client = plain(self._client_fd, self)
        target = (UnixSide if forward.forward.target.path else plain)(fd, self)
        self.client, self.target = client, target
        connect, self._wait = self._wait, None
        self._note_shown()
        join(client, target, held, moved, watched=watched)
        client.watch()
        if self._started >= forward.looks.look_from:
            self._watch_answer(connect)
        if client_ended:
            client.ended = True
            if not client.blocked:
                self.ended(client)

    def _note_shown(self) -> None:
        if self._forward.forward.client_ip is ClientIP.TRANSPARENT:
            self._forward.note_shown(self._source)

    # -- while a pair --

    def _dial_straight(self) -> bool:
        """Let a pump of pairs connect to the only address that a plain target has.

        Most flows need nothing more, and a `Connect` would cost them 4 us. False: none is under
        way. Whatever forbids or prevents it is found again, and told, by `Connect`.
        """
        forward = self._forward
        address, hops = forward.target.straight, forward.resources.hops
        if not address or (pump := self._willing_pump()) is None:
            return False
        try:
            limit = hops.onward_of(self._client_fd) if hops.is_on else 0
            if hops.is_on and not limit:
                return False
            header = self._proxy_header()
            dialled = pump.dial(self, self._client_fd, address, header, limit)
        except OSError:
            return False
        self._pump = pump
        self._pair, self._target_fd, is_told = dialled
        if not is_told:
            self._wait_for_pair(header)
        return True

    def pair_waits(self) -> None:
        """Have a Connect watch the clock, and tell of a failure."""
        try:
            header = self._proxy_header()
        except OSError:
            self.client_reset()
            return
        self._wait_for_pair(header)

    def _wait_for_pair(self, header: bytes) -> None:
        self._wait = connect = self._new_connect(None, b"")
        connect.wait_for_pair(header)

    def _willing_pump(self) -> PairPump | None:
        """The pump that takes this flow, if there is one."""
        forward = self._forward
        looked_at = self._started >= forward.looks.look_from
        for pump in forward.resources.pumps:
            if pump.wants(looked_at):
                return pump
        return None

    def _proxy_header(self) -> bytes:
        """Make it. Raises OSError if the client is gone."""
        write = self._forward.write_header
        if write is None or self._source is None:
            return b""
        return write(self._source, local_address(self._client_fd))

    def dialled(self, fd: int, first: bytes, header_size: int) -> bool:
        """Let a pump of pairs wait for the target and move all bytes, if one wants the flow."""
        pump = self._willing_pump()
        if pump is None:
            return False
        self._pair = pump.connect(self, self._client_fd, fd, first, header_size)
        self._pump, self._target_fd = pump, fd
        return True

    def is_joined(self) -> bool:
        """Whether that pump is connected already."""
        return self._pump.is_connected(self._pair)

    def leave_pair(self) -> None:
        """Have both descriptors back; `pair_stopped` follows."""
        self._pump.stop(self._pair)

    def pair_connected(self) -> None:
        """The connection to the target is there."""
        if isinstance(self._wait, Connect):  # else `is_joined` has told it before
            self._wait.joined()
            self._wait = None
            self._note_shown()

    def pair_finished(self) -> None:
        """Both have ended: do what `close` does, which looks for sides and waits besides."""
        forward = self._forward
        resources = forward.resources
        if resources.log_flows:
            self.close(End.CLOSED)
            return
        self.closed = True
        try:
            seconds = resources.reactor.clock() - self._started
            forward.counters.flow_ended(End.CLOSED, *self._pump.moved(self._pair), seconds)
        finally:
            self._close_client()
            if self._slot >= 0:
                resources.clients.leave(self._slot)
            resources.flows.remove(self)

    def pair_stopped(self) -> None:
        """Go on with sides."""
        pump = self._pump
        if self._wait is None and not pump.is_connected(self._pair):
            self.pair_waits()  # it has failed at once
            if self.closed:
                return
        stopped = pump.take(self._pair)
        self._pair = NO_PAIR
        if isinstance(self._wait, Connect):
            fd, self._target_fd = self._target_fd, -1
            self._wait.pair_stopped(fd, stopped)
        else:
            self._be_sides(self._target_fd, stopped)

    def _be_sides(self, fd: int, stopped: Stopped) -> None:
        client, target = PlainSide(self._client_fd, self), PlainSide(fd, self)
        self.client, self.target, self._target_fd = client, target, -1
        join(client, target, stopped.up, stopped.moved_up, watched=False)
        target.moved, target.held = stopped.moved_down, stopped.down
        target.blocked = client.watches_out = bool(stopped.down)
        client.ended = bool(stopped.flags & Flags.ENDED_CLIENT)
        target.ended = bool(stopped.flags & Flags.ENDED_TARGET)
        client.full_reads = ALMOST_BULK if stopped.flags & Flags.BULK_CLIENT else 0
        target.full_reads = ALMOST_BULK if stopped.flags & Flags.BULK_TARGET else 0
        self.reactor.watch(client.fd, READ_WRITE if client.watches_out else READ, client)
        if stopped.reason == Reason.MEMORY:
            self.on_exception(MemoryError())
        elif stopped.flags & (Flags.BROKE_CLIENT | Flags.BROKE_TARGET):
            self._pass_breaks_on(stopped.flags)
        elif client.ended and target.ended and not (client.blocked or target.blocked):
            self.close(End.CLOSED)
        elif stopped.reason == Reason.ASKED:  # another pump is better by now
            self.become_pair()

    def _pass_breaks_on(self, flags: int) -> None:
        if flags & Flags.BROKE_CLIENT:
            self.broke(self.client)
        if flags & Flags.BROKE_TARGET and not self.closed:
            self.broke(self.target)

    def become_pair(self) -> bool:
        """Let a pump of pairs go on, if one wants it and nothing unusual is under way."""
        if self._wait is not None or self._watch is not None:
            return False
        client, target = self.client, self.target
        if not (client.is_idle and target.is_idle) or isinstance(target, UnixSide):
            return False
        for pump in self._forward.resources.pumps:
            if pump.wants_back():
                self._join(pump)
                return True
        return False

    def _join(self, pump: PairPump) -> None:
        client, target = self.client, self.target
        self._pair = pump.join(self, client.fd, target.fd, self.moved())
        self._pump, self._target_fd = pump, target.fd
        del client.other, target.other
        del self.client, self.target

    def moved(self) -> tuple[int, int]:
        return super().moved() if self._pair == NO_PAIR else self._pump.moved(self._pair)

    def descriptors(self) -> Sequence[int]:
        if self._pair == NO_PAIR or self._wait is not None:
            return super().descriptors()
        return self._client_fd, self._target_fd

    def _is_half_closed(self) -> bool:
        if self._pair == NO_PAIR:
            return super()._is_half_closed()
        return self._pump.is_half_closed(self._pair)

    def abort(self, end: End, detail: str = "") -> None:
        """Reset both connections."""
        if self._pair != NO_PAIR and not self.closed:
            self._pump.reset(self._pair)
        super().abort(end, detail)

    def _close_client(self) -> None:
        """Close both while they are a pair."""
        pair, self._pair = self._pair, NO_PAIR
        if pair != NO_PAIR:
            self._pump.drop(pair)
            self.reactor.tell_closed(self._target_fd)
            return
        super()._close_client()
        if self._target_fd >= 0:  # no memory for the sides of a pair that has stopped
            reset_on_close(self._target_fd)
            self.reactor.close_fd(self._target_fd)
