"""A target that is not there, that does not answer, that has moved; many forwards in a process."""

from __future__ import annotations

import asyncio
import contextlib
import math
import os
import signal
import socket
import threading
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from tests.support.process import PATIENCE, free_port
from tests.support.relaying import Running, Serve, echo, relaying, target, until
from tests.support.rig import Rig, echoed, read_all, read_exactly, was_reset
from v6fwd.model import Endpoint
from v6fwd.relay.targets import direct as direct_module
from v6fwd.relay.targets.addresses import SocketAddress
from v6fwd.relay.targets.direct import DirectTarget


@pytest.fixture
def closed() -> Iterator[socket.socket]:
    """A bound socket: it refuses until somebody calls `listen` on it."""
    with socket.socket() as sock:
        sock.settimeout(PATIENCE)
        sock.bind(("127.0.0.1", 0))
        yield sock


def name_of(sock: socket.socket) -> str:
    return f"127.0.0.1:{sock.getsockname()[1]}"


# ---- refused, unanswered -----------------------------------------------------------------------


def test_refused_until_it_listens(own_rig: Rig, closed: socket.socket) -> None:
    own_rig.start(target=name_of(closed))
    for _ in range(40):
        assert own_rig.is_cut_off()
    assert 1 <= own_rig.process.log.count("connection refused") <= 6
    closed.listen()
    client = own_rig.connect()
    with closed.accept()[0] as target_end:
        target_end.settimeout(PATIENCE)
        echoed(client, target_end, b"at once")
    own_rig.drop()
    own_rig.settled()


def test_client_gone_before_the_target_refuses(own_rig: Rig, closed: socket.socket) -> None:
    own_rig.start(target=name_of(closed))
    for _ in range(40):
        with contextlib.suppress(ConnectionResetError):
            own_rig.connect().close()
    own_rig.settled()


@pytest.fixture
def unanswering(closed: socket.socket) -> Iterator[socket.socket]:
    """A target whose queue is full, so that the kernel drops every further SYN."""
    closed.listen(0)
    with contextlib.ExitStack() as fillers:
        while True:
            filler = fillers.enter_context(socket.socket())
            filler.settimeout(0.2)
            try:
                filler.connect(closed.getsockname())
            except TimeoutError:
                break
        yield closed


def test_connect_timeout(own_rig: Rig, unanswering: socket.socket) -> None:
    port = free_port()
    pair = (f"[::]:{port}", name_of(unanswering))
    own_rig.start(*pair, "--connect-timeout", "0.5")
    waiting = [own_rig.connect(port=port) for _ in range(20)]
    own_rig.probe()
    for client in waiting:
        assert was_reset(client)
    assert f"cannot connect to {pair[1]} for {pair[0]}: connection timed out" in own_rig.process.log
    own_rig.settled()


def test_unix_socket_that_is_not_there(own_rig: Rig, tmp_path: Path) -> None:
    path = tmp_path / "app.sock"
    own_rig.start(target=f"unix:{path}")
    assert own_rig.is_cut_off()
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))
        assert own_rig.is_cut_off()
        server.listen()
        server.settimeout(PATIENCE)
        client = own_rig.connect()
        with server.accept()[0] as target_end:
            target_end.settimeout(PATIENCE)
            echoed(client, target_end, b"question")
            echoed(target_end, client, b"answer")
            client.shutdown(socket.SHUT_WR)
            assert read_all(target_end) == b""
    assert read_all(client) == b""
    log = own_rig.process.log
    assert f"cannot connect to unix:{path}" in log
    assert "no such file or directory" in log
    assert "connection refused" in log


def test_descriptors_that_a_unix_socket_sends_along(own_rig: Rig, tmp_path: Path) -> None:
    """A read ends short behind each of them, though more follows, and the end behind it."""
    path = tmp_path / "app.sock"
    with socket.socket(socket.AF_UNIX) as server, open(os.devnull, "rb") as file:
        server.bind(str(path))
        server.listen()
        server.settimeout(PATIENCE)
        own_rig.start(target=f"unix:{path}")
        client = own_rig.connect()
        with server.accept()[0] as target_end:
            target_end.settimeout(PATIENCE)
            echoed(client, target_end, b"question")
            for end in (False, True):
                own_rig.process.signal(signal.SIGSTOP)
                for _ in range(3):
                    socket.send_fds(target_end, [b"piece"], [file.fileno()])
                if end:
                    target_end.shutdown(socket.SHUT_WR)
                own_rig.process.signal(signal.SIGCONT)
                assert read_exactly(client, 15) == b"piecepiecepiece"
            assert read_all(client) == b""
    own_rig.drop()
    own_rig.settled()


# ---- names -------------------------------------------------------------------------------------


class Resolver:
    """Stands in for the resolver: what a name's addresses are at the moment."""

    def __init__(self, *endpoints: Endpoint) -> None:
        self.endpoints: tuple[Endpoint, ...] | None = endpoints
        self.asked = 0

    async def ask(self) -> list[SocketAddress]:
        """As DirectTarget._ask."""
        self.asked += 1
        await asyncio.sleep(0)
        if self.endpoints is None:
            raise OSError(0, "cannot resolve")
        return [(socket.AF_INET, (end.host, end.port)) for end in self.endpoints]


@contextlib.asynccontextmanager
async def resolving(
    monkeypatch: pytest.MonkeyPatch, *endpoints: Endpoint
) -> AsyncIterator[tuple[Running, Resolver]]:
    """A relay to a name that leads to `endpoints` first."""
    resolver = Resolver(*endpoints)
    monkeypatch.setattr(direct_module, "REFRESH_INTERVAL", 0.0)
    monkeypatch.setattr(DirectTarget, "_ask", lambda _self: resolver.ask())
    async with relaying(Endpoint("app.test", 80)) as running:
        yield running, resolver


async def dead_endpoint() -> Endpoint:
    """Nobody listens there any more."""
    async with target(echo) as behind:
        return behind


async def is_served(running: Running) -> None:
    reader, writer = await running.connect()
    writer.write(b"hello")
    async with asyncio.timeout(PATIENCE):
        assert await reader.readexactly(5) == b"hello"
    writer.close()
    await running.no_flows()


async def cut_off(running: Running) -> None:
    """Come as a client and be reset."""
    reader, writer = await running.connect()
    try:
        async with asyncio.timeout(PATIENCE):
            await reader.read()
    finally:
        writer.close()


async def is_refused(running: Running) -> None:
    with pytest.raises(ConnectionResetError):
        await cut_off(running)
    await running.no_flows()


@pytest.mark.parametrize("dead_ones", [1, 1000])
async def test_an_address_that_answers_is_found(
    monkeypatch: pytest.MonkeyPatch, dead_ones: int
) -> None:
    """Behind a refusing one, and behind more than the interpreter may recurse; the resolver is not
    waited for."""
    dead = (await dead_endpoint()).port
    refusing = [Endpoint(f"127.1.{n // 250}.{1 + n % 250}", dead) for n in range(dead_ones)]
    async with (
        target(echo) as alive,
        resolving(monkeypatch, *refusing, alive) as (running, resolver),
    ):
        monkeypatch.setattr(direct_module, "REFRESH_INTERVAL", math.inf)
        await is_served(running)
        assert resolver.asked == 1
        assert "internal error" not in running.log


async def test_a_silent_address_hides_no_other(
    monkeypatch: pytest.MonkeyPatch, unanswering: socket.socket
) -> None:
    """It is passed over once it has lost."""
    silent = Endpoint(*unanswering.getsockname())
    async with target(echo) as alive, resolving(monkeypatch, silent, alive) as (running, _):
        for _ in range(4):
            await is_served(running)
        assert "cannot connect" not in running.log


async def test_addresses_that_answer_are_taken_by_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    served = [0, 0, 0]

    def counting(number: int) -> Serve:
        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            served[number] += 1
            await echo(reader, writer)

        return serve

    async with contextlib.AsyncExitStack() as servers:
        ends = [await servers.enter_async_context(target(counting(n))) for n in range(3)]
        running, _ = await servers.enter_async_context(resolving(monkeypatch, *ends))
        for _ in range(9):
            await is_served(running)
    assert served == [3, 3, 3]


async def test_a_name_that_moves_is_noticed_while_the_old_address_answers(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The container that has the old address now must not get another one's clients."""

    async def stranger(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()

    async with (
        target(stranger) as old,
        target(echo) as new,
        resolving(monkeypatch, old) as (running, resolver),
    ):
        resolver.endpoints = (new,)
        running.relay.reactor.clock = lambda: time.monotonic() + direct_module.MAX_AGE
        await is_served(running)
        await is_served(running)
        assert resolver.asked == 2


async def test_an_old_answer_does_for_flows_while_the_resolver_is_silent(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with target(echo) as alive, resolving(monkeypatch, alive) as (running, resolver):
        silence = asyncio.Event()

        async def ask() -> list[SocketAddress]:
            await silence.wait()
            return []

        monkeypatch.setattr(resolver, "ask", ask)
        monkeypatch.setattr(direct_module, "PATIENCE", 0.01)
        running.relay.reactor.clock = lambda: time.monotonic() + direct_module.MAX_AGE
        await is_served(running)
        await is_served(running)
        silence.set()


async def test_name_is_resolved_again(monkeypatch: pytest.MonkeyPatch) -> None:
    dead = await dead_endpoint()
    async with target(echo) as alive, resolving(monkeypatch, dead) as (running, resolver):
        resolver.endpoints = (alive,)
        await is_served(running)
        await is_served(running)
        assert resolver.asked == 2


async def test_many_flows_ask_once(monkeypatch: pytest.MonkeyPatch) -> None:
    dead = await dead_endpoint()
    async with target(echo) as alive, resolving(monkeypatch, dead) as (running, resolver):
        resolver.endpoints = (alive,)
        clients = [await running.connect() for _ in range(20)]
        for reader, writer in clients:
            writer.write(b"hello")
            async with asyncio.timeout(PATIENCE):
                assert await reader.readexactly(5) == b"hello"
            writer.close()
        assert resolver.asked < 10


async def test_resolver_that_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    dead = await dead_endpoint()
    async with target(echo) as alive, resolving(monkeypatch, dead) as (running, resolver):
        resolver.endpoints = None
        await is_refused(running)
        resolver.endpoints = (alive,)
        await is_served(running)


async def test_name_that_leads_nowhere(monkeypatch: pytest.MonkeyPatch) -> None:
    async with resolving(monkeypatch, await dead_endpoint()) as (running, resolver):
        await is_refused(running)
        assert resolver.asked == 2


# ---- many forwards -----------------------------------------------------------------------------


def range_of_ports(count: int) -> range:
    """As many neighbouring ports that nobody listens on."""
    for first in range(20_000, 30_000, count):
        with contextlib.ExitStack() as taken, contextlib.suppress(OSError):
            for port in range(first, first + count):
                taken.enter_context(socket.socket(socket.AF_INET6)).bind(("::", port))
            return range(first, first + count)
    raise AssertionError("no free range")


def test_pairs_and_ranges_in_one_process(own_rig: Rig) -> None:
    behind = range_of_ports(3)
    servers = [own_rig.keep(socket.create_server(("127.0.0.1", port))) for port in behind]
    front = range_of_ports(4)
    single, front = front[3], front[:3]
    ranges = (f"[::]:{front[0]}-{front[-1]}", f"127.0.0.1:{behind[0]}-{behind[-1]}")
    own_rig.start(*ranges, f"[::1]:{single}", own_rig.target)
    assert "ready: 5 forwards" in own_rig.process.log
    for port, server in zip(front, servers, strict=True):
        client, target_end = own_rig.connect(port=port), own_rig.keep(server.accept()[0])
        echoed(client, target_end, b"through %d" % port)
    echoed(own_rig.connect(port=single), own_rig.accept(), b"through the single one")
    own_rig.probe()


def test_flows_in_parallel(rig: Rig) -> None:
    """Threads of clients that know nothing of each other."""
    failed: list[BaseException] = []

    def serve() -> None:
        for _ in range(200):
            with rig.server.accept()[0] as end:
                end.sendall(read_all(end))

    def ask(number: int) -> None:
        try:
            for _ in range(50):
                with socket.create_connection(("::1", rig.port), PATIENCE) as client:
                    client.sendall(b"%d" % number)
                    client.shutdown(socket.SHUT_WR)
                    assert read_all(client) == b"%d" % number
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=serve)]
    threads += [threading.Thread(target=ask, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
    assert not failed


async def test_unix_socket_whose_queue_is_full_is_tried_again(tmp_path: Path) -> None:
    path = str(tmp_path / "busy.sock")
    with socket.socket(socket.AF_UNIX) as listening, socket.socket(socket.AF_UNIX) as first:
        listening.bind(path)
        listening.listen(0)
        first.connect(path)  # fills the queue: the next connect(2) gives EAGAIN
        async with relaying(Endpoint("", 0, path)) as running:
            with socket.create_connection(("::1", running.port)) as client:
                client.sendall(b"in time")
                await until(lambda: running.relay.flows)
                listening.accept()[0].close()
                listening.setblocking(False)
                served, _ = await asyncio.get_running_loop().sock_accept(listening)
                with served:
                    got = await asyncio.get_running_loop().sock_recv(served, 100)
                    assert got == b"in time"
            await running.no_flows()
