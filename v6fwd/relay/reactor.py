"""The reactor: one epoll for every descriptor on the data path, nested in the event loop.

The event loop (uvloop) sees a single readable descriptor, the inner epoll's own. When it fires,
`_turn` drains the inner epoll and, because the next event of a busy flow is microseconds away,
waits in it for a while before it goes back to the loop: one system call an event in
place of two. Timers and signals of the loop come `SLICE` + `LINGER` later at most.
"""

from __future__ import annotations

import asyncio
import os
import select
import time
from collections import deque
from collections.abc import Callable
from typing import Protocol

SLICE = 0.010
"""Seconds that a turn may keep the event loop from its own timers and signals."""
LINGER = 0.010
"""Seconds to wait for the next event inside a turn.

Not less: a timer of 1 ms is the next that is due, so every wait would set the hardware's clock;
at one request at a time that cost a fifth of the rate.
"""
BATCH = 256
"""Events taken at once."""


class Handler(Protocol):
    """The owner of a watched descriptor."""

    def on_event(self, mask: int) -> None:
        """Take an epoll event mask. It may be stale: the descriptor's state is the truth."""

    def on_exception(self, error: Exception) -> None:
        """Give up the descriptor after an exception that nobody expected."""


class Resumable(Protocol):
    """An owner that stopped early to let others have a turn."""

    def resume(self) -> None:
        """Go on where it stopped."""

    def on_exception(self, error: Exception) -> None:
        """Give up after an exception that nobody expected."""


class Reactor:
    """Watches descriptors and calls their handlers."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.loop = loop
        self.clock = clock
        self._epoll = select.epoll()
        self._handlers: dict[int, Handler] = {}
        self._resumables: deque[Resumable] = deque()
        self._doomed: list[int] = []
        self._turning = False
        self.at_once = 0
        """Number of events that the last poll returned."""
        loop.add_reader(self._epoll.fileno(), self._turn)

    def close(self) -> None:
        """Leave the event loop. Watched descriptors stay with their owners."""
        self.loop.remove_reader(self._epoll.fileno())
        self._epoll.close()

    def watch(self, fd: int, mask: int, handler: Handler) -> None:
        """Start to watch `fd`."""
        self._epoll.register(fd, mask)
        self._handlers[fd] = handler

    def change_mask(self, fd: int, mask: int) -> None:
        """Watch `fd` for other events. What is ready already is reported again."""
        self._epoll.modify(fd, mask)

    def change_handler(self, fd: int, handler: Handler) -> None:
        """Give the events of a watched `fd` to another handler."""
        self._handlers[fd] = handler

    def unwatch(self, fd: int) -> None:
        """Stop watching `fd`, which stays open."""
        del self._handlers[fd]
        self._epoll.unregister(fd)

    def close_fd(self, fd: int) -> None:
        """Close `fd`, watched or not.

        Within a turn the close waits for the end of the batch, so that no event taken
        earlier can meet a new descriptor of the same number.
        """
        self._handlers.pop(fd, None)
        if self._turning:
            self._doomed.append(fd)
        else:
            os.close(fd)

    def pass_on(self, fd: int, mask: int) -> None:
        """Give the rest of an event to a new handler of `fd`: no second edge will tell it.

        EPOLLOUT alone has told the old one that it is connected; there is no rest then.
        """
        if mask != select.EPOLLOUT and (handler := self._handlers.get(fd)) is not None:
            handler.on_event(mask)

    def resume_later(self, resumable: Resumable) -> None:
        """Call `resume` after the other descriptors had a turn."""
        self._resumables.append(resumable)
        if not self._turning:
            self.loop.call_soon(self._turn)

    def _turn(self) -> None:
        poll, clock, resumables = self._epoll.poll, self.clock, self._resumables
        until = clock() + SLICE
        self._turning = True
        try:
            while True:
                events = poll(0 if resumables else LINGER, BATCH)
                if not events and not resumables:
                    return
                self.at_once = len(events)
                self._resume_waiting()
                self._dispatch(events)
                self._close_doomed()
                if clock() >= until:
                    break
        finally:
            self._turning = False
        if resumables:
            self.loop.call_soon(self._turn)

    def _dispatch(self, events: list[tuple[int, int]]) -> None:
        handlers = self._handlers
        for fd, mask in events:
            handler = handlers.get(fd)
            if handler is None:
                continue
            try:
                handler.on_event(mask)
            except Exception as error:
                handler.on_exception(error)

    def _resume_waiting(self) -> None:
        for _ in range(len(self._resumables)):
            resumable = self._resumables.popleft()
            try:
                resumable.resume()
            except Exception as error:
                resumable.on_exception(error)

    def _close_doomed(self) -> None:
        for fd in self._doomed:
            os.close(fd)
        self._doomed.clear()
