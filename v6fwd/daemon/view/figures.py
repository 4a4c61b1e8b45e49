"""Errors and rates of a forward. Pure: the caller has the clock."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from v6fwd.relay.ends import End, end_of

Described = Mapping[str, Any]
"""A forward, as a status describes it."""

_COUNTED = (End.REFUSED, End.TARGET_FAILED)
"""Ends that `refused`, `dial_failures` and others count already, with more detail."""


def causes(forward: Described) -> Counter[str]:
    """The errors of a forward by cause."""
    found: Counter[str] = Counter(forward["dial_failures"])
    found["PROXY header refused"] += forward["header_refused"]
    found["HTTP refused"] += forward["http_refused"]
    for end, count in forward["ends"].items():
        if _is_error(end):
            found[end] += count
    for cause in ("too_large", "full", "failed", "no_room"):
        found[f"datagrams lost: {cause.replace('_', ' ')}"] += forward.get("udp", {}).get(cause, 0)
    return found


def _is_error(text: str) -> bool:
    """Whether an end is to be shown here; one that only another version knows is."""
    end = end_of(text)
    return end is None or (end.is_error and end not in _COUNTED)


@dataclass(frozen=True, slots=True)
class Rates:
    """What happened per second."""

    flows: float = 0.0
    up: float = 0.0
    down: float = 0.0
    errors: float = 0.0

    def __add__(self, other: Rates) -> Rates:
        return Rates(
            self.flows + other.flows,
            self.up + other.up,
            self.down + other.down,
            self.errors + other.errors,
        )

    def times(self, factor: float) -> Rates:
        """Each of them by a factor."""
        return Rates(
            self.flows * factor, self.up * factor, self.down * factor, self.errors * factor
        )


def rates(before: Described | None, now: Described, seconds: float) -> Rates:
    """The rates of a forward since `before`, which was `seconds` ago.

    A forward that was not there before has none yet. A number that is smaller than before counts as
    unchanged: a worker died with what it had not reported, or the forward was opened again.
    """
    if before is None or seconds <= 0:
        return Rates()

    def per_second(new: float, old: float) -> float:
        return max(0.0, new - old) / seconds

    return Rates(
        per_second(now["flows"], before["flows"]),
        per_second(now["bytes_up"], before["bytes_up"]),
        per_second(now["bytes_down"], before["bytes_down"]),
        per_second(causes(now).total(), causes(before).total()),
    )
