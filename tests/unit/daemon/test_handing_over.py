"""Descriptors and processes have an owner at every moment, whatever fails half-way."""

from __future__ import annotations

import contextlib
import errno
import gc
import os
import resource
import signal
import socket
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from tests.support.logged import Logged
from tests.support.relaying import until
from v6fwd.daemon import handle as handles
from v6fwd.daemon import helper_handle, pool, wire
from v6fwd.daemon.channel import Channel
from v6fwd.daemon.handle import WorkerHandle
from v6fwd.daemon.helper_handle import HelperHandle
from v6fwd.daemon.helper_ops import HelperOps
from v6fwd.daemon.messages import Hurry, Message, Open, read_by_worker
from v6fwd.daemon.pool import WorkerPool
from v6fwd.daemon.process import fork
from v6fwd.daemon.takeover import Predecessor, hand_over
from v6fwd.daemon.usage import ChildUsage
from v6fwd.daemon.worker import Setup, Worker
from v6fwd.errors import RelayError
from v6fwd.model import Endpoint, Forward, Limits
from v6fwd.relay.limits.bans import BanTable
from v6fwd.relay.transparent.privileged import MeshAhead

FORWARD = Forward(Endpoint("::", 80), Endpoint("127.0.0.1", 80))
NO_DESCRIPTOR = OSError(errno.EMFILE, os.strerror(errno.EMFILE))


def descriptors() -> set[str]:
    return set(os.listdir("/proc/self/fd"))


def children() -> set[str]:
    with open(f"/proc/self/task/{os.getpid()}/children") as file:
        return set(file.read().split())


@contextlib.contextmanager
def none_left() -> Iterator[None]:
    """This process gets no further descriptor."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    used = max(map(int, descriptors()))
    resource.setrlimit(resource.RLIMIT_NOFILE, (used + 1, hard))
    filling: list[int] = []
    try:
        with contextlib.suppress(OSError):
            while True:
                filling.append(os.open(os.devnull, os.O_RDONLY))
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        for fd in filling:
            os.close(fd)


def fails(error: BaseException) -> Any:
    def call(*_: Any, **__: Any) -> None:
        raise error

    return call


def waits() -> int:
    signal.pause()
    return 0


@contextlib.contextmanager
def leaks_nothing() -> Iterator[None]:
    gc.collect()  # what other tests have left
    before = descriptors(), children()
    yield
    assert (descriptors(), children()) == before


async def test_what_waits_needs_no_descriptor() -> None:
    """A daemon without any left hands all its forwards to a worker that is slow to take them."""
    with leaks_nothing():
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        received: list[tuple[int, int]] = []

        def receive(message: Message, fd: int) -> None:
            assert isinstance(message, Open)
            received.append((message.shard, os.fstat(fd).st_ino))
            os.close(fd)

        sender = Channel(ours, read_by_worker, lambda *_: None)
        count = 2000
        with socket.socket() as sock, none_left():
            inode = os.fstat(sock.fileno()).st_ino
            for shard in range(count):
                sender.send(Open(FORWARD, shard), sock)
            assert sender.queued  # or this test tests nothing
        taker = Channel(theirs, read_by_worker, receive, takes_sockets=True)
        await until(lambda: len(received) == count)
        assert received == [(shard, inode) for shard in range(count)]
        assert not sender.queued
        for channel in (sender, taker):
            channel.close()


async def test_what_waits_is_closed_with_the_channel() -> None:
    with leaks_nothing():
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        channel = Channel(ours, read_by_worker, lambda *_: None)
        with theirs:
            with socket.socket() as sock:
                for shard in range(2000):
                    channel.send(Open(FORWARD, shard), sock)
            assert channel.queued
            channel.close()
            assert not channel.queued


async def test_no_memory_to_send(monkeypatch: pytest.MonkeyPatch) -> None:
    """The message keeps its place: the next one brings it along."""
    with leaks_nothing():
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        received: list[Message] = []
        sender = Channel(ours, read_by_worker, lambda *_: None)
        taker = Channel(theirs, read_by_worker, lambda message, _: received.append(message))
        with monkeypatch.context() as patch:
            patch.setattr(socket, "send_fds", fails(MemoryError()))
            with pytest.raises(MemoryError):
                sender.send(Open(FORWARD, 0))
        sender.send(Hurry())
        await until(lambda: len(received) == 2)
        assert received == [Open(FORWARD, 0), Hurry()]
        for channel in (sender, taker):
            channel.close()


def test_a_child_that_cannot_be_watched_is_none(
    monkeypatch: pytest.MonkeyPatch, logged: Logged
) -> None:
    with leaks_nothing():
        monkeypatch.setattr(os, "pidfd_open", fails(NO_DESCRIPTOR))
        with pytest.raises(OSError, match="Too many open files"):
            fork(waits, (), logged.log)


@pytest.fixture
async def workers(logged: Logged, monkeypatch: pytest.MonkeyPatch) -> WorkerPool:
    """A pool whose workers only wait."""
    monkeypatch.setattr(pool, "fork_worker", lambda *_: fork(waits, (), logged.log))
    setup = Setup(Limits(), logged.log, False, 2, BanTable(float))
    return WorkerPool(2, setup, logged.log, lambda *_: None, lambda *_: None)


@pytest.mark.parametrize("failing", ["__init__", "watch"])
async def test_a_worker_that_cannot_be_reached_is_none(
    workers: WorkerPool, monkeypatch: pytest.MonkeyPatch, failing: str
) -> None:
    """Nobody would wait for it, and the next one would share its slot with it."""
    with leaks_nothing():
        monkeypatch.setattr(WorkerHandle, failing, fails(MemoryError()))
        with pytest.raises(MemoryError):
            workers._fork(0)
        assert not workers.workers
        assert workers._scoreboard._full.tolist() == [1, 1]  # both slots are empty


async def test_a_worker_that_cannot_be_told_is_replaced(
    workers: WorkerPool, monkeypatch: pytest.MonkeyPatch, logged: Logged
) -> None:
    """It would serve fewer forwards than the daemon believes."""
    with leaks_nothing():
        died: list[int] = []
        monkeypatch.setattr(workers, "_died", lambda slot, _: died.append(slot))
        monkeypatch.setattr(workers, "_brief", lambda _, handle: handle.send(Hurry()))
        with monkeypatch.context() as patch:
            patch.setattr(handles, "Channel", Mute)
            workers._fork(1)
        handle = workers.workers[1]
        assert handle.verdict == "it cannot be told what to serve: out of memory"
        await until(lambda: died)
        assert died == [1]
        assert logged.lines() == []


class Mute(Channel):
    """A channel without memory."""

    send = fails(MemoryError())


@pytest.mark.parametrize("error", [MemoryError(), NO_DESCRIPTOR], ids=["memory", "descriptor"])
async def test_a_helper_that_cannot_be_reached_is_none(
    monkeypatch: pytest.MonkeyPatch, logged: Logged, error: Exception
) -> None:
    with leaks_nothing():
        monkeypatch.setattr(helper_handle, "_be_helper", lambda *_: waits())
        monkeypatch.setattr(helper_handle, "Channel", fails(error))
        with pytest.raises(type(error)):
            HelperHandle(logged.log, lambda _: None)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
async def test_a_forward_that_cannot_begin_keeps_no_socket(logged: Logged) -> None:
    with leaks_nothing():
        one: Any = Worker.__new__(Worker)
        one._log, one._relay, one._parts = logged.log, None, {}
        with socket.socket() as sock:
            one._receive(Open(FORWARD, 0), os.dup(sock.fileno()))
        ((event, text),) = logged.lines()
        assert event == "defect"
        assert "NoneType" in text


async def test_a_worker_without_a_descriptor_for_a_forward_says_so(logged: Logged) -> None:
    one: Any = Worker.__new__(Worker)
    relay = SimpleNamespace(begin=lambda *_: None)
    one._log, one._relay, one._parts = logged.log, relay, {}
    one._receive(Open(FORWARD, 0), -1)
    ((event, text),) = logged.lines()
    assert event == "defect"
    assert "Too many open files" in text


def test_fewer_files_of_a_child_than_it_sent() -> None:
    """The kernel closes what we have no descriptor for; what came is closed by us."""
    with leaks_nothing():
        usage = ChildUsage()
        usage.pass_own()
        fillers = [os.open(os.devnull, os.O_RDONLY)]
        with none_left_but(fillers):
            assert usage.read() is None
        usage.close()


@contextlib.contextmanager
def none_left_but(fds: list[int]) -> Iterator[None]:
    """As many as these, which are closed, are left."""
    with none_left():
        for fd in fds:
            os.close(fd)
        yield


def test_a_successor_without_descriptors_says_so() -> None:
    with leaks_nothing():
        ours, theirs = socket.socketpair()
        with ours, theirs, socket.socket() as sock:
            ours.sendall(b'{"sockets": ["[::]:80", "[::]:81"], "metrics": ""}\n')
            socket.send_fds(ours, [b"."], [sock.fileno()] * 2)
            predecessor = Predecessor(theirs)
            with none_left(), pytest.raises(RelayError, match="too many open files"):
                predecessor.sockets()
            predecessor._lines.close()


@pytest.mark.parametrize("number", [errno.ETOOMANYREFS, errno.ENOBUFS, errno.EAGAIN])
async def test_sockets_are_handed_over_in_the_end(
    monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    refusals = [OSError(number, "")] * 3
    send_fds = socket.send_fds

    def send(*arguments: Any) -> int:
        if refusals:
            raise refusals.pop()
        return send_fds(*arguments)

    monkeypatch.setattr(socket, "send_fds", send)
    ours, theirs = socket.socketpair()
    with ours, theirs, socket.socket() as sock:
        await hand_over(ours, [sock])
        _, fds, _, _ = socket.recv_fds(theirs, 1, 1)
        assert len(fds) == 1
        os.close(fds[0])


def test_a_worker_without_a_descriptor_for_a_helpers_socket(logged: Logged) -> None:
    """One flow fails for it, as it would have without a helper. The worker goes on."""
    with leaks_nothing():
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs, socket.socket() as sock:
            ops = HelperOps(ours, logged.log, lambda *_: None)
            socket.send_fds(theirs, [b"S"], [sock.fileno()])
            with none_left(), pytest.raises(OSError, match="Too many open files"):
                ops._sockets(b"anything")
            ops.close()
        assert logged.lines() == []


AHEAD = MeshAhead("box", bytes((10, 0, 0, 6)), 80, 2)


@contextlib.contextmanager
def helped(logged: Logged) -> Iterator[tuple[HelperOps, socket.socket]]:
    """A worker's side of a helper, and the helper's end, which the test speaks at."""
    with leaks_nothing():
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            yield HelperOps(ours, logged.log, lambda *_: None), theirs


def test_an_order_is_met_before_the_next_answer(logged: Logged) -> None:
    """Answers come in the order of requests: the sockets are not taken for that of the next."""
    came: list[socket.SocketType] = []
    with helped(logged) as (ops, theirs):
        ops.order(AHEAD, came.extend)
        with socket.socket() as sock:
            socket.send_fds(theirs, [wire.SOCKET], [sock.fileno()] * 2)
        theirs.send(wire.pack("ok", None))
        assert not came
        ops.find("10.0.0.6")
        assert len(came) == 2
        for each in came:
            each.close()
        ops.collect()
        ops.close()


@pytest.mark.parametrize("error", [RelayError("no namespace"), OSError(errno.EMFILE, "")])
def test_an_order_that_a_helper_cannot_meet(logged: Logged, error: Exception) -> None:
    came: list[list[socket.SocketType]] = []
    with helped(logged) as (ops, theirs):
        ops.order(AHEAD, came.append)
        theirs.send(wire.pack_error(error))
        ops.collect()
        assert came == [[]]
        ops.close()


def test_an_order_at_the_end(logged: Logged) -> None:
    """Nobody waits for a helper whose socket is closed."""
    came: list[list[socket.SocketType]] = []
    with helped(logged) as (ops, _):
        ops.order(AHEAD, came.append)
        ops.close()
        ops.collect()
        assert not came
