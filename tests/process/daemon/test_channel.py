"""The way between supervisor and worker."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import socket
from collections.abc import Iterator
from typing import Any

import pytest

from tests.support.relaying import until
from v6fwd.daemon.channel import BATCH, Channel
from v6fwd.daemon.messages import Ask, Change, Hurry, Message, Open, read_by_worker, to_bytes
from v6fwd.model import Endpoint, Forward, parse_networks

FORWARD = Forward(
    Endpoint("::", 80), Endpoint("name", 80), accept_proxy=parse_networks("10.0.0.0/8,fd00::/8")
)


class End:
    """One end, and what it has received."""

    def __init__(self, sock: socket.socket) -> None:
        self.received: list[Message] = []
        self.fds: list[int] = []
        self.ended = False
        self.violations: list[str] = []
        self.channel = Channel(
            sock,
            read_by_worker,
            self._receive,
            ended=self._end,
            violated=self.violations.append,
            takes_sockets=True,
        )

    def _receive(self, message: Message, fd: int) -> None:
        self.received.append(message)
        if fd >= 0:
            self.fds.append(fd)

    def _end(self) -> None:
        self.ended = True


@contextlib.contextmanager
def ends() -> Iterator[tuple[End, End]]:
    pair = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    one, other = (End(sock) for sock in pair)
    try:
        yield one, other
    finally:
        for end in (one, other):
            end.channel.close()
            for fd in end.fds:
                os.close(fd)


async def test_a_socket_comes_along() -> None:
    with ends() as (one, other), socket.create_server(("127.0.0.1", 0)) as server:
        one.channel.send(Open(FORWARD, 0), server)
        one.channel.send(Change(FORWARD, 0))
        await until(lambda: len(other.received) == 2)
        assert other.received == [Open(FORWARD, 0), Change(FORWARD, 0)]
        assert os.fstat(other.fds[0]).st_ino == os.fstat(server.fileno()).st_ino


async def test_what_does_not_fit_waits_in_order() -> None:
    """Far more than the socket's buffer holds; the sender closes its sockets meanwhile."""
    count = 3000
    with ends() as (one, other):
        for number in range(count):
            with socket.socket() as sock:
                one.channel.send(Open(FORWARD, number), sock if number % 10 == 0 else None)
        await until(lambda: len(other.received) == count)
        assert [each.shard for each in other.received if isinstance(each, Open)] == [*range(count)]
        assert len(other.fds) == count // 10


async def test_too_many_descriptors_under_way(monkeypatch: pytest.MonkeyPatch) -> None:
    refusals = [OSError(errno.ETOOMANYREFS, "")] * 3
    send_fds = socket.send_fds

    def send(*arguments: object) -> int:
        if refusals:
            raise refusals.pop()
        return send_fds(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(socket, "send_fds", send)
    with ends() as (one, other), socket.socket() as sock:
        one.channel.send(Open(FORWARD, 0), sock)
        one.channel.send(Hurry())
        await until(lambda: len(other.received) == 2)
        assert not refusals
        assert len(other.fds) == 1


async def test_the_end_comes_behind_the_last_words() -> None:
    with ends() as (one, other):
        for number in range(10):
            one.channel.send(Ask(number, "flows"))
        one.channel.close()
        await until(lambda: other.ended)
        assert len(other.received) == 10
        other.channel.send(Hurry())  # nobody is there: no error


async def test_a_dead_reader_is_an_end() -> None:
    with ends() as (one, other):
        other.channel.close()
        one.channel.send(Hurry())
        await until(lambda: one.ended)
        await asyncio.sleep(0)


async def test_what_is_no_message_is_the_end() -> None:
    pair = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    other = End(pair[1])
    with pair[0], open(os.devnull) as file:  # noqa: ASYNC230
        before = len(os.listdir("/proc/self/fd"))
        socket.send_fds(pair[0], [b"\x80\x05."], [file.fileno()])
        await until(lambda: bool(other.violations))
        assert other.violations == ["not JSON"]
        assert not other.ended
        assert len(os.listdir("/proc/self/fd")) == before - 1  # its end of the channel


async def test_no_memory_for_a_message_is_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lost, it would leave supervisor and worker at odds; the worker is replaced. Nothing leaks."""

    def decode(_: bytes) -> Message:
        raise MemoryError

    before = len(os.listdir("/proc/self/fd"))
    with ends() as (one, other), socket.socket() as sock:
        monkeypatch.setattr(other.channel, "_decode", decode)
        one.channel.send(Open(FORWARD, 0), sock)
        await until(lambda: other.violations)
        assert other.violations == ["no memory to read it"]
        assert other.received == []
    assert len(os.listdir("/proc/self/fd")) == before


async def test_no_memory_while_receiving(monkeypatch: pytest.MonkeyPatch) -> None:
    """recvmsg(2) was not made: the message stays, and is read when there is memory again."""
    reported: list[str] = []
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _, context: reported.append(repr(context["exception"])))
    with ends() as (one, other):
        sock = other.channel._socket
        failing = Forgetful(sock)
        monkeypatch.setattr(other.channel, "_socket", failing)
        one.channel.send(Hurry())
        await until(lambda: other.received)
        assert other.received == [Hurry()]
        assert reported == ["MemoryError()"]


class Forgetful:
    """A socket whose first recvmsg fails for want of memory."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._failed = False

    def recvmsg_into(self, *args: Any) -> Any:
        if not self._failed:
            self._failed = True
            raise MemoryError
        return self._sock.recvmsg_into(*args)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._sock, name)


async def test_sockets_that_nobody_takes_are_closed() -> None:
    """A worker could fill the supervisor's table of descriptors."""
    pair = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    received: list[int] = []
    channel = Channel(pair[1], read_by_worker, lambda _, fd: received.append(fd))
    with pair[0], open(os.devnull) as file:  # noqa: ASYNC230
        before = len(os.listdir("/proc/self/fd"))
        for _ in range(3):
            socket.send_fds(pair[0], [to_bytes(Hurry())], [file.fileno()] * 100)
        await until(lambda: len(received) == 3)
        assert received == [-1] * 3
        assert len(os.listdir("/proc/self/fd")) == before
    channel.close()


async def test_an_end_that_never_stops_does_not_keep_us() -> None:
    pair = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    count = 0

    def receive(_: Message, __: int) -> None:
        nonlocal count
        count += 1
        pair[0].send(to_bytes(Hurry()))  # as soon as one is taken there is another

    channel = Channel(pair[1], read_by_worker, receive)
    with pair[0]:
        pair[0].send(to_bytes(Hurry()))
        channel.read()
        assert count == BATCH
    channel.close()
