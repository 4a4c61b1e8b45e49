"""Which flows the native epoll serves, and when the pump in Python goes on in its place."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import select
import socket
from typing import cast

import pytest

from tests.process.tcp import test_ring as of_ring
from tests.process.tcp.test_ring import all_say, pairs
from tests.support.relaying import echo, relaying, reset, target, until
from v6fwd.relay.pairs.native import PURE, native_epoll
from v6fwd.relay.pairs.pump import TAKES_ALL, EpollPairs
from v6fwd.relay.reactor import LINGER, Reactor
from v6fwd.relay.targets.addresses import raw_address
from v6fwd.relay.tcp.flow import TcpFlow
from v6fwd.relay.tcp.lone_side import LoneSide

pytestmark = pytest.mark.usefixtures("on_native_epoll")

# What holds for any native pump.
test_bulk = of_ring.test_bulk_goes_on_by_splice
test_no_memory = of_ring.test_no_memory_for_sides_costs_the_flow_and_no_descriptor
test_exception = of_ring.test_an_exception_costs_one_flow


async def test_a_flow_whose_answer_is_looked_at_goes_on_natively(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv(TAKES_ALL)
    async with target(echo) as behind, relaying(behind) as running:
        client = await running.connect()
        await until(lambda: running.relay.flows.live)
        assert pairs(running) == 0, "its target has not answered yet"
        for _ in range(3):
            await all_say([client], b"hello")
        assert pairs(running) == 1
        (flow,) = running.relay.flows.live
        assert flow.moved() == (15, 15)
        client[1].close()
        await running.no_flows()


async def test_bulk_that_is_over_goes_on_natively() -> None:
    async with target(echo) as behind, relaying(behind) as running:
        client = await running.connect()
        data = bytes(1 << 20)
        await all_say([client], data)
        assert pairs(running) == 0
        async with asyncio.timeout(20):
            while not pairs(running):
                await all_say([client], b"hello")
        await all_say([client], data)
        client[1].close()
        await running.no_flows()


async def test_an_urgent_byte_is_for_python() -> None:
    async with target(echo) as behind, relaying(behind) as running:
        client = await running.connect()
        await all_say([client], b"hello")
        assert pairs(running) == 1
        fd = os.dup(client[1].get_extra_info("socket").fileno())
        with socket.socket(fileno=fd) as sock:
            sock.send(b"!", socket.MSG_OOB)
        assert await client[0].readexactly(1) == b"!"
        assert pairs(running) == 0
        await all_say([client], b"hello")
        assert pairs(running) == 0, "it may come again"
        client[1].close()
        await running.no_flows()


async def test_a_reset_is_passed_on_behind_what_was_said() -> None:
    said = asyncio.Queue[bytes | None]()

    async def serve(reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(100):
                said.put_nowait(data)
        except ConnectionResetError:
            said.put_nowait(None)

    async with target(serve) as behind, relaying(behind) as running:
        client = await running.connect()
        client[1].write(b"first")
        assert await said.get() == b"first"
        assert pairs(running) == 1
        client[1].write(b"last")
        reset(client[1])
        assert await said.get() == b"last"
        assert await said.get() is None
        await running.no_flows()


async def test_without_native_pumps_nobody_is_asked_at_each_event(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv(PURE, "1")
    async with target(echo) as behind, relaying(behind) as running:
        client = await running.connect()
        await all_say([client], b"hello")
        (flow,) = cast("list[TcpFlow]", [*running.relay.flows.live])
        assert (type(flow.client), type(flow.target)) == (LoneSide, LoneSide)
        client[1].close()
        await running.no_flows()


class Dialling:
    """Dials a target that is not there, at its first event; hears what becomes of the pair."""

    def __init__(self, pump: EpollPairs, client: int) -> None:
        self._pump, self._client = pump, client
        self.stopped = False

    def on_event(self, mask: int) -> None:  # noqa: ARG002
        with socket.socket() as gone:
            gone.bind(("127.0.0.1", 0))  # does not listen
            address = raw_address(gone.family, gone.getsockname())
            self._pair, _, _ = self._pump.dial(self, self._client, address, b"", 0)

    def pair_connected(self) -> None:
        raise AssertionError

    pair_waits = pair_finished = pair_connected

    def pair_stopped(self) -> None:
        self.stopped = True
        self._pump.drop(self._pair)

    def on_exception(self, error: Exception) -> None:
        raise error


async def test_what_came_to_be_told_when_the_turn_was_over_is_told_soon() -> None:
    """The descriptor of the epoll does not say so, and nothing else may happen for long."""
    epoll = native_epoll()
    assert epoll is not None
    ticks = itertools.count()  # a slice is over after each batch
    reactor = Reactor(asyncio.get_running_loop(), clock=lambda: float(next(ticks)), epoll=epoll)
    with contextlib.closing(reactor):
        ours, theirs = socket.socketpair()
        with ours, theirs:
            owner = Dialling(EpollPairs(epoll, reactor), os.dup(ours.fileno()))
            reactor.watch(ours.fileno(), select.EPOLLIN | select.EPOLLET, owner)
            theirs.send(b"?")
            assert epoll.poll(LINGER, 1)
            select.select([epoll.fileno()], [], [])  # its timer, which would wake the loop later
            theirs.send(b"!")
            await until(lambda: owner.stopped)
            reactor.unwatch(ours.fileno())
