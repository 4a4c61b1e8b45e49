"""Memory shared by all workers: how many flows each has, and whether it is full."""

from __future__ import annotations

import mmap

LEAD = 2
"""Flows more than another one has, and an eighth more, that make a worker wait for it."""
_ABSENT = (1 << 31) - 1


class Scoreboard:
    """Two numbers for each worker, mapped before the fork; access takes no system call."""

    def __init__(self, workers: int) -> None:
        numbers = memoryview(mmap.mmap(-1, 8 * workers)).cast("i")
        self._flows, self._full = numbers[:workers], numbers[workers:]
        for slot in range(workers):
            self.leave(slot)

    def enter(self, slot: int) -> ScoreboardSlot:
        """Return the slot of a worker that starts."""
        self._flows[slot] = self._full[slot] = 0
        return ScoreboardSlot(self._flows, self._full, slot)

    def leave(self, slot: int) -> None:
        """Mark a slot as empty: no worker waits for it or counts on it."""
        self._flows[slot], self._full[slot] = _ABSENT, 1


class ScoreboardSlot:
    """A worker's own numbers and a view of the others', as listener.Siblings wants it."""

    def __init__(self, flows: memoryview, full: memoryview, slot: int) -> None:
        self._flows = flows
        self._full = full
        self._slot = slot

    def is_ahead(self, flows: int) -> bool:
        """Nobody waits for a full worker, which lags behind for good."""
        self._flows[self._slot] = flows
        everybody = self._flows.tolist()  # once: the others write while this one reads
        least = min(everybody)
        return flows > least + LEAD + least // 8 and not self._full[everybody.index(least)]

    def all_full(self, full: bool) -> bool:
        self._full[self._slot] = full
        return 0 not in self._full.tolist()
