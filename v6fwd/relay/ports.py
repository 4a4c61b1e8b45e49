"""A forward at work in this process: its listening socket, and the flows of its clients."""

from __future__ import annotations

import socket
from collections.abc import Collection
from functools import partial

from v6fwd.log import attempt
from v6fwd.model import Forward
from v6fwd.model import Protocol as Transport
from v6fwd.model.lean import TYPE_CHECKING, Protocol
from v6fwd.relay.counters import Counters, Snapshot, snapshot_of
from v6fwd.relay.ends import End
from v6fwd.relay.flows import Flow, Live, abort
from v6fwd.relay.listener import Gate, Listener
from v6fwd.relay.resources import Resources
from v6fwd.relay.targets.target import Target
from v6fwd.relay.tcp.accept import Acceptor
from v6fwd.relay.tcp.flow import TcpFlow
from v6fwd.relay.tcp.forward import tcp_forward

if TYPE_CHECKING:
    from v6fwd.relay.udp.listener import UdpListener


class Port(Protocol):
    """What the relay needs to know of one."""

    counters: Counters

    @property
    def forward(self) -> Forward:
        """What new flows begin with."""

    @property
    def listener(self) -> Listener | UdpListener:
        """Whoever owns the socket."""

    def sessions(self) -> Collection[Live]:
        """Its UDP sessions; TCP flows stand in the set of all flows."""

    def totals(self) -> Snapshot:
        """What it has done so far."""

    def activity(self) -> int:
        """`Counters.activity`: 0 means that nothing has happened yet."""

    def replace(self, forward: Forward, target: Target) -> None:
        """Let new flows be served like this."""

    def bans_changed(self) -> None:
        """There are bans now, or no more."""

    def stop_listening(self, *, take_queue: bool) -> None:
        """Take no new clients; see Gate.remove."""

    def end(self, why: End) -> int:
        """Cut what is left; gives how many flows that were."""


class TcpPort:
    """A listening socket for connections."""

    def __init__(
        self, listener: Listener, acceptor: Acceptor, gate: Gate, resources: Resources
    ) -> None:
        self.listener = listener
        self.counters = acceptor.forward.counters
        self._acceptor = acceptor
        self._gate = gate
        self._resources = resources

    @property
    def forward(self) -> Forward:
        return self._acceptor.forward.forward

    def sessions(self) -> Collection[Live]:
        return ()

    def totals(self) -> Snapshot:
        return self.counters.snapshot()

    def activity(self) -> int:
        return self.counters.activity()

    def replace(self, forward: Forward, target: Target) -> None:
        if _has_moved(self.forward, forward):
            self._reset_connecting()
        self._acceptor = _acceptor(forward, target, self._resources, self.counters)
        self.bans_changed()

    def bans_changed(self) -> None:
        """While nobody is banned, a new client costs nothing more."""
        acceptor = self._acceptor
        are_some = bool(self._resources.bans)
        self.listener.begin = acceptor.unless_banned if are_some else acceptor.accepted

    def _reset_connecting(self) -> None:
        """They would connect to an address that may be another container's."""
        abort([flow for flow in self._flows() if len(flow.descriptors()) < 2], End.TARGET_FAILED)

    def stop_listening(self, *, take_queue: bool) -> None:
        """Flows that can tell when they are done, HTTP's, close then."""
        self._gate.remove(self.listener, take_queue=take_queue)
        for flow in self._flows():
            attempt(flow.retire)

    def end(self, why: End) -> int:
        return abort(self._flows(), why)

    def _flows(self) -> list[Flow]:
        flows = self._resources.flows.live
        return [flow for flow in flows if flow.counters is self.counters]


class UdpPort:
    """A listening socket for datagrams."""

    def __init__(self, listener: UdpListener, resources: Resources) -> None:
        self.listener = listener
        self.counters = listener.forward.flows
        self._resources = resources

    @property
    def forward(self) -> Forward:
        return self.listener.forward.forward

    def sessions(self) -> Collection[Live]:
        return self.listener.sessions

    def totals(self) -> Snapshot:
        return {**self.counters.snapshot(), "udp": snapshot_of(self.listener.forward.counters)}

    def activity(self) -> int:
        return self.counters.activity() + self.listener.forward.counters.activity()

    def replace(self, forward: Forward, target: Target) -> None:
        if _has_moved(self.forward, forward):
            for session in list(self.listener.sessions):  # their clients may begin others
                session.close(End.TARGET_FAILED)
        self.listener.configure(forward, target, self._resources.udp(forward.limits))

    def bans_changed(self) -> None:
        """Nothing to do: each new session asks."""

    def stop_listening(self, *, take_queue: bool) -> None:
        self.listener.refuse_new_clients(reads=take_queue)

    def end(self, why: End) -> int:
        count = len(self.listener.sessions)
        self.listener.close(why)
        return count


def _has_moved(before: Forward, after: Forward) -> bool:
    """Whether the target is a container that has left its address, or a target in its place."""
    return bool(before.target.container) and before.target != after.target


def open_port(
    forward: Forward, target: Target, sock: socket.socket, gate: Gate, resources: Resources
) -> TcpPort | UdpPort:
    """Serve who comes to a listening socket."""
    if forward.protocol is Transport.TCP:
        acceptor = _acceptor(forward, target, resources, Counters())
        counters = acceptor.forward.counters
        listener = Listener(forward.listen, sock, acceptor.accepted, gate, counters)
        port = TcpPort(listener, acceptor, gate, resources)
        port.bans_changed()
        return port
    from v6fwd.relay.udp.listener import UdpListener  # 0.5 MB that TCP does not need

    return UdpPort(UdpListener(forward, target, sock, resources.udp(forward.limits)), resources)


def _acceptor(
    forward: Forward, target: Target, resources: Resources, counters: Counters
) -> Acceptor:
    tcp = tcp_forward(forward, target, resources.tcp(forward.limits), counters)
    if forward.client_ip.is_http:
        from v6fwd.relay.http.flow import HttpFlow  # with its parsers 1.1 MB
        from v6fwd.relay.http.forward import HttpForward

        return Acceptor(tcp, partial(HttpFlow, HttpForward(tcp)))
    return Acceptor(tcp, partial(TcpFlow, tcp))


def import_all() -> None:
    """Import what forwards of any mode need.

    For a worker: it shares what is imported before it is forked, and may not be able to read the
    files of modules when it has dropped its privileges.
    """
    import concurrent.futures.thread  # noqa: F401 - asyncio resolves names there
    import termios  # noqa: F401

    import v6fwd.netns.netlink
    import v6fwd.relay.http.flow
    import v6fwd.relay.targets.resolver
    import v6fwd.relay.tcp.proxy_header
    import v6fwd.relay.udp.listener
    import v6fwd.relay.udp_sockets  # noqa: F401
    from v6fwd.client_ip.first_answer import compile_patterns
    from v6fwd.client_ip.proxy.write import v2_starts

    v2_starts()
    compile_patterns()
