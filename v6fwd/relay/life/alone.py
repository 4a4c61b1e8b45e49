"""Runs a relay whose targets are addresses, from first to last, without asyncio.

asyncio and uvloop take 8 MB and 15 ms of a start. The bytes move in the relay's own epoll
(relay/reactor.py) in either case; what is left for an event loop are timers and signals.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterable, Sequence

from v6fwd.log import Log, log_exceptions_without_loop
from v6fwd.model import ClientIP, Endpoint, Forward, Limits, RelayEngine
from v6fwd.model.lean import TYPE_CHECKING, cast
from v6fwd.relay.life.process import freeze_garbage, open_all, stop_on_signals
from v6fwd.relay.life.small_loop import SmallLoop
from v6fwd.relay.ready import ready_text, tell_ready
from v6fwd.relay.relay import Relay, listen_on
from v6fwd.relay.ring.choose import choose, tell_engine
from v6fwd.relay.targets.mismatch import Mismatches, forward_at

if TYPE_CHECKING:
    import asyncio


def needs_no_asyncio(forwards: Iterable[Forward]) -> bool:
    """Whether no name has to be resolved, no container followed and no namespace watched."""
    return not any(
        forward.target.is_name
        or "%" in forward.target.host  # if its interface is not there, the start fails
        or forward.target.container
        or forward.mesh.netns
        or forward.client_ip is ClientIP.TRANSPARENT
        for forward in forwards
    )


class Alone:
    """Serves forwards that `needs_no_asyncio`, until a signal. `listen` gives their sockets."""

    def __init__(
        self,
        forwards: Sequence[Forward],
        limits: Limits,
        log: Log,
        *,
        log_flows: bool = False,
        listen: Callable[[Endpoint], socket.socket] = listen_on,
        engine: RelayEngine = RelayEngine.AUTO,
    ) -> None:
        """Raises OSError."""
        log_exceptions_without_loop(log)
        self._forwards = forwards
        self._limits = limits
        self._log = log
        self._listen = listen
        self._loop = SmallLoop(log)
        self._engine = choose(engine)
        self._relay = Relay(
            limits,
            log,
            log_flows=log_flows,
            heard=Mismatches(log, self._forward_at).note,
            ring=self._engine.ring,
            loop=cast("asyncio.AbstractEventLoop", self._loop),
        )
        self._is_stopping = False

    def _forward_at(self, listen: str) -> Forward | None:
        return forward_at(listen, self._forwards)

    def run(self, ready: Callable[[], object]) -> None:
        """Listen, log `ready`, serve until a signal and drain; `ready` is called when all ports
        are open. Raises RelayError.
        """
        stop_on_signals(self._loop.add_signal_handler, self._stop, self._limits)
        for forward in self._forwards:
            self._relay.targets.resolving(forward)  # an address: no question, no wait
        open_all(self._relay, self._forwards, self._listen)
        freeze_garbage()
        tell_ready(self._log, ready_text(len(self._forwards)), self._forwards)
        tell_engine(self._log, self._engine)
        self._loop.call_soon(ready)
        self._loop.run()

    def _stop(self, grace: float) -> None:
        """Stop accepting and let flows finish for `grace` seconds; called again: stop now."""
        if self._is_stopping:
            self._relay.hurry()
        else:
            self._is_stopping = True
            self._relay.begin_drain(grace, self._drained)

    def _drained(self) -> None:
        self._log.info("stopped", "stopped")
        self._loop.stop()

    def close(self) -> None:
        """Free the ports, reset all flows."""
        self._relay.close()
        self._loop.close()
