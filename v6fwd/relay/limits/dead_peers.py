"""Ends flows whose peer vanished while data was on its way to it.

Keepalive does not probe while data is unacknowledged, and the kernel retransmits for more than
924 s (tcp_retries2 = 15). TCP_USER_TIMEOUT would shorten that, but in Linux it ends a living peer,
too, if that keeps its window at zero, as a paused download does. Tried on 6.18 with 5 s and a peer
that answered every window probe: ETIMEDOUT after 6 s, at a tcpi_last_ack_recv of 2.8 s.

So we look at TCP_INFO now and then. Unacknowledged data (tcpi_unacked) is sent again, at intervals
of 120 s at most (TCP_RTO_MAX), also into a window that shrank; a peer that lives answers each time.
At a window of zero nothing is unacknowledged: that peer is left to the kernel's window probes.

In Swarm's mesh the peer is a task on another node, or the node's v6fwd. Nodes die, and the other
ends of their flows are told sooner: see `in_mesh`.

The same look switches keepalive on at targets: a flow that ends before it does not need it, and is
spared three system calls. A client's socket has it from the listener.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Callable, Iterable, Iterator, Sequence

from v6fwd.model import Forward
from v6fwd.model.lean import NamedTuple
from v6fwd.relay.ends import End
from v6fwd.relay.flows import Flow, Flows
from v6fwd.relay.reactor import Reactor
from v6fwd.relay.sockets import KEEPALIVE, Keepalive, ensure_keepalive

SILENCE = 130.0
"""Seconds without an ACK for data that waits for one: TCP_RTO_MAX, and 10 s for the path."""
ROUND = 20.0
"""Seconds in which all flows are looked at once."""
MESH_SILENCE = 10.0
"""The same in the mesh. A living kernel acknowledges at once, however busy its machine is: data has
been sent again five times by then. It is more than the gossip takes to lose a node, some 8 s."""
MESH_ROUND = 2.0
MESH_KEEPALIVE = Keepalive(15, 5, 3)
"""30 s for a flow on which nothing moves. The gossip ends none: it loses nodes that live."""
BATCH = 64
"""Flows that are looked at in one turn of the loop: about 0.1 ms."""

_UNACKED, _LAST_ACK_RECV = 24, 56
"""Offsets in struct tcp_info: segments without an ACK, and milliseconds since the last ACK."""
_SIZE = _LAST_ACK_RECV + 4


class Patience(NamedTuple):
    """How long an end of a flow may be silent."""

    ends: Callable[[Flow], Sequence[int]]
    """The descriptors that it is for."""
    silence: float
    round: float
    keepalive: Keepalive


def ordinary() -> Patience:
    """Give that of all ends but those in the mesh."""
    return Patience(_not_in_mesh, SILENCE, ROUND, KEEPALIVE)


def in_mesh() -> Patience:
    """Give that of tasks and nodes: targets of the mesh's ports, and the hop's clients."""
    return Patience(_in_mesh, MESH_SILENCE, MESH_ROUND, MESH_KEEPALIVE)


def _in_mesh(flow: Flow) -> Sequence[int]:
    mesh = flow.forward.mesh
    if not mesh.netns:
        return ()
    return flow.descriptors() if mesh.is_hop else flow.descriptors()[1:]


def _not_in_mesh(flow: Flow) -> Sequence[int]:
    mesh = flow.forward.mesh
    if not mesh.netns:
        return flow.descriptors()
    return () if mesh.is_hop else flow.descriptors()[:1]


class DeadPeers:
    """Looks at all flows, some at a time. Only who waits for an ACK at a look is kept."""

    def __init__(self, reactor: Reactor, flows: Flows, patience: Patience | None = None) -> None:
        self._reactor = reactor
        self._flows = flows
        self._patience = patience or ordinary()
        self._since: dict[tuple[Flow, int], float] = {}
        self._todo: Iterator[list[Flow]] = iter(())
        self._pause = self._patience.round
        self._timer = reactor.loop.call_later(self._pause, self._turn)
        self._mesh: DeadPeers | None = None

    def keep(self, forwards: Iterable[Forward]) -> None:
        """Look at ends in the mesh, too, once one of the forwards leads there."""
        if self._mesh is None and any(forward.mesh.netns for forward in forwards):
            self._mesh = DeadPeers(self._reactor, self._flows, in_mesh())

    def close(self) -> None:
        """Cancel the timers."""
        self._timer.cancel()
        if self._mesh is not None:
            self._mesh.close()

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
        self._pause = self._patience.round / (len(batches) + 1)
        self._todo = iter(batches)

    def look(self, flows: Iterable[Flow]) -> None:
        """Reset those that have waited for an ACK for too long."""
        now = self._reactor.clock()
        live = self._flows.live  # a flow that left in this round has no descriptors of its own
        for flow in flows:
            if flow in live:
                self._reactor.attempt(flow, self._look_at, flow, now)

    def _look_at(self, flow: Flow, now: float) -> None:
        descriptors = self._patience.ends(flow)
        for fd in descriptors:
            ensure_keepalive(fd, self._patience.keepalive)
        if any(self._is_dead(flow, fd, now) for fd in descriptors):
            flow.abort(End.DEAD_PEER)

    def _is_dead(self, flow: Flow, fd: int, now: float) -> bool:
        """Data may be new on a connection that was silent before: both times count."""
        silence = silence_of(fd)
        if not silence:
            self._since.pop((flow, fd), None)
            return False
        waits = now - self._since.setdefault((flow, fd), now)
        return min(silence, waits) >= self._patience.silence


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
