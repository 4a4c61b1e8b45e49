"""MemoryError itself, anywhere: it costs who met it, and nobody else an event or a descriptor.

CPython raises it wherever it allocates, so an errno injected into a system call does not show what
it does; see also test_exceptions.py.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import select
import socket
from typing import Any

import pytest

from tests.support.process import PATIENCE
from tests.support.relaying import Running, echo, relaying, target, until
from v6fwd.relay.limits.siblings import Alone, Siblings
from v6fwd.relay.reactor import Reactor
from v6fwd.relay.sockets import Accept


class Noted:
    """A handler that writes down what comes, and fails where it is told to."""

    def __init__(self, *fails: str) -> None:
        self.came: list[str] = []
        self._fails = fails

    def on_event(self, mask: int) -> None:  # noqa: ARG002
        """See Handler."""
        self._note("event")

    def on_exception(self, error: Exception) -> None:  # noqa: ARG002
        """See Handler."""
        self._note("exception")

    def _note(self, what: str) -> None:
        self.came.append(what)
        if what in self._fails:
            raise MemoryError


async def test_the_way_out_fails_for_one_of_a_batch() -> None:
    """The others' events are edges: nobody tells them again."""
    pairs = [socket.socketpair() for _ in range(3)]
    reactor = Reactor(asyncio.get_running_loop())
    handlers = [Noted("event", "exception") for _ in pairs]
    try:
        for (end, other), handler in zip(pairs, handlers, strict=True):
            reactor.watch(end.fileno(), select.EPOLLIN | select.EPOLLET, handler)
            other.send(b"x")
        asyncio.get_running_loop().set_exception_handler(lambda *_: None)
        await until(lambda: all(handler.came for handler in handlers), patience=1)
    finally:
        reactor.close()
        for end, other in pairs:
            end.close()
            other.close()


async def served(running: Running) -> None:
    """A client comes, and gets its bytes back."""
    reader, writer = await running.connect()
    async with asyncio.timeout(PATIENCE):
        writer.write(b"hello")
        assert await reader.readexactly(5) == b"hello"
    writer.close()
    await running.no_flows()


class Behind(Alone):
    """One of two processes, which has far more flows than the other."""

    def is_ahead(self, flows: int) -> bool:  # noqa: ARG002
        return True


class Forgetful:
    """An accept that fails for want of memory, so many times."""

    def __init__(self, accept: Accept, times: int) -> None:
        self._accept = accept
        self.times = times

    def __call__(self) -> int:
        if self.times:
            self.times -= 1
            raise MemoryError
        return self._accept()


@pytest.mark.parametrize(
    "siblings", [None, Alone(), Behind()], ids=lambda each: type(each).__name__
)
async def test_accepting_fails_for_a_while(siblings: Siblings | None) -> None:
    """In a process alone, in one of several, and in one that leaves the others some time."""
    async with target(echo) as behind, relaying(behind) as running:
        entrance: Any = running.relay.listeners[0]
        entrance._gate.siblings = siblings
        entrance._accept = Forgetful(entrance._accept, times=6)
        await served(running)
        assert not entrance._accept.times


@pytest.mark.parametrize(
    "siblings", [None, Alone(), Behind()], ids=lambda each: type(each).__name__
)
async def test_watching_again_fails_for_a_while(
    monkeypatch: pytest.MonkeyPatch, siblings: Siblings | None
) -> None:
    """epoll_ctl(2), or the table of handlers: the listener comes back."""
    async with target(echo) as behind, relaying(behind) as running:
        entrance: Any = running.relay.listeners[0]
        entrance._gate.siblings = siblings
        watch, failed = running.relay.reactor.watch, list[int]()

        def fail(fd: int, mask: int, handler: Any) -> None:
            if handler is entrance and len(failed) < 3:
                failed.append(fd)
                raise MemoryError
            watch(fd, mask, handler)

        monkeypatch.setattr(running.relay.reactor, "watch", fail)
        entrance._gate._shut(0.0, shed=False)
        await served(running)
        await served(running)
        assert len(failed) == 3


async def read_as_client(running: Running) -> None:
    """Raises ConnectionResetError, at connect(2) already if the reset comes that early."""
    reader, writer = await running.connect()
    with contextlib.closing(writer):
        async with asyncio.timeout(PATIENCE):
            await reader.read()


async def test_what_was_accepted_is_closed() -> None:
    """Between accept(2) and the flow that owns the descriptor."""
    async with target(echo) as behind, relaying(behind) as running:
        await served(running)
        before = len(os.listdir("/proc/self/fd"))
        entrance: Any = running.relay.listeners[0]
        acceptor = entrance.begin.__self__
        make = acceptor._make
        failed: list[int] = []

        def fail_once(fd: int, slot: int) -> Any:
            if failed:
                return make(fd, slot)
            failed.append(fd)
            raise MemoryError

        acceptor._make = fail_once
        with pytest.raises(ConnectionResetError):
            await read_as_client(running)
        await served(running)
        assert len(os.listdir("/proc/self/fd")) <= before
