"""Signals as calls of an event loop, whichever it is.

asyncio's own way asks `inspect` about each callback, which takes 0.9 MB.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable


class Signals:
    """Handles signals of this process: in a turn of the loop, one after the other."""

    def __init__(self, add_reader: Callable[[int, Callable[[], None]], object]) -> None:
        """`add_reader` is the loop's. Raises OSError."""
        self._calls: dict[int, Callable[[], object]] = {}
        self._reader, self._writer = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        signal.set_wakeup_fd(self._writer)
        add_reader(self._reader, self._signalled)

    def add(self, number: int, call: Callable[[], object]) -> None:
        """Call whenever this signal comes."""
        self._calls[number] = call
        signal.signal(number, _nothing)
        signal.siginterrupt(number, False)  # a system call by ctypes is not made again after EINTR

    def _signalled(self) -> None:
        for number in os.read(self._reader, 256):
            if number in self._calls:
                self._calls[number]()

    def close(self) -> None:
        """Close the pipe. Signals that still come do nothing."""
        signal.set_wakeup_fd(-1)
        os.close(self._reader)
        os.close(self._writer)


def _nothing(_number: int, _frame: object) -> None:
    """The byte in the pipe tells: a handler that does nothing keeps the signal from ending us."""
