"""Targets by container, in `forward` and `serve`: clients get to the container or are refused."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from tests.support.daemon import ServeProcess
from tests.support.datagrams import echo, peer, sessions
from tests.support.fake_engine import HEAD, FakeEngine, says
from tests.support.process import PATIENCE, ForwardProcess, eventually, free_port
from tests.support.relaying import Running, relaying, silent, target, until
from v6fwd.model import Endpoint, Forward, Protocol
from v6fwd.relay.ends import End


class Engine(FakeEngine):
    """An Engine with one container, `web`."""

    def moves_to(self, address: str) -> None:
        """Run the container at an address; "": stop it."""
        one = {
            "Id": "0123456789ab",
            "Names": ["/web"],
            "State": "running" if address else "exited",
            "NetworkSettings": {"Networks": {"back": {"IPAddress": address}}},
        }
        self.containers = says(HEAD + json.dumps([one]).encode())
        self.tell()


@pytest.fixture
async def engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Engine]:
    engine = Engine(tmp_path / "engine.sock")
    monkeypatch.setenv("DOCKER_HOST", engine.host)
    await engine.start()
    engine.moves_to("127.0.0.2")
    yield engine
    await engine.stop()


def server(name: bytes, host: str, port: int, kind: int) -> socket.socket:
    """A server of its own; `ask` gets its name."""
    sock = socket.socket(socket.AF_INET, kind)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.bind((host, port))
    if kind == socket.SOCK_STREAM:
        sock.listen()

    def answer() -> None:
        if kind == socket.SOCK_STREAM:
            with sock.accept()[0] as client:
                client.sendall(name)
        else:
            sock.sendto(name, sock.recvfrom(100)[1])

    asyncio.get_running_loop().add_reader(sock, answer)
    return sock


def ask(port: int, kind: int) -> bytes:
    """What a new client is told; b"" for nothing."""
    with socket.socket(socket.AF_INET6, kind) as client, contextlib.suppress(ConnectionResetError):
        client.settimeout(PATIENCE)
        client.connect(("::1", port))
        client.send(b"?")
        return client.recv(100)
    return b""


async def becomes(process: ForwardProcess, line: str) -> None:
    """Wait for a line of its log, and until workers have done what it says."""
    await asyncio.to_thread(eventually, lambda: line in process.log, line)
    if isinstance(process, ServeProcess):
        await asyncio.to_thread(process.status)


@pytest.fixture(params=["forward", "serve"])
def process(request: pytest.FixtureRequest, tmp_path: Path) -> ForwardProcess:
    return ForwardProcess(tmp_path) if request.param == "forward" else ServeProcess(tmp_path)


async def start(process: ForwardProcess, listen: str, to: str) -> None:
    """Start it while this loop is the Engine."""
    if isinstance(process, ServeProcess):
        process.configure((listen, to))
        await asyncio.to_thread(process.run)
    else:
        await asyncio.to_thread(process.start, listen, to)


@pytest.mark.parametrize("kind", [socket.SOCK_STREAM, socket.SOCK_DGRAM], ids=["tcp", "udp"])
async def test_a_container_that_moves(engine: Engine, process: ForwardProcess, kind: int) -> None:
    port = free_port()
    end = "" if kind == socket.SOCK_STREAM else "/udp"
    with server(b"old", "127.0.0.2", 0, kind) as old:
        behind = old.getsockname()[1]
        with server(b"new", "127.0.0.3", behind, kind) as new:
            try:
                await start(process, f"[::]:{port}{end}", f"docker:web:{behind}")
                assert await asyncio.to_thread(ask, port, kind) == b"old"
                engine.moves_to("")
                await becomes(process, "container web is not running; its clients are refused")
                if kind == socket.SOCK_STREAM:
                    assert await asyncio.to_thread(ask, port, kind) == b""
                engine.moves_to("127.0.0.3")
                await becomes(process, "is at 127.0.0.3")
                assert await asyncio.to_thread(ask, port, kind) == b"new"
                assert "internal error" not in process.log
            finally:
                await asyncio.to_thread(process.end)
            for sock in (old, new):
                asyncio.get_running_loop().remove_reader(sock)


async def test_a_reload_adds_one(engine: Engine, tmp_path: Path) -> None:
    process, ports = ServeProcess(tmp_path), (free_port(), free_port())
    with server(b"web", "127.0.0.2", 0, socket.SOCK_STREAM) as sock:
        behind = f"{sock.getsockname()[1]}"
        try:
            await start(process, f"[::]:{ports[0]}", f"127.0.0.2:{behind}")
            assert engine.paths == []
            pairs = [(f"[::]:{port}", f"docker:web@back:{behind}") for port in ports]
            process.configure(*pairs)
            await asyncio.to_thread(process.reload)
            for port in ports:
                await becomes(process, f"of [::]:{port} is at 127.0.0.2")
                assert await asyncio.to_thread(ask, port, socket.SOCK_STREAM) == b"web"
        finally:
            await asyncio.to_thread(process.end)
        asyncio.get_running_loop().remove_reader(sock)


async def test_forward_without_an_engine(engine: Engine, tmp_path: Path) -> None:
    await engine.stop()
    process = ForwardProcess(tmp_path)
    process.start("[::]:1", "docker:web:80", ready=False)
    assert process.wait() == 1
    (line,) = process.log.splitlines()
    assert line.startswith("cannot follow docker:web:80: cannot ask Docker at unix://")
    assert "may this user read its socket (root, group docker)?" in line


# ---- in this process -------------------------------------------------------------------------


def move(running: Running, host: str) -> None:
    """The container of the first forward has this address from now on; "": none."""
    (port,) = running.relay._ports.values()
    forward: Forward = port.forward
    running.relay.replace(replace(forward, target=replace(forward.target, host=host)))


async def test_datagrams_of_old_sessions_do_not_go_to_the_old_address() -> None:
    """Whoever has it now."""
    with peer("127.0.0.2", answer=echo) as old, peer("::1") as client:
        endpoint = Endpoint("127.0.0.2", old.port, protocol=Protocol.UDP, container="web")
        with peer("127.0.0.3", old.port, answer=echo) as new:
            async with relaying(endpoint) as running:
                client.send(b"to the old", ("::1", running.port))
                assert (await client.receive())[0] == b"to the old"
                move(running, "")
                assert sessions(running) == []
                client.send(b"to nobody", ("::1", running.port))
                await until(lambda: "its container has no address now" in running.log)
                move(running, "127.0.0.3")
                client.send(b"to the new", ("::1", running.port))
                assert (await client.receive())[0] == b"to the new"
                assert await old.data(1) == [b"to the old"]
                assert old.received.empty()
                assert await new.data(1) == [b"to the new"]


async def test_a_connect_under_way_is_given_up() -> None:
    """It would go on for seconds, at an address that may be another container's."""
    with silent("127.0.0.2") as there:
        async with relaying(replace(there, container="web")) as running:
            reader, writer = await running.connect()
            await until(lambda: running.relay.flows)
            move(running, "127.0.0.3")
            assert not running.relay.flows
            with pytest.raises(ConnectionResetError):
                await reader.read(1)
            writer.close()
            (totals,) = running.relay.totals().values()
            assert totals["ends"] == {End.TARGET_FAILED.text: 1}


async def test_connections_to_the_old_address_live_on() -> None:
    """A container may leave one network of several; one that is gone ends them itself."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(100):
            writer.write(data)
        writer.close()

    async with (
        target(serve, "127.0.0.2") as there,
        relaying(replace(there, container="web")) as running,
    ):
        reader, writer = await running.connect()
        writer.write(b"a")
        assert await reader.readexactly(1) == b"a"
        move(running, "")
        writer.write(b"b")
        assert await reader.readexactly(1) == b"b"
        writer.close()
        await running.no_flows()
