"""Has something made by a child, whose memory goes with it."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable


def made_apart(make: Callable[[], bytes]) -> bytes:
    """Return what `make` gives in a child; b"" if it failed there. Raises OSError.

    For a few bytes that need a big library: a pipe takes 64 KiB before anybody reads. The child
    hears no signals: its handlers would be the parent's.
    """
    reader, writer = os.pipe()
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    try:
        pid = os.fork()
        if not pid:
            _make(make, writer)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
        os.close(writer)
    with open(reader, "rb") as pipe:
        made = pipe.read()
    os.waitpid(pid, 0)
    return made


def _make(make: Callable[[], bytes], writer: int) -> None:
    """The whole life of the child."""
    try:
        os.write(writer, make())
    finally:  # whatever it was: the parent sees that nothing came
        os._exit(0)
