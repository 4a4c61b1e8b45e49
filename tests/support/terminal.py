"""For tests of a program that draws on a terminal: runs it on one of 80x24."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import re
import select
import struct
import subprocess
import termios
from collections.abc import Sequence

from tests.support.process import PATIENCE, heeding_signals

_SEQUENCE = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
_FRAME = "\x1b[H"
"""The cursor goes home before each frame."""


class Terminal:
    """A program on a terminal, and what it has drawn."""

    def __init__(self, words: Sequence[str]) -> None:
        self._ours, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("4H", 24, 80, 0, 0))
        self.before = termios.tcgetattr(theirs)
        self._theirs = theirs
        environ = os.environ | {"TERM": "xterm", "COLUMNS": "80", "LINES": "24"}
        self.process = subprocess.Popen(
            words,
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            env=environ,
            start_new_session=True,
            preexec_fn=heeding_signals(),
        )
        self.drawn = ""

    @property
    def modes(self) -> list[object]:
        """Of the terminal: echo, lines, and others."""
        return termios.tcgetattr(self._theirs)

    def press(self, keys: str) -> None:
        """Type."""
        os.write(self._ours, keys.encode())

    def read(self) -> bool:
        """Take what was drawn since; False if nothing came in time."""
        readable, _, _ = select.select([self._ours], [], [], PATIENCE)
        if readable:
            self.drawn += os.read(self._ours, 1 << 16).decode()
        return bool(readable)

    def shows(self, text: str) -> list[str]:
        """Wait for a whole frame with a text; its lines."""
        while True:
            for frame in self.drawn.split(_FRAME)[1:-1]:  # the last one may not be whole
                plain = _SEQUENCE.sub("", frame).replace("\r", "")
                if text in plain:
                    self.drawn = self.drawn[self.drawn.index(frame) :]
                    return plain.rstrip("\n").split("\n")
            assert self.read(), f"{text!r} does not come: {self.drawn[-2000:]!r}"

    def ended(self) -> int:
        """The program's exit status."""
        return self.process.wait(PATIENCE)

    def rest(self) -> str:
        """What was drawn to the end of a program that has ended."""
        os.set_blocking(self._ours, False)
        data = b""
        with contextlib.suppress(BlockingIOError):
            while piece := os.read(self._ours, 1 << 16):  # a terminal gives 4 KB at most
                data += piece
        return self.drawn + data.decode()

    def close(self) -> None:
        """End it."""
        self.process.kill()
        self.process.wait()
        os.close(self._ours)
        os.close(self._theirs)
