"""The workers: forked, watched, replaced when they die, and asked."""

from __future__ import annotations

import asyncio
import contextlib
import marshal
import os
import signal
import socket
import time
from collections.abc import Callable
from typing import Any

from v6fwd.daemon.backoff import Backoff
from v6fwd.daemon.channel import Channel
from v6fwd.daemon.messages import Answer, Ask, Drain, Hurry, Message, Report
from v6fwd.daemon.scoreboard import Scoreboard
from v6fwd.daemon.worker import Setup, fork_worker
from v6fwd.errors import reason
from v6fwd.log import Log
from v6fwd.relay.clients import Clients, ClientTable
from v6fwd.relay.counters import Snapshot, added
from v6fwd.relay.ends import End

PATIENCE = 10.0
"""Seconds for a worker to answer; a new one opens thousands of forwards first."""
LOST = End.LOST.text
"""How the flows of a killed worker ended."""


class WorkerHandle:
    """A worker, seen from the supervisor."""

    def __init__(self, pid: int, sock: socket.socket) -> None:
        self.pid = pid
        self.since = time.time()
        self._numbers: dict[str, bytes] = {}
        """What it has told last, packed: a tenth of the memory, and seldom looked at."""
        self._pidfd = os.pidfd_open(pid)
        self._channel = Channel(sock, self._receive)
        self._number = 0
        self._asked: dict[int, tuple[list[Any], asyncio.Future[list[Any]]]] = {}

    def watch(self, died: Callable[[int], None]) -> None:
        """Call `died` with the wait status when it is over."""
        asyncio.get_running_loop().add_reader(self._pidfd, self._over, died)

    def send(self, message: Message, sock: socket.socket | None = None) -> None:
        """See Channel.send."""
        self._channel.send(message, sock)

    @property
    def numbers(self) -> dict[str, Snapshot]:
        """What each forward had done in it when it told last."""
        return {listen: marshal.loads(packed) for listen, packed in self._numbers.items()}

    async def ask(self, what: str) -> list[Any]:
        """The whole answer; [] from a worker that dies before it is told."""
        number, self._number = self._number, self._number + 1
        future: asyncio.Future[list[Any]] = asyncio.get_running_loop().create_future()
        self._asked[number] = [], future
        self.send(Ask(number, what))
        try:
            async with asyncio.timeout(PATIENCE):
                answer = await future
        except TimeoutError:  # stopped, or busy beyond reason: what it reported last must do
            del self._asked[number]
            return list(self.numbers.items()) if what == "snapshot" else []
        if what == "snapshot":
            self._numbers |= {listen: marshal.dumps(numbers) for listen, numbers in answer}
        return answer

    def _receive(self, message: Message, _fd: int) -> None:
        if isinstance(message, Report):
            self._note(message.listen, message.numbers)
        elif isinstance(message, Answer):
            if message.number not in self._asked:  # told too late
                return
            items, future = self._asked[message.number]
            items += message.part
            if message.last:
                del self._asked[message.number]
                if not future.done():
                    future.set_result(items)

    def _note(self, listen: str, numbers: Snapshot) -> None:
        """A report knows less of flows that live than an answer that was given before it."""
        packed = self._numbers.get(listen)
        known = numbers if packed is None else marshal.loads(packed)
        bytes_moved = {key: max(numbers[key], known[key]) for key in ("bytes_up", "bytes_down")}
        self._numbers[listen] = marshal.dumps(numbers | bytes_moved)

    def _over(self, died: Callable[[int], None]) -> None:
        asyncio.get_running_loop().remove_reader(self._pidfd)
        _, status = os.waitpid(self.pid, 0)
        self._channel.read()  # its last words
        self.close()
        died(status)

    def close(self) -> None:
        """Be done with it."""
        self._channel.close()
        if self._pidfd >= 0:
            os.close(self._pidfd)
            self._pidfd = -1
        for _, future in self._asked.values():
            if not future.done():
                future.set_result([])
        self._asked.clear()


class WorkerPool:
    """Keeps `count` workers alive. `brief` tells a new one what there is to serve."""

    def __init__(
        self, count: int, setup: Setup, log: Log, brief: Callable[[int, WorkerHandle], None]
    ) -> None:
        self.count = count
        self.restarts = 0
        self.retired: dict[str, Snapshot] = {}
        """What workers that are no more have done, by forward."""
        self._setup = setup
        self._log = log
        self._brief = brief
        self._scoreboard = Scoreboard(count)
        self._table = ClientTable(count)
        self._workers: dict[int, WorkerHandle] = {}
        self._backoffs = [Backoff(time.monotonic) for _ in range(count)]
        self._timers: dict[int, asyncio.TimerHandle] = {}
        self._ending = False
        self.gone = asyncio.Event()

    # -- their lives --

    def start(self) -> None:
        """Fork them all. Raises OSError."""
        for slot in range(self.count):
            self._fork(slot)

    def _fork(self, slot: int) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            with theirs:
                clients = Clients(self._table, slot, time.monotonic)
                pid = fork_worker(theirs, self._setup, self._scoreboard.enter(slot), clients)
        except BaseException:
            ours.close()
            self._scoreboard.leave(slot)
            raise
        handle = self._workers[slot] = WorkerHandle(pid, ours)
        self._backoffs[slot].started()
        handle.watch(lambda status: self._died(slot, status))
        self._brief(slot, handle)

    def _died(self, slot: int, status: int) -> None:
        handle = self._workers.pop(slot)
        self._scoreboard.leave(slot)
        self._table.forget_worker(slot)
        self._retire(handle)
        if self._ending:
            if not self._workers:
                self.gone.set()
            return
        delay = self._backoffs[slot].delay()
        self._log.error(
            "worker-died",
            f"worker {handle.pid} died: {_how(status)};"
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
        except OSError as error:  # no process or no memory to be had: later, maybe
            delay = self._backoffs[slot].delay()
            self._log.error("worker-failed", f"cannot start a worker: {reason(error)}")
            loop = asyncio.get_running_loop()
            self._timers[slot] = loop.call_later(max(1.0, delay), self._replace, slot)

    def _retire(self, handle: WorkerHandle) -> None:
        """Keep its numbers; flows that it had are over, whether it said so or not."""
        for listen, numbers in handle.numbers.items():
            final = with_lost(numbers)
            known = self.retired.get(listen)
            self.retired[listen] = final if known is None else added(known, final)

    # -- all of them --

    @property
    def workers(self) -> dict[int, WorkerHandle]:
        """Those that live, by slot."""
        return self._workers

    async def ask(self, what: str) -> dict[int, list[Any]]:
        """The answer of each, by slot."""
        workers = dict(self._workers)
        answers = await asyncio.gather(*(each.ask(what) for each in workers.values()))
        return dict(zip(workers, answers, strict=True))

    def drain(self, grace: float, *, take_queue: bool) -> None:
        """Let all of them finish and end; `gone` is set when they have. None is replaced."""
        self._ending = True
        for timer in self._timers.values():
            timer.cancel()
        for handle in self._workers.values():
            handle.send(Drain(grace, take_queue))
        if not self._workers:
            self.gone.set()

    def hurry(self) -> None:
        """Cut the drain short."""
        for handle in self._workers.values():
            handle.send(Hurry())

    def kill(self) -> None:
        """End them at once, whatever they do."""
        self._ending = True
        for handle in self._workers.values():
            with contextlib.suppress(ProcessLookupError):
                os.kill(handle.pid, signal.SIGKILL)


def with_lost(numbers: Snapshot) -> Snapshot:
    """The same after the worker's end: flows that were live have ended with it."""
    lost = numbers["flows"] - numbers["ended"]
    if not lost:
        return numbers
    ends = {**numbers["ends"], LOST: numbers["ends"].get(LOST, 0) + lost}
    return {**numbers, "ended": numbers["flows"], "ends": ends}


def _how(status: int) -> str:
    """A wait status in words."""
    if os.WIFSIGNALED(status):
        return f"killed by {signal.Signals(os.WTERMSIG(status)).name}"
    return f"exit status {os.waitstatus_to_exitcode(status)}"
