"""Relays the one UDP port of a shim in standalone mode, on asyncio as `v6fwd forward` does."""

from __future__ import annotations

import socket
from collections.abc import Callable

from v6fwd.log import Log, log_exceptions
from v6fwd.model import Endpoint, Forward, Limits
from v6fwd.relay.event_loop import asyncio, new_event_loop
from v6fwd.relay.foreground import Foreground


def relay(
    forward: Forward,
    limits: Limits,
    log: Log,
    listen: Callable[[Endpoint], socket.socket],
    listening: Callable[[], object],
) -> None:
    """Serve until a signal; call `listening` before. Raises RelayError."""
    with asyncio.Runner(loop_factory=new_event_loop) as runner:
        runner.run(_serve(forward, limits, log, listen, listening))


async def _serve(
    forward: Forward,
    limits: Limits,
    log: Log,
    listen: Callable[[Endpoint], socket.socket],
    listening: Callable[[], object],
) -> None:
    log_exceptions(asyncio.get_running_loop(), log)
    foreground = Foreground([forward], limits, log, listen=listen)
    foreground.stop_on_signals()
    serving = asyncio.ensure_future(foreground.serve())
    ready = asyncio.ensure_future(foreground.ready.wait())
    await asyncio.wait([serving, ready], return_when=asyncio.FIRST_COMPLETED)
    if foreground.ready.is_set():
        listening()
    ready.cancel()
    await serving
