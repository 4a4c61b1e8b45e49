"""The daemon's own watches go on, and its ends come to an end, whatever fails on the way."""

from __future__ import annotations

import asyncio
import json
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from tests.support.logged import Logged
from tests.support.relaying import until
from v6fwd.daemon import control, pool, worker
from v6fwd.daemon.control import Control
from v6fwd.daemon.pool import WorkerPool
from v6fwd.daemon.serve import Daemon
from v6fwd.daemon.worker import Setup, Worker
from v6fwd.model import Limits
from v6fwd.relay.limits.bans import BanTable


def no_memory(*_: object, **__: object) -> None:
    raise MemoryError


class Beaten:
    """A worker that is asked for signs of life."""

    pid, verdict = 4711, ""

    def __init__(self, *, fails: bool = False) -> None:
        self.fails = fails
        self.beats = 0

    def beat(self) -> None:
        self.beats += 1
        if self.fails:
            raise MemoryError

    @property
    def numbers(self) -> Any:
        raise MemoryError


@pytest.fixture
async def workers(logged: Logged) -> WorkerPool:
    setup = Setup(Limits(), logged.log, False, 2, BanTable(float))
    return WorkerPool(2, setup, logged.log, no_memory, no_memory)


async def test_the_heartbeat_goes_on(
    workers: WorkerPool, monkeypatch: pytest.MonkeyPatch, reported: list[str]
) -> None:
    """Without it a worker that hangs is never seen."""
    monkeypatch.setattr(pool, "BEAT", 0.001)
    failing, other = Beaten(fails=True), Beaten()
    workers._workers = cast("Any", {0: failing, 1: other})
    workers._beat()
    await until(lambda: other.beats > 2)
    assert workers._beating is not None
    workers._beating.cancel()
    assert set(reported) == {"MemoryError()"}


async def test_a_worker_is_replaced_whatever_fails(
    workers: WorkerPool, monkeypatch: pytest.MonkeyPatch, reported: list[str], logged: Logged
) -> None:
    """Its last numbers cannot be added up, and the next one cannot be forked at first."""
    forked: list[int] = []

    def fork(slot: int) -> None:
        forked.append(slot)
        if len(forked) < 3:
            raise MemoryError

    workers._workers = cast("Any", {1: Beaten()})
    monkeypatch.setattr(workers, "_fork", fork)
    monkeypatch.setattr(pool, "max", lambda *_: 0.0, raising=False)
    workers._died(1, signal.SIGKILL)
    await until(lambda: len(forked) == 3)
    assert forked == [1, 1, 1]
    assert reported == ["MemoryError()"]
    events = [event for event, _ in logged.lines()]
    assert events == ["worker-died", "worker-failed", "worker-failed"]


@pytest.mark.parametrize(("others", "wait"), [(1, "8 s"), (0, "1 s")])
async def test_the_last_worker_is_soon_replaced(
    workers: WorkerPool, logged: Logged, reported: list[str], others: int, wait: str
) -> None:
    """In a crash loop of all of them, or with the kernel short of memory: somebody must serve."""
    for _ in range(4):
        workers._backoffs[1].delay()
    workers._workers = cast("Any", {1: Beaten(), **({0: Beaten()} if others else {})})
    workers._died(1, signal.SIGKILL)
    workers._timers[1].cancel()
    ((event, text),) = logged.lines()
    assert event == "worker-died"
    assert text.endswith(f"the next one starts in {wait}")
    assert reported == ["MemoryError()"]  # Beaten's numbers


async def test_reports_go_on(monkeypatch: pytest.MonkeyPatch, reported: list[str]) -> None:
    monkeypatch.setattr(worker, "REPORT_EVERY", 0.0)
    calls: list[int] = []

    def report(_: Worker) -> None:
        calls.append(1)
        if len(calls) == 1:
            raise MemoryError

    monkeypatch.setattr(Worker, "_report", report)
    task = asyncio.create_task(Worker.__new__(Worker)._report_again_and_again())
    await until(lambda: len(calls) > 2)
    task.cancel()
    assert reported == ["MemoryError()"]


async def test_a_worker_gives_all_back_at_its_end(
    monkeypatch: pytest.MonkeyPatch, reported: list[str]
) -> None:
    monkeypatch.setattr(Worker, "_report", no_memory)
    closed: list[str] = []
    one: Any = Worker.__new__(Worker)
    one.done = asyncio.Event()
    one._relay = SimpleNamespace(close=lambda: closed.append("relay"))
    one._channel = SimpleNamespace(close=lambda: closed.append("channel"))
    one.done.set()
    await one.serve()
    assert closed == ["relay", "channel"]
    assert reported == ["MemoryError()"]


class Part:
    """Something that the daemon closes, or fails to."""

    def __init__(self, *, fails: bool) -> None:
        self.fails = fails
        self.closed = 0

    def close(self, *, succeeded: bool = False) -> None:  # noqa: ARG002
        self.closed += 1
        if self.fails:
            raise MemoryError


async def test_the_daemon_closes_all_its_parts(reported: list[str]) -> None:
    """Docker's redirect of IPv4 clients must go, whatever the others do."""
    parts = [Part(fails=True) for _ in range(5)] + [Part(fails=False)]
    daemon: Any = Daemon.__new__(Daemon)
    daemon._control, daemon._bans, daemon._web, daemon._targets, *daemon._sources = parts
    daemon._kept = []
    daemon._close()
    assert [part.closed for part in parts] == [1] * 6
    assert len(reported) == 5


class Forgetful:
    """A listening socket whose first accept(2) fails for want of memory."""

    def __init__(self, sock: Any) -> None:
        self._sock = sock
        self.failed = False

    def accept(self) -> Any:
        if not self.failed:
            self.failed = True
            raise MemoryError
        return self._sock.accept()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._sock, name)


async def test_the_control_socket_accepts_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reported: list[str]
) -> None:
    """Who waits keeps the socket readable: the loop must not spin on it meanwhile."""
    monkeypatch.setattr(control, "PAUSE", 0.001)

    async def answers(_request: Any, _sock: Any) -> AsyncIterator[dict[str, Any]]:
        yield {"done": True}

    path = tmp_path / "control.sock"
    one: Any = Control(str(path), "", answers)
    one.open()
    one._socket = Forgetful(one._socket)
    reader, writer = await asyncio.open_unix_connection(str(path))
    writer.write(b'{"do": "status"}\n')
    assert json.loads(await reader.readline()) == {"done": True}
    writer.close()
    one.close()
    assert one._socket is None
    assert reported == []
