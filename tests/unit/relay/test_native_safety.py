"""Both native pumps: nobody else's calls, no fork, no signal and no want of memory does harm."""

from __future__ import annotations

import ctypes
import gc
import os
import signal
import socket
import threading
from collections.abc import Callable, Iterator

import pytest

from tests.support.rig import read_exactly
from tests.unit.relay import test_ring as of_ring
from tests.unit.relay.test_epoll_pairs import AsRing
from tests.unit.relay.test_ring import Ends
from v6fwd.relay.pump import KIND_BITS, STOPPED
from v6fwd.relay.ring.native import Ring


@pytest.fixture(params=["ring", "epoll"])
def pump(request: pytest.FixtureRequest) -> Iterator[Ring]:
    """Each of the two, in the words of the ring's tests."""
    one: Ring = _ring() if request.param == "ring" else AsRing()  # type: ignore[assignment]
    yield one
    one.close()


def _ring() -> Ring:
    try:
        ring: Ring = of_ring.native.Ring()
    except OSError as error:
        pytest.skip(f"no ring here: {error}")
    return ring


@pytest.fixture
def ring() -> Iterator[Ring]:
    one = _ring()
    yield one
    one.close()


class Pairs:
    """Pairs of sockets that belong to nobody yet."""

    def __init__(self) -> None:
        self._theirs: list[socket.socket] = []

    def fds(self) -> tuple[int, int]:
        """Two descriptors for a pump, which owns them from then on."""
        one, other = socket.socketpair(), socket.socketpair()
        self._theirs += [one[1], other[1]]
        for sock in (one[0], other[0]):
            sock.setblocking(False)
        return one[0].detach(), other[0].detach()

    def close(self) -> None:
        for sock in self._theirs:
            sock.close()


@pytest.fixture
def pairs() -> Iterator[Pairs]:
    some = Pairs()
    yield some
    some.close()


def stopped_at_once(pump: Ring, owner: object) -> int:
    """A pair whose target is not even connected, and which so has stopped already."""
    client, theirs = socket.socketpair()
    with client, theirs, socket.socket() as target:
        client.setblocking(False)
        target.setblocking(False)
        return pump.connect(owner, os.dup(client.fileno()), os.dup(target.fileno()), b"x", 0)


class Busy:
    """Who has more pairs made when it goes away, so that the table of pairs moves in memory."""

    def __init__(self, make: Callable[[], None]) -> None:
        self._make = make

    def __del__(self) -> None:
        self._make()


def test_an_owner_that_goes_away_may_call(pump: Ring, pairs: Pairs) -> None:
    """A pair is given back wholly before that."""
    numbers: list[int] = []

    def make() -> None:
        numbers.extend(pump.join(None, *pairs.fds(), 0, 0) for _ in range(100))

    gone = stopped_at_once(pump, Busy(make))
    pump.take(gone)
    assert len(numbers) == 100
    for _ in range(2):
        pump.wait(0)
        numbers.extend(pump.join(None, *pairs.fds(), 0, 0) for _ in range(100))
    assert len(set(numbers)) == len(numbers) == pump.active
    assert gone not in numbers
    for number in numbers:
        pump.drop(number)


def test_events_that_nobody_has_fetched_yet_leave_room_for_others(pump: Ring) -> None:
    """However many pairs came, failed and went since the last wait."""
    for _ in range(2000):
        pump.drop(stopped_at_once(pump, None))
    last = stopped_at_once(pump, None)
    assert last << KIND_BITS | STOPPED in (pump.wait(0) or [])
    pump.drop(last)


def test_a_handler_of_a_signal_may_close_it(pump: Ring, pairs: Pairs) -> None:
    pump.join(None, *pairs.fds(), 0, 0)
    pump.wait(0)  # what submits nothing more says that it was interrupted
    before = signal.signal(signal.SIGALRM, lambda *_: pump.close())
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.05)
        with pytest.raises(ValueError, match="closed"):
            _wait_for_ever(pump)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def _wait_for_ever(pump: Ring) -> None:
    while True:
        pump.wait(10)


def test_a_ring_that_another_thread_closes_keeps_no_descriptor(ring: Ring) -> None:
    """The kernel takes nothing from that thread, so no operation can be cancelled before."""
    ends = Ends(ring)
    ends.join()
    ends.turn()
    thread = threading.Thread(target=ring.close)
    thread.start()
    thread.join()
    for fd in ends.fds:
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(fd)
    assert ring.active == 0
    assert ends.client.recv(1) == b""
    ends.close()


def test_a_child_that_closes_it_takes_nothing_away(ring: Ring) -> None:
    """What the kernel has completed, but we have not seen yet, lies in memory that fork shares."""
    ends, other = Ends(ring), Ends(ring)
    other.join()
    ends.until_holds(1)
    ends.join()
    ring.stop(other.pair)  # submits: what the client has said is read at once
    child = os.fork()
    if not child:
        ring.close()
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    ends.until_readable(ends.target)
    assert read_exactly(ends.target, 1) == b"\0"
    for one in (ends, other):
        one.close()


class MallInfo(ctypes.Structure):
    """struct mallinfo2: what malloc(3) has given away, among others."""

    _fields_ = (
        ("others", ctypes.c_size_t * 7),
        ("uordblks", ctypes.c_size_t),
        ("more", ctypes.c_size_t * 2),
    )


def test_a_ring_gives_its_memory_back(pairs: Pairs) -> None:
    """To the last byte: what a table has at first is lost 100 times otherwise."""
    libc = ctypes.CDLL(None)
    if not hasattr(libc, "mallinfo2"):
        pytest.skip("another libc")
    libc.mallinfo2.restype = MallInfo

    def use() -> int:
        one = _ring()
        one.join(None, *pairs.fds(), 0, 0)
        one.close()
        del one
        return int(libc.mallinfo2().uordblks)

    use()
    before = use()
    gc.collect()
    for _ in range(100):
        after = use()
    assert after - before < 100 * 256
