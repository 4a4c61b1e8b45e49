"""For tests of a relay in the test's own event loop, with scripted targets and clients."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass
from typing import Any

from tests.support.process import without_stamps
from v6fwd.log import Log
from v6fwd.model import ClientIP, Endpoint, Forward, Guard, IPNetwork, Limits, UdpProxy
from v6fwd.relay.foreground import Foreground
from v6fwd.relay.relay import Relay
from v6fwd.relay.udp.session_table import Sessions

Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


async def until(condition: Callable[[], object], patience: float = 20.0) -> None:
    """Let the loop turn until `condition()` is true; TimeoutError after `patience` seconds."""
    async with asyncio.timeout(patience):
        while not condition():  # noqa: ASYNC110 - what is waited for has no event of its own
            await asyncio.sleep(0.001)


@dataclass
class Running:
    """A relay that is ready."""

    foreground: Foreground
    task: asyncio.Task[None]
    limits: Limits
    log_file: Any

    @property
    def relay(self) -> Relay:
        """What it is about."""
        return self.foreground.relay

    @property
    def sessions(self) -> Sessions:
        """The UDP sessions."""
        return self.relay.resources.udp(self.limits).sessions

    @property
    def port(self) -> int:
        """The port of the first forward."""
        return int(self.relay.listeners[0].address[1])

    @property
    def log(self) -> str:
        """All that was logged so far, without the time and level of each line."""
        self.log_file.seek(0)
        return without_stamps(self.log_file.read())

    async def connect(self, host: str = "::1") -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """A client of the first forward."""
        return await asyncio.open_connection(host, self.port)

    async def no_flows(self) -> None:
        """Wait until the last flow has ended."""
        await until(lambda: not self.relay.flows)


@contextlib.asynccontextmanager
async def relaying(
    target: Endpoint,
    *,
    listen: str = "::",
    client_ip: ClientIP = ClientIP.NONE,
    accept_proxy: tuple[IPNetwork, ...] = (),
    udp_proxy: UdpProxy = UdpProxy.EVERY,
    limits: Limits | None = None,
    guard: Guard | None = None,
    log_flows: bool = False,
) -> AsyncIterator[Running]:
    """Forward from a free port of `listen` to `target`; nothing may be left at the end."""
    with tempfile.TemporaryFile("r+", encoding="utf-8") as log_file:
        endpoint = Endpoint(listen, 0, protocol=target.protocol)
        bounds = limits or Limits(drain_timeout=0)
        modes = client_ip, accept_proxy, udp_proxy
        forward = Forward(endpoint, target, *modes, limits=bounds, guard=guard or Guard())
        log = Log(fd=log_file.fileno())
        foreground = Foreground([forward], bounds, log, log_flows=log_flows)
        task = asyncio.create_task(foreground.serve())
        ready = asyncio.create_task(foreground.ready.wait())
        await asyncio.wait([task, ready], return_when=asyncio.FIRST_COMPLETED)
        ready.cancel()
        if task.done():
            await task
        try:
            yield Running(foreground, task, bounds, log_file)
        finally:
            foreground.stop(0)
            async with asyncio.timeout(20):
                await task


@contextlib.asynccontextmanager
async def target(serve: Serve, host: str = "127.0.0.1") -> AsyncIterator[Endpoint]:
    """A server whose every connection is handled by `serve`."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    server = await asyncio.start_server(serve, host, 0, family=family)
    try:
        yield Endpoint(host, server.sockets[0].getsockname()[1])
    finally:
        server.close()


@contextlib.contextmanager
def silent(host: str = "127.0.0.1") -> Iterator[Endpoint]:
    """A target whose queue is full: the kernel drops SYNs, and connects go on for their time."""
    with socket.socket() as full, contextlib.ExitStack() as clients:
        full.bind((host, 0))
        full.listen(0)
        for _ in range(2):
            client = clients.enter_context(socket.socket())
            client.setblocking(False)
            client.connect_ex(full.getsockname())
        yield Endpoint(host, full.getsockname()[1])


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Send everything back, and the end as well."""
    while data := await reader.read(65536):
        writer.write(data)
        await writer.drain()
    writer.close()


def reset(writer: asyncio.StreamWriter) -> None:
    """End a connection with RST."""
    sock = writer.get_extra_info("socket")
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()
