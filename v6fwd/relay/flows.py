"""The set of live flows of a process, and its limit."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from enum import Enum

from v6fwd.log import attempt
from v6fwd.model import Address, Forward
from v6fwd.model.lean import Protocol
from v6fwd.relay.counters import Counters
from v6fwd.relay.ends import End


class Lull(Enum):
    """What a flow may wait for too long. The value is the limit's field in Limits."""

    IDLE = "idle_timeout"
    BODY = "body_timeout"
    RESPONSE = "response_timeout"
    HALF_CLOSED = "half_closed_timeout"
    TUNNEL = "tunnel_timeout"

    @property
    def is_http(self) -> bool:
        """Whether only HTTP flows have this limit."""
        return self in (Lull.BODY, Lull.RESPONSE, Lull.TUNNEL)


class Live(Protocol):
    """What `v6fwd flows`, bans and the counters ask of a flow or a UDP session."""

    @property
    def counters(self) -> Counters:
        """The counters that it is counted in."""

    @property
    def forward(self) -> Forward:
        """The forward as it was when the flow began."""

    @property
    def source(self) -> Address | None:
        """Who the client is."""

    def moved(self) -> tuple[int, int]:
        """Bytes up and down."""

    def seconds(self) -> float:
        """Seconds since it began."""

    def abort(self, end: End, detail: str = "") -> None:
        """Reset both ends. `end` is counted and logged, `detail` is logged."""


class Flow(Live, Protocol):
    """What the rest of the relay needs to know of a flow."""

    def retire(self) -> None:
        """Close when what is under way is done, if the flow can tell."""

    def progress(self) -> int:
        """A number that changes with every byte moved."""

    def descriptors(self) -> Sequence[int]:
        """Its connected sockets."""

    def lull(self, lull: Lull) -> int | None:
        """A number that changes while the flow does what it is to do; None: it has not to."""

    def overdue(self, lull: Lull) -> None:
        """End: that number has not changed for too long."""

    def on_exception(self, error: Exception) -> None:
        """Give up after an exception that nobody expected."""


class Flows:
    """The set of live flows, bounded by `limit`."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.live: set[Flow] = set()
        self.on_left: Callable[[], None] | None = None

    def __len__(self) -> int:
        return len(self.live)

    @property
    def is_full(self) -> bool:
        """Whether no further flow may start."""
        return len(self.live) >= self.limit

    def add(self, flow: Flow) -> None:
        """Add a flow that has started."""
        self.live.add(flow)

    def remove(self, flow: Flow) -> None:
        """Remove a flow that has ended; its descriptors are closed or will be this turn."""
        self.live.discard(flow)
        if self.on_left is not None:
            self.on_left()

    def retire_all(self) -> None:
        """Ask every flow to close when it can."""
        for flow in list(self.live):
            attempt(flow.retire)

    def abort_all(self, end: End) -> int:
        """Reset every flow; gives how many there were."""
        return abort(self.live, end)


def abort(flows: Iterable[Flow], end: End) -> int:
    """Reset these flows; gives how many there were."""
    doomed = list(flows)
    for flow in doomed:
        attempt(flow.abort, end)
    return len(doomed)
