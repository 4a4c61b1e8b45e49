"""What `attempt` meets is logged where no loop of asyncio runs, too."""

from __future__ import annotations

import pytest

from tests.support.logged import Logged
from v6fwd import log as log_module
from v6fwd.log import attempt, log_exceptions_without_loop


def fail() -> None:
    raise ValueError("why")


def test_without_a_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log_module, "_without_loop", None)
    logged = Logged()
    log_exceptions_without_loop(logged.log)
    attempt(fail)
    assert [text for _, text in logged.lines()] == ["internal error: ValueError('why')"]
    logged.close()
