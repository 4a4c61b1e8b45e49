"""A TCP flow: two ends, the end of it, and its record. `side` moves the bytes, `dial` comes before.

- An end of stream is passed on as shutdown(2). Everything else that ends a flow (RST, a lost
  peer, a time limit) resets both sides: nobody takes a cut stream for a whole one.
- After `close` nothing of a flow may be touched: callers return at once.
"""

from __future__ import annotations

from v6fwd.model import Address, Forward
from v6fwd.relay.counters import Counters
from v6fwd.relay.ends import End
from v6fwd.relay.reactor import Reactor
from v6fwd.relay.sockets import end_writing, peer_address, reset_on_close
from v6fwd.relay.tcp.connect import Dial
from v6fwd.relay.tcp.pipes import PipePool
from v6fwd.relay.tcp.side import READ, READ_WRITE, Side


class TcpFlow(Dial):
    """One client's connection: its life from the first byte to the target on."""

    __slots__ = ("client",)

    client: Side

    def _begin(self, first: bytes, sent: int, *, watched: bool) -> None:
        """The target has taken `sent` bytes of `first`: from here on the sides move the bytes."""
        client, target = Side(self._client_fd, self), Side(self._target_fd, self)
        self._join(client, target, first, sent, watched=watched)
        self._forward.resources.reactor.watch(client.fd, READ, client)
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
            self.reactor.change_handler(target.fd, target)
        else:
            self.reactor.watch(target.fd, READ_WRITE if client.blocked else READ, target)

    @property
    def reactor(self) -> Reactor:
        """The reactor that watches both sides."""
        return self._forward.resources.reactor

    @property
    def pipes(self) -> PipePool:
        """Where the sides borrow pipes."""
        return self._forward.resources.pipes

    def half_ended(self, side: Side) -> None:
        """All that `side` will ever send has been passed on: pass the end on, too."""
        if side.other.ended and not side.other.blocked:
            self.close(End.CLOSED)
            return
        try:
            end_writing(side.other.fd)
        except OSError:
            self.broke(side.other)

    def broke(self, side: Side) -> None:
        """The connection of `side` was reset or died."""
        self.abort(End.RESET_BY_CLIENT if side is self.client else End.RESET_BY_TARGET)

    def abort(self, end: End, detail: str = "") -> None:
        """Reset both connections."""
        if self.closed:
            return
        reset_on_close(self._client_fd)
        if self._target_fd >= 0:
            reset_on_close(self._target_fd)
        self.close(end, detail)

    def close(self, end: End, detail: str = "") -> None:
        """Close both descriptors, give everything back, record the end."""
        forward = self._forward
        resources = forward.resources
        self.closed = True
        forward.counters.flow_ended(end, *self.moved(), self.seconds())
        if resources.log_flows:
            self._record(end.told(detail))
        resources.reactor.close_fd(self._client_fd)
        if self._target_fd >= 0:
            resources.reactor.close_fd(self._target_fd)
        resources.dials.discard(self)
        if self._has_sides():
            self.client.release()
            self.target.release()
            del self.client.other, self.target.other  # no cycle is left for the collector
            del self.client, self.target
        if self._slot >= 0:
            resources.clients.leave(self._slot)
        resources.flows.remove(self)

    def retire(self) -> None:
        """See flows.Flow: only its ends know when a stream of bytes is done."""

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
        return self.reactor.clock() - self._started

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
