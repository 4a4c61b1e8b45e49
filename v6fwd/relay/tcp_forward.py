"""A TCP forward at work: what its flows share, and how each of them begins."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from v6fwd.client_ip.proxy_write import HeaderWriter, header_writer
from v6fwd.client_ip.trust import TrustedNetworks
from v6fwd.log import Log
from v6fwd.model import ClientIP, Forward
from v6fwd.relay.clients import Clients
from v6fwd.relay.counters import Counters
from v6fwd.relay.deadlines import Deadlines
from v6fwd.relay.dial import Dial
from v6fwd.relay.engine import Engine
from v6fwd.relay.flows import Flows
from v6fwd.relay.guard import REFUSED, UNCOUNTED, Doorkeeper, doorkeeper
from v6fwd.relay.header import HeaderReader
from v6fwd.relay.pipes import PipePool
from v6fwd.relay.sockets import address_of, reset_on_close
from v6fwd.relay.target import Target
from v6fwd.relay.tcp import TcpFlow

if TYPE_CHECKING:
    from v6fwd.relay.http import HttpFlow


@dataclass(slots=True)
class TcpContext:
    """What all flows with the same time limits share."""

    engine: Engine
    flows: Flows
    pipes: PipePool
    log: Log
    clients: Clients
    dials: Deadlines[Dial]
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
