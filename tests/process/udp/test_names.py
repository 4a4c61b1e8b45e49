"""UDP targets with a name: it moves, while nobody refuses at the old address."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time
from collections.abc import AsyncIterator

import pytest

from tests.support.datagrams import echo, peer
from tests.support.relaying import Running, relaying
from v6fwd.model import Endpoint, Protocol
from v6fwd.relay.targets import direct
from v6fwd.relay.targets.addresses import SocketAddress
from v6fwd.relay.targets.direct import DirectTarget
from v6fwd.relay.udp import resources


class Name:
    """Where the name leads to at the moment."""

    def __init__(self, *ports: int) -> None:
        self.ports = ports

    async def ask(self) -> list[SocketAddress]:
        """As DirectTarget._ask."""
        await asyncio.sleep(0)
        return [(socket.AF_INET, ("127.0.0.1", port)) for port in self.ports]


@contextlib.asynccontextmanager
async def named(
    monkeypatch: pytest.MonkeyPatch, *ports: int
) -> AsyncIterator[tuple[Running, Name]]:
    """A relay to a name; time passes quickly for targets that do not answer."""
    name = Name(*ports)
    monkeypatch.setattr(DirectTarget, "_ask", lambda _self: name.ask())
    async with relaying(Endpoint("app.test", 80, protocol=Protocol.UDP)) as running:
        yield running, name


async def test_a_session_that_begins_on_an_old_answer_follows(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The target at the old address is silent, but there."""
    with peer("127.0.0.1") as old, peer("127.0.0.1", answer=echo) as new, peer("::1") as one:
        async with named(monkeypatch, old.port) as (running, name):
            name.ports = (new.port,)
            running.relay.reactor.clock = lambda: time.monotonic() + direct.MAX_AGE
            one.send(b"first", ("::1", running.port))
            await old.receive()
            one.send(b"second", ("::1", running.port))
            assert (await one.receive())[0] == b"second"


async def test_a_session_without_an_answer_looks_elsewhere(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(resources, "SILENCE", 0.01)
    monkeypatch.setattr(direct, "SILENT_INTERVAL", 0.0)
    with peer("127.0.0.1") as old, peer("127.0.0.1", answer=echo) as new, peer("::1") as one:
        async with named(monkeypatch, old.port) as (running, name):
            one.send(b"first", ("::1", running.port))
            await old.receive()
            name.ports = (new.port,)
            asking = asyncio.create_task(one.receive())
            while not asking.done():
                one.send(b"again", ("::1", running.port))
                await asyncio.sleep(0.001)
            assert (await asking)[0] == b"again"


async def test_sessions_have_addresses_by_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    with contextlib.ExitStack() as peers:
        ends = [peers.enter_context(peer("127.0.0.1")) for _ in range(2)]
        async with named(monkeypatch, *(end.port for end in ends)) as (running, _):
            for _ in range(4):
                client = peers.enter_context(peer("::1"))
                client.send(b"x", ("::1", running.port))
            for end in ends:
                for _ in range(2):
                    assert (await end.receive())[0] == b"x"
