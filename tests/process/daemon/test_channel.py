"""The way between supervisor and worker."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import socket
from collections.abc import Iterator

import pytest

from tests.support.relaying import until
from v6fwd.daemon.channel import Channel
from v6fwd.daemon.messages import Answer, Ask, Change, Hurry, Message, Open, from_bytes, to_bytes
from v6fwd.model import (
    ClientIP,
    Endpoint,
    Forward,
    Transparent,
    TransparentFallback,
    parse_networks,
)

FORWARD = Forward(
    Endpoint("::", 80), Endpoint("name", 80), accept_proxy=parse_networks("10.0.0.0/8,fd00::/8")
)
SHOWN = Forward(
    Endpoint("::", 80),
    Endpoint("172.17.0.2", 80),
    ClientIP.TRANSPARENT,
    transparent=Transparent("name", TransparentFallback.NONE, 128, "/a/file"),
)


class End:
    """One end, and what it has received."""

    def __init__(self, sock: socket.socket) -> None:
        self.received: list[Message] = []
        self.fds: list[int] = []
        self.ended = False
        self.channel = Channel(sock, self._receive, self._end)

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


@pytest.mark.parametrize("message", [Open(FORWARD, 3), Change(SHOWN, 0), Ask(1, "flows"), Hurry()])
def test_there_and_back(message: Message) -> None:
    assert from_bytes(to_bytes(message)) == message


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
            one.channel.send(Answer(number, [], last=True))
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
