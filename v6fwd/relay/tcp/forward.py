"""A TCP forward at work: what its flows share, and how each of them begins."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from v6fwd.client_ip.proxy.write import HeaderWriter, header_writer
from v6fwd.client_ip.trust import TrustedNetworks
from v6fwd.log import Log
from v6fwd.model import ClientIP, Forward
from v6fwd.relay.admission import REFUSED, UNCOUNTED, Admission, admission_of
from v6fwd.relay.clients import Clients
from v6fwd.relay.counters import Counters
from v6fwd.relay.deadlines import Deadlines
from v6fwd.relay.flows import Flows
from v6fwd.relay.reactor import Reactor
from v6fwd.relay.sockets import address_of, reset_on_close
from v6fwd.relay.target import Target
from v6fwd.relay.tcp.connect import Dial
from v6fwd.relay.tcp.flow import TcpFlow
from v6fwd.relay.tcp.pipes import PipePool
from v6fwd.relay.tcp.proxy_header import HeaderReader

if TYPE_CHECKING:
    from v6fwd.relay.http.flow import HttpFlow


@dataclass(slots=True)
class TcpResources:
    """What all flows with the same time limits share."""

    reactor: Reactor
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
    resources: TcpResources
    counters: Counters = field(default_factory=Counters)
    trusted: TrustedNetworks | None = field(init=False)
    write_header: HeaderWriter | None = field(init=False)
    needs_source: bool = field(init=False)
    admission: Admission | None = field(init=False)

    def __post_init__(self) -> None:
        networks = self.forward.accept_proxy
        self.trusted = TrustedNetworks(networks) if networks else None
        mode = self.forward.client_ip
        self.write_header = self.target.header_writer(header_writer(mode))
        self.needs_source = (
            bool(self.write_header or networks or self.resources.log_flows)
            or mode is ClientIP.TRANSPARENT
        )
        resources = self.resources
        refused = self.counters.refused
        self.admission = admission_of(self.forward, resources.clients, refused, resources.log)

    def begin(self, fd: int, sockaddr: Any) -> None:
        """Take an accepted, non-blocking descriptor and its client's address."""
        slot = UNCOUNTED
        if self.admission is not None:
            slot = self._slot(self.admission, fd, sockaddr)
            if slot == REFUSED:
                return
        flow = self.make_flow(fd, slot)
        self.resources.flows.add(flow)
        self.counters.flows += 1
        try:
            flow.start(sockaddr)
        except Exception as error:
            flow.on_exception(error)

    def make_flow(self, fd: int, slot: int) -> TcpFlow:
        """The flow of a client that has just come."""
        return TcpFlow(self, fd, slot)

    def _slot(self, keeper: Admission, fd: int, sockaddr: Any) -> int:
        """What Admission says of a new client; who is refused is reset.

        Whoever is trusted to name another one is asked for that name first.
        """
        try:
            client = address_of(sockaddr)
            if self.trusted is not None and client.packed in self.trusted:
                return UNCOUNTED
            slot = keeper.admit(client)
        except Exception as error:
            self.resources.log.limited("defect", "defect", f"internal error: {error!r}")
            slot = REFUSED
        if slot == REFUSED:
            reset_on_close(fd)
            os.close(fd)
        return slot
