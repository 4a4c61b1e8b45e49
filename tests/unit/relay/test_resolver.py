"""Resolver: names whose servers are silent keep no other from its answer."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
from collections.abc import Iterator

import pytest

from tests.support.process import PATIENCE
from v6fwd.relay.targets.resolver import (
    QUICK_THREADS,
    SLOW_AFTER,
    SLOW_THREADS,
    THREADS,
    Found,
    Resolver,
)

FOUND: Found = [(socket.AF_INET, ("192.0.2.1", 0))]


class Servers:
    """Answers all names but those that begin with `silent`, until `speak`."""

    def __init__(self) -> None:
        self.now = 0.0
        self.asked: list[str] = []
        self._lock = threading.Lock()
        self._speaking = threading.Event()
        self.resolver = Resolver(self.look_up, lambda: self.now)
        self._tasks: list[asyncio.Task[Found]] = []

    def look_up(self, name: str) -> Found:
        with self._lock:
            self.asked.append(name)
        if name.startswith("silent"):
            self._speaking.wait(PATIENCE)
        if name == "unknown":
            raise socket.gaierror(-2, "Name or service not known")
        return FOUND

    def speak(self) -> None:
        self._speaking.set()

    def ask(self, name: str) -> asyncio.Task[Found]:
        loop = asyncio.get_running_loop()
        self._tasks.append(loop.create_task(self.resolver.ask(name, loop)))
        return self._tasks[-1]

    async def answers(self) -> None:
        """Let all who have asked have their answer."""
        self.speak()
        async with asyncio.timeout(PATIENCE):
            await asyncio.gather(*self._tasks, return_exceptions=True)


@pytest.fixture
def servers() -> Iterator[Servers]:
    one = Servers()
    with contextlib.ExitStack() as stack:
        stack.callback(one.speak)
        yield one


async def answer_of(task: asyncio.Task[Found]) -> Found:
    async with asyncio.timeout(PATIENCE):
        return await task


async def test_an_answer(servers: Servers) -> None:
    assert await answer_of(servers.ask("a")) == FOUND


async def test_a_name_that_is_not_there(servers: Servers) -> None:
    with pytest.raises(socket.gaierror):
        await answer_of(servers.ask("unknown"))


async def test_a_name_has_one_thread(servers: Servers) -> None:
    tasks = [servers.ask("silent") for _ in range(5)]
    await answer_of(servers.ask("a"))
    servers.speak()
    assert [await answer_of(task) for task in tasks] == [FOUND] * 5
    assert servers.asked.count("silent") == 1


async def test_who_asks_no_more_is_no_trouble(servers: Servers) -> None:
    one, two = servers.ask("silent"), servers.ask("silent")
    await asyncio.sleep(0)
    one.cancel()
    servers.speak()
    assert await answer_of(two) == FOUND


async def test_silent_names_keep_no_thread_from_another(servers: Servers) -> None:
    """As many as asyncio's own threads, and more."""
    for number in range(QUICK_THREADS - 1):
        servers.ask(f"silent{number}")
    assert await answer_of(servers.ask("a")) == FOUND
    await servers.answers()


async def test_names_that_take_long_make_room(servers: Servers) -> None:
    silent = [servers.ask(f"silent{number}") for number in range(QUICK_THREADS)]
    await asyncio.sleep(0)
    servers.now += SLOW_AFTER
    assert await answer_of(servers.ask("a")) == FOUND
    assert not any(task.done() for task in silent)
    await servers.answers()


async def test_threads_are_bounded(servers: Servers) -> None:
    for number in range(2 * THREADS):
        servers.ask(f"silent{number}")
        servers.now += SLOW_AFTER
        await asyncio.sleep(0)
    assert len(servers.asked) <= THREADS
    await servers.answers()
    assert len(servers.asked) == 2 * THREADS, "the others have their turn later"


async def test_names_that_took_long_leave_threads_to_others(servers: Servers) -> None:
    names = [f"silent{number}" for number in range(THREADS)]
    for name in names:
        servers.ask(name)
        servers.now += SLOW_AFTER
        await asyncio.sleep(0)
    servers.now += SLOW_AFTER
    await servers.answers()
    servers._speaking.clear()
    servers.asked.clear()
    for name in names:
        servers.ask(name)
    assert await answer_of(servers.ask("a")) == FOUND
    assert len(servers.asked) <= SLOW_THREADS + 1
    await servers.answers()


async def test_no_thread_can_be_had(servers: Servers, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", fail)
        with pytest.raises(OSError, match="start new thread"):
            await answer_of(servers.ask("a"))
    assert await answer_of(servers.ask("a")) == FOUND
