"""Boundaries of datagrams are exact, whether they come and go as trains or one by one."""

from __future__ import annotations

import random

import pytest

from tests.support.datagrams import SOL_UDP, UDP_GRO, echo, peer, sessions
from tests.support.relaying import relaying, until

EXTREMES = [b"", b"x", b"", b"y" * 65_507, b"z"]


async def test_empty_and_largest_both_ways() -> None:
    with peer("127.0.0.1", answer=echo) as target, peer("127.0.0.1") as one:
        async with relaying(target.endpoint) as running:
            for data in EXTREMES * 20:
                one.send(data, ("127.0.0.1", running.port))
                assert (await one.receive())[0] == data


def cut(data: bytes, segment: int) -> list[bytes]:
    return [data[at : at + segment] for at in range(0, len(data), segment)]


@pytest.mark.parametrize(
    ("segment", "size"),
    [(1400, 1400 * 46 + 7), (1400, 1400 * 46), (1, 64), (100, 6301), (9000, 63_001), (500, 501)],
)
async def test_trains_up(segment: int, size: int) -> None:
    data = random.Random(segment).randbytes(size)
    with peer("127.0.0.1") as target, peer("::1") as one:
        async with relaying(target.endpoint) as running:
            for _ in range(20):
                one.send_train(data, segment, ("::1", running.port))
            assert await target.data(20 * len(cut(data, segment))) == cut(data, segment) * 20


@pytest.mark.parametrize(
    ("segment", "size"), [(1400, 1400 * 46 + 7), (1, 64), (100, 6301), (9000, 63_001)]
)
@pytest.mark.parametrize(
    ("listen", "host"), [("::", "::1"), ("::", "127.0.0.1"), ("0.0.0.0", "127.0.0.1")]
)
async def test_trains_down(segment: int, size: int, listen: str, host: str) -> None:
    data = random.Random(segment).randbytes(size)
    with peer("127.0.0.1") as target, peer(host) as one:
        async with relaying(target.endpoint, listen=listen) as running:
            one.send(b"hello", (host, running.port))
            _, back = await target.receive()
            for _ in range(20):
                target.send_train(data, segment, back)
                expected = cut(data, segment)
                assert await one.data(len(expected)) == expected


@pytest.mark.parametrize("down", [False, True], ids=["up", "down"])
async def test_trains_stay_trains(down: bool) -> None:
    """Who can receive a train gets it whole: its bytes were sent by one call."""
    data = bytes(1000) * 30 + b"end"
    with peer("127.0.0.1") as target, peer("::1") as one:
        async with relaying(target.endpoint) as running:
            one.send(b"hello", ("::1", running.port))
            _, back = await target.receive()
            to = one if down else target
            to.sock.setsockopt(SOL_UDP, UDP_GRO, 1)
            for _ in range(20):
                if down:
                    target.send_train(data, 1000, back)
                else:
                    one.send_train(data, 1000, ("::1", running.port))
            got = await to.data(1)
            while len(got[-1]) < len(data):  # a session has to find out that it gets trains
                got += await to.data(1)
            assert got[-1] == data


async def test_singles_of_all_sizes_keep_their_order_and_bounds() -> None:
    """Equal neighbours may travel as a train; nobody can tell."""
    rng = random.Random(4)
    sizes = [rng.choice([0, 1, 7, 7, 7, 500, 500, 1200, 1200, 1200]) for _ in range(3000)]
    sent = [rng.randbytes(size) for size in sizes]
    with peer("127.0.0.1", answer=echo) as target, peer("::1") as one:
        async with relaying(target.endpoint) as running:
            for at in range(0, len(sent), 50):
                for data in sent[at : at + 50]:
                    one.send(data, ("::1", running.port))
                assert await one.data(50) == sent[at : at + 50]
            await until(lambda: one.received.empty())
            [session] = sessions(running)
            assert (session.up_count, session.down_count) == (len(sent), len(sent))
            assert (session.up_bytes, session.down_bytes) == (sum(sizes), sum(sizes))


async def test_a_train_after_a_quiet_time() -> None:
    """Answers that come one by one again do not make the next train one datagram."""
    train = random.Random(7).randbytes(1000 * 30 + 3)
    with peer("127.0.0.1", answer=echo) as target, peer("::1") as one:
        async with relaying(target.endpoint) as running:
            one.send(b"hello", ("::1", running.port))
            assert await one.data(1) == [b"hello"]
            _, back = await target.receive()
            for singles in range(40):
                target.send_train(train, 1000, back)
                assert await one.data(31) == cut(train, 1000)
                for _ in range(singles):
                    target.send(b"single", back)
                    assert await one.data(1) == [b"single"]


async def test_a_path_too_narrow_for_trains() -> None:
    """A train of segments above the MTU cannot be sent as one: it is cut up, none is lost."""
    data = random.Random(1).randbytes(30_000 * 2)
    with peer("127.0.0.1") as target, peer("::1") as one:
        async with relaying(target.endpoint) as running:
            for _ in range(3):
                for part in cut(data, 20_000):
                    one.send(part, ("::1", running.port))
                assert await target.data(3) == cut(data, 20_000)
