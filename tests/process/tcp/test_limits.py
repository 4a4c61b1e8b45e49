"""A full process: nobody is harmed who is in, whoever waits is served or told, none spins."""

from __future__ import annotations

import asyncio
import resource
import select
import socket

import pytest

from tests.support.process import eventually
from tests.support.relaying import echo, relaying, silent, target, until
from tests.support.rig import MIB, Rig, echoed, noise, read_exactly, was_reset
from v6fwd.model import Endpoint, Forward, Limits
from v6fwd.relay import listener
from v6fwd.relay.ends import End

SOME_SECONDS = 0.8
"""CPU seconds; a relay that spins uses more before the clients that wait are reset."""


def few_descriptors() -> None:
    resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))


def little_memory() -> None:
    resource.setrlimit(resource.RLIMIT_AS, (384 * MIB, 384 * MIB))


def accept_who_came(rig: Rig) -> list[socket.socket]:
    """The target's ends that are there already."""
    ends = []
    while select.select([rig.server], [], [], 0)[0]:
        ends.append(rig.accept())
    return ends


def crowd_out(rig: Rig, count: int) -> list[socket.socket]:
    """Let `count` clients come and be served or reset, all of them; gives the targets' ends."""
    clients = {client.fileno(): client for client in (rig.connect() for _ in range(count))}
    poll = select.poll()
    for fd in clients:
        poll.register(fd, select.POLLIN)
    served: list[socket.socket] = []
    resets = 0

    def all_are_told() -> bool:
        nonlocal resets
        for fd, _ in poll.poll(0):
            poll.unregister(fd)
            assert was_reset(clients[fd])
            resets += 1
        served.extend(accept_who_came(rig))
        return resets + len(served) == count

    eventually(all_are_told, "every client is served or reset")
    assert resets
    return served


@pytest.mark.parametrize(
    ("options", "preexec", "count"),
    [
        (["--max-flows", "20"], None, 200),
        ([], few_descriptors, 200),
        (["--max-flows", "300"], little_memory, 600),
    ],
    ids=["max-flows", "descriptors", "memory"],
)
def test_full(own_rig: Rig, options: list[str], preexec: object, count: int) -> None:
    own_rig.start(*options, preexec=preexec)  # type: ignore[arg-type]
    first = own_rig.pair()
    data = noise(200_000, seed=12)
    cpu = own_rig.process.cpu_seconds()
    served = crowd_out(own_rig, count)
    assert own_rig.process.cpu_seconds() - cpu < SOME_SECONDS
    first[0].sendall(data)
    assert read_exactly(first[1], len(data)) == data
    assert own_rig.process.log.count("no room for more clients") == 1
    lines = own_rig.process.log.splitlines()
    assert len([line for line in lines if not line.startswith("engine: ")]) <= 4
    for end in (*served, *first):
        end.close()
    own_rig.drop()
    own_rig.settled()
    own_rig.probe()
    assert "internal error" not in own_rig.process.log


def test_bulk_in_a_full_process(own_rig: Rig) -> None:
    """There are pipes for few of them only; the others copy, and none waits for a pipe."""
    own_rig.start(preexec=few_descriptors)
    pairs = [own_rig.pair() for _ in range(8)]
    data = noise(MIB, seed=7)
    for _ in range(4):
        for client, _target in pairs:
            client.sendall(data)
        for _client, target_end in pairs:
            assert read_exactly(target_end, MIB) == data


async def test_who_waits_comes_in_when_a_flow_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listener, "PATIENCE", 3600.0)
    limits = Limits(drain_timeout=0, max_flows=2)
    async with target(echo) as behind, relaying(behind, limits=limits) as running:
        first, second, third, fourth = [await running.connect() for _ in range(4)]
        third[1].write(b"now me")
        await until(lambda: "no room for more clients: all 2 flows are in use" in running.log)
        assert len(running.relay.flows) == 2
        first[1].close()
        async with asyncio.timeout(20):
            assert await third[0].readexactly(6) == b"now me"
        for _, writer in (second, third, fourth):
            writer.close()
        await running.no_flows()


async def test_full_relay_does_not_look_at_its_queue(monkeypatch: pytest.MonkeyPatch) -> None:
    """The queue stays readable; a relay that was told so again and again would spin."""
    monkeypatch.setattr(listener, "PATIENCE", 3600.0)
    looks: list[int] = []
    on_event = listener.Listener.on_event

    def look(self: listener.Listener, mask: int) -> None:
        looks.append(mask)
        on_event(self, mask)

    monkeypatch.setattr(listener.Listener, "on_event", look)
    limits = Limits(drain_timeout=0, max_flows=1)
    async with target(echo) as behind, relaying(behind, limits=limits) as running:
        served, waiting = await running.connect(), await running.connect()
        for _ in range(100):
            served[1].write(b"ping")
            async with asyncio.timeout(20):
                assert await served[0].readexactly(4) == b"ping"
        assert 1 <= len(looks) <= 3
        for _, writer in (served, waiting):
            writer.close()
        await running.no_flows()


async def test_who_waits_for_too_long_is_reset(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listener, "PATIENCE", 0.05)
    limits = Limits(drain_timeout=0, max_flows=1)
    async with target(echo) as behind, relaying(behind, limits=limits) as running:
        first, second = await running.connect(), await running.connect()
        with pytest.raises(ConnectionResetError):
            async with asyncio.timeout(20):
                await second[0].read()
        first[1].write(b"still here")
        async with asyncio.timeout(20):
            assert await first[0].readexactly(10) == b"still here"
        first[1].close()
        await running.no_flows()


async def test_idle_timeout_spares_who_moves() -> None:
    limits = Limits(drain_timeout=0, idle_timeout=0.4)
    async with target(echo) as behind, relaying(behind, limits=limits) as running:
        busy, idle = await running.connect(), await running.connect()
        ended = asyncio.ensure_future(idle[0].read())
        while not ended.done():
            busy[1].write(b"x")
            async with asyncio.timeout(20):
                assert await busy[0].readexactly(1) == b"x"
        with pytest.raises(ConnectionResetError):
            await ended
        busy[1].close()
        await running.no_flows()


def test_max_flows_counts_flows_that_have_ended_no_more(own_rig: Rig) -> None:
    own_rig.start("--max-flows", "1")
    for number in range(200):
        client, target_end = own_rig.pair()
        echoed(client, target_end, b"%d" % number)
        client.close()
        target_end.close()


async def test_one_port_leaves_room_for_the_others() -> None:
    """Silent clients of one port get 4/5 of the flows; those of another port are served."""
    limits = Limits(drain_timeout=0, max_flows=50)
    async with target(echo) as behind, relaying(behind, limits=limits) as running:
        await running.relay.open(Forward(Endpoint("::1", 0), behind, limits=limits))
        busy, other = running.relay.listeners
        crowd = [await asyncio.open_connection("::1", busy.address[1]) for _ in range(60)]
        await until(lambda: "40 of 50 flows are its share" in running.log)
        for _ in range(3):
            reader, writer = await asyncio.open_connection("::1", other.address[1])
            writer.write(b"served")
            async with asyncio.timeout(20):
                assert await reader.readexactly(6) == b"served"
            crowd.append((reader, writer))
        for _, writer in crowd:
            writer.close()
        await running.no_flows()


async def test_a_silent_target_leaves_room_for_the_others() -> None:
    """Connects under way count as flows of their port: it gets 4/5 of all, no more."""
    limits = Limits(drain_timeout=0, max_flows=50)
    with silent() as dead:
        async with target(echo) as alive, relaying(dead, limits=limits) as running:
            await running.relay.open(Forward(Endpoint("::1", 0), alive, limits=limits))
            busy, other = running.relay.listeners
            crowd = [await asyncio.open_connection("::1", busy.address[1]) for _ in range(60)]
            await until(lambda: "40 of 50 flows are its share" in running.log)
            reader, writer = await asyncio.open_connection("::1", other.address[1])
            writer.write(b"served")
            async with asyncio.timeout(20):
                assert await reader.readexactly(6) == b"served"
            for _, each in [*crowd, (reader, writer)]:
                each.close()
            running.relay.flows.abort_all(End.STOPPED)


async def test_a_port_that_opens_late_gets_its_share(monkeypatch: pytest.MonkeyPatch) -> None:
    """All flows are in use by the port that was alone; who moved least gives way."""
    monkeypatch.setattr(listener, "PATIENCE", 0.2)  # above EVICT_INTERVAL
    limits = Limits(drain_timeout=0, max_flows=20)
    async with target(echo) as behind, relaying(behind, limits=limits) as running:
        crowd = [await running.connect() for _ in range(20)]
        await until(lambda: len(running.relay.flows) == 20)
        for reader, writer in crowd[:12]:
            writer.write(b"x")
            await reader.readexactly(1)
        await running.relay.open(Forward(Endpoint("::1", 0), behind, limits=limits))
        late = running.relay.listeners[1].address[1]
        for _ in range(4):
            reader, writer = await asyncio.open_connection("::1", late)
            writer.write(b"served")
            async with asyncio.timeout(20):
                assert await reader.readexactly(6) == b"served"
            crowd.append((reader, writer))
        for reader, writer in crowd[:12]:
            writer.write(b"y")
            async with asyncio.timeout(20):
                assert await reader.readexactly(1) == b"y"
        for _, writer in crowd:
            writer.close()
        await running.no_flows()
