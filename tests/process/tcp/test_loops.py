"""A forward that leads to itself: refused at the start, and whenever it turns out to be one."""

from __future__ import annotations

import asyncio
import socket
from dataclasses import replace

import pytest

from tests.support.process import PATIENCE, ForwardProcess, free_port
from tests.support.relaying import Running, echo, relaying, target
from v6fwd.model import Endpoint, Limits
from v6fwd.relay.limits import loop_watch
from v6fwd.relay.targets import direct
from v6fwd.relay.targets.addresses import SocketAddress
from v6fwd.relay.targets.direct import DirectTarget
from v6fwd.relay.targets.loops import Loops


@pytest.mark.parametrize(
    ("listen", "to"),
    [
        ("[::]:{0}", "127.0.0.1:{0}"),
        ("[::]:{0}", "localhost:{0}"),
        ("[::1]:{0} 127.0.0.1:{1} [::]:{1}", "[::1]:{0}"),
        ("[::]:{0}/udp", "127.0.0.1:{0}/udp"),
    ],
)
def test_refused_at_the_start(forward_process: ForwardProcess, listen: str, to: str) -> None:
    ports = free_port(), free_port()
    words = f"{listen} {to}".format(*ports).split()
    forward_process.start(*words, ready=False)
    assert forward_process.wait() == 1
    lines = forward_process.log.splitlines()
    assert len(lines) == 1
    assert "leads back to the forward itself" in lines[0]


def test_a_chain_is_no_loop(forward_process: ForwardProcess) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        behind, front = free_port(), free_port()
        last = f"127.0.0.1:{server.getsockname()[1]}"
        forward_process.start(f"[::1]:{front}", f"[::1]:{behind}", f"[::1]:{behind}", last)
        with socket.create_connection(("::1", front), PATIENCE) as client:
            client.sendall(b"through both")
            server.settimeout(PATIENCE)
            with server.accept()[0] as served:
                served.settimeout(PATIENCE)
                assert served.recv(100) == b"through both"


async def answer(running: Running) -> bytes:
    """What a client is told; raises ConnectionResetError, perhaps while it still connects."""
    async with asyncio.timeout(PATIENCE):
        reader, writer = await running.connect()
        try:
            writer.write(b"hello")
            return await reader.readexactly(5)
        finally:
            writer.close()


async def is_reset(running: Running) -> None:
    with pytest.raises(ConnectionResetError):
        await answer(running)
    await running.no_flows()


async def test_seen_after_a_reload() -> None:
    async with target(echo) as alive, relaying(alive) as running:
        forward = running.relay.listeners[0]
        old = running.relay._ports[next(iter(running.relay._ports))].forward
        running.relay.replace(replace(old, target=Endpoint("127.0.0.1", running.port)))
        await asyncio.sleep(0)
        assert forward.address[1] == running.port
        await is_reset(running)
        assert running.relay.snapshot()[str(old.listen)]["flows"] == 1, "it did not come again"
        assert "leads back to the forward itself" in running.log
        running.relay.replace(old)
        assert await answer(running) == b"hello"
        await running.no_flows()


async def test_seen_when_a_name_moves(monkeypatch: pytest.MonkeyPatch) -> None:
    ports = [9]

    async def ask(_: DirectTarget) -> list[SocketAddress]:
        await asyncio.sleep(0)
        return [(socket.AF_INET, ("127.0.0.1", port)) for port in ports]

    monkeypatch.setattr(DirectTarget, "_ask", ask)
    monkeypatch.setattr(direct, "MAX_AGE", 0.0)
    async with target(echo) as alive, relaying(Endpoint("app.test", 80)) as running:
        ports[:] = [running.port]
        await is_reset(running)
        assert "leads back to the forward itself" in running.log
        ports[:] = [alive.port]
        monkeypatch.setattr(direct, "REFRESH_INTERVAL", 0.0)
        assert await answer(running) == b"hello"
        await running.no_flows()


async def test_seen_in_its_flows(monkeypatch: pytest.MonkeyPatch) -> None:
    """As with NAT: no address tells."""
    monkeypatch.setattr(Loops, "leading_back", lambda *_: [])
    monkeypatch.setattr(loop_watch, "INTERVAL", 0.01)
    monkeypatch.setattr(loop_watch, "SUSPICIOUS", 8)
    async with target(echo) as alive, relaying(alive, limits=Limits(max_flows=200)) as running:
        (port,) = running.relay._ports.values()
        running.relay.replace(replace(port.forward, target=Endpoint("127.0.0.1", running.port)))
        await is_reset(running)
        assert "leads back to the forward itself" in running.log
