"""What a forward has done so far, in plain numbers. A flow costs a few additions, a byte none."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping

from v6fwd.model.lean import Any, dataclass, field
from v6fwd.relay.ends import End

DURATIONS = (0.01, 0.1, 1.0, 10.0, 60.0, 600.0, 3600.0)
"""Seconds: upper bounds of the buckets that flows are counted in by length; one more is open."""

PSEUDO = "pseudo"
"""The target sees a pseudo IPv4 address, which `v6fwd whois` translates."""
FALLBACK = "fallback"
"""The client got the forward's fallback."""

Snapshot = dict[str, Any]
"""Numbers, and dicts and lists of them, under stable names: fit for JSON."""


@dataclass(slots=True)
class Counters:
    """Flows of one forward, UDP sessions included.

    The keys of `ends` and `dial_failures` are the texts of `End` and `Cause`.
    """

    flows: int = 0
    """Flows that began."""
    ended: int = 0
    """Flows that are over; the others are live."""
    bytes_up: int = 0
    """From clients to targets, of flows that are over, as are the next two."""
    bytes_down: int = 0
    seconds: float = 0.0
    """How long all flows together lasted."""
    header_refused: int = 0
    """Flows and datagrams of a trusted client without a PROXY header that can be read."""
    http_refused: int = 0
    """Requests that were answered here, with an error."""
    refused: dict[str, int] = field(default_factory=dict)
    """Clients that the guard did not let in, by reason: none of them is a flow. And those whom
    the target cannot be shown, which is known with TCP when they are one."""
    not_real: dict[str, int] = field(default_factory=dict)
    """Flows in mode `transparent` whose target does not see the client's own address, by what it
    sees: PSEUDO or FALLBACK."""
    ends: dict[str, int] = field(default_factory=dict)
    dial_failures: dict[str, int] = field(default_factory=dict)
    first_answers: dict[str, int] = field(default_factory=dict)
    """What was seen of the flows that were looked at: texts of first_answer.Answer."""
    durations: list[int] = field(default_factory=lambda: [0] * (len(DURATIONS) + 1))

    def flow_ended(self, end: End, up: int, down: int, seconds: float) -> None:
        """Count a flow that is over, and what it moved in how many seconds."""
        self.ended += 1
        self.bytes_up += up
        self.bytes_down += down
        self.seconds += seconds
        self.durations[bisect_left(DURATIONS, seconds)] += 1
        text, ends = end.text, self.ends
        ends[text] = ends.get(text, 0) + 1

    def activity(self) -> int:
        """A number that grows with everything that is counted; the fields left out do with
        `ended`. 0: nothing has happened yet.
        """
        causes = sum(self.refused.values()) + sum(self.dial_failures.values())
        causes += sum(self.first_answers.values())
        return self.flows + self.ended + self.header_refused + self.http_refused + causes

    def snapshot(self) -> Snapshot:
        """A copy that nothing changes any more."""
        return snapshot_of(self)


def count(causes: dict[str, int], cause: str) -> None:
    """One more of `cause`."""
    causes[cause] = causes.get(cause, 0) + 1


def snapshot_of(counters: Any) -> Snapshot:
    """The fields of a dataclass with slots: numbers, and dicts and lists of them."""
    snapshot: Snapshot = {}
    for name in counters.__slots__:
        value = getattr(counters, name)
        snapshot[name] = value.copy() if isinstance(value, dict | list) else value
    return snapshot


def added(one: Any, other: Any) -> Any:
    """The sum of two snapshots, or of two values in them; what only one of them has is kept."""
    if isinstance(one, Mapping):
        keys = one.keys() | other.keys()
        return {
            key: added(one[key], other[key])
            if key in one and key in other
            else one.get(key, other.get(key))
            for key in sorted(keys)
        }
    if isinstance(one, list):
        return [added(*pair) for pair in zip(one, other, strict=True)]
    return one + other
