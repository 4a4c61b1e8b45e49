"""A UDP relay from start to stop: both protocols on a port, sockets of others, the log, the end."""

from __future__ import annotations

import asyncio
import errno
import os
import signal
import socket
from pathlib import Path
from typing import Any

import pytest

from tests.support.datagrams import counters, echo, peer, sessions
from tests.support.process import PATIENCE, ForwardProcess, free_port
from tests.support.relaying import relaying, until
from v6fwd.errors import RelayError
from v6fwd.model import Address, Endpoint, Limits, Protocol
from v6fwd.relay.ends import End
from v6fwd.relay.target import DirectTarget
from v6fwd.relay.udp.listener import UdpListener
from v6fwd.relay.udp_sockets import open_udp_listener, prepare_udp_listener


def ask(port: int, data: bytes, host: str = "::1") -> bytes:
    """One datagram there, one back."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as client:
        client.settimeout(PATIENCE)
        client.connect((host, port))
        client.send(data)
        return client.recv(65536)


def answering(target: socket.socket) -> None:
    """Echo one datagram."""
    data, source = target.recvfrom(65536)
    target.sendto(data, source)


async def test_both_protocols_on_one_port(forward_process: ForwardProcess) -> None:
    port = free_port()

    async def shout(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write((await reader.readline()).upper())
        writer.close()

    server = await asyncio.start_server(shout, "127.0.0.1", 0)
    number = server.sockets[0].getsockname()[1]  # few have a UDP port, so this one is free there
    with peer("127.0.0.1", number, answer=echo) as target:
        forward_process.start(f"[::]:{port}/tcp+udp", f"127.0.0.1:{target.port}")
        assert "ready: 2 forwards" in forward_process.log
        assert await asyncio.to_thread(ask, port, b"datagram") == b"datagram"
        reader, writer = await asyncio.open_connection("::1", port)
        writer.write(b"stream\n")
        assert await reader.read() == b"STREAM\n"
        writer.close()
        server.close()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stop_does_not_wait_for_sessions(
    forward_process: ForwardProcess, number: signal.Signals
) -> None:
    """There may be one for ever: datagrams have no end."""
    port = free_port()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as target:
        target.bind(("127.0.0.1", 0))
        target.settimeout(PATIENCE)
        forward_process.start(
            f"[::]:{port}/udp", f"127.0.0.1:{target.getsockname()[1]}", "--drain-timeout", "3600"
        )
        with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as client:
            client.settimeout(PATIENCE)
            client.connect(("::1", port))
            client.send(b"question")
            _, back = target.recvfrom(100)
            forward_process.signal(number)
            target.sendto(b"answer on its way", back)
            assert client.recv(100) == b"answer on its way"
            assert forward_process.wait() == 0
    open_udp_listener(Endpoint("::", port, protocol=Protocol.UDP)).close()
    assert "stopped" in forward_process.log


async def test_log_flows() -> None:
    with peer("127.0.0.1", answer=echo) as target, peer("127.0.0.1") as one:
        async with relaying(target.endpoint, log_flows=True) as running:
            for data in (b"", b"four"):
                one.send(data, ("127.0.0.1", running.port))
                await one.receive()
            sessions(running)[0].close(End.EXPIRED)
            assert (
                f"flow 127.0.0.1:{one.port} -> [::]:0/udp -> {target.endpoint} none:"
                " 4 bytes in 2 datagrams up, 4 in 2 down, 0."
            ) in running.log
            assert running.log.rstrip().endswith(" s, expired")


async def test_a_port_in_use(tmp_path: Path) -> None:  # noqa: ARG001
    with peer("::1") as taken:
        endpoint = Endpoint("::1", taken.port, protocol=Protocol.UDP)
        with pytest.raises(RelayError, match=r"cannot listen on \[::1\]:\d+/udp: address already"):
            open_udp_listener(endpoint)


@pytest.mark.parametrize(
    ("family", "host", "dialled"),
    [
        (socket.AF_INET, "0.0.0.0", "127.0.0.9"),
        (socket.AF_INET6, "::", "::1"),
        (socket.AF_INET6, "::", "127.0.0.9"),
    ],
)
@pytest.mark.parametrize("stamped", [False, True], ids=["plain", "with timestamps"])
async def test_a_socket_that_somebody_else_opened(
    family: int, host: str, dialled: str, stamped: bool
) -> None:
    """Blocking, without pktinfo; what was queued before we came is served, too."""
    handed = socket.socket(family, socket.SOCK_DGRAM)
    if family == socket.AF_INET6:
        handed.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
    if stamped:
        handed.setsockopt(socket.SOL_SOCKET, 35, 1)  # SO_TIMESTAMPNS
    handed.bind((host, 0))
    port = handed.getsockname()[1]
    own = "::1" if ":" in dialled else "127.0.0.1"
    with peer("127.0.0.1", answer=echo) as target, peer(own) as early, peer(own) as one:
        early.send(b"early", (dialled, port))
        async with relaying(target.endpoint) as running:
            first = running.relay.listeners[0]
            assert isinstance(first, UdpListener)
            prepare_udp_listener(handed)
            running.relay.begin(first.forward.forward, handed, shard=1)
            data, source = await early.receive()
            assert (data, source[:2]) == (b"early", (dialled, port))
            one.send_train(b"aab", 2, (dialled, port))
            for expected in (b"aa", b"b"):
                data, source = await one.receive()
                assert (data, source[:2]) == (expected, (dialled, port))


async def test_another_address_of_the_target() -> None:
    """`localhost` has two, and the server listens on one of them."""
    with peer("127.0.0.1", answer=echo) as target, peer("::1") as one:
        async with relaying(Endpoint("localhost", target.port, protocol=Protocol.UDP)) as running:
            addresses = [(2, ("127.0.0.1", target.port)), (10, ("::1", target.port, 0, 0))]
            listener = running.relay.listeners[0]
            assert isinstance(listener, UdpListener)
            assert isinstance(listener.forward.target, DirectTarget)
            listener.forward.target._addresses = addresses[::-1]
            while not counters(running).refused:
                one.send(b"hello?", ("::1", running.port))
                await asyncio.sleep(0.001)
            one.send(b"last", ("::1", running.port))
            while (await one.receive())[0] != b"last":
                pass
            assert len(sessions(running)) == 1


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENFILE, errno.ENOMEM])
async def test_no_descriptor_for_a_new_client(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    """The session that has waited longest for an answer makes room, and the new client has it."""
    with peer("127.0.0.1") as target, peer("::1") as one, peer("::1") as two:
        async with relaying(target.endpoint) as running:
            one.send(b"one", ("::1", running.port))
            await target.receive()
            listener: Any = running.relay.listeners[0]
            forward = listener.forward
            connect = forward.target.connect_datagrams
            failures = [OSError(number, "")]

            def fail_once(source: Address) -> Any:
                if failures:
                    raise failures.pop()
                return connect(source)

            monkeypatch.setattr(forward.target, "connect_datagrams", fail_once)
            two.send(b"two", ("::1", running.port))
            assert (await target.receive())[0] == b"two"
            assert len(sessions(running)) == 1
            assert f"no room for more UDP sessions: {os.strerror(number).lower()}" in running.log


async def test_a_defect_costs_one_session(monkeypatch: pytest.MonkeyPatch) -> None:
    with peer("127.0.0.1", answer=echo) as target, peer("::1") as one, peer("::1") as two:
        async with relaying(target.endpoint, limits=Limits(drain_timeout=0)) as running:
            for each in (one, two):
                each.send(b"hello", ("::1", running.port))
                await each.receive()
            unlucky = sessions(running)[0]
            monkeypatch.setattr(type(unlucky), "_post", _out_of_memory)
            one.send_train(b"aab", 2, ("::1", running.port))
            two.send(b"still", ("::1", running.port))
            assert (await two.receive())[0] == b"still"
            await until(lambda: len(sessions(running)) == 1)
            assert "internal error: MemoryError()" in running.log
            one.send(b"again", ("::1", running.port))
            assert (await one.receive())[0] == b"again"


def _out_of_memory(*_: object) -> None:
    raise MemoryError
