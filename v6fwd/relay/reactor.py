"""The reactor: one epoll for every descriptor on the data path, nested in the event loop.

The event loop sees a single readable descriptor, the inner epoll's own. When it fires,
`_turn` drains the inner epoll and, because the next event of a busy flow is microseconds away,
waits in it for a while before it goes back to the loop: one system call an event in
place of two. Timers and signals of the loop come `SLICE` + `LINGER` later at most.

Who stopped early, to let others have a turn (`resume_later`), waits in a queue behind the events.
"""

from __future__ import annotations

import contextlib
import os
import select
import time
from collections import deque
from collections.abc import Callable

from v6fwd.model.lean import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import asyncio

SLICE = 0.010
"""Seconds that a turn may keep the event loop from its own timers and signals."""
LINGER = 0.010
"""Seconds to wait for the next event inside a turn.

Not less: a timer of 1 ms is the next that is due, so every wait would set the hardware's clock;
at one request at a time that cost a fifth of the rate.
"""
RESUME_TIME = 0.0005
"""Seconds of each round that those who stopped early have at the least: about one turn of one.

Events wait for that, not for a turn of each busy connection.
"""
BATCH = 256
"""Events taken at once."""
RETRY = 0.050
"""Seconds until a handler that could not clean up is asked again."""
HOPELESS_AFTER = 5.0
"""Seconds of that after which the process is of no use any more."""
_NO_MEMORY = MemoryError()
EX_OSERR = 71
"""sysexits.h: the system cannot do what is needed, such as to give memory."""


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


class Poller(Protocol):
    """What `select.epoll` does, and pairs/_epoll.c as well."""

    def fileno(self) -> int:
        """Its own descriptor."""

    def register(self, fd: int, eventmask: int, /) -> None:
        """Watch a descriptor. Raises OSError."""

    def modify(self, fd: int, eventmask: int, /) -> None:
        """Watch it for other events. Raises OSError."""

    def unregister(self, fd: int, /) -> None:
        """Watch it no more. Raises OSError."""

    def poll(self, timeout: float, maxevents: int, /) -> list[tuple[int, int]]:
        """Wait so many seconds at most for descriptors and masks. Raises OSError."""

    def close(self) -> None:
        """Give its descriptor back."""


class Failing(Protocol):
    """Whoever has to clean up."""

    def on_exception(self, error: Exception) -> None:
        """See Handler."""


class Reactor:
    """Watches descriptors and calls their handlers.

    Large because whatever owns a descriptor asks it: to watch, to close, to be told, to go on.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        *,
        clock: Callable[[], float] = time.monotonic,
        epoll: Poller | None = None,
    ) -> None:
        """`epoll` is closed with the reactor."""
        self.loop = loop
        self.clock = clock
        self._epoll: Poller = epoll or select.epoll()
        self._handlers: dict[int, Handler] = {}
        self._resumables: deque[Resumable] = deque()
        self._doomed: list[int] = []
        self._when_closed: dict[int, Callable[[], object]] = {}
        """Of few descriptors, by number."""
        self.turning = False
        """Whether events are being handled: the epoll will be asked again behind them."""
        self._failing: list[Failing] = []
        """Handlers whose `on_exception` failed, too."""
        self._failing_since = 0.0
        self.on_hopeless: Callable[[], object] = _end_process
        """Called when some of them fail for HOPELESS_AFTER."""
        self.at_once = 0
        """Number of events that the last poll returned."""
        self._poll: Callable[[float, int], list[tuple[int, int]]] = self._epoll.poll
        self._moved = False
        """Whether `_poll` has itself handled what had happened."""
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

    def forget(self, fd: int) -> None:
        """Leave a watched `fd` to whoever watches it by this epoll from now on."""
        del self._handlers[fd]

    def close_fd(self, fd: int) -> None:
        """Close `fd`, watched or not.

        Within a turn the close waits for the end of the batch, so that no event taken
        earlier can meet a new descriptor of the same number.
        """
        self._handlers.pop(fd, None)
        if self._when_closed:
            self.tell_closed(fd)
        if self.turning:
            try:
                self._doomed.append(fd)
            except MemoryError:  # a stale event is harmless, a leak is not
                os.close(fd)
        else:
            os.close(fd)

    def when_closed(self, fd: int, tell: Callable[[], object]) -> None:
        """Call `tell`, which must not raise, when `fd` is closed."""
        self.tell_closed(fd)  # an earlier one of that number was closed without us
        self._when_closed[fd] = tell

    def tell_closed(self, fd: int) -> None:
        """Call what `when_closed` has set, where another pump closes `fd`."""
        tell = self._when_closed.pop(fd, None)
        if tell is not None:
            tell()

    def pass_on(self, fd: int, mask: int) -> None:
        """Give the rest of an event to a new handler of `fd`: no second edge will tell it.

        EPOLLOUT alone has told the old one that it is connected; there is no rest then.
        """
        if mask != select.EPOLLOUT and (handler := self._handlers.get(fd)) is not None:
            handler.on_event(mask)

    def resume_later(self, resumable: Resumable) -> None:
        """Call `resume` after the other descriptors had a turn."""
        self._resumables.append(resumable)
        if not self.turning:
            self.turn_soon()

    def turn_soon(self) -> None:
        """Ask the epoll though its descriptor may not say that there is something."""
        self.loop.call_soon(self._turn)

    def attempt(self, owner: Failing, call: Callable[..., object], *words: object) -> None:
        """Call on behalf of a flow, from a timer say: an exception costs that flow, no other.

        Nothing leaves this method, so that whoever goes through many flows comes to the last.
        """
        try:
            call(*words)
        except Exception as error:
            self.give_up(owner, error)
            if self._failing and not self.turning:
                self.loop.call_later(RETRY, self._turn)

    def _turn(self) -> None:
        """Take events until there are none, or until the event loop must have its turn."""
        poll, clock, resumables = self._poll, self.clock, self._resumables
        until = clock() + SLICE
        self.turning = True
        try:
            while True:
                events = poll(0 if resumables else LINGER, BATCH)
                if not (events or resumables or self._failing or self._moved):
                    return
                self.at_once = len(events)
                if resumables:
                    self._share_time(events)
                else:
                    self._dispatch(events)
                self._close_doomed()
                if self._failing:
                    self._ask_failing()
                    break
                if clock() >= until:
                    break
        finally:
            self.turning = False
        if resumables or self._is_due():
            self.loop.call_soon(self._turn)
        elif self._failing:
            self.loop.call_later(RETRY, self._turn)

    def _is_due(self) -> bool:
        """Whether a handler of this turn gave the native epoll something to tell.

        Its descriptor does not say so.
        """
        return bool(getattr(self._epoll, "is_due", False))

    def _dispatch(self, events: list[tuple[int, int]]) -> None:
        handlers = self._handlers
        for fd, mask in events:
            handler = handlers.get(fd)
            if handler is None:
                continue
            try:
                handler.on_event(mask)
            except Exception as error:
                self.give_up(handler, error)

    def _share_time(self, events: list[tuple[int, int]]) -> None:
        """Dispatch events, then resume those who waited before, for as long as that took.

        Whoever stopped early has had a turn, so events go first. Who is not resumed in that time
        comes first when the next events are done.
        """
        clock, resumables = self.clock, self._resumables
        waiting = len(resumables)
        began = clock()
        self._dispatch(events)
        ended = clock()
        until = ended + max(RESUME_TIME, ended - began)
        for _ in range(waiting):
            resumable = resumables.popleft()
            try:
                resumable.resume()
            except Exception as error:
                self.give_up(resumable, error)
            if clock() >= until:
                break

    def give_up(self, handler: Failing, error: Exception) -> None:
        """Let a handler clean up, in a turn; one that cannot even do that is asked again.

        Nothing may leave this method: what else is in the batch would be lost, and no second edge
        tells of it.
        """
        try:
            handler.on_exception(error)
        except Exception:  # most likely no memory: it may be there again when others have ended
            if not self._failing:
                self._failing_since = self.clock()
            with contextlib.suppress(MemoryError):
                self._failing.append(handler)

    def _ask_failing(self) -> None:
        failing, self._failing = self._failing, []
        since = self._failing_since
        for handler in failing:
            self.give_up(handler, _NO_MEMORY)
        if self._failing:
            self._failing_since = since
            if self.clock() - since > HOPELESS_AFTER:
                self.on_hopeless()

    def _close_doomed(self) -> None:
        for fd in self._doomed:
            os.close(fd)
        self._doomed.clear()


def _end_process() -> None:
    """End at once: a supervisor, or systemd, starts another one. Nothing is left to log with."""
    os.write(2, b"v6fwd: no memory to give up what failed; this process ends\n")
    os._exit(EX_OSERR)
