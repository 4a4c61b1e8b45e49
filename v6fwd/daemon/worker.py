"""A worker: a relay that follows the supervisor's messages and drains if the supervisor dies."""

from __future__ import annotations

import asyncio
import errno
import functools
import gc
import os
import socket
import sys
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

from v6fwd.client_ip.proxy.write import learn_v2_starts, packed_v2_starts
from v6fwd.daemon.apart import made_apart
from v6fwd.daemon.channel import Channel
from v6fwd.daemon.messages import (
    Ask,
    Change,
    Close,
    Drain,
    Hurry,
    Message,
    Open,
    Report,
    Sought,
    UseHelper,
    answers,
    read_by_worker,
)
from v6fwd.daemon.privileges import become_nobody, find_nobody
from v6fwd.daemon.process import Child, fork
from v6fwd.daemon.scoreboard import ScoreboardSlot
from v6fwd.daemon.seccomp import confine, filter_ahead, is_strict
from v6fwd.log import Log, attempt, in_background, log_exceptions
from v6fwd.model import Endpoint, Forward, Limits, RelayEngine
from v6fwd.relay.clients import Clients
from v6fwd.relay.ends import End
from v6fwd.relay.life.process import GC_THRESHOLD
from v6fwd.relay.limits.bans import Bans, BanTable
from v6fwd.relay.limits.chosen import Chosen
from v6fwd.relay.ports import import_all
from v6fwd.relay.relay import Relay
from v6fwd.relay.ring.choose import choose, tell_engine
from v6fwd.relay.ring.native import Ring

REPORT_EVERY = 2.0
"""Seconds between reports: what a killed worker did since the last one is counted nowhere."""
SEEK_EVERY = 0.2
"""Seconds between two messages that flows of a forward look for other tasks."""


@dataclass(frozen=True, slots=True)
class Setup:
    """The settings of a worker that do not change."""

    limits: Limits
    log: Log
    log_flows: bool
    workers: int
    bans: BanTable
    engine: RelayEngine = RelayEngine.AUTO


class Worker:
    """The relay of this process and its end of the channel."""

    def __init__(
        self,
        sock: socket.socket,
        setup: Setup,
        slot: ScoreboardSlot,
        clients: Clients,
        bans: Bans,
        ring: Ring | None = None,
    ) -> None:
        self._limits = setup.limits
        self._log = setup.log
        self._log.heard = None  # the supervisor's
        self._relay = Relay(
            setup.limits,
            setup.log,
            log_flows=setup.log_flows,
            siblings=slot if setup.workers > 1 else None,
            clients=clients,
            bans=bans,
            ring=ring,
        )
        self._sought: dict[Endpoint, float] = {}
        self._relay.targets.sought = self._seek
        self._channel = Channel(
            sock,
            read_by_worker,
            self._receive,
            ended=self._orphaned,
            violated=self._cannot_read,
            takes_sockets=True,
        )
        self._draining: asyncio.Task[None] | None = None
        self._reported: dict[str, int] = {}
        self._parts: dict[Any, Any] = {}
        self.done = asyncio.Event()

    async def serve(self) -> None:
        """Serve until a drain is over."""
        reporting = in_background(self._report_again_and_again(), "reports")
        try:
            await self.done.wait()
        finally:
            reporting.cancel()
            for step in (self._report, self._relay.close, self._channel.close):
                attempt(step)

    def _receive(self, message: Message, fd: int) -> None:
        sock = socket.socket(fileno=fd) if fd >= 0 else None  # closed with its last reference
        try:
            self._obey(message, sock)
        except Exception as error:
            self._log.error("defect", f"internal error: {message}: {error!r}")

    def _obey(self, message: Message, sock: socket.socket | None) -> None:
        match message:
            case Open(forward, shard):
                self._relay.begin(self._alike(forward), _there(sock), shard)
            case Change(forward, shard):
                self._relay.replace(self._alike(forward), shard)
            case Close(listen, shard, grace, take_queue):
                self._relay.close_forward(listen, grace, shard, take_queue=take_queue)
            case Ask():
                self._answer(message)
            case Drain(grace, take_queue):
                self._drain(grace, take_queue=take_queue)
            case Hurry():
                self._relay.hurry()
            case UseHelper():
                from v6fwd.daemon.helper_ops import HelperOps  # for mode transparent alone

                self._relay.targets.privileged_ops = HelperOps(
                    _there(sock), self._log, self._relay.reactor.loop.call_later
                )

    def _alike(self, forward: Forward) -> Forward:
        """Return an equal forward that shares its parts with others: most differ in ports only."""
        one = self._parts
        return replace(
            forward,
            listen=replace(forward.listen, host=sys.intern(forward.listen.host)),
            target=replace(forward.target, host=sys.intern(forward.target.host)),
            limits=one.setdefault(forward.limits, forward.limits),
            guard=one.setdefault(forward.guard, forward.guard),
            transparent=one.setdefault(forward.transparent, forward.transparent),
        )

    def _answer(self, asked: Ask) -> None:
        for answer in answers(asked.number, self._items(asked)):
            self._channel.send(answer)

    def _items(self, asked: Ask) -> Iterable[Any]:
        match asked.what:
            case "flows":
                return self._relay.flows_now()
            case "snapshot":
                return self._relay.snapshot().items()
            case "bans":
                return self._relay.apply_bans().items()
            case "end":
                chosen = Chosen(asked.networks, asked.listens)
                return self._relay.end_flows(chosen.has, End.KILLED).items()
        return ()

    def _cannot_read(self, why: str) -> None:
        """The supervisor is another version or broken: go on without it, to the end."""
        self._log.error("defect", f"internal error: a message of the supervisor: {why}")
        self._orphaned()

    def _drain(self, grace: float, *, take_queue: bool) -> None:
        if self._draining is None:
            self._draining = in_background(self._drained(grace, take_queue=take_queue), "drain")

    async def _drained(self, grace: float, *, take_queue: bool) -> None:
        try:
            await self._relay.drain(grace, take_queue=take_queue)
        finally:
            self.done.set()

    def _orphaned(self) -> None:
        """Drain, so that the ports are free for a new supervisor."""
        if self._draining is None:
            self._log.error("orphaned", "the supervisor is gone: this worker drains")
        self._drain(self._limits.drain_timeout, take_queue=True)

    async def _report_again_and_again(self) -> None:
        while True:
            await asyncio.sleep(REPORT_EVERY)
            attempt(self._report)

    def _seek(self, listen: Endpoint) -> None:
        now = self._relay.reactor.clock()
        if now - self._sought.get(listen, float("-inf")) >= SEEK_EVERY:
            self._sought[listen] = now
            self._channel.send(Sought(str(listen)))

    def _report(self) -> None:
        """Report the counters that have changed; unused forwards have none."""
        activity, before = self._relay.activity(), self._reported
        self._reported = activity
        changed = {listen for listen in activity if activity[listen] != before.get(listen)}
        if changed:
            for listen, numbers in self._relay.totals(changed).items():
                self._channel.send(Report(listen, numbers))


def _there(sock: socket.socket | None) -> socket.socket:
    """The socket that came along. Raises OSError: this process had no descriptor for it."""
    if sock is None:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
    return sock


def fork_worker(sock: socket.socket, setup: Setup, slot: ScoreboardSlot, clients: Clients) -> Child:
    """Start a worker at the other end of `sock`'s pair; see `fork`. Raises OSError.

    What can be done before is: a page that a worker writes to is its own from then on. Its event
    loop is asyncio's. uvloop would take 1 MB of each process, and the loop is asked every 10 ms at
    most while flows are busy.
    """

    def main() -> int:
        bans = setup.bans.reader()
        unprivileged = become_nobody()
        chosen = choose(setup.engine)  # before the filter, which does not allow to open a ring
        if chosen.why:
            tell_engine(setup.log, chosen)
        for missing in (unprivileged, confine(strict=is_strict(), ring=chosen.ring is not None)):
            if missing:
                setup.log.warning("privileges", f"a worker has more rights than needed: {missing}")
        gc.set_threshold(GC_THRESHOLD)
        serving = _serve(sock, setup, slot, clients, bans, chosen.ring)
        asyncio.Runner().run(serving)
        return 0

    _learn_v2_starts(setup.log)
    import_all()
    find_nobody()
    filter_ahead()
    return fork(main, (sock.fileno(), setup.bans.fd, *clients.descriptors), setup.log)


@functools.cache
def _learn_v2_starts(log: Log) -> None:
    """Once, without the library that makes them; where that fails, `import_all` has it here."""
    try:
        learn_v2_starts(made_apart(packed_v2_starts))
    except (OSError, ValueError) as error:
        log.warning("defect", f"internal error: {error!r}")


async def _serve(
    sock: socket.socket,
    setup: Setup,
    slot: ScoreboardSlot,
    clients: Clients,
    bans: Bans,
    ring: Ring | None,
) -> None:
    log_exceptions(asyncio.get_running_loop(), setup.log)
    await Worker(sock, setup, slot, clients, bans, ring).serve()
