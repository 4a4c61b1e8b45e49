"""How reloads of the configuration went, for metrics."""

from __future__ import annotations

import time
from typing import Any


class Reloads:
    """Counts reloads by result. The start counts as the last one until there is another."""

    def __init__(self) -> None:
        self._counts = {"success": 0, "failure": 0}
        self._last_succeeded = True
        self._last = time.time()

    def note(self, *, succeeded: bool) -> None:
        """Count one that has ended."""
        self._counts["success" if succeeded else "failure"] += 1
        self._last_succeeded = succeeded
        self._last = time.time()

    def report(self) -> dict[str, Any]:
        """Counts by result, if the last succeeded, and when it was, in seconds since 1970."""
        return {"counts": self._counts, "succeeded": self._last_succeeded, "last": self._last}
