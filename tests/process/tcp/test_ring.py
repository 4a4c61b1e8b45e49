"""Which flows the ring serves, and when the epoll pump goes on in its place."""

from __future__ import annotations

import asyncio
import contextlib
import os
from typing import cast

import pytest

from tests.support.relaying import Running, echo, relaying, target, until
from v6fwd.model import RelayEngine
from v6fwd.relay.pairs.native import PURE
from v6fwd.relay.pairs.pump import TAKES_ALL, EpollPairs
from v6fwd.relay.ring.choose import ENVIRONMENT, choose
from v6fwd.relay.ring.pump import FROM_FLOWS, RingPump
from v6fwd.relay.tcp import flow as flow_module
from v6fwd.relay.tcp.flow import NO_PAIR, TcpFlow

Pair = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@pytest.fixture(autouse=True)
def ring(monkeypatch: pytest.MonkeyPatch) -> None:
    """The ring, as it is outside of tests."""
    chosen = choose(RelayEngine.RING)
    if chosen.ring is None:
        pytest.skip(chosen.why)
    chosen.ring.close()
    monkeypatch.setenv(ENVIRONMENT, "ring")
    monkeypatch.delenv(TAKES_ALL, raising=False)


def pairs(running: Running, pump: type = object) -> int:
    """Flows whose bytes such a native pump moves."""
    live = [cast("TcpFlow", flow) for flow in running.relay.flows.live]
    return sum(flow._pair != NO_PAIR and isinstance(flow._pump, pump) for flow in live)


async def all_say(clients: list[Pair], data: bytes) -> None:
    """All of them write before the relay has a turn, and hear the echo."""
    for _, writer in clients:
        writer.write(data)
    for reader, _ in clients:
        assert await reader.readexactly(len(data)) == data


@pytest.mark.parametrize("pure", ["", "1"])
async def test_a_lonely_flow_stays_on_epoll(monkeypatch: pytest.MonkeyPatch, pure: str) -> None:
    monkeypatch.setenv(PURE, pure)
    async with target(echo) as behind, relaying(behind) as running:
        client = await running.connect()
        for _ in range(3):
            await all_say([client], b"hello")
        assert pairs(running, RingPump) == 0
        assert pairs(running, EpollPairs) == (0 if pure else 1)
        client[1].close()
        await running.no_flows()


@pytest.mark.parametrize("pure", ["", "1"])
async def test_busy_flows_move_to_the_ring_and_lose_nothing(
    monkeypatch: pytest.MonkeyPatch, pure: str
) -> None:
    """They began on the epoll, native or not: few, or their target's first answer looked at."""
    monkeypatch.setenv(PURE, pure)
    async with target(echo) as behind, relaying(behind) as running:
        clients = [await running.connect() for _ in range(4 * FROM_FLOWS)]
        moved = [0]

        async def some_have_moved() -> None:
            while pairs(running, RingPump) < FROM_FLOWS:
                moved[0] += 1
                await all_say(clients, b"%05d" % moved[0])

        async with asyncio.timeout(20):
            await some_have_moved()
        await all_say(clients, b"after")
        totals = [flow.moved() for flow in running.relay.flows.live]
        assert set(totals) == {(5 * moved[0] + 5, 5 * moved[0] + 5)}
        for _, writer in clients:
            writer.close()
        await running.no_flows()


async def test_bulk_goes_on_by_splice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(TAKES_ALL, "1")
    async with target(echo) as behind, relaying(behind) as running:
        client = await running.connect()
        await all_say([client], b"hello")
        assert pairs(running) == 1
        data = bytes(range(256)) * 4096
        await all_say([client], data)
        assert pairs(running) == 0
        (flow,) = running.relay.flows.live
        assert flow.moved() == (len(data) + 5, len(data) + 5)
        client[1].close()
        await running.no_flows()


async def test_a_half_closed_flow_is_watched_by_epoll(monkeypatch: pytest.MonkeyPatch) -> None:
    """No read of the end that has ended would tell of its reset."""
    monkeypatch.setenv(TAKES_ALL, "1")
    told = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        await told.wait()
        writer.close()

    async with target(serve) as behind, relaying(behind) as running:
        client = await running.connect()
        client[1].write_eof()
        await until(lambda: running.relay.flows.live and pairs(running) == 0)
        told.set()
        assert await client[0].read() == b""
        client[1].close()
        await running.no_flows()


async def test_no_memory_for_sides_costs_the_flow_and_no_descriptor(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv(TAKES_ALL, "1")

    def no_memory(_fd: int, _flow: TcpFlow) -> None:
        raise MemoryError

    async with target(echo) as behind, relaying(behind) as running:
        before = len(os.listdir("/proc/self/fd"))
        client = await running.connect()
        await all_say([client], b"hello")
        with monkeypatch.context() as patch:
            patch.setattr(flow_module, "PlainSide", no_memory)
            client[1].write(bytes(1 << 20))
            await running.no_flows()
        with pytest.raises(ConnectionError):
            await client[0].read()
        client[1].close()
        await until(lambda: len(os.listdir("/proc/self/fd")) <= before)


@pytest.mark.parametrize("step", ["pair_connected", "pair_finished", "pair_stopped"])
async def test_an_exception_costs_one_flow(monkeypatch: pytest.MonkeyPatch, step: str) -> None:
    """In whatever the ring tells of it: its ends are reset, and no descriptor is left."""
    monkeypatch.setenv(TAKES_ALL, "1")

    def fails(_flow: TcpFlow) -> None:
        raise RuntimeError("a defect")

    async with target(echo) as behind, relaying(behind) as running:
        before = len(os.listdir("/proc/self/fd"))
        other = await running.connect()
        await all_say([other], b"hello")
        with monkeypatch.context() as patch, contextlib.suppress(ConnectionError):
            patch.setattr(TcpFlow, step, fails)
            client = await running.connect()
            await all_say([client], b"hello")
            if step == "pair_finished":
                client[1].write_eof()
            else:
                client[1].write(bytes(1 << 20))
            await until(lambda: len(running.relay.flows.live) == 1)
            if step == "pair_stopped":
                with pytest.raises(ConnectionError):
                    await client[0].read(-1)
            client[1].close()
        await until(lambda: len(running.relay.flows.live) == 1)
        await all_say([other], b"after")
        other[1].close()
        await running.no_flows()
        await until(lambda: len(os.listdir("/proc/self/fd")) <= before)
