"""docker-proxy's own UDP test cases (moby, cmd/docker-proxy); replies from the address dialled."""

from __future__ import annotations

import pytest

from tests.support.datagrams import Clock, counters, echo, peer
from tests.support.moby import MESSAGE, every_path
from tests.support.relaying import relaying, until
from v6fwd.model import Endpoint, Limits, Protocol


@every_path
async def test_echo(listen: str, client: str, host: str) -> None:
    with peer(host, answer=echo) as target, peer(client) as one:
        async with relaying(target.endpoint, listen=listen) as running:
            for number in range(10):
                one.send(MESSAGE + bytes([number]), (client, running.port))
                data, source = await one.receive()
                assert data == MESSAGE + bytes([number])
                assert source[:2] == (client, running.port)


@pytest.mark.parametrize(
    ("listen", "dialled"),
    [
        ("::", "::1"),
        *[(any_, host) for any_ in ("::", "0.0.0.0") for host in ("127.0.0.1", "127.8.8.8")],
    ],
)
async def test_replies_leave_from_the_address_dialled(listen: str, dialled: str) -> None:
    client = "::1" if ":" in dialled else "127.0.0.1"
    with peer("127.0.0.1", answer=echo) as target, peer(client) as one:
        async with relaying(target.endpoint, listen=listen) as running:
            one.send(MESSAGE, (dialled, running.port))
            data, source = await one.receive()
            assert (data, source[:2]) == (MESSAGE, (dialled, running.port))


async def test_one_client_two_local_addresses() -> None:
    """They are two sessions: each gets its answers from the address that it was sent to."""
    with peer("127.0.0.1", answer=echo) as target, peer("127.0.0.1") as one:
        async with relaying(target.endpoint) as running:
            for number, host in enumerate(["127.0.0.1", "127.0.0.2"] * 5):
                one.send(bytes([number]), (host, running.port))
            answers = {await one.receive() for _ in range(10)}
            assert answers == {
                (bytes([number]), (f"127.0.0.{1 + number % 2}", running.port))
                for number in range(10)
            }
            assert len(running.sessions) == 2


async def test_write_error() -> None:
    """Nobody listens, two datagrams are lost; then the target starts, and the third comes back."""
    with peer("127.0.0.1") as gone:
        target = gone.endpoint
    async with relaying(target) as running:
        with peer("::1") as one:
            address = ("::1", running.port)
            one.send(b"first", address)
            await until(lambda: "connection refused" in running.log)
            one.send(b"second", address)
            await until(lambda: counters(running).refused == 2)
            with peer("127.0.0.1", target.port, echo):
                one.send(b"third", address)
                assert (await one.receive())[0] == b"third"
        listen = Endpoint("::", 0, protocol=Protocol.UDP)
        assert f"cannot reach {target} for {listen}: connection refused (client [" in running.log


async def test_the_same_client_goes_on_when_the_target_is_back() -> None:
    with peer("127.0.0.1") as reserved, peer("::1") as one:
        target = reserved.endpoint
        reserved.close()
        async with relaying(target) as running:
            address = ("::1", running.port)
            for number in range(5):
                refusals = counters(running).refused
                one.send(b"lost", address)
                await until(lambda: counters(running).refused > refusals)  # noqa: B023
                with peer("127.0.0.1", target.port, echo):
                    one.send(bytes([number]), address)
                    assert (await one.receive())[0] == bytes([number])
            assert counters(running).sessions == 1


async def test_one_sided() -> None:
    """A stream without answers keeps its source port; after the timeout there is another one."""
    clock = Clock()
    with peer("127.0.0.1") as target, peer("::1") as one:
        async with relaying(target.endpoint, limits=Limits(udp_timeout=90)) as running:
            clock.drive(running)

            async def source_port() -> int:
                one.send(MESSAGE, ("::1", running.port))
                return int((await target.receive())[1][1])

            first = await source_port()
            for _ in range(40):
                clock.advance(30)
                assert await source_port() == first
            clock.advance(110)
            assert len(running.sessions) == 0
            assert await source_port() != first


async def test_answers_alone_keep_a_session() -> None:
    clock = Clock()
    with peer("127.0.0.1") as target, peer("::1") as one:
        async with relaying(target.endpoint) as running:
            clock.drive(running)
            one.send(MESSAGE, ("::1", running.port))
            _, back = await target.receive()
            for number in range(10):
                clock.advance(60)
                target.send(bytes([number]), back)
                assert (await one.receive())[0] == bytes([number])
            clock.advance(89)
            assert len(running.sessions) == 1
            clock.advance(20)
            assert len(running.sessions) == 0
