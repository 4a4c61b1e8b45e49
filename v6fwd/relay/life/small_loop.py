"""The part of asyncio's event loop that a relay needs whose targets are addresses."""

from __future__ import annotations

import contextlib
import heapq
import itertools
import select
import time
from collections import deque
from collections.abc import Callable
from functools import partial

from v6fwd.log import Log
from v6fwd.relay.life.signals import Signals

LONGEST = 3600.0
"""Seconds; epoll_wait(2) takes no more than 2**31 milliseconds."""


class Call:
    """A call that is due later."""

    __slots__ = ("_call", "_words", "is_cancelled")

    def __init__(self, call: Callable[..., object], words: tuple[object, ...]) -> None:
        self._call = call
        self._words = words
        self.is_cancelled = False

    def cancel(self) -> None:
        """Do not make it."""
        self.is_cancelled = True

    def make(self) -> None:
        """Make it, unless it is cancelled."""
        if not self.is_cancelled:
            self._call(*self._words)


class SmallLoop:
    """Calls at once, calls later, calls when a descriptor can be read."""

    def __init__(self, log: Log) -> None:
        self._log = log
        self._epoll = select.epoll()
        self._readers: dict[int, Call] = {}
        self._soon: deque[Call] = deque()
        self._later: list[tuple[float, int, Call]] = []  # a heap
        self._numbers = itertools.count()  # calls are not compared
        self._is_stopping = False
        self._signals: Signals | None = None

    def call_soon(self, call: Callable[..., object], *words: object) -> Call:
        """Call after what is called now."""
        due = Call(call, words)
        self._soon.append(due)
        return due

    def call_later(self, delay: float, call: Callable[..., object], *words: object) -> Call:
        """Call after `delay` seconds."""
        due = Call(call, words)
        heapq.heappush(self._later, (time.monotonic() + delay, next(self._numbers), due))
        return due

    def add_reader(self, fd: int, call: Callable[..., object], *words: object) -> None:
        """Call whenever `fd` can be read."""
        self._epoll.register(fd, select.EPOLLIN)
        self._readers[fd] = Call(call, words)

    def remove_reader(self, fd: int) -> None:
        """Do so no more."""
        self._epoll.unregister(fd)
        del self._readers[fd]

    def add_signal_handler(self, number: int, call: Callable[..., object], *words: object) -> None:
        """Call whenever this signal comes."""
        if self._signals is None:
            self._signals = Signals(self.add_reader)
        self._signals.add(number, partial(self._make, Call(call, words)))

    def stop(self) -> None:
        """End `run`."""
        self._is_stopping = True

    def run(self) -> None:
        """Make calls until `stop`."""
        while not self._is_stopping:
            for fd, _ in self._ready():
                if fd in self._readers:
                    self._make(self._readers[fd])
            now = time.monotonic()
            while self._later and self._later[0][0] <= now:
                self._make(heapq.heappop(self._later)[2])
            for _ in range(len(self._soon)):
                self._make(self._soon.popleft())

    def _ready(self) -> list[tuple[int, int]]:
        try:
            return self._epoll.poll(self._pause())
        except MemoryError:  # level-triggered: told again when flows have ended
            return []

    def _pause(self) -> float:
        if self._soon:
            return 0.0
        if not self._later:
            return LONGEST
        return min(LONGEST, max(0.0, self._later[0][0] - time.monotonic()))

    def _make(self, call: Call) -> None:
        """An exception costs that call, and no other."""
        try:
            call.make()
        except Exception as error:
            with contextlib.suppress(MemoryError):
                self._log.limited("defect", "defect", f"internal error: {error!r}")

    def close(self) -> None:
        """Close its descriptors."""
        if self._signals is not None:
            self._signals.close()
        self._epoll.close()
