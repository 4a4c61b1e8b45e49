"""Which flows the native epoll serves, and when the pump in Python goes on in its place."""

from __future__ import annotations

import asyncio
import os
import socket
from typing import cast

import pytest

from tests.process.tcp import test_ring as of_ring
from tests.process.tcp.test_ring import all_say, pairs
from tests.support.relaying import echo, relaying, reset, target, until
from v6fwd.relay.pairs.native import PURE
from v6fwd.relay.pairs.pump import TAKES_ALL
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
