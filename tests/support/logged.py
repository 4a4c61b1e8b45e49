"""For tests of what is logged: a log in memory, read as event and text."""

from __future__ import annotations

import json
import os

from v6fwd.log import Log, LogFormat

_MOST = 1 << 20  # bytes: no test logs as much


class Logged:
    """`log` is for whom is tested, `lines` for the test."""

    def __init__(self) -> None:
        self._fd = os.memfd_create("log")
        self._read = 0
        self.log = Log(LogFormat.JSON, fd=self._fd)

    def lines(self) -> list[tuple[str, str]]:
        """What has been logged since the last time."""
        data = os.pread(self._fd, _MOST, self._read)
        self._read += len(data)
        records = [json.loads(line) for line in data.splitlines()]
        return [(record["event"], record["text"]) for record in records]

    def close(self) -> None:
        """Forget it."""
        os.close(self._fd)
