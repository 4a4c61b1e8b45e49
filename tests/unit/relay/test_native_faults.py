"""The native pumps without memory, and what a ring is refused: built so that both can be tried.

Whatever allocation fails, the target gets a beginning of what was to come, in order, and what is
missing is given back or the pair says that it is lost.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import socket
from collections.abc import Callable

import pytest

from tests.support.failing import Failing, can_build
from tests.support.rig import noise, read_all
from tests.unit.relay.test_epoll_pairs import AsRing
from tests.unit.relay.test_ring import Ends, unread
from v6fwd.relay.pump import KIND, KIND_BITS, STOPPED, Flags, Reason, Stopped
from v6fwd.relay.ring.native import Ring
from v6fwd.relay.targets.addresses import raw_address

EPOLL = ["v6fwd/relay/pairs/_epoll.c", "v6fwd/relay/pairs/_moves.c"]
RING = ["v6fwd/relay/ring/_ring.c", "v6fwd/relay/ring/_pairs.c", "tests/support/failing_ring.c"]
HEADER, SAID = b"HEADER", noise(3000, seed=1)
MORE = noise(1 << 20, seed=2)
MOST = 60
"""More allocations than any of these flows makes."""
IO_URING_REGISTER = 427
"""The system call's number, the same on every machine."""
REGISTERS, OPERATIONS = 64, 128
"""More than kernels know."""
POLL_ADD, ASYNC_CANCEL, SEND, RECV = 6, 14, 26, 27
FIXED_FILE, DRAIN, LINK, HARD_LINK, ASYNC, SKIP = 1, 2, 4, 8, 16, 64
"""Flags of a submission (io_uring_enter(2)) beside BUFFER_SELECT, 32."""


@pytest.fixture(scope="module")
def failing_ring(tmp_path_factory: pytest.TempPathFactory) -> Failing:
    if not can_build("liburing.h"):
        pytest.skip("no compiler, Python headers or liburing")
    folder = tmp_path_factory.mktemp("ring")
    return Failing(folder, "v6fwd.relay.ring._ring", RING, "-l:liburing.a")


@pytest.fixture(scope="module")
def failing_epoll(tmp_path_factory: pytest.TempPathFactory) -> Failing:
    if not can_build():
        pytest.skip("no compiler or Python headers")
    return Failing(tmp_path_factory.mktemp("epoll"), "v6fwd.relay.pairs._epoll", EPOLL)


@pytest.fixture(params=["ring", "epoll"])
def failing(request: pytest.FixtureRequest) -> Failing:
    one: Failing = request.getfixturevalue(f"failing_{request.param}")
    return one


def opened(failing: Failing) -> Ring:
    """One that has memory until it is told otherwise."""
    failing.fail_after(-1)
    if hasattr(failing.module, "Epoll"):
        return AsRing(failing.module.Epoll())  # type: ignore[return-value]
    try:
        ring: Ring = failing.module.Ring()
    except OSError as error:
        pytest.skip(f"no ring here: {error}")
    return ring


class Trial:
    """A flow whose client has said something."""

    def __init__(self, pump: Ring, failing: Failing) -> None:
        self.pump = pump
        self.failing = failing
        self.ends = Ends(pump)
        self.ends.client.sendall(SAID)
        while unread(self.ends.fds[0]) < len(SAID):
            pass
        self.due = HEADER + SAID
        self.fds = self.ends.fds
        self.target = self.ends.target
        self.target.setblocking(False)
        self.server = socket.create_server(("127.0.0.1", 0))
        self.server.setblocking(False)
        self.stopped: Stopped | None = None
        self._dials = False

    def connect(self) -> None:
        """Let the pump send to a target that is connected."""
        mine, other = self.ends._mine, self.ends._other
        self.pump.connect(None, mine.fileno(), other.fileno(), HEADER, len(HEADER))
        mine.detach()
        other.detach()

    def dial(self) -> None:
        """Let the pump connect to a target, and send to it."""
        address = raw_address(socket.AF_INET, self.server.getsockname())
        mine = self.ends._mine
        _, fd, _ = self.pump.dial(None, mine.fileno(), address, HEADER, 0)
        self.fds = mine.detach(), fd
        self._dials = True

    def join(self) -> None:
        """Let the pump move bytes to a target that does not take them all."""
        mine, other = self.ends._mine, self.ends._other
        other.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        self.ends.client.setblocking(False)
        self.due = SAID + MORE[: self.ends.client.send(MORE)]
        self.pump.join(None, mine.fileno(), other.fileno(), 0, 0)
        mine.detach()
        other.detach()

    def settle(self) -> bytes:
        """Turn until the flow has stopped or the target has it all; gives what it has."""
        got = b""
        for _ in range(200):
            stops = [each >> KIND_BITS for each in self._turn() if each & KIND == STOPPED]
            if stops:
                self.stopped = Stopped(*self.pump.take(stops[0]))
            if stops or self.due.startswith(HEADER):
                got += self._read()
            if stops or got == self.due:
                return got
        raise AssertionError(f"the target has {len(got)} of {len(self.due)}, and nothing stopped")

    def _turn(self) -> list[int]:
        """Without memory for events nothing is done; they are told by a later turn."""
        try:
            return self.pump.wait(0.01) or []
        except MemoryError:
            self.failing.fail_after(-1)
            return []

    def _read(self) -> bytes:
        got = b""
        with contextlib.suppress(BlockingIOError):
            if self._dials:
                self.target = self.server.accept()[0]
                self.target.setblocking(False)
                self._dials = False
            while piece := self.target.recv(1 << 20):
                got += piece
        return got

    def is_sound(self, got: bytes) -> bool:
        """Whether all is there, given back or not read yet, in order; or the flow will be reset."""
        if self.stopped is None:
            return got == self.due
        if is_lost(self.stopped):
            return self.due.startswith(got)
        self.ends.client.shutdown(socket.SHUT_WR)
        with socket.socket(fileno=os.dup(self.fds[0])) as client:
            client.settimeout(20)
            return got + self.stopped.first + self.stopped.up + read_all(client) == self.due

    def close(self) -> None:
        self.failing.fail_after(-1)
        if self.stopped is not None:
            for fd in self.fds:
                os.close(fd)
        self.pump.close()
        self.ends.close()
        self.server.close()
        self.target.close()


def is_lost(stopped: Stopped) -> bool:
    """Whether the flow is reset: for want of memory, or since an end is said to be broken."""
    broke = Flags.BROKE_CLIENT | Flags.BROKE_TARGET
    return stopped.reason == Reason.MEMORY or bool(stopped.flags & broke)


def fails(trial: Trial, begin: Callable[[Trial], None]) -> bool:
    """Run a flow; whether an allocation of it failed. It is sound, or was refused with no harm."""
    try:
        begin(trial)
    except MemoryError:
        assert trial.pump.active == 0
        assert unread(trial.ends._mine.fileno()) >= len(SAID)
    else:
        assert trial.is_sound(trial.settle())
    return trial.failing.failures > 0


@pytest.mark.parametrize("begin", [Trial.connect, Trial.dial, Trial.join])
def test_no_allocation_that_fails_loses_bytes_unsaid(
    failing: Failing, begin: Callable[[Trial], None]
) -> None:
    """The first fails, then the second, and so on, until the flow makes no more."""
    for calls in range(MOST):
        trial = Trial(opened(failing), failing)
        try:
            failing.fail_after(calls)
            if not fails(trial, begin):
                assert calls, "it makes some"
                return
        finally:
            trial.close()
    raise AssertionError("there is no end of them")


def test_a_ring_is_good_for_nothing_but_what_is_used(failing_ring: Failing) -> None:
    """It goes past a filter of system calls: by it no file is opened, and nothing registered."""
    ring = opened(failing_ring)
    operate = failing_ring.library.operate
    with socket.create_server(("127.0.0.1", 0)) as server:
        results = {
            operation: operate(ctypes.py_object(ring), operation, 0, server.fileno())
            for operation in range(OPERATIONS)
        }
        known = {operation for operation, result in results.items() if result != -errno.EINVAL}
        refused = {operation for operation in known if results[operation] == -errno.EACCES}
        assert known - refused == {POLL_ADD, ASYNC_CANCEL, SEND, RECV}
        assert len(refused) > 30
        for flag in (FIXED_FILE, DRAIN, LINK, HARD_LINK, ASYNC, SKIP):
            result = operate(ctypes.py_object(ring), RECV, flag, server.fileno())
            assert result == -errno.EACCES, flag
    assert registered() <= {-errno.EACCES, -errno.EINVAL}
    ring.close()


def registered() -> set[int]:
    """What the kernel says to each operation of io_uring_register(2)."""
    libc = ctypes.CDLL(None, use_errno=True)
    (fd,) = (
        int(name)
        for name in os.listdir("/proc/self/fd")
        if os.path.lexists(f"/proc/self/fd/{name}")
        and os.readlink(f"/proc/self/fd/{name}") == "anon_inode:[io_uring]"
    )
    results = set()
    for operation in range(REGISTERS):
        assert libc.syscall(IO_URING_REGISTER, fd, operation, None, 0) == -1, operation
        results.add(-ctypes.get_errno())
    return results
