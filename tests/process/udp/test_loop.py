"""Datagrams whose source is a listener of ours: forged, since it sends only answers."""

from __future__ import annotations

import socket
from typing import Any

import pytest

from tests.support.datagrams import echo, peer, sessions
from tests.support.relaying import Running, relaying
from v6fwd.model import Endpoint, Forward, Protocol


def forge(listener: Any, data: bytes, address: Any) -> None:
    """Send as the listener: what the kernel gets from a raw socket with its address, too."""
    listener._socket.sendto(data, address)


async def is_served_alone(running: Running, target: Any, host: str = "::1") -> None:
    """Whatever was forged before, an honest client's datagram is the target's first."""
    with peer(host) as client:
        client.send(b"honest", (host, running.port))
        assert (await target.receive())[0] == b"honest"
        assert (await client.receive())[0] == b"honest"


@pytest.mark.parametrize("source", ["::1", "::ffff:127.0.0.1", "::ffff:127.0.0.9"])
async def test_a_listener_as_its_own_client(source: str) -> None:
    with peer("127.0.0.1", answer=echo) as target:
        async with relaying(target.endpoint) as running:
            forge(running.relay.listeners[0], b"forged", (source, running.port))
            await is_served_alone(running, target)
            assert len(sessions(running)) == 1
            assert "its source is one of v6fwd's own listeners" in running.log
            [totals] = running.relay.totals().values()
            assert totals["refused"] == {"loop": 1}


async def test_a_listener_as_the_client_of_another() -> None:
    with peer("127.0.0.1", answer=echo) as target:
        async with relaying(target.endpoint, listen="127.0.0.1") as running:
            other = Endpoint("127.0.0.2", 0, protocol=Protocol.UDP)
            await running.relay.open(Forward(other, target.endpoint))
            forge(running.relay.listeners[1], b"forged", ("127.0.0.1", running.port))
            await is_served_alone(running, target, "127.0.0.1")
            assert len(sessions(running)) == 1


async def test_a_client_with_the_same_port_number() -> None:
    """On another address than the listener's, which a local program may well have."""
    with peer("127.0.0.1", answer=echo) as target:
        async with relaying(target.endpoint, listen="127.0.0.1") as running:
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
                client.bind(("127.0.0.2", running.port))
                client.sendto(b"honest", ("127.0.0.1", running.port))
                assert (await target.receive())[0] == b"honest"


async def test_a_port_that_was_closed_is_anybodys() -> None:
    with peer("127.0.0.1", answer=echo) as target:
        async with relaying(target.endpoint, listen="127.0.0.1") as running:
            other = Endpoint("127.0.0.2", 0, protocol=Protocol.UDP)
            await running.relay.open(Forward(other, target.endpoint))
            port = int(running.relay.listeners[1].address[1])
            running.relay.close_forward(other, 0)
            with peer("127.0.0.2", port) as client:
                client.send(b"honest", ("127.0.0.1", running.port))
                assert (await client.receive())[0] == b"honest"
