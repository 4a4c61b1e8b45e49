"""Forwards that come, change and go while others are served, each with its own limits."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import socket
import tempfile
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest

from tests.support.datagrams import echo as echo_datagrams
from tests.support.datagrams import peer
from tests.support.process import free_port
from tests.support.relaying import echo, target, until
from v6fwd.log import Log
from v6fwd.model import ClientIP, Endpoint, Forward, Limits
from v6fwd.relay.relay import Relay, listen_on
from v6fwd.relay.targets.resolver import Found, Resolver

Ends = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@contextlib.asynccontextmanager
async def a_relay() -> AsyncIterator[Relay]:
    with tempfile.TemporaryFile("r+", encoding="utf-8") as log_file:
        relay = Relay(Limits(), Log(fd=log_file.fileno()))
        try:
            yield relay
        finally:
            relay.close()


def forward_to(behind: Endpoint, **more: float) -> Forward:
    """From a free port."""
    listen = Endpoint("::", free_port(), protocol=behind.protocol)
    return Forward(listen, behind, limits=Limits(**more))  # type: ignore[arg-type]


async def connect(forward: Forward) -> Ends:
    return await asyncio.open_connection("::1", forward.listen.port)


async def says(ends: Ends, word: bytes) -> None:
    """Say a word, and hear it back."""
    ends[1].write(word)
    async with asyncio.timeout(20):
        assert await ends[0].readexactly(len(word)) == word


async def greet(word: bytes, _: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(word)
    writer.close()


async def test_one_goes_and_the_other_stays() -> None:
    async with target(echo) as behind, a_relay() as relay:
        one, other = forward_to(behind), forward_to(behind)
        await relay.open(one)
        await relay.open(other)
        first, second = await connect(one), await connect(other)
        await says(first, b"first")
        relay.close_forward(one.listen, grace=60)
        with pytest.raises(ConnectionRefusedError):
            await connect(one)
        await says(first, b"still here")
        await says(second, b"second")
        third = await connect(other)
        await says(third, b"third")
        for _, writer in (first, second, third):
            writer.close()
        await until(lambda: not relay.flows)


async def test_who_waits_in_the_queue_of_a_closed_forward_is_served() -> None:
    async with target(echo) as behind, a_relay() as relay:
        one = forward_to(behind)
        await relay.open(one)
        with socket.create_connection(("::1", one.listen.port)) as sock:  # nobody turns the loop
            sock.setblocking(False)
            relay.close_forward(one.listen, grace=60)
            await asyncio.get_running_loop().sock_sendall(sock, b"hello")
            async with asyncio.timeout(20):
                assert await asyncio.get_running_loop().sock_recv(sock, 5) == b"hello"


async def test_the_grace_is_each_forwards_own() -> None:
    async with target(echo) as behind, a_relay() as relay:
        one, other = forward_to(behind), forward_to(behind)
        await relay.open(one)
        await relay.open(other)
        first, second = await connect(one), await connect(other)
        await says(first, b"first")
        await says(second, b"second")
        relay.close_forward(one.listen, grace=0.05)
        relay.close_forward(other.listen, grace=60)
        with pytest.raises(ConnectionResetError):
            async with asyncio.timeout(20):
                await first[0].read()
        await says(second, b"still here")
        assert relay.totals().keys() == {str(other.listen)}


async def test_a_new_target_is_for_new_flows() -> None:
    async with (
        target(echo) as old,
        target(lambda *ends: greet(b"new", *ends)) as new,
        a_relay() as relay,
    ):
        forward = forward_to(old)
        await relay.open(forward)
        first = await connect(forward)
        await says(first, b"old")
        relay.replace(replace(forward, target=new))
        second = await connect(forward)
        async with asyncio.timeout(20):
            assert await second[0].read() == b"new"
        await says(first, b"still old")
        numbers = relay.totals()[str(forward.listen)]
        assert numbers["flows"] == 2
        first[1].close()
        second[1].close()
        await until(lambda: not relay.flows)


async def test_a_new_mode_is_for_new_flows() -> None:
    async with target(echo) as behind, a_relay() as relay:
        forward = forward_to(behind)
        await relay.open(forward)
        first = await connect(forward)
        await says(first, b"plain")
        relay.replace(replace(forward, client_ip=ClientIP.PROXY_V1))
        second = await connect(forward)
        async with asyncio.timeout(20):
            assert (await second[0].readline()).startswith(b"PROXY TCP6 ::1 ::1 ")
        await says(first, b"still plain")


async def test_idle_timeouts_side_by_side() -> None:
    async with target(echo) as behind, a_relay() as relay:
        short, never = forward_to(behind, idle_timeout=0.1), forward_to(behind)
        await relay.open(short)
        await relay.open(never)
        one, other = await connect(short), await connect(never)
        await says(other, b"other")
        with pytest.raises(ConnectionResetError):
            async with asyncio.timeout(20):
                await one[0].read()
        await says(other, b"still here")
        numbers = relay.totals()
        assert numbers[str(short.listen)]["ends"] == {"idle timeout": 1}
        assert numbers[str(never.listen)]["ends"] == {}


async def test_a_changed_idle_timeout_is_for_new_flows() -> None:
    """Those that there are keep the one they began with, though no forward has it any more."""
    async with target(echo) as behind, a_relay() as relay:
        forward = forward_to(behind, idle_timeout=0.2)
        await relay.open(forward)
        ends = await connect(forward)
        await says(ends, b"hello")
        relay.replace(replace(forward, limits=Limits()))
        with pytest.raises(ConnectionResetError):
            async with asyncio.timeout(20):
                await ends[0].read()


async def test_resources_are_shared_and_forgotten() -> None:
    async with target(echo) as behind, a_relay() as relay:
        one, two = forward_to(behind), forward_to(behind, connect_timeout=1.0)
        three = forward_to(behind, connect_timeout=1.0, idle_timeout=5.0)
        for forward in (one, two, three):
            await relay.open(forward)
        await asyncio.sleep(0)
        resources = relay.resources
        assert resources.tcp(two.limits) is resources.tcp(three.limits)
        assert resources.tcp(two.limits) is not resources.tcp(one.limits)
        known = resources.tcp(two.limits)
        for forward in (two, three):
            relay.close_forward(forward.listen, grace=0)
        await until(lambda: relay.totals().keys() == {str(one.listen)})
        await until(lambda: resources.tcp(two.limits) is not known)


async def test_udp_timeouts_side_by_side() -> None:
    async with a_relay() as relay:
        with peer("127.0.0.1", answer=echo_datagrams) as behind, peer("::1") as client:
            short = forward_to(behind.endpoint, udp_timeout=0.1)
            long = forward_to(behind.endpoint)
            await relay.open(short)
            await relay.open(long)
            for forward in (short, long):
                client.send(b"hello", ("::1", forward.listen.port))
                await client.receive()
            await until(lambda: relay.totals()[str(short.listen)]["ended"] == 1)
            assert relay.totals()[str(long.listen)]["ended"] == 0
            assert relay.totals()[str(short.listen)]["ends"] == {"expired": 1}
            relay.replace(replace(long, limits=Limits(udp_timeout=0.1)))
            await until(lambda: relay.totals()[str(long.listen)]["ended"] == 1)


async def test_a_changed_forward_lengthens_no_session() -> None:
    """However often it changes: a session that moves no datagram ends after its timeout."""
    async with a_relay() as relay:
        with peer("127.0.0.1", answer=echo_datagrams) as behind, peer("::1") as client:
            forward = forward_to(behind.endpoint, udp_timeout=0.2)
            await relay.open(forward)
            client.send(b"hello", ("::1", forward.listen.port))
            await client.receive()
            changes = itertools.count(1)

            def has_ended() -> bool:
                limits = Limits(udp_timeout=0.2, connect_timeout=next(changes))
                relay.replace(replace(forward, limits=limits))
                return bool(relay.totals()[str(forward.listen)]["ends"])

            await until(has_ended)
            assert relay.totals()[str(forward.listen)]["ends"] == {"expired": 1}


async def test_flows_as_they_are_now() -> None:
    async with target(echo) as behind, a_relay() as relay:
        forward = forward_to(behind)
        await relay.open(forward)
        ends = await connect(forward)
        await says(ends, b"hello")
        (flow,) = relay.flows_now()
        own = ends[1].get_extra_info("sockname")
        assert (flow["client"], flow["client_port"]) == own[:2]
        assert (flow["bytes_up"], flow["bytes_down"]) == (5, 5)
        assert relay.totals()[str(forward.listen)]["bytes_up"] == 0
        assert relay.snapshot()[str(forward.listen)]["bytes_up"] == 5
        ends[1].close()
        await until(lambda: not relay.flows)
        assert relay.totals()[str(forward.listen)]["bytes_up"] == 5


async def test_a_name_that_comes_to_be(monkeypatch: pytest.MonkeyPatch) -> None:
    """The target's name is not known when the forward begins; clients wait for the resolver."""
    known = asyncio.Event()

    async def ask(*_: object) -> Found:
        await known.wait()
        return [(socket.AF_INET, ("127.0.0.1", 0))]

    monkeypatch.setattr(Resolver, "ask", ask)
    async with target(echo) as behind, a_relay() as relay:
        forward = forward_to(Endpoint("late.test", behind.port))
        relay.begin(forward, listen_on(forward.listen))
        ends = await connect(forward)
        ends[1].write(b"hello")
        known.set()
        async with asyncio.timeout(20):
            assert await ends[0].readexactly(5) == b"hello"
