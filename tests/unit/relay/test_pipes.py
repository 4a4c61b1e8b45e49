"""The pool of splice pipes, with pipes of the kernel's."""

from __future__ import annotations

import errno
import fcntl
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from v6fwd.relay.tcp.pipes import PIPE_SIZE, SMALL_SIZE, Pipe, PipePool, is_paced


def descriptors() -> int:
    """How many descriptors this process holds."""
    return len(os.listdir("/proc/self/fd"))


def is_open(fd: int) -> bool:
    """Whether the number stands for anything."""
    try:
        os.fstat(fd)
    except OSError:
        return False
    return True


@pytest.fixture(autouse=True)
def _no_leak() -> Iterator[None]:
    before = descriptors()
    yield
    assert descriptors() == before


def take(pool: PipePool) -> Pipe:
    """A pipe from a pool that has one."""
    pipe = pool.take(sustained=True)
    assert pipe is not None
    return pipe


@pytest.mark.parametrize("sustained", [False, True])
@pytest.mark.parametrize("paced", [False, True])
def test_a_pipe_takes_what_it_says(paced: bool, sustained: bool) -> None:
    pool = PipePool(1, paced=paced)
    pipe = pool.take(sustained=sustained)
    assert pipe is not None
    assert pipe.size == (SMALL_SIZE if paced and not sustained else PIPE_SIZE)
    assert pipe.size == fcntl.fcntl(pipe.writer, fcntl.F_GETPIPE_SZ)
    assert os.write(pipe.writer, bytes(pipe.size)) == pipe.size
    with pytest.raises(BlockingIOError):
        os.write(pipe.writer, b"x")
    pool.give_back(pipe, empty=False)


def test_no_end_blocks_or_is_inherited() -> None:
    pool = PipePool(1)
    pipe = take(pool)
    for fd in (pipe.reader, pipe.writer):
        assert not os.get_blocking(fd)
        assert not os.get_inheritable(fd)
    pool.give_back(pipe, empty=False)


def test_the_limit_holds() -> None:
    pool = PipePool(2)
    first, second = take(pool), take(pool)
    assert pool.take(sustained=True) is None
    assert pool.lent == 2
    pool.give_back(first, empty=True)
    assert pool.lent == 1
    assert take(pool) is first
    assert pool.take(sustained=True) is None
    pool.give_back(first, empty=False)
    pool.give_back(second, empty=False)


def test_a_pipe_with_bytes_in_it_is_lent_to_nobody() -> None:
    pool = PipePool(2)
    pipe = take(pool)
    os.write(pipe.writer, b"somebody's")
    pool.give_back(pipe, empty=False)
    assert not is_open(pipe.reader)
    assert not is_open(pipe.writer)
    again = take(pool)
    with pytest.raises(BlockingIOError):
        os.read(again.reader, 1)
    pool.give_back(again, empty=False)


def test_small_and_large_ones_are_kept_apart() -> None:
    pool = PipePool(2, paced=True)
    small, large = pool.take(sustained=False), pool.take(sustained=True)
    assert small is not None
    assert large is not None
    assert pool.take(sustained=False) is None, "the limit is for both"
    pool.give_back(small, empty=True)
    pool.give_back(large, empty=True)
    assert pool.take(sustained=True) is large
    assert pool.take(sustained=False) is small
    pool.give_back(small, empty=True)
    pool.give_back(large, empty=True)
    pool.close()


@pytest.mark.parametrize(
    ("name", "paced"), [(b"bbr", True), (b"bbr2", False), (b"cubic", False), (b"reno", False)]
)
def test_what_paces(monkeypatch: pytest.MonkeyPatch, name: bytes, paced: bool) -> None:
    """getsockopt(2) fills the name up with zeros."""

    def answer(_sock: socket.socket, level: int, option: int, size: int) -> bytes:
        assert (level, option) == (socket.IPPROTO_TCP, socket.TCP_CONGESTION)
        return name.ljust(size, b"\0")

    monkeypatch.setattr(socket.socket, "getsockopt", answer)
    assert is_paced() is paced


def test_the_kernel_is_asked_whether_it_paces() -> None:
    default = Path("/proc/sys/net/ipv4/tcp_congestion_control").read_text().strip()
    assert is_paced() is (default == "bbr")


def test_spares_are_few() -> None:
    pool = PipePool(4, spares=1)
    some = [take(pool) for _ in range(3)]
    for pipe in some:
        pool.give_back(pipe, empty=True)
    assert [is_open(pipe.reader) for pipe in some] == [True, False, False]
    pool.close()
    assert not any(is_open(pipe.reader) for pipe in some)


def test_a_closed_pool_still_lends() -> None:
    pool = PipePool(1)
    pool.give_back(take(pool), empty=True)
    pool.close()
    pool.close()
    pool.give_back(take(pool), empty=False)


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENFILE])
def test_without_descriptors_there_is_none(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    """Whoever gets none copies: no error, and no pipe counted as lent."""

    def fail(_flags: int) -> tuple[int, int]:
        raise OSError(number, os.strerror(number))

    pool = PipePool(1)
    with monkeypatch.context() as patch:
        patch.setattr(os, "pipe2", fail)
        assert pool.take(sustained=True) is None
    assert pool.lent == 0
    pool.give_back(take(pool), empty=False)


def test_a_user_without_pipe_pages_gets_a_small_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """pipe(7): past pipe-user-pages-soft, F_SETPIPE_SZ fails with EPERM."""
    ask = fcntl.fcntl

    def refuse(fd: int, command: int, argument: int = 0) -> int:
        if command == fcntl.F_SETPIPE_SZ:
            raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))
        return ask(fd, command, argument)

    pool = PipePool(1)
    with monkeypatch.context() as patch:
        patch.setattr(fcntl, "fcntl", refuse)
        pipe = take(pool)
    assert 0 < pipe.size < PIPE_SIZE
    assert os.write(pipe.writer, bytes(pipe.size)) == pipe.size
    pool.give_back(pipe, empty=False)


@settings(max_examples=50, deadline=None)
@given(
    st.integers(1, 3),
    st.integers(0, 3),
    st.lists(st.tuples(st.booleans(), st.booleans(), st.booleans()), max_size=30),
)
def test_never_more_pipes_than_the_limit(
    limit: int, spares: int, steps: list[tuple[bool, bool, bool]]
) -> None:
    """Of both sizes together, with those that wait."""
    pool, out, before = PipePool(limit, spares, paced=True), list[Pipe](), descriptors()
    try:
        for takes, empty, sustained in steps:
            if takes:
                pipe = pool.take(sustained=sustained)
                assert (pipe is None) is (len(out) == limit)
                if pipe is not None:
                    assert pipe not in out
                    assert pipe.is_small is not sustained
                    out.append(pipe)
            elif out:
                pool.give_back(out.pop(), empty=empty)
            assert pool.lent == len(out)
            assert 2 * len(out) <= descriptors() - before <= 2 * limit
            assert descriptors() - before <= 2 * (len(out) + spares)
    finally:
        for pipe in out:
            pool.give_back(pipe, empty=False)
        pool.close()
