"""Asks the resolver in threads of its own: getaddrinfo(3) blocks, and cannot be cancelled.

A name whose servers are silent keeps its thread for as long as resolv.conf says. So a name has one
thread at most, and threads that take long do not count as those of the others: beside up to
THREADS silent names, a new one waits for seconds and no longer.
"""

from __future__ import annotations

import contextlib
import socket
import time
from collections import deque
from collections.abc import Callable

from v6fwd.model.lean import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import asyncio

QUICK_THREADS = 64
"""Names that are asked for at the same time, those that take long aside."""
SLOW_THREADS = 64
"""How many threads may run for names that took long the last time."""
THREADS = 256
"""The bound of all; an idle thread is some 30 KB of memory."""
SLOW_AFTER = 1.0
"""Seconds after which a question takes long."""

Found = list[tuple[int, Any]]
"""Families and socket addresses, with port 0."""


class Resolver:
    """Answers questions for names; one for all targets of a process."""

    def __init__(
        self,
        look_up: Callable[[str], Found] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`look_up` blocks, and raises OSError. `clock` gives seconds."""
        self._look_up = look_up or _look_up
        self._clock = clock
        self._asked: dict[str, list[asyncio.Future[Found]]] = {}
        self._waiting: deque[str] = deque()
        self._began: dict[str, float] = {}
        self._slow: set[str] = set()  # they took long the last time, or do now
        self._timer: asyncio.TimerHandle | None = None

    async def ask(self, name: str, loop: asyncio.AbstractEventLoop) -> Found:
        """The addresses of a name. Raises OSError."""
        future: asyncio.Future[Found] = loop.create_future()
        if name in self._asked:
            self._asked[name].append(future)
        else:
            self._asked[name] = [future]
            self._waiting.append(name)
            self._begin(loop)
        return await future

    def _begin(self, loop: asyncio.AbstractEventLoop) -> None:
        """Start a thread for each name that may have one."""
        now = self._clock()
        self._slow.update(name for name, at in self._began.items() if now - at >= SLOW_AFTER)
        for _ in range(len(self._waiting)):
            name = self._waiting.popleft()
            if self._has_room(name in self._slow):
                self._began[name] = now
                self._start(name, loop)
            else:
                self._waiting.append(name)
        if self._waiting and self._timer is None:
            self._timer = loop.call_later(SLOW_AFTER, self._look_again, loop)

    def _has_room(self, is_slow: bool) -> bool:
        slow = len(self._slow & self._began.keys())
        if len(self._began) >= THREADS:
            return False
        return slow < SLOW_THREADS if is_slow else len(self._began) - slow < QUICK_THREADS

    def _look_again(self, loop: asyncio.AbstractEventLoop) -> None:
        """Questions that take long by now make room for others."""
        self._timer = None
        self._begin(loop)

    def _start(self, name: str, loop: asyncio.AbstractEventLoop) -> None:
        import threading  # 0.2 MB that a process without names does not need

        # A daemon: the end of the process does not wait for a silent name.
        thread = threading.Thread(
            target=self._run, args=(name, loop), name=f"resolve {name}", daemon=True
        )
        try:
            thread.start()
        except RuntimeError as error:  # no memory, or a limit of threads
            loop.call_soon(self._answered, name, OSError(0, str(error)), loop)

    def _run(self, name: str, loop: asyncio.AbstractEventLoop) -> None:
        """In the thread."""
        answer: Found | Exception
        try:
            answer = self._look_up(name)
        except Exception as error:
            answer = error
        with contextlib.suppress(RuntimeError):  # the loop has closed meanwhile
            loop.call_soon_threadsafe(self._answered, name, answer, loop)

    def _answered(
        self, name: str, answer: Found | Exception, loop: asyncio.AbstractEventLoop
    ) -> None:
        if self._clock() - self._began.pop(name) >= SLOW_AFTER:
            self._slow.add(name)
        else:
            self._slow.discard(name)
        for future in self._asked.pop(name):
            if future.done():  # cancelled
                continue
            if isinstance(answer, Exception):
                future.set_exception(answer)
            else:
                future.set_result(answer)
        self._begin(loop)


def _look_up(name: str) -> Found:
    found = socket.getaddrinfo(name, 0, type=socket.SOCK_STREAM)
    return [(entry[0], entry[4]) for entry in found]
