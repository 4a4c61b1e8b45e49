"""Asks the resolver in threads of its own: getaddrinfo(3) blocks, and cannot be cancelled.

A name whose servers are silent keeps its thread for as long as resolv.conf says. So a name has one
thread at most, and names that were slow the last time have half of the threads among them:
however many there are, the others are resolved.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any

THREADS = 64
"""Names that are asked for at the same time."""
SLOW_THREADS = 32
"""How many of them may be names that were slow."""
SLOW_AFTER = 1.0
"""Seconds after which an answer counts as slow."""

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
        self._slow: set[str] = set()

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
        slow = sum(name in self._slow for name in self._began)
        for _ in range(len(self._waiting)):
            name = self._waiting.popleft()
            is_slow = name in self._slow
            if len(self._began) >= THREADS or (is_slow and slow >= SLOW_THREADS):
                self._waiting.append(name)
                continue
            slow += is_slow
            self._began[name] = self._clock()
            self._start(name, loop)

    def _start(self, name: str, loop: asyncio.AbstractEventLoop) -> None:
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
        if self._clock() - self._began.pop(name) > SLOW_AFTER:
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
