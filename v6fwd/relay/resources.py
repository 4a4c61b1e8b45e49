"""What forwards share in a process: descriptors, pipes, and timers of equal length."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from v6fwd.log import Log
from v6fwd.model import Limits
from v6fwd.model.lean import TYPE_CHECKING
from v6fwd.relay.budget import DescriptorBudget, in_use, raised_limit, udp_share
from v6fwd.relay.clients import Clients
from v6fwd.relay.deadlines import Deadlines
from v6fwd.relay.ends import End
from v6fwd.relay.flows import Flows
from v6fwd.relay.limits.bans import Bans
from v6fwd.relay.limits.hops import Hops
from v6fwd.relay.pump import PairPump
from v6fwd.relay.reactor import Reactor
from v6fwd.relay.targets.mismatch import Heard
from v6fwd.relay.tcp.pipes import PipePool, is_paced
from v6fwd.relay.tcp.resources import LINGER_TIME, TcpResources

if TYPE_CHECKING:
    from v6fwd.relay.udp.resources import UdpResources
    from v6fwd.relay.udp.session_table import Sessions


class Resources:
    """Makes resources for each distinct set of time limits, and keeps them while they are used."""

    def __init__(
        self,
        reactor: Reactor,
        max_flows: int,
        log: Log,
        clients: Clients,
        *,
        log_flows: bool,
        heard: Heard | None = None,
        bans: Bans | None = None,
        pumps: Sequence[PairPump] = (),
    ) -> None:
        self._pumps = pumps
        self._reactor = reactor
        self._max_flows = max_flows
        self._log = log
        self._clients = clients
        self._log_flows = log_flows
        self._heard = heard
        self.bans = bans if bans is not None else Bans()
        self._descriptors, self._in_use = raised_limit(), in_use()
        budget = self._budget(1, 0)
        self.flows = Flows(budget.flows)
        self.pipes = PipePool(budget.pipes, paced=is_paced())
        self.hops = Hops(lambda: reactor.clock())
        self._sessions_limit = budget.sessions
        self._tcp: dict[tuple[float, ...], TcpResources] = {}
        self._udp: dict[float, UdpResources] = {}

    def tcp(self, limits: Limits) -> TcpResources:
        """The resources for TCP flows with these time limits."""
        key = _tcp_key(limits)
        if key not in self._tcp:
            self._tcp[key] = TcpResources(
                reactor=self._reactor,
                flows=self.flows,
                pipes=self.pipes,
                log=self._log,
                clients=self._clients,
                hops=self.hops,
                headers=Deadlines(self._reactor, limits.header_timeout),
                connects=Deadlines(self._reactor, limits.connect_timeout),
                heads=Deadlines(self._reactor, limits.request_timeout),
                lingers=Deadlines(self._reactor, LINGER_TIME),
                log_flows=self._log_flows,
                pumps=self._pumps,
                heard=self._heard,
                bans=self.bans,
            )
        return self._tcp[key]

    def udp(self, limits: Limits) -> UdpResources:
        """The resources for UDP sessions with this timeout."""
        key = limits.udp_timeout
        if key not in self._udp:
            from v6fwd.relay.udp.session_table import Sessions  # only where there is UDP

            sessions = Sessions(self._reactor, key, self._sessions_limit)
            self._udp[key] = self._udp_resources(sessions)
        return self._udp[key]

    def _udp_resources(self, sessions: Sessions) -> UdpResources:
        """Buffers, 8 MiB of addresses, are there once."""
        for other in self._udp.values():
            return other.with_sessions(sessions)
        from v6fwd.relay.udp.resources import UdpResources  # only where there is UDP

        parts = self._reactor, self._log, sessions, self._clients, self.hops
        return UdpResources(*parts, log_flows=self._log_flows, bans=self.bans)

    def share_out(self, ports: int, of_udp: int, others: int = 0) -> None:
        """Divide the descriptors anew; each table of sessions gets an equal part of theirs.

        `others` are descriptors that ports need besides.
        """
        budget = self._budget(ports, of_udp, others)
        self.flows.limit = budget.flows
        self.pipes.set_limit(budget.pipes)
        self._sessions_limit = max(1, budget.sessions // max(1, len(self._udp)))
        for resources in self._udp.values():
            resources.sessions.set_limit(self._sessions_limit)

    def _budget(self, ports: int, of_udp: int, others: int = 0) -> DescriptorBudget:
        share = udp_share(ports, of_udp)
        in_use = self._in_use + others
        return DescriptorBudget(self._descriptors, ports, in_use, self._max_flows, share)

    def keep(self, used: Collection[Limits]) -> None:
        """Forget the resources that no port needs any more; flows still may end by theirs."""
        self._tcp = {key: self._tcp[key] for key in map(_tcp_key, used) if key in self._tcp}
        udp = {limits.udp_timeout for limits in used}
        self._udp = {key: resources for key, resources in self._udp.items() if key in udp}

    def close(self) -> None:
        """Give back timers and pipes, once no flow is left."""
        for resources in self._tcp.values():
            resources.close()
        for udp in self._udp.values():
            udp.sessions.close_all(End.STOPPED)
            udp.silences.close()
        self.pipes.close()


def _tcp_key(limits: Limits) -> tuple[float, ...]:
    return limits.connect_timeout, limits.header_timeout, limits.request_timeout
