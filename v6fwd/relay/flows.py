"""The flows of this process: who is there, how many may be, and who wants to know."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol


class Flow(Protocol):
    """What the rest of the relay needs to know of a flow."""

    def abort(self, end: str) -> None:
        """Reset both ends; `end` is for the log."""

    def retire(self) -> None:
        """Close when what is under way is done, if there is a way to tell."""

    def progress(self) -> int:
        """A number that changes with every byte moved."""


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
        """A flow has started."""
        self.live.add(flow)

    def remove(self, flow: Flow) -> None:
        """A flow has ended; its descriptors are closed or about to be."""
        self.live.discard(flow)
        if self.on_left is not None:
            self.on_left()

    def retire_all(self) -> None:
        """Ask every flow to close when it can."""
        for flow in list(self.live):
            flow.retire()

    def abort_all(self, end: str) -> int:
        """Reset every flow; gives how many there were."""
        flows = list(self.live)
        for flow in flows:
            flow.abort(end)
        return len(flows)


class IdleSweep:
    """Finds the flows that moved no byte for `seconds`. Costs a flow nothing while it moves."""

    def __init__(self, flows: Flows, seconds: float) -> None:
        self._flows = flows
        self._seconds = seconds
        self._seen: dict[Flow, tuple[int, float]] = {}

    @property
    def interval(self) -> float:
        """Seconds between sweeps: a flow ends after `seconds`, an eighth later at most."""
        return self._seconds / 8

    def sweep(self, now: float) -> None:
        """Reset the flows that were idle for too long."""
        before, self._seen = self._seen, {}
        for flow in list(self._flows.live):
            progress = flow.progress()
            seen, since = before.get(flow, (None, now))
            if seen != progress:
                since = now
            if now - since >= self._seconds:
                flow.abort("idle timeout")
            else:
                self._seen[flow] = (progress, since)
