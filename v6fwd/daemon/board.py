"""The little memory that all workers share: which of them is full."""

from __future__ import annotations

import mmap


class Board:
    """A byte for each worker. Made before the fork; reading and writing it costs no system call."""

    def __init__(self, workers: int) -> None:
        self._bytes = mmap.mmap(-1, workers)
        self._bytes[:] = b"\1" * workers

    def place(self, slot: int) -> Place:
        """The place of one worker."""
        return Place(self._bytes, slot)


class Place:
    """A worker's own byte, and a view of the others': see listener.Fellows."""

    def __init__(self, memory: mmap.mmap, slot: int) -> None:
        self._memory = memory
        self._slot = slot

    def all_full(self, full: bool) -> bool:
        """Note whether this worker is full, or not there; gives whether nobody has room."""
        self._memory[self._slot] = full
        return 0 not in self._memory[:]
