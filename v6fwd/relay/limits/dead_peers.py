"""Ends flows whose peer vanished while data was on its way to it.

Keepalive does not probe while data is unacknowledged, and the kernel retransmits for more than
924 s (tcp_retries2 = 15). TCP_USER_TIMEOUT would shorten that, but in Linux it ends a living peer,
too, if that keeps its window at zero, as a paused download does. Tried on 6.18 with 5 s and a peer
that answered every window probe: ETIMEDOUT after 6 s, at a tcpi_last_ack_recv of 2.8 s.

So we look at TCP_INFO now and then. Unacknowledged data (tcpi_unacked) is sent again, at intervals
of 120 s at most (TCP_RTO_MAX), also into a window that shrank; a peer that lives answers each time.
At a window of zero nothing is unacknowledged: that peer is left to the kernel's window probes.

The same look switches keepalive on at targets: a flow that ends before it does not need it, and is
spared three system calls. A client's socket has it from the listener.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterable, Iterator

from v6fwd.relay.ends import End
from v6fwd.relay.flows import Flow, Flows
from v6fwd.relay.reactor import Reactor
from v6fwd.relay.sockets import ensure_keepalive

SILENCE = 130.0
"""Seconds without an ACK for data that waits for one: TCP_RTO_MAX, and 10 s for the path."""
ROUND = 20.0
"""Seconds in which all flows are looked at once."""
BATCH = 64
"""Flows that are looked at in one turn of the loop: about 0.1 ms."""

_UNACKED, _LAST_ACK_RECV = 24, 56
"""Offsets in struct tcp_info: segments without an ACK, and milliseconds since the last ACK."""
_SIZE = _LAST_ACK_RECV + 4


class DeadPeers:
    """Looks at all flows, some at a time. Only who waits for an ACK at a look is kept."""

    def __init__(self, reactor: Reactor, flows: Flows) -> None:
        self._reactor = reactor
        self._flows = flows
        self._since: dict[tuple[Flow, int], float] = {}
        self._todo: Iterator[list[Flow]] = iter(())
        self._pause = ROUND
        self._timer = reactor.loop.call_later(ROUND, self._turn)

    def close(self) -> None:
        """Cancel the timer."""
        self._timer.cancel()

    def _turn(self) -> None:
        batch = None
        try:
            batch = next(self._todo, None)
            if batch is None:
                self._begin()
        finally:  # without memory for the list of all flows, too
            self._timer = self._reactor.loop.call_later(self._pause, self._turn)
        self.look(batch or ())

    def _begin(self) -> None:
        """Begin a round."""
        live = self._flows.live
        self._since = {key: since for key, since in self._since.items() if key[0] in live}
        flows = list(live)
        batches = [flows[at : at + BATCH] for at in range(0, len(flows), BATCH)]
        self._pause = ROUND / (len(batches) + 1)
        self._todo = iter(batches)

    def look(self, flows: Iterable[Flow]) -> None:
        """Reset those that have waited for an ACK for too long."""
        now = self._reactor.clock()
        live = self._flows.live  # a flow that left in this round has no descriptors of its own
        for flow in flows:
            if flow in live:
                self._reactor.attempt(flow, self._look_at, flow, now)

    def _look_at(self, flow: Flow, now: float) -> None:
        descriptors = flow.descriptors()
        for fd in descriptors:
            ensure_keepalive(fd)
        if any(self._is_dead(flow, fd, now) for fd in descriptors):
            flow.abort(End.DEAD_PEER)

    def _is_dead(self, flow: Flow, fd: int, now: float) -> bool:
        """Data may be new on a connection that was silent before: both times count."""
        silence = silence_of(fd)
        if not silence:
            self._since.pop((flow, fd), None)
            return False
        return min(silence, now - self._since.setdefault((flow, fd), now)) >= SILENCE


def silence_of(fd: int) -> float:
    """Seconds since the last ACK if data waits for one; 0: no data does, or it is not TCP."""
    sock = socket.SocketType(socket.AF_INET6, socket.SOCK_STREAM, 0, fd)
    try:
        info = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _SIZE)
    except OSError:
        return 0.0
    finally:
        sock.detach()
    (unacked,) = struct.unpack_from("=I", info, _UNACKED)
    (milliseconds,) = struct.unpack_from("=I", info, _LAST_ACK_RECV)
    return milliseconds / 1000 if unacked else 0.0
