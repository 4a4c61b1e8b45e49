"""What `attempt` meets is logged where no loop of asyncio runs, too."""

from __future__ import annotations

from typing import Any

import pytest

from v6fwd import log as log_module
from v6fwd.log import Log, attempt, log_exceptions_without_loop


class Lines(Log):
    """A log that keeps its lines."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def limited(self, key: str, event: str, text: str, **_: Any) -> None:  # noqa: ARG002
        """See Log."""
        self.lines.append(text)


def fail() -> None:
    raise ValueError("why")


def test_without_a_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log_module, "_without_loop", None)
    lines = Lines()
    log_exceptions_without_loop(lines)
    attempt(fail)
    assert lines.lines == ["internal error: ValueError('why')"]
