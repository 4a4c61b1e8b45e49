"""PROXY v2 over UDP: written for the target, read from trusted clients."""

from __future__ import annotations

import ipaddress
import random
from typing import Any

import pytest

from tests.support.datagrams import Peer, counters, echo, peer, sessions
from tests.support.relaying import Running, relaying, until
from v6fwd.client_ip import budget
from v6fwd.client_ip.proxy.read import MAX_HEADER, read_datagram_header
from v6fwd.client_ip.proxy.write import write_v1, write_v2, write_v2_dgram
from v6fwd.model import Address, ClientIP, UdpProxy
from v6fwd.relay.ends import End

ANYBODY = (ipaddress.ip_network("::/0"), ipaddress.ip_network("0.0.0.0/0"))
NOBODY_HERE = (ipaddress.ip_network("2001:db8::/32"),)


def address(host: str, port: int) -> Address:
    return Address(ipaddress.ip_address(host).packed, port)


def header_of(client: Peer, host: str, running: Running) -> bytes:
    """What the target must read of this client, who wrote to `host`."""
    own = address(client.host, client.port)
    return write_v2_dgram(own, address(host, running.port))


@pytest.mark.parametrize(
    ("host", "client", "size"),
    [("::1", "::1", 52), ("127.0.0.2", "127.0.0.1", 28)],
    ids=["UDP6", "UDP4 on a dual-stack socket"],
)
async def test_every_datagram(host: str, client: str, size: int) -> None:
    with peer("127.0.0.1") as target, peer(client) as one:
        async with relaying(target.endpoint, client_ip=ClientIP.PROXY_V2) as running:
            header = header_of(one, host, running)
            assert len(header) == size
            for data in [b"one", b"", b"two", b"x" * (65_507 - size)] * 3:
                one.send(data, (host, running.port))
                got, back = await target.receive()
                assert got == header + data
                target.send(b"answer", back)
                assert await one.receive() == (b"answer", one_source(host, running))


def one_source(host: str, running: Running) -> Any:
    """How a client sees who answers."""
    return (host, running.port, 0, 0) if ":" in host else (host, running.port)


async def test_every_datagram_of_a_train() -> None:
    data = random.Random(5).randbytes(1300 * 48 + 9)
    with peer("127.0.0.1") as target, peer("::1") as one:
        async with relaying(target.endpoint, client_ip=ClientIP.PROXY_V2) as running:
            header = header_of(one, "::1", running)
            for _ in range(10):
                one.send_train(data, 1300, ("::1", running.port))
            for _ in range(10):
                for at in range(0, len(data), 1300):
                    assert (await target.receive())[0] == header + data[at : at + 1300]


async def test_the_first_datagram_only() -> None:
    with peer("127.0.0.1") as target, peer("::1") as one:
        async with relaying(
            target.endpoint, client_ip=ClientIP.PROXY_V2, udp_proxy=UdpProxy.FIRST
        ) as running:
            one.send_train(b"abcdef", 2, ("::1", running.port))
            header = header_of(one, "::1", running)
            assert await target.data(3) == [header + b"ab", b"cd", b"ef"]
            one.send(b"later", ("::1", running.port))
            assert await target.data(1) == [b"later"]


async def test_a_new_target_is_told_again() -> None:
    """In the mode for first datagrams, a target that was away has forgotten the session."""
    with peer("127.0.0.1") as target, peer("::1") as one:
        endpoint = target.endpoint
        async with relaying(
            endpoint, client_ip=ClientIP.PROXY_V2, udp_proxy=UdpProxy.FIRST
        ) as running:
            header = header_of(one, "::1", running)
            one.send(b"a", ("::1", running.port))
            assert await target.data(1) == [header + b"a"]
            target.close()
            one.send(b"b", ("::1", running.port))
            await until(lambda: counters(running).refused == 1)
            with peer("127.0.0.1", endpoint.port) as again:
                one.send(b"c", ("::1", running.port))
                assert await again.data(1) == [header + b"c"]
                one.send(b"d", ("::1", running.port))
                assert await again.data(1) == [b"d"]


async def test_too_large_with_its_header() -> None:
    with peer("127.0.0.1") as target, peer("127.0.0.1") as one:
        async with relaying(target.endpoint, client_ip=ClientIP.PROXY_V2) as running:
            header = header_of(one, "127.0.0.1", running)
            for size in (65_507, 65_507 - len(header) + 1, 65_507 - len(header)):
                one.send(b"x" * size, ("127.0.0.1", running.port))
            assert await target.data(1) == [header + b"x" * (65_507 - len(header))]
            assert counters(running).too_large == 2
            assert f"dropped a datagram of 127.0.0.1:{one.port}" in running.log


# ---- --accept-proxy --------------------------------------------------------------------------

CLAIMED = address("2001:db8:9::7", 4711)
DIALLED = address("2001:db8:9::1", 53)
LONG = write_v2_dgram(CLAIMED, DIALLED)[:14] + (MAX_HEADER + 1 - 16).to_bytes(2, "big")


async def test_the_claim_is_the_client() -> None:
    with peer("127.0.0.1") as target, peer("::1") as balancer:
        async with relaying(
            target.endpoint, client_ip=ClientIP.PROXY_V2, accept_proxy=ANYBODY, log_flows=True
        ) as running:
            header = write_v2_dgram(CLAIMED, DIALLED)
            balancer.send(header + b"question", ("::1", running.port))
            got, back = await target.receive()
            assert got == header + b"question"
            target.send(b"answer", back)
            assert (await balancer.receive())[0] == b"answer"
            sessions(running)[0].close(End.CLOSED)
            assert f"flow {CLAIMED} -> " in running.log


async def test_claims_are_sessions_of_their_own() -> None:
    """Clients behind one socket of a load balancer; trains of theirs are taken apart."""
    with peer("127.0.0.1", answer=echo) as target, peer("::1") as balancer:
        async with relaying(target.endpoint, accept_proxy=ANYBODY) as running:
            for number in range(100):
                source = address(f"2001:db8::{number % 10:x}", 1000 + number % 10)
                balancer.send(
                    write_v2_dgram(source, DIALLED) + b"%d" % number, ("::1", running.port)
                )
            assert sorted(await balancer.data(100)) == sorted(b"%d" % n for n in range(100))
            assert len(sessions(running)) == 10
            train = b"".join(
                write_v2_dgram(address("2001:db8::1", 1000 + n % 2), DIALLED) + b"%04d" % n
                for n in range(20)
            )
            balancer.send_train(train, 56, ("::1", running.port))
            assert sorted(await balancer.data(20)) == [b"%04d" % n for n in range(20)]
            assert len(sessions(running)) == 12 - 1  # 2001:db8::1 with port 1001 was there


async def test_headers_that_take_too_long(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the time is up behind each header, all is delivered, in the order it was sent in."""
    monkeypatch.setattr(budget, "TURN", 0.0)
    numbers = [b"%04d" % number for number in range(200)]
    sent = [write_v2_dgram(CLAIMED, DIALLED) + number for number in numbers]
    with peer("127.0.0.1") as target, peer("::1") as balancer:
        async with relaying(target.endpoint, accept_proxy=ANYBODY) as running:
            for data in sent[:100]:
                balancer.send(data, ("::1", running.port))
            for at in range(100, 200, 20):
                train = b"".join(sent[at : at + 20])
                balancer.send_train(train, len(sent[0]), ("::1", running.port))
            assert await target.data(200) == numbers


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"", "no PROXY v2 header"),
        (b"no header", "no PROXY v2 header"),
        (write_v1(CLAIMED, DIALLED), "no PROXY v2 header"),
        (write_v2(CLAIMED, DIALLED) + b"x", "PROXY v2 family 0x21 is for streams, this is UDP"),
        (LONG, "PROXY v2 header of 4097 bytes, the limit is 4096"),
        (write_v2_dgram(CLAIMED, DIALLED)[:-1], "the datagram ends in its PROXY header"),
    ],
    ids=["empty", "none", "v1", "stream", "long", "cut"],
)
async def test_refused(data: bytes, why: str) -> None:
    with peer("127.0.0.1") as target, peer("::1") as balancer:
        async with relaying(target.endpoint, accept_proxy=ANYBODY) as running:
            balancer.send(data, ("::1", running.port))
            balancer.send(write_v2_dgram(CLAIMED, DIALLED) + b"good", ("::1", running.port))
            assert await target.data(1) == [b"good"]
            assert counters(running).no_header == 1
            assert f"refused [::1]:{balancer.port} on [::]:0/udp: {why}" in running.log


async def test_who_is_not_trusted_claims_nothing() -> None:
    with peer("127.0.0.1") as target, peer("::1") as one:
        async with relaying(
            target.endpoint, client_ip=ClientIP.PROXY_V2, accept_proxy=NOBODY_HERE
        ) as running:
            claim = write_v2_dgram(CLAIMED, DIALLED) + b"x"
            one.send(claim, ("::1", running.port))
            got, _ = await target.receive()
            said = read_datagram_header(got)
            assert (said.source, got[said.length :]) == (address("::1", one.port), claim)
