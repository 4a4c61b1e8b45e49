"""UDP targets with a name: it moves, while nobody refuses at the old address."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time
from collections.abc import AsyncIterator

import pytest

from tests.support.datagrams import echo, peer
from tests.support.relaying import Running, relaying, until
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


def grow_old(running: Running) -> None:
    """Let the resolver's answer be old from now on."""
    running.relay.reactor.clock = lambda: time.monotonic() + direct.MAX_AGE


async def test_a_session_that_begins_on_an_old_answer_asks_first(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The target at the old address is silent, but there."""
    with peer("127.0.0.1") as old, peer("127.0.0.1", answer=echo) as new, peer("::1") as one:
        async with named(monkeypatch, old.port) as (running, name):
            name.ports = (new.port,)
            grow_old(running)
            for number in range(3):
                one.send(b"%d" % number, ("::1", running.port))
            assert await one.data(3) == [b"0", b"1", b"2"]
            assert old.received.empty()


async def test_a_silent_resolver_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    with peer("127.0.0.1", answer=echo) as old, contextlib.ExitStack() as peers:
        async with named(monkeypatch, old.port) as (running, _):
            monkeypatch.setattr(DirectTarget, "_ask", lambda _self: asyncio.Event().wait())
            grow_old(running)
            clients = [peers.enter_context(peer("::1")) for _ in range(40)]
            for client in clients:
                client.send(b"x", ("::1", running.port))
            for client in clients:
                assert (await client.receive())[0] == b"x"


async def test_a_session_that_waits_ends_with_its_forward(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with peer("127.0.0.1") as old, peer("::1") as one:
        async with named(monkeypatch, old.port) as (running, _):
            answering = asyncio.Event()

            async def ask(_: DirectTarget) -> list[SocketAddress]:
                await answering.wait()
                return []

            monkeypatch.setattr(DirectTarget, "_ask", ask)
            grow_old(running)
            one.send(b"x", ("::1", running.port))
            listener = running.relay.listeners[0]
            await until(lambda: len(listener._pending))  # type: ignore[union-attr]
            running.relay.close_forward(listener.endpoint, 0)
            answering.set()
            await asyncio.sleep(0)
            assert "internal error" not in running.log
        assert old.received.empty()


async def test_silence_alone_says_nothing_against_an_address(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As of servers for syslog, which never answer."""
    monkeypatch.setattr(resources, "SILENCE", 0.001)
    monkeypatch.setattr(direct, "SILENT_INTERVAL", 0.0)
    with peer("127.0.0.1") as first, peer("127.0.0.1") as second, peer("::1") as one:
        async with named(monkeypatch, first.port, second.port) as (running, name):
            asked = count_questions(monkeypatch, name)
            one.send(b"x", ("::1", running.port))
            await until(lambda: first.received.qsize() + second.received.qsize())
            taken, other = (first, second) if first.received.qsize() else (second, first)
            for number in range(20):
                await until(lambda number=number: len(asked) > number)  # type: ignore[misc]
                one.send(b"x", ("::1", running.port))
                await taken.receive()
            assert other.received.empty()


async def test_a_silent_address_is_left_where_another_one_answers(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(resources, "SILENCE", 0.001)
    with contextlib.ExitStack() as peers:
        silent = peers.enter_context(peer("127.0.0.1"))
        good = peers.enter_context(peer("127.0.0.1", answer=echo))
        clients = [peers.enter_context(peer("::1")) for _ in range(2)]
        async with named(monkeypatch, silent.port, good.port) as (running, _):
            for client in clients:
                asking = asyncio.create_task(client.receive())
                while not asking.done() and silent.received.qsize() < 3:
                    client.send(b"x", ("::1", running.port))
                    await asyncio.sleep(0)
                asking.cancel()
            last = asyncio.create_task(clients[0].receive())
            again = asyncio.create_task(clients[1].receive())
            while not (last.done() and again.done()):
                for client in clients:
                    client.send(b"x", ("::1", running.port))
                await asyncio.sleep(0.001)


def count_questions(monkeypatch: pytest.MonkeyPatch, name: Name) -> list[DirectTarget]:
    """The targets whose names were asked for since."""
    asked: list[DirectTarget] = []

    async def ask(target: DirectTarget) -> list[SocketAddress]:
        asked.append(target)
        return await name.ask()

    monkeypatch.setattr(DirectTarget, "_ask", ask)
    return asked


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
