"""What TCP and HTTP flows with the same time limits share."""

from __future__ import annotations

from collections.abc import Sequence

from v6fwd.log import Log
from v6fwd.model.lean import dataclass, field
from v6fwd.relay.clients import Clients
from v6fwd.relay.deadlines import Deadlines
from v6fwd.relay.flows import Flows
from v6fwd.relay.limits.bans import Bans
from v6fwd.relay.limits.hops import Hops
from v6fwd.relay.pump import PairPump
from v6fwd.relay.reactor import Reactor
from v6fwd.relay.targets.mismatch import Heard
from v6fwd.relay.tcp.pipes import PipePool

LINGER_TIME = 2.0
"""Seconds that an HTTP client has to read its last answer and close; nginx waits 5 for each
read."""


@dataclass(slots=True)
class TcpResources:
    """One object for each distinct set of time limits in a process."""

    reactor: Reactor
    flows: Flows
    pipes: PipePool
    log: Log
    clients: Clients
    hops: Hops
    headers: Deadlines
    """Waits for a PROXY header."""
    connects: Deadlines
    """Waits for a target."""
    heads: Deadlines
    """HTTP flows whose client has not sent the whole head of its next request."""
    lingers: Deadlines
    """Waits for an HTTP client to close."""
    log_flows: bool = False
    pumps: Sequence[PairPump] = ()
    """Who may move bytes of plain flows beside the sides: the first that wants a flow."""
    heard: Heard | None = None
    """Who hears what was seen of targets, beside the counters."""
    bans: Bans = field(default_factory=Bans)

    def close(self) -> None:
        """Stop the timers. Pipes and flows have owners of their own."""
        for limit in (self.headers, self.connects, self.heads, self.lingers):
            limit.close()
