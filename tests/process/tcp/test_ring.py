"""Which flows the ring serves, and when the epoll pump goes on in its place."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Callable
from typing import cast

import pytest

from tests.support.relaying import Running, echo, relaying, target, until
from v6fwd.model import RelayEngine
from v6fwd.relay.pairs.native import PURE, is_native
from v6fwd.relay.pairs.pump import TAKES_ALL, EpollPairs
from v6fwd.relay.ring import reactor as reactor_module
from v6fwd.relay.ring.choose import ENVIRONMENT, choose
from v6fwd.relay.ring.pump import RingPump
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
    monkeypatch.delenv(PURE, raising=False)


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


async def test_a_lonely_flow_stays_on_epoll() -> None:
    async with target(echo) as behind, relaying(behind) as running:
        client = await running.connect()
        for _ in range(3):
            await all_say([client], b"hello")
        assert pairs(running, RingPump) == 0
        assert pairs(running, EpollPairs) == 1
        client[1].close()
        await running.no_flows()


async def test_without_the_native_epoll_the_ring_has_even_a_lonely_flow(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv(PURE, "1")
    async with target(echo) as behind, relaying(behind) as running:
        client = await running.connect()
        for _ in range(3):
            await all_say([client], b"hello")
        assert pairs(running, RingPump) == 1
        client[1].close()
        await running.no_flows()


@pytest.fixture
def soon_busy(monkeypatch: pytest.MonkeyPatch) -> None:
    """Flows of one process, which also has their clients and the target, are busy sooner."""
    monkeypatch.setattr(reactor_module, "BUSY", 4.0)
    if not is_native():
        pytest.skip("the native epoll is not built")


async def say_until(clients: list[Pair], is_so: Callable[[], bool]) -> int:
    """Let all of them speak at once until it is so; gives the bytes of each, which came back."""
    size = 0
    async with asyncio.timeout(60):
        while not is_so():
            await all_say(clients, b"%05d" % (size // 5))
            size += 5
    return size


@pytest.mark.usefixtures("soon_busy")
async def test_busy_flows_move_to_the_ring_and_back_and_lose_nothing() -> None:
    """They began on the epoll: few, or their target's first answer looked at."""
    async with target(echo) as behind, relaying(behind) as running:
        clients = [await running.connect() for _ in range(16)]
        size = await say_until(clients, lambda: pairs(running, RingPump) == 16)
        await until(lambda: pairs(running, EpollPairs) == 16)
        await all_say(clients, b"quiet")
        assert pairs(running, EpollPairs) == 16
        size += 5 + await say_until(clients, lambda: pairs(running, RingPump) == 16)
        assert {flow.moved() for flow in running.relay.flows.live} == {(size, size)}
        for _, writer in clients:
            writer.close()
        await running.no_flows()


@pytest.mark.usefixtures("soon_busy")
async def test_a_flow_that_says_nothing_stays_on_the_epoll_while_others_move() -> None:
    async with target(echo) as behind, relaying(behind) as running:
        idle = await running.connect()
        for _ in range(3):
            await all_say([idle], b"hello")
        clients = [await running.connect() for _ in range(16)]
        await say_until(clients, lambda: pairs(running, RingPump) >= 16)
        assert pairs(running, EpollPairs) == 1
        await until(lambda: pairs(running, RingPump) == 0)
        await all_say([idle, *clients], b"after")
        for _, writer in (idle, *clients):
            writer.close()
        await running.no_flows()


@pytest.mark.usefixtures("soon_busy")
async def test_flows_that_begin_in_a_busy_time_begin_on_the_ring() -> None:
    async with target(echo) as behind, relaying(behind) as running:
        clients = [await running.connect() for _ in range(16)]
        await say_until(clients, lambda: pairs(running, RingPump) == 16)
        more = [await running.connect()]
        await until(lambda: pairs(running) == 17)
        assert pairs(running, RingPump) == 17
        for _, writer in clients + more:
            writer.close()
        await running.no_flows()


async def test_bulk_goes_on_by_splice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(TAKES_ALL, os.environ[ENVIRONMENT])
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
    monkeypatch.setenv(TAKES_ALL, os.environ[ENVIRONMENT])
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
    monkeypatch.setenv(TAKES_ALL, os.environ[ENVIRONMENT])

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
    monkeypatch.setenv(TAKES_ALL, os.environ[ENVIRONMENT])

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
