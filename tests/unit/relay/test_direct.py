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


async def test_the_resolver_is_asked_when_one_of_several_addresses_fails() -> None:
    """Not only when all have: new flows go to those of now. Once in REFRESH_INTERVAL."""
    one, other, third = ((socket.AF_INET, (f"127.0.0.{n}", 0)) for n in (1, 2, 3))
    answers = [[one, other], [other, third]]
    asked = asyncio.Event()
    now = 100.0

    async def ask(*_: object) -> list[Any]:
        if len(answers) == 1:
            asked.set()
        return answers.pop(0)

    loop = asyncio.get_running_loop()
    reactor = cast("Reactor", SimpleNamespace(loop=loop, clock=lambda: now))
    resolver = cast("Resolver", SimpleNamespace(ask=ask))
    target = DirectTarget(Endpoint("tasks.test", 80), reactor, resolver)
    await target.resolve()
    first = target.known.all[0]
    now += direct.REFRESH_INTERVAL
    target.failed(first)
    async with asyncio.timeout(20):
        await asked.wait()
        while first in target.known.all:  # noqa: ASYNC110 - nobody tells
            await asyncio.sleep(0)
    assert [address[1][0] for address in target.known.all] == ["127.0.0.2", "127.0.0.3"]
    target.failed(target.known.all[0])
    await asyncio.sleep(0)
    assert not answers, "it would have been asked a third time"


def test_a_numeric_address_that_fails_asks_nobody() -> None:
    reactor = cast("Reactor", SimpleNamespace(clock=lambda: 100.0))
    target = DirectTarget(Endpoint("127.0.0.1", 80), reactor)
    target.resolve_later(lambda: None)
    target.failed(target.known.all[0])
