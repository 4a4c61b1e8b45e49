"""Runs a relay in the foreground until a signal ends it; only targets of its forwards may move."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterable, Sequence

from v6fwd.errors import RelayError, reason
from v6fwd.log import Log, in_background
from v6fwd.model import Endpoint, Forward, Limits, RelayEngine
from v6fwd.model.lean import Any
from v6fwd.relay.event_loop import asyncio
from v6fwd.relay.life.process import freeze_garbage, open_all, stop_on_signals
from v6fwd.relay.ready import ready_text, tell_ready
from v6fwd.relay.relay import Relay, listen_on
from v6fwd.relay.ring.choose import choose, tell_engine
from v6fwd.relay.targets.bridges import on_bridges, tell_bridges
from v6fwd.relay.targets.mismatch import Mismatches, forward_at
from v6fwd.relay.targets.source import TargetSource


class Foreground:
    """Serves forwards from the first to the last moment of a process, on a running event loop.

    `listen` gives their sockets, `targets` the addresses of containers.
    """

    def __init__(
        self,
        forwards: Sequence[Forward],
        limits: Limits,
        log: Log,
        *,
        log_flows: bool = False,
        listen: Callable[[Endpoint], socket.socket] = listen_on,
        targets: TargetSource | None = None,
        engine: RelayEngine = RelayEngine.AUTO,
    ) -> None:
        self._forwards = {forward.listen: forward for forward in forwards}
        self._targets = targets
        self._limits = limits
        self._log = log
        self._listen = listen
        mismatches = Mismatches(log, self._forward_at)
        self._engine = choose(engine)
        self.relay = Relay(
            limits, log, log_flows=log_flows, heard=mismatches.note, ring=self._engine.ring
        )
        self.ready = asyncio.Event()
        self._stopping: asyncio.Future[float] = self.relay.reactor.loop.create_future()

    def _forward_at(self, listen: str) -> Forward | None:
        return forward_at(listen, self._forwards.values())

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
            tell_ready(self._log, ready_text(len(self._forwards)), self._forwards.values())
            tell_engine(self._log, self._engine)
            self.ready.set()
            await self.relay.drain(await self._stopping)
            self._log.info("stopped", "stopped")
        finally:
            if self._targets is not None:
                self._targets.close()
            self.relay.close()

    def stop(self, grace: float) -> None:
        """Stop accepting and let flows finish for `grace` seconds; called again: stop now."""
        if not self._stopping.done():
            self._stopping.set_result(grace)
        else:
            self.relay.hurry()

    def stop_on_signals(self) -> None:
        """Stop at signals; see life/process.py."""
        stop_on_signals(self.relay.reactor.loop.add_signal_handler, self.stop, self._limits)

    async def _open(self) -> None:
        if self._targets is not None:
            await self._targets.begin(self._forwards.values, self._change)
        await self.relay.resolve(*self._forwards.values())
        forwards = list(self._forwards.values())  # a container may have moved meanwhile
        open_all(self.relay, forwards, self._listen)

    def _change(self, forward: Forward) -> None:
        """The target of a forward has moved."""
        is_open = len(self.relay.listeners) > 0
        self._forwards[forward.listen] = forward
        if is_open:
            self.relay.replace(forward)


async def _tell_bridges(foreground: Foreground, forwards: Iterable[Forward], log: Log) -> None:
    found = on_bridges(forwards)  # asks the kernel, by a socket that is closed before `ready`
    await foreground.ready.wait()
    tell_bridges(found, log)


def run(
    forwards: Sequence[Forward],
    limits: Limits,
    log: Log,
    *,
    log_flows: bool,
    loop_factory: Callable[[], asyncio.AbstractEventLoop],
    targets: TargetSource | None = None,
    engine: RelayEngine = RelayEngine.AUTO,
) -> None:
    """Serve until SIGINT or SIGTERM. Raises RelayError."""

    async def main() -> None:
        foreground = Foreground(
            forwards, limits, log, log_flows=log_flows, targets=targets, engine=engine
        )
        foreground.stop_on_signals()
        telling = in_background(_tell_bridges(foreground, forwards, log), "bridges")
        try:
            await foreground.serve()
        finally:
            telling.cancel()

    freeze_garbage()
    try:
        with asyncio.Runner(loop_factory=loop_factory) as runner:
            runner.run(main())
    except OSError as error:
        raise RelayError(f"cannot start: {reason(error)}") from error
