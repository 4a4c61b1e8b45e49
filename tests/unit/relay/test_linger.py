"""Linger alone: what a client still sends is dropped, until it closes or had its time."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any, cast

import pytest

from tests.support.relaying import until
from v6fwd.relay.deadlines import Deadlines
from v6fwd.relay.http.linger import Linger
from v6fwd.relay.reactor import Reactor
from v6fwd.relay.sockets import reset_on_close
from v6fwd.relay.tcp.resources import TcpResources
from v6fwd.relay.tcp.side import COPY_ROUNDS, COPY_SIZE, READ


class Flow:
    """Counts the reports, and leaves the descriptor to the test."""

    def __init__(self) -> None:
        self.reports: list[object] = []

    def on_event(self, mask: int) -> None:
        """Who owned the descriptor before; nothing may come here any more."""
        raise AssertionError(mask)

    def lingered(self) -> None:
        self.reports.append("lingered")

    def on_exception(self, error: Exception) -> None:
        self.reports.append(error)


@asynccontextmanager
async def lingering(
    said: Callable[[socket.socket], None], seconds: float = 60.0
) -> AsyncIterator[tuple[socket.socket, Flow, Linger, Any]]:
    """A Linger that has started, after the client has `said` something."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        client = socket.create_connection(server.getsockname())
        mine = server.accept()[0]
    mine.setblocking(False)
    reactor = Reactor(asyncio.get_running_loop())
    resources = SimpleNamespace(reactor=reactor, lingers=Deadlines(reactor, seconds))
    flow = Flow()
    said(client)
    reactor.watch(mine.fileno(), READ, flow)
    linger = Linger(flow, mine.fileno(), cast("TcpResources", resources))
    try:
        linger.start()
        yield client, flow, linger, resources
    finally:
        resources.lingers.close()
        reactor.close()
        client.close()
        mine.close()


def nothing(client: socket.socket) -> None:
    """The client waits."""


async def test_what_comes_is_dropped_until_the_client_closes() -> None:
    async with lingering(lambda client: client.sendall(b"before")) as (client, flow, _, resources):
        await asyncio.get_running_loop().run_in_executor(None, client.sendall, bytes(4 << 20))
        assert flow.reports == []
        client.close()
        await until(lambda: flow.reports)
        assert flow.reports == ["lingered"]
        assert len(resources.lingers) == 0


async def test_one_that_has_closed_is_seen_at_once() -> None:
    async with lingering(lambda client: client.close()) as (_, flow, _, _):
        assert flow.reports == ["lingered"]


async def test_a_reset_is_an_end_as_well() -> None:
    async with lingering(nothing) as (client, flow, _, _):
        reset_on_close(client.fileno())
        client.close()
        await until(lambda: flow.reports)
        assert flow.reports == ["lingered"]


async def test_its_time_is_limited() -> None:
    async with lingering(nothing, seconds=0.01) as (_, flow, _, _):
        await until(lambda: flow.reports)
        assert flow.reports == ["lingered"]


async def test_stopped_it_reports_nothing() -> None:
    async with lingering(nothing) as (client, flow, linger, resources):
        linger.stop()
        client.close()
        linger.resume()
        assert (flow.reports, len(resources.lingers)) == ([], 0)


async def test_others_get_a_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    """However fast a client sends: so many reads, then the rest after the others."""
    reads = []

    def readv(fd: int, _buffers: object) -> int:
        reads.append(fd)
        return COPY_SIZE

    async with lingering(nothing) as (_, flow, linger, resources):
        monkeypatch.setattr(
            "v6fwd.relay.http.linger.os", SimpleNamespace(**vars(os) | {"readv": readv})
        )
        linger.resume()
        assert len(reads) == COPY_ROUNDS
        assert list(resources.reactor._resumables) == [linger]
        linger.stop()
        assert flow.reports == []
