"""Shares the flows of a process between its ports: one busy port must not take them all.

A port accepts while its own flows are fewer than ALPHA times the free ones (the dynamic threshold
of shared-memory switches, Choudhury and Hahne 1998). The only busy port may take 4/5 of all; what
stays free is for the others. Nobody is reset for that: a port above its share is paused, and its
queue is shed, alone. Many busy ports can still use all flows. Then a port below its fair share gets
room from the port that has most.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable, Sequence

from v6fwd.log import Log, counted
from v6fwd.model import Endpoint
from v6fwd.model.lean import TYPE_CHECKING, Generic, Protocol, TypeVar
from v6fwd.relay.counters import Counters
from v6fwd.relay.ends import End
from v6fwd.relay.flows import Flow, Flows
from v6fwd.relay.limits.siblings import Siblings
from v6fwd.relay.reactor import Reactor

if TYPE_CHECKING:
    import asyncio

ALPHA = 4
"""A port accepts while it has fewer flows than so many times the free ones."""
EVICT_MOST = 64
"""Flows that are reset at once to make room for a port below its fair share."""
EVICT_INTERVAL = 0.1
"""Seconds between two of these: each looks at all flows."""
_BITS = 63
"""Ports are told apart among processes by so many bits; two ports may have the same one."""


class SharedPort(Protocol):
    """What must be known of a listener."""

    endpoint: Endpoint
    counters: Counters

    def waiting(self) -> int:
        """Clients in the queue."""


P = TypeVar("P", bound=SharedPort)
P_contra = TypeVar("P_contra", bound=SharedPort, contravariant=True)


class Gate(Protocol[P_contra]):
    """Whoever watches the listeners."""

    is_shared: bool
    """Whether there is more than one."""

    def pause_port(self, listener: P_contra) -> None:
        """Stop accepting on this one."""

    def resume_port(self, listener: P_contra) -> None:
        """Accept on this one again, if anybody is accepted at all."""

    def shed(self, listeners: Iterable[P_contra]) -> None:
        """Reset the clients in the queues of these."""


class PortShares(Generic[P]):
    """Which ports are above their share, and who gives way when all flows are in use."""

    def __init__(
        self,
        gate: Gate[P],
        reactor: Reactor,
        flows: Flows,
        log: Log,
        siblings: Siblings,
        patience: Callable[[], float],
    ) -> None:
        """`patience`: seconds that a client waits at a paused port."""
        self._gate = gate
        self._reactor = reactor
        self._flows = flows
        self._log = log
        self._siblings = siblings
        self._patience = patience
        self.paused: dict[P, float] = {}
        """Ports above their share, and since when."""
        self._timer: asyncio.TimerHandle | None = None
        self._resuming: asyncio.Handle | None = None
        self._evicted_at = -EVICT_INTERVAL

    def close(self) -> None:
        """Forget the paused ports, and cancel the timers."""
        self.paused.clear()
        for timer in (self._timer, self._resuming):
            if timer is not None:
                timer.cancel()
        self._timer = self._resuming = None

    # -- paused ports --

    def pause(self, port: P) -> None:
        """Accept nobody on a port that has its share."""
        self._log.limited(
            f"share {port.endpoint}",
            "full",
            f"no room for more clients on {port.endpoint}: {live(port)} of {self._flows.limit}"
            " flows are its share; they wait",
            burst=1,
            listen=port.endpoint,
            flows=live(port),
        )
        self._gate.pause_port(port)
        self.paused.setdefault(port, self._reactor.clock())
        self._note()
        self._arm()

    def forget(self, port: P) -> None:
        """A port has closed."""
        self.paused.pop(port, None)
        self.resume_soon()

    def resume_soon(self) -> None:
        """Look which ports may accept again, once a turn of the loop however many flows leave."""
        if self.paused and self._resuming is None:
            self._resuming = self._reactor.loop.call_soon(self._resume)

    def _resume(self) -> None:
        if self._resuming is not None:
            self._resuming.cancel()
            self._resuming = None
        for port in [each for each in self.paused if self._may_accept(each)]:
            self._gate.resume_port(port)
            del self.paused[port]
        self._note()

    def _may_accept(self, port: P) -> bool:
        free = self._flows.limit - len(self._flows)
        return free > 0 and (not self._gate.is_shared or live(port) < ALPHA * free)

    def _note(self) -> int:
        bits = 0
        for port in self.paused:
            bits |= _bit(port)
        return self._siblings.all_paused(bits)

    def _arm(self) -> None:
        if self.paused and self._timer is None:
            self._timer = self._reactor.loop.call_later(self._patience(), self._look)

    def _look(self) -> None:
        """Reset the clients of ports that every process has paused, here for long."""
        self._timer = None
        try:
            self._resume()  # the limit may have grown
            unserved, since = self._note(), self._reactor.clock() - self._patience()
            late = [
                each for each, at in self.paused.items() if at <= since and _bit(each) & unserved
            ]
            if late:
                self._gate.shed(late)
        finally:  # else nobody would come to the paused ports any more
            self._arm()

    # -- all flows are in use --

    def make_room(self, port: P, ports: Sequence[P]) -> bool:
        """Reset flows of the port with most if `port` is below its fair share; False if not.

        As many as clients wait here, down to the fair share of the other, and those that moved
        least.
        """
        fair, now = self._flows.limit // len(ports), self._reactor.clock()
        if live(port) >= fair or now - self._evicted_at < EVICT_INTERVAL:
            return False
        most = max(ports, key=live)
        count = min(EVICT_MOST, fair - live(port), live(most) - fair, port.waiting())
        if count <= 0 or not self._siblings.all_full(True):
            return False
        self._siblings.all_full(False)
        self._evicted_at = now
        self._evict(most, count)
        return True

    def _evict(self, port: P, count: int) -> None:
        flows = (flow for flow in self._flows.live if flow.counters is port.counters)
        for flow in heapq.nsmallest(count, flows, key=_progress):
            self._reactor.attempt(flow, flow.abort, End.EVICTED)
        self._log.limited(
            "evicted",
            "shed",
            f"reset {counted(count, 'flow')} of {port.endpoint}, which has most, for a port below"
            " its share",
            burst=1,
            listen=port.endpoint,
            flows=count,
        )


def live(port: SharedPort) -> int:
    """Flows of a port that are live."""
    return port.counters.flows - port.counters.ended


def _bit(port: SharedPort) -> int:
    return 1 << port.endpoint.port % _BITS


def _progress(flow: Flow) -> int:
    return flow.progress()
