"""What forwards share in a process: descriptors, pipes, and timers of equal length."""

from __future__ import annotations

from collections.abc import Collection

from v6fwd.log import Log
from v6fwd.model import Limits
from v6fwd.relay.budget import DescriptorBudget, in_use, raised_limit, udp_share
from v6fwd.relay.clients import Clients
from v6fwd.relay.deadlines import Deadlines
from v6fwd.relay.dial import Dial
from v6fwd.relay.engine import Engine
from v6fwd.relay.flows import Flows
from v6fwd.relay.header import HeaderReader
from v6fwd.relay.http import HttpFlow
from v6fwd.relay.http_forward import PARTING_TIME
from v6fwd.relay.pipes import PipePool
from v6fwd.relay.tcp_forward import TcpContext
from v6fwd.relay.udp_context import UdpContext
from v6fwd.relay.udp_sessions import Sessions


class Contexts:
    """Makes a context for each set of time limits that differs, and keeps it while it is used."""

    def __init__(
        self, engine: Engine, max_flows: int, log: Log, clients: Clients, *, log_flows: bool
    ) -> None:
        self._engine = engine
        self._max_flows = max_flows
        self._log = log
        self._clients = clients
        self._log_flows = log_flows
        self._descriptors, self._in_use = raised_limit(), in_use()
        budget = self._budget(1, 0)
        self.flows = Flows(budget.flows)
        self.pipes = PipePool(budget.pipes)
        self._sessions_limit = budget.sessions
        self._tcp: dict[tuple[float, ...], TcpContext] = {}
        self._udp: dict[float, UdpContext] = {}

    def tcp(self, limits: Limits) -> TcpContext:
        """The context for TCP flows with these time limits."""
        key = _tcp_key(limits)
        if key not in self._tcp:
            self._tcp[key] = TcpContext(
                engine=self._engine,
                flows=self.flows,
                pipes=self.pipes,
                log=self._log,
                clients=self._clients,
                dials=Deadlines(self._engine, limits.connect_timeout, Dial.dial_expired),
                headers=Deadlines(self._engine, limits.header_timeout, HeaderReader.expired),
                heads=Deadlines(self._engine, limits.request_timeout, HttpFlow.head_expired),
                partings=Deadlines(self._engine, PARTING_TIME, HttpFlow.heard),
                log_flows=self._log_flows,
            )
        return self._tcp[key]

    def udp(self, limits: Limits) -> UdpContext:
        """The context for UDP sessions with this timeout."""
        key = limits.udp_timeout
        if key not in self._udp:
            sessions = Sessions(self._engine, key, self._sessions_limit)
            self._udp[key] = self._udp_context(sessions)
        return self._udp[key]

    def _udp_context(self, sessions: Sessions) -> UdpContext:
        """Buffers, 8 MiB of addresses, are there once."""
        for other in self._udp.values():
            return other.with_sessions(sessions)
        parts = self._engine, self._log, sessions, self._clients
        return UdpContext(*parts, log_flows=self._log_flows)

    def share_out(self, ports: int, of_udp: int, others: int = 0) -> None:
        """Divide the descriptors anew; each table of sessions gets an equal part of theirs.

        `others` are descriptors that ports need besides.
        """
        budget = self._budget(ports, of_udp, others)
        self.flows.limit = budget.flows
        self.pipes.set_limit(budget.pipes)
        self._sessions_limit = max(1, budget.sessions // max(1, len(self._udp)))
        for context in self._udp.values():
            context.sessions.set_limit(self._sessions_limit)

    def _budget(self, ports: int, of_udp: int, others: int = 0) -> DescriptorBudget:
        share = udp_share(ports, of_udp)
        in_use = self._in_use + others
        return DescriptorBudget(self._descriptors, ports, in_use, self._max_flows, share)

    def keep(self, used: Collection[Limits]) -> None:
        """Forget the contexts that no port needs any more; flows still may end by theirs."""
        self._tcp = {key: self._tcp[key] for key in map(_tcp_key, used) if key in self._tcp}
        udp = {limits.udp_timeout for limits in used}
        self._udp = {key: context for key, context in self._udp.items() if key in udp}

    def close(self) -> None:
        """Give back timers and pipes, once no flow is left."""
        for context in self._tcp.values():
            context.dials.close()
            context.headers.close()
            context.heads.close()
            context.partings.close()
        for udp in self._udp.values():
            udp.sessions.close_all("stopped")
        self.pipes.close()


def _tcp_key(limits: Limits) -> tuple[float, ...]:
    return limits.connect_timeout, limits.header_timeout, limits.request_timeout
