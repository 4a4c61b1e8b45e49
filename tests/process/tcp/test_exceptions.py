"""An exception that nobody expected, or no memory, costs the flow that met it and no other."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

import v6fwd.relay.tcp.connect as connect
import v6fwd.relay.tcp.stream as stream
from tests.support.process import PATIENCE
from tests.support.relaying import Running, echo, relaying, reset, target, until
from tests.support.rig import MIB
from v6fwd.model import ClientIP, parse_networks
from v6fwd.relay.ends import End
from v6fwd.relay.listener import Listener
from v6fwd.relay.reactor import Reactor, Resumable
from v6fwd.relay.targets import direct
from v6fwd.relay.tcp.connect import Connect
from v6fwd.relay.tcp.first_bytes import FirstBytes
from v6fwd.relay.tcp.flow import TcpFlow
from v6fwd.relay.tcp.proxy_header import HeaderReader
from v6fwd.relay.tcp.side import Side

pytestmark = pytest.mark.usefixtures("on_sides")

LOOPBACK = parse_networks("::1")


def failing_once(
    monkeypatch: pytest.MonkeyPatch, owner: type, name: str, when: Callable[[Any], bool]
) -> list[object]:
    """Let `owner.name` raise MemoryError at the first call on which `when(self)` holds."""
    method = getattr(owner, name)
    failed: list[object] = []

    def fail_once(self: object, *args: Any, **options: Any) -> Any:
        if not failed and when(self):
            failed.append(self)
            raise MemoryError
        return method(self, *args, **options)

    monkeypatch.setattr(owner, name, fail_once)
    return failed


async def ping(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """One message there and back."""
    async with asyncio.timeout(PATIENCE):
        writer.write(b"ping")
        assert await reader.readexactly(4) == b"ping"


async def cut_off(running: Running) -> None:
    """Come as a client and be reset."""
    reader, writer = await running.connect()
    try:
        async with asyncio.timeout(PATIENCE):
            await reader.read()
    finally:
        writer.close()


async def is_reset(reader: asyncio.StreamReader) -> None:
    """The flow was cut, and recognisably so."""
    async with asyncio.timeout(PATIENCE):
        with pytest.raises(ConnectionResetError):
            await reader.read()


async def one_defect_is_logged(running: Running) -> None:
    """And nothing is left of the flow."""
    await running.no_flows()
    assert running.log.count("internal error: MemoryError() (client [::1]:") == 1


@pytest.mark.parametrize(
    ("owner", "name"), [(Connect, "start"), (FirstBytes, "_read_client"), (TcpFlow, "connected")]
)
async def test_while_a_flow_begins(monkeypatch: pytest.MonkeyPatch, owner: type, name: str) -> None:
    async with target(echo) as behind, relaying(behind) as running:
        other = await running.connect()
        await ping(*other)
        failing_once(monkeypatch, owner, name, lambda _: True)
        with pytest.raises(ConnectionResetError):
            await cut_off(running)
        await ping(*other)
        other[1].close()
        await one_defect_is_logged(running)


async def test_first_write_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    """The target has been connected: for it, too, the flow is cut and not whole."""
    ends: asyncio.Queue[bool] = asyncio.Queue()

    async def tell(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await reader.read()
        except ConnectionResetError:
            ends.put_nowait(True)
        else:
            ends.put_nowait(False)
        writer.close()

    def fail(fd: int, data: bytes) -> int:  # noqa: ARG001
        raise OSError(errno.ENOBUFS, "no buffer space available")

    mode = ClientIP.PROXY_V2
    async with target(tell) as behind, relaying(behind, client_ip=mode) as running:
        monkeypatch.setattr(connect, "os", SimpleNamespace(**vars(os) | {"write": fail}))
        # Else that write would have acknowledged the target's SYN, and it would not hear of us.
        monkeypatch.setattr(direct, "save_ack", lambda _: None)
        with pytest.raises(ConnectionResetError):
            await cut_off(running)
        async with asyncio.timeout(PATIENCE):
            assert await ends.get(), "a clean end of stream"
        await running.no_flows()


async def test_in_a_header(monkeypatch: pytest.MonkeyPatch) -> None:
    async with target(echo) as behind, relaying(behind, accept_proxy=LOOPBACK) as running:
        failing_once(monkeypatch, HeaderReader, "_feed", lambda _: True)
        reader, writer = await running.connect()
        writer.write(b"PROXY UNKNOWN\r\n")
        await is_reset(reader)
        other = await running.connect()
        other[1].write(b"PROXY UNKNOWN\r\n")
        await ping(*other)
        other[1].close()
        await one_defect_is_logged(running)


async def test_in_a_message(monkeypatch: pytest.MonkeyPatch) -> None:
    async with target(echo) as behind, relaying(behind) as running:
        other, victim = await running.connect(), await running.connect()
        await ping(*other)
        await ping(*victim)
        failing_once(monkeypatch, Side, "_copy", lambda _: True)
        victim[1].write(b"too much")
        await is_reset(victim[0])
        await ping(*other)
        other[1].close()
        await one_defect_is_logged(running)


async def test_in_bulk(monkeypatch: pytest.MonkeyPatch) -> None:
    """The events that were taken together with a flow's turn are not lost with that flow."""
    resume_later = Reactor.resume_later
    waiting: list[Resumable] = []
    async with target(echo) as behind, relaying(behind) as running:
        other, victim = await running.connect(), await running.connect()
        await ping(*other)
        await ping(*victim)

        def write_meanwhile(reactor: Reactor, resumable: Resumable) -> None:
            if not waiting:
                other[1].write(b"ping")  # goes out at once: its event comes with the next turn
            waiting.append(resumable)
            resume_later(reactor, resumable)

        monkeypatch.setattr(Reactor, "resume_later", write_meanwhile)
        failing_once(monkeypatch, Side, "resume", lambda _: True)
        victim[1].write(bytes(4 * MIB))
        await until(lambda: waiting)
        async with asyncio.timeout(PATIENCE):
            assert await other[0].readexactly(4) == b"ping"
        await is_reset(victim[0])
        await ping(*other)
        other[1].close()
        await one_defect_is_logged(running)


@pytest.mark.parametrize("who", ["client", "target"])
async def test_a_break_without_a_hangup_is_a_reset(
    who: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As by a timeout of the kernel's: there are no last bytes to wait for."""
    monkeypatch.setattr(stream, "is_hung_up", lambda _: False)
    resets: list[asyncio.StreamWriter] = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readexactly(1)
        resets.append(writer)
        writer.write(b"y")
        with contextlib.suppress(ConnectionError):
            await reader.read()
        writer.close()

    async with target(answer) as behind, relaying(behind) as running:
        reader, writer = await running.connect()
        writer.write(b"x")
        assert await reader.readexactly(1) == b"y"
        reset(writer if who == "client" else resets[0])
        if who == "target":
            with pytest.raises(ConnectionResetError):
                await reader.read()
        await running.no_flows()
        (listener,) = running.relay.listeners
        assert isinstance(listener, Listener)
        assert listener.counters.ends == {
            str(End.RESET_BY_CLIENT if who == "client" else End.RESET_BY_TARGET): 1
        }
        writer.close()
