"""Relays the one TCP port of a shim in standalone mode, in as little memory as may be.

It is relay/relay.py for one forward that never changes, whose target is an address, and which is
cut at the end: the container is gone then.
"""

from __future__ import annotations

import gc
import signal
import socket
from collections.abc import Callable
from typing import TYPE_CHECKING, cast

from v6fwd.docker.shim.small_loop import SmallLoop
from v6fwd.log import Log, attempt, log_exceptions_without_loop
from v6fwd.model import Forward, Limits
from v6fwd.relay.clients import Clients, ClientTable
from v6fwd.relay.ends import End
from v6fwd.relay.idle import IdleSweeps
from v6fwd.relay.limits.dead_peers import DeadPeers
from v6fwd.relay.limits.loop_watch import LoopWatch
from v6fwd.relay.listener import Gate
from v6fwd.relay.pairs.pump import epoll_reactor
from v6fwd.relay.ports import open_port
from v6fwd.relay.ready import ready_text, tell_ready
from v6fwd.relay.resources import Resources
from v6fwd.relay.targets.shared import Targets

if TYPE_CHECKING:
    import asyncio

GC_THRESHOLD = 50_000
"""As in relay/foreground.py."""
STOPS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)


class OnePort:
    """The relay, from its listening socket to its end."""

    def __init__(self, forward: Forward, sock: socket.socket, limits: Limits, log: Log) -> None:
        """Raises RelayError if the target is this port."""
        log_exceptions_without_loop(log)
        self._forward = forward
        self._log = log
        self._loop = SmallLoop(log)
        self._reactor, pumps = epoll_reactor(cast("asyncio.AbstractEventLoop", self._loop))
        clients = Clients(ClientTable(), 0, self._reactor.clock)
        parts = self._reactor, limits.max_flows, log, clients
        self._resources = Resources(*parts, log_flows=False, pumps=pumps)
        self._resources.share_out(1, 0)
        flows = self._resources.flows
        self._targets = Targets(self._reactor, log)
        target = self._targets.resolving(forward)
        self._targets.listens(forward.listen, forward, sock)
        self._targets.check([forward])
        self._gate = Gate(self._reactor, flows, log)
        self._idle = IdleSweeps(self._reactor, flows)
        self._dead_peers = DeadPeers(self._reactor, flows)
        hops = self._resources.hops
        refuse = self._targets.refuse_for_a_while
        self._loops = LoopWatch(self._reactor, flows, hops, refuse, log)
        open_port(forward, target, sock, self._gate, self._resources)
        self._idle.keep([forward])

    def run(self, ready: Callable[[], object]) -> None:
        """Serve until a signal; call `ready` before."""
        self._loop.stop_on(STOPS)
        for number in (signal.SIGUSR1, signal.SIGUSR2):
            signal.signal(number, signal.SIG_IGN)
        gc.collect()
        gc.freeze()
        gc.set_threshold(GC_THRESHOLD)
        tell_ready(self._log, ready_text(1), [self._forward])
        ready()
        self._loop.run()

    def close(self) -> None:
        """Free the port, reset all flows."""
        attempt(self._gate.close)
        self._resources.flows.abort_all(End.STOPPED)
        for part in (self._idle, self._loops, self._dead_peers, self._resources, self._targets):
            attempt(part.close)
        self._reactor.close()
        self._loop.close()
