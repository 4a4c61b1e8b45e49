"""The worker processes: forked, watched, replaced when they die or hang, drained."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from v6fwd.daemon.backoff import FIRST, Backoff
from v6fwd.daemon.handle import WorkerHandle, tell_nobody
from v6fwd.daemon.helper_handle import HelperHandle
from v6fwd.daemon.messages import Ask, Drain, Hurry
from v6fwd.daemon.scoreboard import Scoreboard
from v6fwd.daemon.usage import ChildUsage
from v6fwd.daemon.worker import Setup, fork_worker
from v6fwd.errors import reason
from v6fwd.log import Log, attempt
from v6fwd.model import IPNetwork
from v6fwd.relay.clients import Clients, ClientTable
from v6fwd.relay.counters import Snapshot, added
from v6fwd.relay.ends import End
from v6fwd.relay.targets.mismatch import Heard

BEAT = 2.0
"""Seconds between two signs of life; see handle.MISSED."""
MARGIN = 2.0
"""Seconds that a worker has beyond the end of its drain: for resets, and for rules to be undone."""
LOST = End.LOST.text
"""How the flows of a killed worker ended."""


@dataclass(slots=True)
class Done:
    """What the workers have done."""

    numbers: Counter[str] = field(default_factory=Counter)
    """How many flows it concerned, by forward."""
    missing: list[int] = field(default_factory=list)
    """Process ids of workers that did not answer: they do it before anything else that they
    are told, or are killed as hung."""


class WorkerPool:
    """Keeps `count` workers alive. `brief` sends a new one the forwards that it is to serve.

    Large because the life of a worker is one cycle (fork, brief, watch, kill, replace) over the
    same tables, beside what the supervisor asks of all workers.
    """

    def __init__(
        self,
        count: int,
        setup: Setup,
        log: Log,
        brief: Callable[[int, WorkerHandle], None],
        heard: Heard,
    ) -> None:
        self.count = count
        self.restarts = 0
        self.retired: dict[str, Snapshot] = {}
        """Counters of workers that have ended, by forward."""
        self._setup = setup
        self._log = log
        self._brief = brief
        self._heard = heard
        self.sought: Callable[[], None] = tell_nobody
        """Called when flows of a service look for other tasks than those that are known."""
        self._scoreboard = Scoreboard(count)
        self._table = ClientTable(count)
        self._workers: dict[int, WorkerHandle] = {}
        self._helpers: set[HelperHandle] = set()
        self._backoffs = [Backoff(time.monotonic) for _ in range(count)]
        self._timers: dict[int, asyncio.TimerHandle] = {}
        self._ending = False
        self._beating: asyncio.TimerHandle | None = None
        self._deadline: asyncio.TimerHandle | None = None
        self.gone = asyncio.Event()

    # -- their lives --

    def start(self) -> None:
        """Fork all workers. Raises OSError."""
        for slot in range(self.count):
            self._fork(slot)
        self._beat()

    def _beat(self) -> None:
        self._beating = asyncio.get_running_loop().call_later(BEAT, self._beat)
        for handle in self._workers.values():
            attempt(handle.beat)

    def _fork(self, slot: int) -> None:
        """Raises OSError or MemoryError: there is no worker in the slot then."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with contextlib.ExitStack() as undo:
            undo.callback(self._scoreboard.leave, slot)
            undo.enter_context(ours)
            with theirs:
                clients = Clients(self._table, slot, time.monotonic)
                entered = self._scoreboard.enter(slot)
                child = fork_worker(theirs, self._setup, entered, clients)
            undo.callback(child.wait)
            undo.callback(child.kill)
            handle = WorkerHandle(child, ours, self._fork_helper, self._heard)
            handle.sought = lambda: self.sought()
            undo.callback(handle.close)
            handle.watch(lambda status: self._died(slot, status))
            undo.pop_all()
        self._workers[slot] = handle
        self._backoffs[slot].started()
        self._brief(slot, handle)

    def _fork_helper(self, worker: WorkerHandle) -> HelperHandle | None:
        """Fork what has privileges in the worker's stead."""

        def ended(helper: HelperHandle) -> None:
            self._helpers.discard(helper)
            if not self._ending:
                worker.kill("its helper ended")
            self._look_if_gone()

        try:
            helper = HelperHandle(self._log, ended)
        except OSError as error:
            self._log.error("worker-failed", f"cannot start a worker's helper: {reason(error)}")
            return None
        self._helpers.add(helper)
        return helper

    def _died(self, slot: int, status: int) -> None:
        handle = self._workers.pop(slot)
        self._scoreboard.leave(slot)
        self._table.forget_worker(slot)
        attempt(self._retire, handle)
        if self._ending:
            self._look_if_gone()
            return
        delay = self._backoffs[slot].delay()
        if not self._workers:  # whatever kills them: nobody is served meanwhile
            delay = min(delay, FIRST)
        self._log.error(
            "worker-died",
            f"worker {handle.pid} died: {_how(status, handle.verdict)};"
            f" {'another one starts' if not delay else f'the next one starts in {delay:g} s'}",
            pid=handle.pid,
            seconds=delay,
        )
        self._timers[slot] = asyncio.get_running_loop().call_later(delay, self._replace, slot)

    def _replace(self, slot: int) -> None:
        self._timers.pop(slot, None)
        self.restarts += 1
        try:
            self._fork(slot)
        except Exception as error:  # no process or no memory to be had: later, maybe
            loop, delay = asyncio.get_running_loop(), self._backoffs[slot].delay()
            self._timers[slot] = loop.call_later(max(1.0, delay), self._replace, slot)
            why = reason(error) if isinstance(error, OSError) else repr(error)
            self._log.error("worker-failed", f"cannot start a worker: {why}")

    def _retire(self, handle: WorkerHandle) -> None:
        """Keep its counters. Its flows are over, whether it reported that or not."""
        for listen, numbers in handle.numbers.items():
            final = with_lost(numbers)
            known = self.retired.get(listen)
            self.retired[listen] = final if known is None else added(known, final)

    # -- all of them --

    @property
    def workers(self) -> dict[int, WorkerHandle]:
        """The live workers, by slot."""
        return self._workers

    @property
    def pids(self) -> set[int]:
        """Their process ids."""
        return {handle.pid for handle in self._workers.values()}

    def usage(self) -> dict[str, ChildUsage]:
        """What each process takes, by its name: `worker-0`, `helper-0`."""
        found = {f"worker-{slot}": each.usage for slot, each in sorted(self._workers.items())}
        for slot, each in sorted(self._workers.items()):
            if each.helper is not None:
                found[f"helper-{slot}"] = each.helper.usage
        return found

    async def ask(self, what: str) -> dict[int, list[Any]]:
        """Return the answer of each worker, by slot."""
        workers = dict(self._workers)
        answers = await asyncio.gather(*(each.ask(what) for each in workers.values()))
        return dict(zip(workers, answers, strict=True))

    async def demand(
        self, what: str, networks: tuple[IPNetwork, ...] = (), listens: tuple[str, ...] = ()
    ) -> Done:
        """Have all workers do something, and wait until each has done it."""
        handles = [*self._workers.values()]
        asked = (each.demand(what, networks, listens) for each in handles)
        done = Done()
        for handle, answer in zip(handles, await asyncio.gather(*asked), strict=True):
            if answer is None:
                done.missing.append(handle.pid)
            for listen, number in answer or ():
                done.numbers[listen] += number
        return done

    def tell_bans(self) -> None:
        """Have all workers look who is banned, and wait for nobody."""
        for handle in self._workers.values():
            handle.send(Ask(0, "bans"))

    def drain(self, grace: float, *, take_queue: bool) -> None:
        """Let all of them finish and end; `gone` is set when they have. None is replaced.

        One that is still there MARGIN after `grace` seconds is killed.
        """
        self._ending = True
        for timer in self._timers.values():
            timer.cancel()
        for handle in self._workers.values():
            handle.send(Drain(grace, take_queue))
        self._kill_in(grace + MARGIN)
        self._look_if_gone()

    def hurry(self) -> None:
        """Cut the drain short."""
        for handle in self._workers.values():
            handle.send(Hurry())
        self._kill_in(MARGIN)

    def kill(self) -> None:
        """End them at once, whatever they do."""
        self._ending = True
        for timer in (self._beating, self._deadline):
            if timer is not None:
                timer.cancel()
        for handle in self._workers.values():
            handle.kill("the daemon ends")
        for helper in self._helpers:
            helper.kill()

    def _kill_in(self, seconds: float) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
        self._deadline = asyncio.get_running_loop().call_later(seconds, self._kill_late)

    def _kill_late(self) -> None:
        for handle in self._workers.values():
            self._log.error(
                "worker-killed",
                f"worker {handle.pid} did not end in time: killed",
                pid=handle.pid,
            )
        self.kill()

    def _look_if_gone(self) -> None:
        if not self._ending or self._workers or self._helpers:
            return
        for timer in (self._beating, self._deadline):
            if timer is not None:
                timer.cancel()
        self.gone.set()

    @property
    def trouble(self) -> str:
        """What is wrong with the workers, in a few words; "" if all is well."""
        if not self._workers:
            return "no worker is alive"
        silent = sum(handle.is_silent for handle in self._workers.values())
        return f"{silent} of {self.count} workers do not answer" if silent else ""


def with_lost(numbers: Snapshot) -> Snapshot:
    """Count flows that were live as ended with their worker."""
    lost = numbers["flows"] - numbers["ended"]
    if not lost:
        return numbers
    ends = {**numbers["ends"], LOST: numbers["ends"].get(LOST, 0) + lost}
    return {**numbers, "ended": numbers["flows"], "ends": ends}


def _how(status: int, verdict: str) -> str:
    """Describe how a worker ended."""
    if verdict:
        return f"killed, since {verdict}"
    if os.WIFSIGNALED(status):
        return f"killed by {signal.Signals(os.WTERMSIG(status)).name}"
    return f"exit status {os.waitstatus_to_exitcode(status)}"
