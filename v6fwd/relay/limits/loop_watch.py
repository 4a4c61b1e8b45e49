"""Finds flows that come in again as clients, on a way that no address tells: NAT rules, say.

The last resort behind `targets/loops.py`. Each look is for nothing unless the number of flows has
doubled; it sees this process's flows only. `limits/hops.py` ends loops through other processes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import islice

from v6fwd.log import Log, counted
from v6fwd.model import Address, Forward
from v6fwd.model.lean import TYPE_CHECKING, Protocol
from v6fwd.relay.ends import End
from v6fwd.relay.flows import Flow, Flows
from v6fwd.relay.limits.hops import Hops
from v6fwd.relay.reactor import Reactor
from v6fwd.relay.sockets import local_address, peer_address
from v6fwd.relay.tcp.stream import StreamFlow

if TYPE_CHECKING:
    import asyncio

INTERVAL = 1.0
"""Seconds between two looks at the number of flows."""
SUSPICIOUS = 256
"""Flows from which a loop is looked for; those of a loop grow by thousands a second."""
SAMPLE = 2048
"""Flows looked at; 3 us each."""
DEPTH = 16
"""Flows that are followed upwards: a chain of so many forwards is not meant to be one."""


class Link(Protocol):
    """A flow between two sockets."""

    @property
    def forward(self) -> Forward:
        """The forward that it came to."""


def looping(links: Iterable[tuple[Address, Address, Link]]) -> list[Link]:
    """The flows that came from a flow of the same forward, directly or by way of others.

    Of each flow: its client's address, our own address towards its target, and itself.
    """
    links = list(links)
    above = {local: (client, link) for client, local, link in links}
    return [link for client, _, link in links if _comes_again(client, link, above)]


def _comes_again(client: Address, link: Link, above: dict[Address, tuple[Address, Link]]) -> bool:
    for _ in range(DEPTH):
        if client not in above:
            return False
        client, other = above[client]
        if other.forward.listen == link.forward.listen:
            return True
    return False


class LoopWatch:
    """Resets the flows of a loop."""

    def __init__(
        self,
        reactor: Reactor,
        flows: Flows,
        hops: Hops,
        refuse: Callable[[Forward], None],
        log: Log,
    ) -> None:
        """`hops` are suspected, too: of a loop through other processes.

        `refuse` lets no further flow go where a forward leads; it tells the log.
        """
        self._reactor = reactor
        self._flows = flows
        self._log = log
        self._hops = hops
        self._refuse = refuse
        self._before = 0
        self._timer: asyncio.TimerHandle = reactor.loop.call_later(INTERVAL, self._tick)

    def close(self) -> None:
        """Look no more."""
        self._timer.cancel()

    def _tick(self) -> None:
        self._timer = self._reactor.loop.call_later(INTERVAL, self._tick)
        if (count := len(self._flows)) >= max(SUSPICIOUS, 2 * self._before):
            self._hops.suspect()
            self.look()
            count = len(self._flows)
        self._before = count

    def look(self) -> None:
        """Reset all flows of the sample that are part of a loop, and say so."""
        sample = islice(self._flows.live, SAMPLE)
        links = [link for flow in sample if (link := _link(flow)) is not None]
        found = looping(links)
        for forward in {flow.forward.target: flow.forward for flow in found}.values():
            self._refuse(forward)
        for flow in found:
            if isinstance(flow, StreamFlow) and not flow.closed:
                flow.abort(End.REFUSED, "it leads back to its own forward")
        if found:
            text = (
                f"reset {counted(len(found), 'flow')} that came in again, perhaps by a rule of NAT"
            )
            self._log.limited("loop", "loop", text, burst=1, flows=len(found))


def _link(flow: Flow) -> tuple[Address, Address, Link] | None:
    """None of a flow that is not connected, or by a unix socket."""
    if not isinstance(flow, StreamFlow) or len(ends := flow.descriptors()) < 2:
        return None
    client, target = ends
    try:
        peer = peer_address(client)
        return (peer, local_address(target), flow) if peer is not None else None
    except (OSError, TypeError, IndexError, ValueError):
        return None
