"""DirectTarget: what happens behind an answer of the resolver."""

from __future__ import annotations

import asyncio
import socket
import time
from types import SimpleNamespace
from typing import Any, cast

import pytest

from v6fwd.model import Endpoint
from v6fwd.relay.reactor import Reactor
from v6fwd.relay.targets import direct
from v6fwd.relay.targets.direct import DirectTarget
from v6fwd.relay.targets.resolver import Resolver

FOUND = [(socket.AF_INET, ("127.0.0.1", 0))]


async def ask(*_: object) -> list[Any]:
    """As Resolver.ask."""
    await asyncio.sleep(0)
    return FOUND


def fail() -> None:
    """Somebody who waits for the answer, and has a defect."""
    raise ValueError("a defect")


@pytest.mark.parametrize("way", ["refresh", "renew"])
async def test_who_raises_drops_nobody_elses_answer(
    monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    monkeypatch.setattr(direct, "MAX_AGE", 0.0)
    monkeypatch.setattr(direct, "REFRESH_INTERVAL", 0.0)
    loop = asyncio.get_running_loop()
    told: list[Any] = []
    loop.set_exception_handler(lambda _, context: told.append(context["exception"]))
    reactor = cast("Reactor", SimpleNamespace(loop=loop, clock=time.monotonic))
    resolver = cast("Resolver", SimpleNamespace(ask=ask))
    target = DirectTarget(Endpoint("app.test", 80), reactor, resolver)
    await target.resolve()
    answered = asyncio.Event()
    for then in (fail, answered.set):
        assert getattr(target, way)(then)
    async with asyncio.timeout(20):
        await answered.wait()
    assert [str(error) for error in told] == ["a defect"]
