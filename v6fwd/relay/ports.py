"""A forward at work in this process: its listening socket and what becomes of its clients."""

from __future__ import annotations

import socket
from collections.abc import Collection
from typing import Protocol

from v6fwd.model import Forward
from v6fwd.model import Protocol as Transport
from v6fwd.relay.counters import Counters, Snapshot, snapshot_of
from v6fwd.relay.flows import Flow, Live, abort
from v6fwd.relay.http.forward import HttpForward
from v6fwd.relay.listener import Gate, Listener
from v6fwd.relay.resources import Resources
from v6fwd.relay.target import Target
from v6fwd.relay.tcp.forward import TcpForward
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
        """See Counters; 0 where `totals` are those of a port that is new."""

    def replace(self, forward: Forward, target: Target) -> None:
        """Let new flows be served like this."""

    def stop_listening(self, *, take_queue: bool) -> None:
        """Take no new clients; see Gate.remove."""

    def end(self, why: str) -> int:
        """Cut what is left; gives how many flows that were."""


class TcpPort:
    """A listening socket for connections."""

    def __init__(
        self, listener: Listener, runner: TcpForward, gate: Gate, resources: Resources
    ) -> None:
        self.listener = listener
        self.counters = runner.counters
        self._runner = runner
        self._gate = gate
        self._resources = resources

    @property
    def forward(self) -> Forward:
        """See Port."""
        return self._runner.forward

    def sessions(self) -> Collection[Live]:
        """See Port."""
        return ()

    def totals(self) -> Snapshot:
        """See Port."""
        return self.counters.snapshot()

    def activity(self) -> int:
        """See Port."""
        return self.counters.activity()

    def replace(self, forward: Forward, target: Target) -> None:
        """See Port."""
        self._runner = _runner(forward, target, self._resources, self.counters)
        self.listener.begin = self._runner.begin

    def stop_listening(self, *, take_queue: bool) -> None:
        """See Port. Flows that can tell when they are done, HTTP's, close then."""
        self._gate.remove(self.listener, take_queue=take_queue)
        for flow in self._flows():
            flow.retire()

    def end(self, why: str) -> int:
        """See Port."""
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
        """See Port."""
        return self.listener.forward.forward

    def sessions(self) -> Collection[Live]:
        """See Port."""
        return self.listener.sessions

    def totals(self) -> Snapshot:
        """See Port."""
        return {**self.counters.snapshot(), "udp": snapshot_of(self.listener.forward.counters)}

    def activity(self) -> int:
        """See Port."""
        return self.counters.activity() + self.listener.forward.counters.activity()

    def replace(self, forward: Forward, target: Target) -> None:
        """See Port."""
        self.listener.configure(forward, target, self._resources.udp(forward.limits))

    def stop_listening(self, *, take_queue: bool) -> None:
        """See Port."""
        self.listener.refuse_new_clients(reads=take_queue)

    def end(self, why: str) -> int:
        """See Port."""
        count = len(self.listener.sessions)
        self.listener.close(why)
        return count


def open_port(
    forward: Forward, target: Target, sock: socket.socket, gate: Gate, resources: Resources
) -> TcpPort | UdpPort:
    """Serve who comes to a listening socket."""
    if forward.protocol is Transport.TCP:
        runner = _runner(forward, target, resources, Counters())
        return TcpPort(Listener(forward.listen, sock, runner.begin, gate), runner, gate, resources)
    return UdpPort(UdpListener(forward, target, sock, resources.udp(forward.limits)), resources)


def _runner(
    forward: Forward, target: Target, resources: Resources, counters: Counters
) -> TcpForward:
    kind = HttpForward if forward.client_ip.is_http else TcpForward
    return kind(forward, target, resources.tcp(forward.limits), counters)
