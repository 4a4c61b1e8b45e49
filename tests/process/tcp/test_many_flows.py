"""Thousands of flows: nothing is left of them, none gets another's bytes, none starves."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import resource
import socket
from collections.abc import Iterator

import pytest

from tests.support.process import PATIENCE
from tests.support.relaying import echo, relaying, reset, target
from tests.support.rig import MIB, Feed, Rig, echoed, read_all
from tests.support.rig import reset as reset_socket
from v6fwd.model import ClientIP
from v6fwd.relay.pairs.native import PAIRS

CONCURRENT = 5000
SHORT = 2400


@pytest.fixture
def many_descriptors() -> Iterator[int]:
    """How many flows this process can hold both ends of, at most CONCURRENT."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    yield min(CONCURRENT, (hard - 200) // 2)
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def short_flow(rig: Rig, number: int) -> None:
    """One small exchange, ended in one of five ways."""
    client, target = rig.pair()
    echoed(client, target, b"question %d" % number)
    echoed(target, client, b"answer %d" % number)
    way = number % 5
    if way == 0:
        reset_socket(client)
    elif way == 1:
        reset_socket(target)
    elif way == 2:
        target.shutdown(socket.SHUT_WR)
        assert client.recv(1) == b""
    rig.drop()


def test_short_flows_leave_nothing(own_rig: Rig) -> None:
    own_rig.start("--client-ip", "none")
    memory = []
    for _ in range(3):
        for number in range(SHORT // 3):
            short_flow(own_rig, number)
        own_rig.settled()
        memory.append(own_rig.process.resident())
    # The first round fills free lists and arenas; from then on nothing may grow.
    assert memory[2] <= memory[1] * 1.05
    own_rig.probe()


def test_flows_at_once_leave_nothing(own_rig: Rig, many_descriptors: int) -> None:
    own_rig.start()
    memory = []
    for _ in range(3):
        pairs = [own_rig.pair() for _ in range(many_descriptors)]
        for number, (client, target_end) in enumerate(pairs):
            echoed(client, target_end, b"question %d" % number)
        for number, (client, target_end) in enumerate(pairs):
            echoed(target_end, client, b"answer %d" % number)
        memory.append(own_rig.process.resident())
        own_rig.drop()
        own_rig.settled()
    # The first round fills free lists and arenas; from then on nothing may grow.
    assert memory[2] <= memory[1] * 1.05
    own_rig.probe()


@pytest.mark.parametrize("mode", [ClientIP.NONE, ClientIP.PROXY_V2])
async def test_reactor_forgets_what_has_ended(mode: ClientIP) -> None:
    async with target(echo) as behind, relaying(behind, client_ip=mode) as running:
        relay = running.relay
        for number in range(300):
            reader, writer = await running.connect()
            writer.write(b"x")
            if number % 3:
                async with asyncio.timeout(PATIENCE):
                    await reader.readexactly(1)
            if number % 2:
                reset(writer)
            writer.close()
        await running.no_flows()
        assert set(relay.reactor._handlers) - {PAIRS} == {relay.listeners[0].fileno()}
        assert not relay.reactor._resumables
        context = relay.resources.tcp(running.limits)
        assert not len(context.connects)
        assert not len(context.headers)
        assert not context.pipes.lent


class Bulk:
    """A flow whose writer always finds the relay full, and whose reader takes a little a step."""

    def __init__(self, rig: Rig, seed: int) -> None:
        self._client, self._target = rig.pair()
        self._feed = Feed(self._client, 1 << 40, seed)
        self._target.setblocking(False)
        self._received = hashlib.sha256()
        self.moved = 0

    def step(self) -> None:
        """Fill up, read some."""
        self._feed.until_stalled(quiet=0)
        with contextlib.suppress(BlockingIOError):
            data = self._target.recv(MIB // 8)
            self._received.update(data)
            self.moved += len(data)

    def finish(self) -> None:
        """Every byte came, in its place."""
        self._feed.stop()
        while not self._feed.done:
            self.step()
        self._client.shutdown(socket.SHUT_WR)
        self._target.settimeout(PATIENCE)
        self._received.update(read_all(self._target))
        assert self._received.digest() == self._feed.digest.digest()


def test_descriptors_used_again_beside_bulk(own_rig: Rig) -> None:
    """An event taken for an old descriptor must not meet the new one of the same number."""
    own_rig.start()
    bulks = [Bulk(own_rig, seed) for seed in range(3)]
    for number in range(1500):
        bulks[number % 3].step()
        with own_rig.connect() as client, own_rig.accept() as target_end:
            echoed(client, target_end, b"question %d" % number)
            echoed(target_end, client, b"answer %d" % number)
            if number % 3 == 0:
                reset_socket(client)
    for bulk in bulks:
        assert bulk.moved > MIB
        bulk.finish()
    own_rig.drop()
    own_rig.settled()
    assert "internal error" not in own_rig.process.log


def test_bulk_and_messages_share(rig: Rig) -> None:
    """Both get on while the other does: neither waits for the end of the other."""
    client, target_end = rig.pair()
    bulk = Bulk(rig, seed=20)
    for number in range(300):
        bulk.step()
        echoed(client, target_end, b"question %d" % number)
        echoed(target_end, client, b"answer %d" % number)
    assert bulk.moved > MIB
    bulk.finish()


async def test_messages_while_a_bulk_flow_never_pauses() -> None:
    """In one loop: a bulk flow that always has more to move gives the others their turn."""
    async with target(echo) as behind, relaying(behind) as running:
        reader, writer = await running.connect()
        greedy = await running.connect()
        block, echoes = bytes(4 * MIB), 0

        async def devour() -> None:
            while await greedy[0].read(MIB):
                pass

        devouring = asyncio.create_task(devour())
        for _ in range(30):
            greedy[1].write(block)
            for _ in range(5):
                writer.write(b"ping")
                async with asyncio.timeout(20):
                    assert await reader.readexactly(4) == b"ping"
                echoes += 1
        greedy[1].write_eof()
        async with asyncio.timeout(60):
            await devouring
        greedy[1].close()
        writer.close()
        await running.no_flows()
        assert echoes == 150
