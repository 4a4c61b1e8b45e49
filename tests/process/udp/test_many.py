"""Many UDP clients at once: nothing crosses, floods stay in their bounds, the table too."""

from __future__ import annotations

import socket
from contextlib import ExitStack

from tests.support.datagrams import counters, echo, peer, sessions
from tests.support.relaying import relaying, until
from v6fwd.model import Endpoint, Forward, Limits, Protocol
from v6fwd.relay.udp.listener import NEW_AT_ONCE


async def test_a_thousand_clients_get_their_own_answers() -> None:
    with ExitStack() as stack:
        target = stack.enter_context(peer("127.0.0.1", answer=echo))
        clients = [stack.enter_context(peer("::1")) for _ in range(1000)]
        async with relaying(target.endpoint) as running:
            for round_ in range(3):
                for number, one in enumerate(clients):
                    one.send(b"%d of %d" % (round_, number), ("::1", running.port))
                for number, one in enumerate(clients):
                    assert await one.data(1) == [b"%d of %d" % (round_, number)]
            assert len(sessions(running)) == 1000
            assert all(one.received.empty() for one in clients)
            assert counters(running).no_room == 0


async def test_a_flood_of_sources_pushes_nobody_out() -> None:
    """Established sessions keep their source port, and go on being served meanwhile."""
    with peer("127.0.0.1", answer=echo) as target, peer("::1") as one:
        async with relaying(target.endpoint, limits=Limits(max_flows=50)) as running:
            address = ("::1", running.port)
            for _ in range(2):  # the second time, it is known to get its answers
                one.send(b"hello", address)
                await one.receive()
            [session] = sessions(running)
            for _ in range(20):
                for _ in range(40):
                    with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as forged:
                        forged.sendto(b"flood", address)
                one.send(b"still here", address)
                assert (await one.receive())[0] == b"still here"
            await until(lambda: running.sessions.evicted >= 700)
            assert len(sessions(running)) <= 50
            assert session in sessions(running)
            assert not session.closed


async def test_a_flood_that_is_answered_twice_pushes_nobody_out() -> None:
    """Forged sources of two networks; the target answers whatever it gets, as an echo server."""
    with ExitStack() as stack:
        target = stack.enter_context(peer("127.0.0.1", answer=echo))
        limits = Limits(max_flows=60)
        async with relaying(target.endpoint, listen="127.0.0.1", limits=limits) as running:
            address = ("127.0.0.1", running.port)
            for _ in range(10):
                one = stack.enter_context(peer("127.0.0.1"))
                for _ in range(2):
                    one.send(b"call", address)
                    await one.receive()
            regulars = sessions(running)
            for number in range(120):
                with peer(f"127.77.{number % 2}.{number + 1}") as forged:
                    for _ in range(2):
                        forged.send(b"forged", address)
                        await forged.receive()
            assert running.sessions.evicted >= 70
            assert not any(session.closed for session in regulars)


async def test_newcomers_wait_their_turn_in_order() -> None:
    """More of them in one batch than are served at once; each says several things."""
    with ExitStack() as stack:
        target = stack.enter_context(peer("127.0.0.1"))
        clients = [stack.enter_context(peer("::1")) for _ in range(3 * NEW_AT_ONCE)]
        async with relaying(target.endpoint) as running:
            for part in range(4):
                for number, one in enumerate(clients):
                    one.send(b"%d %d" % (number, part), ("::1", running.port))
            got: dict[bytes, list[bytes]] = {}
            for data in await target.data(4 * len(clients)):
                number_, part_ = data.split()
                got.setdefault(number_, []).append(part_)
            assert set(map(tuple, got.values())) == {(b"0", b"1", b"2", b"3")}
            assert len(got) == len(clients)


async def test_no_descriptors_left() -> None:
    """The least recently used unanswered session gives way, and the new client is served."""
    with peer("127.0.0.1") as target, ExitStack() as stack:
        async with relaying(target.endpoint, limits=Limits(max_flows=5)) as running:
            clients = [stack.enter_context(peer("::1")) for _ in range(12)]
            for number, one in enumerate(clients):
                one.send(b"%d" % number, ("::1", running.port))
                assert await target.data(1) == [b"%d" % number]
            assert len(sessions(running)) == 5


async def test_a_flood_at_one_port_costs_the_others_nothing() -> None:
    """Unanswered sessions of another port stay, and new ones come in, beside as many as fit."""
    limits = Limits(max_flows=50)
    with peer("127.0.0.1") as target, ExitStack() as stack:
        async with relaying(target.endpoint, limits=limits) as running:
            other = Endpoint("::1", 0, protocol=Protocol.UDP)
            await running.relay.open(Forward(other, target.endpoint, limits=limits))
            busy, quiet = running.relay.listeners
            for number in range(3):
                one = stack.enter_context(peer("::1"))
                one.send(b"one", ("::1", quiet.address[1]))
                assert await target.data(1) == [b"one"]
                for _ in range(60):
                    with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as forged:
                        forged.sendto(b"flood", ("::1", busy.address[1]))
                    assert await target.data(1) == [b"flood"]
                assert len(quiet.sessions) == number + 1  # type: ignore[union-attr]
            assert running.sessions.evicted > 100


async def test_sequence() -> None:
    """Some thousand numbered datagrams of several flows: none lost, reordered or crossed."""
    flows, rounds, window = 8, 200, 20
    with ExitStack() as stack:
        target = stack.enter_context(peer("127.0.0.1", answer=echo))
        clients = [stack.enter_context(peer("::1")) for _ in range(flows)]
        async with relaying(target.endpoint) as running:
            for round_ in range(rounds):
                expected = []
                for flow, one in enumerate(clients):
                    mine = [b"%d:%d:%d" % (flow, round_, n) + bytes(n) for n in range(window)]
                    expected.append(mine)
                    for data in mine:
                        one.send(data, ("::1", running.port))
                for one, mine in zip(clients, expected, strict=True):
                    assert await one.data(window) == mine
            assert [session.down_count for session in sessions(running)] == [
                rounds * window
            ] * flows
