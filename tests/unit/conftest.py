"""What several of these tests use."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from tests.support.logged import Logged


@pytest.fixture
def logged() -> Iterator[Logged]:
    logged = Logged()
    yield logged
    logged.close()


@pytest.fixture
async def reported() -> list[str]:
    """The exceptions that the loop's handler hears of."""
    heard: list[str] = []
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _, context: heard.append(repr(context["exception"])))
    return heard
