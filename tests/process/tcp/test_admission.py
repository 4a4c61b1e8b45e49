"""The guard with real sockets: who is refused is reset at once, and nobody else notices."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
from collections.abc import AsyncIterator

import pytest

from tests.support.datagrams import echo as answer
from tests.support.datagrams import peer, sessions
from tests.support.relaying import Running, echo, relaying, target, until
from tests.support.rig import Rig
from v6fwd.client_ip.proxy.write import write_v1, write_v2_dgram
from v6fwd.model import Address, Endpoint, Guard, Limits, parse_networks
from v6fwd.relay.ends import End

EVERYBODY = parse_networks("::/0,0.0.0.0/0")
Stream = tuple[asyncio.StreamReader, asyncio.StreamWriter]


async def connect(running: Running, source: str) -> Stream:
    """A client with an address of its own."""
    host = "::1" if ":" in source else "127.0.0.1"
    return await asyncio.open_connection(host, running.port, local_addr=(source, 0))


async def is_served(stream: Stream, before: bytes = b"") -> bool:
    """Whether a client gets its echo; False where it is reset."""
    reader, writer = stream
    try:
        writer.write(before + b"hello")
        async with asyncio.timeout(20):
            return await reader.readexactly(5) == b"hello"
    except ConnectionResetError:
        return False


async def is_refused(running: Running, source: str) -> bool:
    """Whether a new client is reset; that can come before connect(2) has even returned."""
    try:
        return not await is_served(await connect(running, source))
    except ConnectionResetError:
        return True


def hang_up(*streams: Stream) -> None:
    """Let clients go."""
    for _, writer in streams:
        writer.close()


@contextlib.asynccontextmanager
async def guarded(guard: Guard, *, trusts_everybody: bool = False) -> AsyncIterator[Running]:
    """A relay with a guard, and an echo server behind it."""
    accept_proxy = EVERYBODY if trusts_everybody else ()
    async with (
        target(echo) as server,
        relaying(server, guard=guard, accept_proxy=accept_proxy) as running,
    ):
        yield running
        await running.no_flows()


def refused(running: Running) -> dict[str, int]:
    """What was counted."""
    (numbers,) = running.relay.snapshot().values()
    counted: dict[str, int] = numbers["refused"]
    return counted


# ---- allow and deny --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("guard", "served", "reason"),
    [
        (Guard(deny=parse_networks("127.0.0.2")), ["127.0.0.3", "::1"], "denied"),
        (Guard(deny=parse_networks("::ffff:127.0.0.2")), ["127.0.0.3", "::1"], "denied"),
        (Guard(allow=parse_networks("127.0.0.3,::1")), ["127.0.0.3", "::1"], "not-allowed"),
        (
            Guard(parse_networks("127.0.0.0/8"), parse_networks("127.0.0.2")),
            ["127.0.0.3"],
            "denied",
        ),
        (Guard(allow=parse_networks("::/0")), ["::1"], "not-allowed"),
    ],
    ids=["deny", "deny v4-mapped", "allow", "deny goes first", "a v4-mapped client is IPv4"],
)
async def test_networks(guard: Guard, served: list[str], reason: str) -> None:
    async with guarded(guard) as running:
        assert await is_refused(running, "127.0.0.2")
        for source in served:
            stream = await connect(running, source)
            assert await is_served(stream), source
            hang_up(stream)
        assert refused(running) == {reason: 1}
        assert "refused 127.0.0.2:" in running.log


async def test_who_is_denied_costs_no_dial(own_rig: Rig) -> None:
    own_rig.start("--deny", "::1")
    assert all(own_rig.is_cut_off() for _ in range(3))
    client = own_rig.connect("127.0.0.1")
    served = own_rig.accept()  # the first that comes: nobody was dialled for the others
    client.sendall(b"me")
    assert served.recv(2) == b"me"


# ---- limits ----------------------------------------------------------------------------------


async def test_flows_at_once() -> None:
    async with guarded(Guard(client_flows=2)) as running:
        streams = [await connect(running, "127.0.0.2") for _ in range(2)]
        assert [await is_served(stream) for stream in streams] == [True, True]
        assert await is_refused(running, "127.0.0.2")
        others = [await connect(running, source) for source in ("127.0.0.3", "::1")]
        assert [await is_served(stream) for stream in others] == [True, True]
        assert refused(running) == {"client-flows": 1}
        hang_up(streams.pop())
        await until(lambda: len(running.relay.flows) == 3)
        again = await connect(running, "127.0.0.2")
        assert await is_served(again)
        hang_up(again, *streams, *others)


async def test_who_would_hold_every_flow_of_the_process_holds_its_own() -> None:
    limits, guard = Limits(max_flows=20, drain_timeout=0), Guard(client_flows=10)
    async with target(echo) as server, relaying(server, limits=limits, guard=guard) as running:
        held = [stream for _ in range(30) if (stream := await held_by(running, "127.0.0.2"))]
        assert len(held) == 10
        other = await connect(running, "127.0.0.3")
        assert await is_served(other)
        hang_up(other, *held)
        await running.no_flows()


async def held_by(running: Running, source: str) -> Stream | None:
    """A flow that a client holds; None if it gets none."""
    try:
        stream = await connect(running, source)
    except ConnectionResetError:
        return None
    return stream if await is_served(stream) else None


async def test_new_flows_per_second() -> None:
    async with guarded(Guard(client_rate=0.001)) as running:
        for source in ("127.0.0.2", "::1"):
            first = await connect(running, source)
            assert await is_served(first)
            hang_up(first)
            assert await is_refused(running, source)
        assert refused(running) == {"client-rate": 2}


async def test_flows_that_were_reset_are_over() -> None:
    """However a flow ends, its slot is free: here by a target that is not there."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        dead = Endpoint("127.0.0.1", server.getsockname()[1])
    async with relaying(dead, guard=Guard(client_flows=1)) as running:
        for _ in range(5):
            assert await is_refused(running, "::1")
            await running.no_flows()
        assert refused(running) == {}


def named(host: str) -> bytes:
    """The header of a client at `host`."""
    packed = socket.inet_pton(socket.AF_INET6 if ":" in host else socket.AF_INET, host)
    return write_v1(Address(packed, 1), Address(packed, 2))


async def serves(running: Running, host: str) -> tuple[bool, Stream]:
    """Whether a client is served whom a trusted one names."""
    stream = await connect(running, "127.0.0.1")
    return await is_served(stream, named(host)), stream


@pytest.mark.parametrize(
    ("prefix", "fellow", "stranger"),
    [
        (64, "2001:db8:0:1:ffff::9", "2001:db8:0:2::1"),
        (56, "2001:db8:0:ff::1", "2001:db8:0:100::1"),
        (61, "2001:db8:0:7::1", "2001:db8:0:8::1"),
        (128, "2001:db8:0:1::1", "2001:db8:0:1::2"),
        (64, "2001:db8:0:1::2", "192.0.2.1"),
    ],
)
async def test_an_ipv6_client_is_its_network(prefix: int, fellow: str, stranger: str) -> None:
    """Who the header names is the client, not who sends it."""
    guard = Guard(client_flows=1, client_prefix=prefix)
    async with guarded(guard, trusts_everybody=True) as running:
        answers = [await serves(running, host) for host in ("2001:db8:0:1::1", fellow, stranger)]
        assert [served for served, _ in answers] == [True, False, True]
        hang_up(*(stream for _, stream in answers))
        assert refused(running) == {"client-flows": 1}


async def test_ipv4_clients_are_one_address_each() -> None:
    async with guarded(Guard(client_flows=1), trusts_everybody=True) as running:
        hosts = ("192.0.2.1", "192.0.2.2", "192.0.2.1")
        answers = [await serves(running, host) for host in hosts]
        assert [served for served, _ in answers] == [True, True, False]
        hang_up(*(stream for _, stream in answers))


async def test_a_named_client_may_be_denied() -> None:
    guard = Guard(deny=parse_networks("2001:db8::/32"))
    async with guarded(guard, trusts_everybody=True) as running:
        served, stream = await serves(running, "2001:db8::1")
        assert not served
        served, stream = await serves(running, "2001:db9::1")
        assert served
        hang_up(stream)
        assert refused(running) == {"denied": 1}


async def test_a_flood_fills_no_log() -> None:
    async with guarded(Guard(deny=parse_networks("127.0.0.0/8"))) as running:
        for number in range(200):
            assert await is_refused(running, f"127.0.0.{number + 1}")
        assert refused(running) == {"denied": 200}
        assert running.log.count("refused ") <= 6


# ---- datagrams -------------------------------------------------------------------------------


async def test_sessions_count_as_flows() -> None:
    with (
        peer("127.0.0.1", answer=answer) as server,
        peer() as one,
        peer() as two,
        peer() as three,
        peer("127.0.0.2") as other,
    ):
        async with relaying(server.endpoint, guard=Guard(client_flows=2)) as running:
            for client in (one, two, three):
                client.send(b"hello", ("::1", running.port))
            other.send(b"hello", ("127.0.0.1", running.port))
            for client in (one, two, other):
                assert (await client.receive())[0] == b"hello"
            await until(lambda: refused(running) == {"client-flows": 1})
            assert three.received.empty()
            assert len(running.sessions) == 3
            for session in sessions(running):
                session.close(End.CLOSED)
            three.send(b"again", ("::1", running.port))
            assert (await three.receive())[0] == b"again"


async def test_datagrams_of_networks_that_may_not() -> None:
    guard = Guard(deny=parse_networks("::1"))
    with peer("127.0.0.1", answer=answer) as server, peer() as one, peer("127.0.0.2") as other:
        async with relaying(server.endpoint, guard=guard) as running:
            one.send(b"hello", ("::1", running.port))
            other.send(b"hello", ("127.0.0.1", running.port))
            assert (await other.receive())[0] == b"hello"
            await until(lambda: refused(running) == {"denied": 1})
            assert len(running.sessions) == 1


async def test_a_session_belongs_to_who_the_header_names() -> None:
    def header(last: int) -> bytes:
        source = Address(bytes.fromhex("20010db8") + bytes(11) + bytes([last]), 7)
        return write_v2_dgram(source, Address(bytes(15) + b"\1", 53))

    guard = Guard(client_flows=1, client_prefix=128)
    with peer("127.0.0.1", answer=answer) as server, peer() as one, peer() as two:
        async with relaying(server.endpoint, guard=guard, accept_proxy=EVERYBODY) as running:
            for client, last in ((one, 1), (one, 2), (two, 2)):
                client.send(header(last) + b"hello", ("::1", running.port))
            assert await one.data(2) == [b"hello", b"hello"]
            await until(lambda: refused(running) == {"client-flows": 1})
            assert len(running.sessions) == 2


async def test_a_flood_of_sessions_leaves_others_alone() -> None:
    """Hundreds of source ports of one client, in front of one datagram of somebody else."""
    guard = Guard(client_flows=3)
    with peer("127.0.0.1", answer=answer) as server, peer("127.0.0.2") as other:
        async with relaying(server.endpoint, guard=guard, limits=Limits()) as running:
            flood = [socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(300)]
            with contextlib.ExitStack() as opened:
                for sock in flood:
                    opened.enter_context(sock)
                    sock.sendto(b"flood", ("127.0.0.1", running.port))
                other.send(b"hello", ("127.0.0.1", running.port))
                assert (await other.receive())[0] == b"hello"
            await until(lambda: refused(running) == {"client-flows": 297})
            assert len(running.sessions) == 4


# ---- the command line ------------------------------------------------------------------------


def test_refusals_are_structured(own_rig: Rig) -> None:
    own_rig.start("--client-flows", "1", "--log-format", "json")
    client, _ = own_rig.pair()
    assert own_rig.is_cut_off()
    lines = map(json.loads, own_rig.process.log.splitlines())
    (line,) = (line for line in lines if line["event"] == "refused")
    assert line["listen"] == f"[::]:{own_rig.port}"
    assert line["client"].startswith("[::1]:")
    assert line["why"] == "client-flows"
    client.close()
