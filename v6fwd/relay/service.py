"""The relay as a whole: opens the listeners, runs until it is told to stop, lets flows finish."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import resource
import signal
import socket
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from typing import Any

from v6fwd.log import Log
from v6fwd.model import Endpoint, Forward, Limits, Protocol
from v6fwd.relay.deadlines import Deadlines
from v6fwd.relay.engine import Engine
from v6fwd.relay.flows import Flows, IdleSweep
from v6fwd.relay.header import HeaderReader
from v6fwd.relay.listener import Gate, Listener
from v6fwd.relay.pipes import PipePool
from v6fwd.relay.sockets import RelayError, open_listener, reason
from v6fwd.relay.target import Target
from v6fwd.relay.tcp import TcpContext, TcpFlow, TcpForward
from v6fwd.relay.udp import UdpForward
from v6fwd.relay.udp_context import UdpContext
from v6fwd.relay.udp_sessions import Sessions
from v6fwd.relay.udp_sockets import open_udp_listener

MAX_PIPES = 256
"""Pipes in use at once: what stalled bulk flows may hold in the kernel is 256 MiB in all."""
GC_THRESHOLD = 50_000
"""Objects made before the collector looks: flows leave no cycles, so it rarely finds any."""
UDP_GRACE = 0.5
"""Seconds at most for answers on their way at a stop: datagrams have no end to wait for."""


_OPEN = {Protocol.TCP: open_listener, Protocol.UDP: open_udp_listener}


def listen_on(endpoint: Endpoint) -> socket.socket:
    """A listening socket. Raises RelayError, naming the endpoint."""
    return _OPEN[endpoint.protocol](endpoint)


class DescriptorBudget:
    """How the process's descriptors are shared out: two a flow, two a pipe, some to spare.

    `udp` is the share of UDP sessions, one descriptor each, where there are UDP forwards.
    """

    def __init__(
        self, descriptors: int, forwards: int, in_use: int, max_flows: int, udp: float = 0.0
    ) -> None:
        free = max(4, descriptors - in_use - forwards - 8)
        sessions = max(1, int(free * udp))
        self.sessions = min(max_flows, sessions) if max_flows else sessions
        free = max(4, free - int(free * udp))
        self.pipes = max(1, min(MAX_PIPES, free // 16))
        most = max(1, (free - 2 * self.pipes) // 2)
        self.flows = min(max_flows, most) if max_flows else most
        self.most = most

    @classmethod
    def of_this_process(cls, forwards: int, max_flows: int, udp: float = 0.0) -> DescriptorBudget:
        """The budget under RLIMIT_NOFILE, whose soft limit is raised to the hard one first."""
        _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        return cls(soft, forwards, len(os.listdir("/proc/self/fd")), max_flows, udp)


class Relay:
    """Serves forwards in this process, on a running event loop. `listen` gives their sockets."""

    def __init__(
        self,
        forwards: Sequence[Forward],
        limits: Limits,
        log: Log,
        *,
        log_flows: bool = False,
        listen: Callable[[Endpoint], socket.socket] = listen_on,
    ) -> None:
        self._forwards = forwards
        self._limits = limits
        self._log = log
        self._listen = listen
        self._engine = engine = Engine(asyncio.get_running_loop())
        self.ready = asyncio.Event()
        self._stopping: asyncio.Future[float] = engine.loop.create_future()
        self._drained: asyncio.Future[None] = engine.loop.create_future()
        self._hurry = asyncio.Event()
        udp = sum(forward.protocol is Protocol.UDP for forward in forwards)
        # Half for UDP beside TCP; alone it leaves TCP the few that no budget goes below.
        share = 0.0 if not udp else 0.5 if udp < len(forwards) else 0.95
        budget = DescriptorBudget.of_this_process(len(forwards), limits.max_flows, share)
        self.flows = Flows(budget.flows)
        self._gate = Gate(engine, self.flows, log)
        self.listeners: list[Listener | UdpForward] = []
        self.sessions = Sessions(engine, limits.udp_timeout, budget.sessions)
        self._udp = UdpContext(engine, log, self.sessions, log_flows=log_flows) if udp else None
        self._context = TcpContext(
            engine=engine,
            flows=self.flows,
            pipes=PipePool(budget.pipes),
            log=log,
            dials=Deadlines(engine, limits.connect_timeout, TcpFlow.dial_expired),
            headers=Deadlines(engine, limits.header_timeout, HeaderReader.expired),
            log_flows=log_flows,
        )

    async def serve(self) -> None:
        """Listen, log `ready`, and serve until `stop`; then drain. Raises RelayError."""
        try:
            opening = asyncio.ensure_future(self._open())
            told: asyncio.Future[Any] = self._stopping
            await asyncio.wait([opening, told], return_when=asyncio.FIRST_COMPLETED)
            if not opening.done():  # told to stop while a resolver kept us waiting
                opening.cancel()
                return
            await opening
            self._log.info("ready", f"ready: {len(self._forwards)} forwards")
            self.ready.set()
            async with _beside(self._sweep_idle()):
                grace = await self._stopping
                await self._drain(grace)
        finally:
            self._close()

    def stop(self, grace: float) -> None:
        """Stop accepting and let flows finish for `grace` seconds; called again: stop now."""
        if not self._stopping.done():
            self._stopping.set_result(grace)
            return
        self._hurry.set()
        if not self._drained.done():
            self._drained.set_result(None)

    def stop_on_signals(self) -> None:
        """SIGTERM drains, SIGINT too but not for long; a second signal of either ends it."""
        add = self._engine.loop.add_signal_handler
        add(signal.SIGTERM, self.stop, self._limits.drain_timeout)
        add(signal.SIGINT, self.stop, self._limits.interrupt_timeout)

    async def _open(self) -> None:
        targets = {f.target: Target(f.target, self._engine) for f in self._forwards}
        await asyncio.gather(*(target.resolve() for target in targets.values()))
        with contextlib.ExitStack() as opened:  # all or none
            sockets = [opened.enter_context(self._listen(f.listen)) for f in self._forwards]
            opened.pop_all()
        for forward, sock in zip(self._forwards, sockets, strict=True):
            self._begin(forward, targets[forward.target], sock)

    def _begin(self, forward: Forward, target: Target, sock: socket.socket) -> None:
        if self._udp is not None and forward.protocol is Protocol.UDP:
            self.listeners.append(UdpForward(forward, target, sock, self._udp))
            return
        runner = TcpForward(forward, target, self._context)
        self.listeners.append(Listener(forward.listen, sock, runner.begin, self._gate))

    async def _drain(self, grace: float) -> None:
        self._gate.accept_all_and_close()
        await asyncio.gather(self._drain_tcp(grace), self._drain_udp(grace))
        self._log.info("stopped", "stopped")

    async def _drain_udp(self, grace: float) -> None:
        """Let answers come for a moment, then free the ports, whatever TCP still does."""
        for forward in self._udp_forwards():
            forward.refuse_newcomers()
        if self.sessions:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(min(grace, UDP_GRACE)):
                    await self._hurry.wait()
        self._close_udp("stopped")

    def _udp_forwards(self) -> list[UdpForward]:
        return [listener for listener in self.listeners if isinstance(listener, UdpForward)]

    def _close_udp(self, end: str) -> None:
        self.sessions.close_all(end)
        for forward in self._udp_forwards():
            forward.close()

    async def _drain_tcp(self, grace: float) -> None:
        if self.flows:
            self._log.info(
                "draining",
                f"draining: {len(self.flows)} flows, {grace:g} s at most",
                flows=len(self.flows),
            )
            self.flows.on_left = self._flow_left
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(grace):
                    await asyncio.shield(self._drained)
        cut = self.flows.abort_all("cut at stop")
        if cut:
            self._log.warning("cut", f"reset {cut} flows that had not finished", flows=cut)

    def _flow_left(self) -> None:
        if not self.flows and not self._drained.done():
            self._drained.set_result(None)

    async def _sweep_idle(self) -> None:
        if not self._limits.idle_timeout:
            return
        sweep = IdleSweep(self.flows, self._limits.idle_timeout)
        while True:
            await asyncio.sleep(sweep.interval)
            sweep.sweep(self._engine.clock())

    def _close(self) -> None:
        self._gate.close()
        self.flows.abort_all("stopped")
        self._close_udp("stopped")
        self._context.dials.close()
        self._context.headers.close()
        self._context.pipes.close()
        self._engine.close()


@contextlib.asynccontextmanager
async def _beside(work: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
    """Run `work` until the block is left."""
    task = asyncio.create_task(work)
    try:
        yield
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


def run(
    forwards: Sequence[Forward],
    limits: Limits,
    log: Log,
    *,
    log_flows: bool,
    loop_factory: Callable[[], asyncio.AbstractEventLoop],
) -> None:
    """Serve until SIGINT or SIGTERM. Raises RelayError."""

    async def main() -> None:
        relay = Relay(forwards, limits, log, log_flows=log_flows)
        relay.stop_on_signals()
        await relay.serve()

    gc.collect()
    gc.freeze()
    gc.set_threshold(GC_THRESHOLD)
    try:
        with asyncio.Runner(loop_factory=loop_factory) as runner:
            runner.run(main())
    except OSError as error:
        raise RelayError(f"cannot start: {reason(error)}") from error
