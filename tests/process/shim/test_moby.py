"""docker-proxy's own test cases (moby, cmd/docker-proxy), for the shim as a process."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

import pytest

from tests.support.datagrams import echo as echo_datagram
from tests.support.datagrams import peer
from tests.support.moby import MESSAGE, every_path
from tests.support.process import free_port
from tests.support.relaying import echo, target, until
from tests.support.shim import Shim, listening
from v6fwd.model import Endpoint, Protocol

with_and_without_fd = pytest.mark.parametrize("hand_over", [True, False], ids=["fd", "NoListener"])


@contextlib.asynccontextmanager
async def proxying(
    shim: Shim, behind: Endpoint, listen: str = "::1", *, hand_over: bool = True
) -> AsyncIterator[int]:
    """Proxy to `behind` from `listen`, whose socket is handed over or not; gives the port."""
    destination = (behind.host, behind.port)
    if hand_over:
        with listening(behind.protocol, listen, dual_stack=True) as listener:
            port = int(listener.getsockname()[1])
            shim.proxy(behind.protocol, listen, port, destination, listener=listener)
    else:
        port = free_port(listen)
        shim.proxy(behind.protocol, listen, port, destination)
    assert shim.status() == b"0\n"
    yield port
    assert shim.stop() == 0
    assert "Traceback" not in shim.log


every_way = pytest.mark.parametrize(
    ("listen", "client", "host", "hand_over"),
    [
        (*path, hand_over)
        for path in every_path.args[1]
        for hand_over in (True, False)
        # Without a socket from dockerd there is one process a family, and so one socket.
        if hand_over or (":" in path[0]) == (":" in path[1])
    ],
)


@every_way
async def test_tcp(shim: Shim, listen: str, client: str, host: str, hand_over: bool) -> None:
    async with (
        target(echo, host) as behind,
        proxying(shim, behind, listen, hand_over=hand_over) as port,
    ):
        reader, writer = await asyncio.open_connection(client, port)
        writer.write(MESSAGE)
        assert await reader.readexactly(len(MESSAGE)) == MESSAGE
        writer.close()


@with_and_without_fd
async def test_tcp_half_close(shim: Shim, hand_over: bool) -> None:
    async def answer_at_the_end(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(await reader.read())
        writer.write_eof()
        assert await reader.read() == b""
        writer.close()

    async with (
        target(answer_at_the_end) as behind,
        proxying(shim, behind, hand_over=hand_over) as port,
    ):
        reader, writer = await asyncio.open_connection("::1", port)
        writer.write(MESSAGE)
        writer.write_eof()
        assert await reader.read() == MESSAGE
        writer.close()


@with_and_without_fd
async def test_tcp_nobody_behind(shim: Shim, hand_over: bool) -> None:
    async with target(echo) as behind:
        pass
    async with proxying(shim, behind, hand_over=hand_over) as port:
        with pytest.raises(ConnectionResetError):
            await (await asyncio.open_connection("::1", port))[0].read()


@every_way
async def test_udp(shim: Shim, listen: str, client: str, host: str, hand_over: bool) -> None:
    with peer(host, answer=echo_datagram) as behind, peer(client) as one:
        async with proxying(shim, behind.endpoint, listen, hand_over=hand_over) as port:
            for number in range(10):
                one.send(MESSAGE + bytes([number]), (client, port))
                data, source = await one.receive()
                assert data == MESSAGE + bytes([number])
                assert source[:2] == (client, port)


@with_and_without_fd
async def test_udp_write_error(shim: Shim, hand_over: bool) -> None:
    """Nobody listens, two datagrams are lost; then the target starts, and the third comes back."""
    with peer("127.0.0.1") as gone:
        behind = gone.endpoint
    async with proxying(shim, behind, hand_over=hand_over) as port:
        with peer("::1") as one:
            one.send(b"first", ("::1", port))
            one.send(b"second", ("::1", port))
            await until(lambda: "connection refused" in shim.log)
            with peer("127.0.0.1", behind.port, echo_datagram):
                one.send(b"third", ("::1", port))
                # The second may have been kept for another try, and come back before.
                assert (await one.receive())[0] in (b"second", b"third")
                one.send(b"fourth", ("::1", port))
                while (await one.receive())[0] != b"fourth":
                    pass


@with_and_without_fd
async def test_udp_one_sided(shim: Shim, hand_over: bool) -> None:
    with peer("127.0.0.1") as behind, peer("::1") as one:
        async with proxying(shim, behind.endpoint, hand_over=hand_over) as port:
            sources = set()
            for _ in range(15):
                one.send(MESSAGE, ("::1", port))
                sources.add((await behind.receive())[1])
            assert len(sources) == 1


@pytest.mark.parametrize("protocol", Protocol)
async def test_ipv6_only(shim: Shim, protocol: Protocol) -> None:
    """Another process serves 0.0.0.0 at the same port."""
    port = free_port()
    shim.proxy(protocol, "::", port, ("127.0.0.1", 9))
    assert shim.status() == b"0\n"
    with listening(protocol, "0.0.0.0", port=port) as other:
        assert other.getsockname()[1] == port
    assert shim.stop() == 0
