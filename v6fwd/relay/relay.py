"""The relay as a whole: forwards that come, change and go in this process.

Several processes may serve one forward. Its TCP socket is the same for all; of UDP sockets each
has its own, and `shard` tells them apart.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Container, Iterable, Iterator, Sequence
from functools import partial

from v6fwd.log import Log, attempt
from v6fwd.model import ClientIP, Endpoint, Forward, Limits, Protocol
from v6fwd.model.lean import TYPE_CHECKING, Any, NamedTuple
from v6fwd.relay.clients import Clients, ClientTable
from v6fwd.relay.counters import Snapshot, added, count
from v6fwd.relay.ends import End
from v6fwd.relay.flows import Live
from v6fwd.relay.idle import IdleSweeps
from v6fwd.relay.life.drain import UDP_GRACE, Drain
from v6fwd.relay.limits.bans import Bans
from v6fwd.relay.limits.chosen import is_of
from v6fwd.relay.limits.dead_peers import DeadPeers
from v6fwd.relay.limits.loop_watch import LoopWatch
from v6fwd.relay.limits.siblings import Siblings
from v6fwd.relay.listener import Gate, Listener
from v6fwd.relay.pairs.pump import epoll_reactor
from v6fwd.relay.ports import Port, open_port
from v6fwd.relay.pump import PairPump
from v6fwd.relay.reactor import Reactor
from v6fwd.relay.resources import Resources
from v6fwd.relay.sockets import open_listener
from v6fwd.relay.targets.mismatch import Heard
from v6fwd.relay.targets.shared import Targets

if TYPE_CHECKING:
    import asyncio

    from v6fwd.relay.ring.native import Ring
    from v6fwd.relay.udp.listener import UdpListener

NAMESPACE_DESCRIPTORS = 6
"""What a network namespace in use holds open, and so each transparent forward at most."""
TIDY_AGAIN = 2.0
"""Seconds between two looks whether the last flow has left a target that no forward leads to."""


class Key(NamedTuple):
    """What tells ports apart."""

    listen: Endpoint
    shard: int = 0


class Relay:
    """Serves forwards on an event loop, by default the running one.

    `limits` are those of the process: flows at once. The time limits are each forward's own.

    Large because it is the relay's one face: what daemon and foreground
    open, change, drain and ask goes through it, and each part of the work has its own class.
    """

    def __init__(
        self,
        limits: Limits,
        log: Log,
        *,
        log_flows: bool = False,
        siblings: Siblings | None = None,
        clients: Clients | None = None,
        heard: Heard | None = None,
        bans: Bans | None = None,
        ring: Ring | None = None,
        loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        """`ring` moves the bytes of plain TCP flows, and is closed with the relay."""
        self.reactor, pumps = make_reactor(ring, loop)
        clients = clients or Clients(ClientTable(), 0, self.reactor.clock)
        self.resources = Resources(
            self.reactor,
            limits.max_flows,
            log,
            clients,
            log_flows=log_flows,
            heard=heard,
            bans=bans,
            pumps=pumps,
        )
        self.flows = self.resources.flows
        self._log = log
        self._gate = Gate(self.reactor, self.flows, log, siblings)
        self._idle = IdleSweeps(self.reactor, self.flows)
        self._dead_peers = DeadPeers(self.reactor, self.flows)
        self.targets = Targets(self.reactor, log)
        refuse = self.targets.refuse_for_a_while
        self._loop_watch = LoopWatch(self.reactor, self.flows, self.resources.hops, refuse, log)
        self._ports: dict[Key, Port] = {}
        self._leaving: set[Port] = set()  # closed, with flows that may still finish
        self._tidying: asyncio.Handle | None = None  # the next _tidy
        self._tidying_again: asyncio.TimerHandle | None = None  # one because of old flows
        self._drain: Drain | None = None
        self._is_hurried = False

    @property
    def listeners(self) -> list[Listener | UdpListener]:
        """The listening sockets and who serves them, in the order of opening."""
        return [port.listener for port in self._ports.values()]

    # -- forwards --

    async def resolve(self, *forwards: Forward) -> None:
        """Learn the addresses of targets before the forwards are opened. Raises RelayError."""
        await self.targets.resolve(forwards)

    async def open(self, forward: Forward, sock: socket.socket | None = None) -> None:
        """Listen, and serve who comes. Raises RelayError."""
        await self.resolve(forward)
        self.begin(forward, sock or listen_on(forward.listen))

    def check_loops(self, pairs: Iterable[tuple[Forward, socket.socket]]) -> None:
        """Look at forwards that are about to begin. Raises RelayError: one leads back to itself."""
        forwards = []
        for forward, sock in pairs:
            self.targets.listens(Key(forward.listen), forward, sock)
            forwards.append(forward)
        self.targets.check(forwards)

    def begin(self, forward: Forward, sock: socket.socket, shard: int = 0) -> None:
        """Serve who comes to a listening socket, or close it; a name is resolved meanwhile."""
        try:
            target = self.targets.resolving(forward)
            port = open_port(forward, target, sock, self._gate, self.resources)
        except Exception:
            sock.close()  # clients would wait there
            raise
        self._ports[Key(forward.listen, shard)] = port
        self.targets.listens(Key(forward.listen, shard), forward, sock)
        self._ports_changed()

    def replace(self, forward: Forward, shard: int = 0) -> None:
        """Serve new flows of the port at `forward.listen` as `forward` says. Raises KeyError."""
        self._ports[Key(forward.listen, shard)].replace(forward, self.targets.resolving(forward))
        self.targets.changed(Key(forward.listen, shard), forward)
        self._ports_changed()

    def close_forward(
        self, listen: Endpoint, grace: float, shard: int = 0, *, take_queue: bool = True
    ) -> None:
        """Stop to listen; what flows there are may finish for `grace` seconds. Raises KeyError.

        With 0 they are cut, and the port is free, when this returns.
        `take_queue`: serve who has come already; not if another process goes on at the socket.
        """
        port = self._ports.pop(Key(listen, shard))
        self.targets.left(Key(listen, shard))
        self._leaving.add(port)
        port.stop_listening(take_queue=take_queue)
        if listen.protocol is Protocol.UDP:
            grace = min(grace, UDP_GRACE)
        if grace > 0:
            self.reactor.loop.call_later(grace, self._end, port)
        else:
            self._end(port)
        self._ports_changed()

    def _end(self, port: Port) -> None:
        if port in self._leaving:
            self._leaving.remove(port)
            port.end(End.CUT)
            self._ports_changed()

    def _ports_changed(self) -> None:
        """Tidy up once, however many ports come and go in one turn of the loop."""
        if self._tidying is None:
            self._tidying = self.reactor.loop.call_soon(self._tidy)

    def _tidy(self) -> None:
        """Share out anew what there is, and forget what nobody needs any more."""
        self._tidying = None
        every = [*self._ports.values(), *self._leaving]
        limits = {port.forward.limits for port in every}
        of_udp = sum(port.forward.protocol is Protocol.UDP for port in every)
        self.resources.keep(limits)
        transparent = sum(port.forward.client_ip is ClientIP.TRANSPARENT for port in every)
        others = NAMESPACE_DESCRIPTORS * transparent + self.targets.sockets_ahead
        self.resources.share_out(len(every), of_udp, others)
        self._idle.keep(port.forward for port in every)
        self._dead_peers.keep(port.forward for port in every)
        open_forwards = [port.forward for port in self._ports.values()]
        self.targets.refuse_loops(open_forwards)
        if self.targets.leave_unused(open_forwards, self._live_forwards):
            self._tidy_again()

    def _live_forwards(self) -> Iterator[Forward]:
        return (flow.forward for flow in self._live())

    def _tidy_again(self) -> None:
        if self._tidying_again is not None:
            self._tidying_again.cancel()
        self._tidying_again = self.reactor.loop.call_later(TIDY_AGAIN, self._ports_changed)

    # -- what an operator ends --

    def apply_bans(self) -> dict[str, int]:
        """Refuse who is banned from now on, and reset their flows; how many, by forward."""
        bans = self.resources.bans
        bans.refresh()
        for port in self._ports.values():
            port.bans_changed()
        if not bans:
            return {}
        return self.end_flows(lambda flow: is_of(flow, bans), End.BANNED)

    def end_flows(self, matches: Callable[[Live], bool], end: End) -> dict[str, int]:
        """Reset the flows that match; how many, by forward."""
        ended: dict[str, int] = {}
        for flow in [flow for flow in self._live() if matches(flow)]:
            attempt(flow.abort, end)
            count(ended, str(flow.forward.listen))
        return ended

    # -- the end --

    def begin_drain(
        self, grace: float, ended: Callable[[], object], *, take_queue: bool = True
    ) -> None:
        """Stop to listen everywhere, and let flows finish for `grace` seconds; see `hurry`.

        `ended` is called when none is left.
        """
        for port in self._ports.values():
            attempt(partial(port.stop_listening, take_queue=take_queue))
        attempt(self._gate.close)
        of_udp = [port for port in self._every_port() if port.forward.protocol is Protocol.UDP]
        self._drain = Drain(self.reactor.loop, self.flows, of_udp, self._log, ended)
        self._drain.begin(grace)
        if self._is_hurried:
            self._drain.hurry()

    async def drain(self, grace: float, *, take_queue: bool = True) -> None:
        """The same, to be awaited."""
        from v6fwd.relay.event_loop import asyncio  # it is imported where one awaits

        ended = asyncio.Event()
        self.begin_drain(grace, ended.set, take_queue=take_queue)
        await ended.wait()

    def hurry(self) -> None:
        """Cut short a drain that is under way, or that is to come."""
        self._is_hurried = True
        if self._drain is not None:
            self._drain.hurry()

    def close(self) -> None:
        """Give everything back, at once."""
        for timer in (self._tidying, self._tidying_again):
            if timer is not None:
                timer.cancel()
        attempt(self._gate.close)
        if self._drain is not None:
            self._drain.close()
        self.flows.abort_all(End.STOPPED)
        for port in self._every_port():
            attempt(port.end, End.STOPPED)
        for part in (self._idle, self._loop_watch, self._dead_peers, self.resources, self.targets):
            attempt(part.close)  # `targets` last: rules in namespaces go, whatever failed before
        self.reactor.close()

    # -- what may be asked --

    def _every_port(self) -> list[Port]:
        return [*self._ports.values(), *self._leaving]

    def activity(self) -> dict[str, int]:
        """A number for each forward that has done something: it changes when `totals` do."""
        activity: dict[str, int] = {}
        for port in self._every_port():
            if number := port.activity():
                listen = str(port.forward.listen)
                activity[listen] = activity.get(listen, 0) + number
        return activity

    def totals(self, only: Container[str] | None = None) -> dict[str, Snapshot]:
        """What each forward has done, by its listening endpoint; no bytes of flows that live.

        `only`: just these.
        """
        totals: dict[str, Snapshot] = {}
        for port in self._every_port():
            listen = str(port.forward.listen)
            if only is None or listen in only:
                numbers = port.totals()
                totals[listen] = added(totals[listen], numbers) if listen in totals else numbers
        return totals

    def snapshot(self) -> dict[str, Snapshot]:
        """The same with the bytes that live flows have moved so far."""
        totals = self.totals()
        for flow in self._live():
            numbers, (up, down) = totals[str(flow.forward.listen)], flow.moved()
            numbers["bytes_up"] += up
            numbers["bytes_down"] += down
        return totals

    def _live(self) -> Iterator[Live]:
        yield from self.flows.live
        for port in self._every_port():
            yield from port.sessions()

    def flows_now(self) -> Iterator[dict[str, Any]]:
        """The flows that live: client, listen, target, bytes up and down, seconds."""
        for flow in list(self._live()):
            up, down = flow.moved()
            source = flow.source
            yield {
                "client": source.host if source else "",
                "client_port": source.port if source else 0,
                "listen": str(flow.forward.listen),
                "target": str(flow.forward.target),
                "bytes_up": up,
                "bytes_down": down,
                "seconds": round(flow.seconds(), 3),
            }


def make_reactor(
    ring: Ring | None, loop: asyncio.AbstractEventLoop | None
) -> tuple[Reactor, Sequence[PairPump]]:
    """A reactor for a loop, or the running one, and the native pumps that there are."""
    if loop is None:
        from v6fwd.relay.event_loop import asyncio

        loop = asyncio.get_running_loop()
    if ring is None:
        return epoll_reactor(loop)
    from v6fwd.relay.ring.reactor import ring_reactor

    return ring_reactor(loop, ring)


def listen_on(endpoint: Endpoint) -> socket.socket:
    """A listening socket. Raises RelayError, naming the endpoint."""
    if endpoint.protocol is Protocol.TCP:
        return open_listener(endpoint)
    from v6fwd.relay.udp_sockets import open_udp_listener  # only where there is UDP

    return open_udp_listener(endpoint)
