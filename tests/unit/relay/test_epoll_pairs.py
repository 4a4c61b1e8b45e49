"""The native epoll: what it has in common with the ring, and what it does otherwise."""

from __future__ import annotations

import contextlib
import errno
import os
import select
import socket
import threading
from collections.abc import Iterator
from typing import Any, cast

import pytest

from tests.support.rig import noise, read_all, read_exactly, reset
from tests.unit.relay import test_ring as of_ring
from tests.unit.relay.test_ring import Dialled, Ends, segments_in
from v6fwd.relay.pairs.native import PAIRS, PURE, is_native, native_epoll
from v6fwd.relay.pump import CONNECTED, FINISHED, KIND_BITS, STOPPED, Flags, Reason
from v6fwd.relay.ring.native import Ring
from v6fwd.relay.targets.addresses import raw_address

native = pytest.importorskip("v6fwd.relay.pairs._epoll", reason="the native epoll is not built")
BUFFER = 64 * 1024

# The contract, as the ring's own tests have it; `ring` below is the epoll here.
test_header = of_ring.test_header_and_first_bytes_go_together
test_silent = of_ring.test_a_silent_client_does_not_hold_the_header_up
test_order = of_ring.test_bytes_arrive_in_order_both_ways
test_ends = of_ring.test_ends_are_passed_on_and_both_finish_it
test_early_end = of_ring.test_an_end_before_the_connection_is_passed_on_behind_the_bytes
test_dial_without_descriptors = of_ring.test_a_dial_without_descriptors_takes_nothing
test_full = of_ring.test_what_does_not_fit_is_given_back_in_order
test_burst = of_ring.test_a_burst_for_a_full_receiver_is_held_within_bounds
test_refused = of_ring.test_a_target_that_refuses
test_asked = of_ring.test_who_asks_gets_both_back
test_dropped = of_ring.test_a_flow_that_is_dropped_closes_once_nothing_is_under_way
test_number = of_ring.test_a_number_means_one_pair_only
test_stale = of_ring.test_what_is_told_of_a_pair_that_was_given_up_meets_no_other
test_many = of_ring.test_more_flows_than_buffers_lose_nothing
test_misuse = of_ring.test_what_cannot_be
test_closed = of_ring.test_a_closed_ring_says_so


class AsRing:
    """The native epoll in the words of the ring's tests."""

    def __init__(self, epoll: Any = None) -> None:
        self.epoll = epoll or native.Epoll()
        self.others: list[tuple[int, int]] = []

    def __getattr__(self, name: str) -> object:
        return getattr(self.epoll, name)

    def join(self, owner: object, client: int, target: int, up: int, down: int) -> int:
        for fd in (client, target):
            with contextlib.suppress(FileExistsError):
                self.epoll.register(fd, select.EPOLLIN | select.EPOLLET)
        return int(self.epoll.join(owner, client, target, up, down))

    def wait(self, seconds: float) -> list[int] | None:
        told = self.epoll.poll(seconds, 256)
        self.others += [each for each in told if each[0] != PAIRS]
        return [what for who, what in told if who == PAIRS] or None

    def drop(self, pair: int) -> None:
        for fd in self.epoll.drop(pair):
            os.close(fd)


@pytest.fixture
def ring() -> Iterator[AsRing]:
    one = AsRing()
    yield one
    one.epoll.close()


@pytest.fixture
def ends(ring: AsRing) -> Iterator[Ends]:
    one = Ends(ring)  # type: ignore[arg-type]
    yield one
    one.close()


@pytest.mark.parametrize("hop_limit", [0, 77])
def test_it_dials_and_sends_what_is_there(ring: Ring, hop_limit: int) -> None:
    """At once: across loopback the handshake is done when connect(2) returns."""
    one = Dialled(ring, b"hello", b"HEADER", hop_limit)
    assert one.is_told
    of_ring.has_sent_what_was_there(one, hop_limit)


def test_it_dials_for_a_silent_client(ring: Ring) -> None:
    one = Dialled(ring, b"")
    assert not one.is_told
    of_ring.hears_its_target_first(one)


def test_it_dials_what_refuses(ring: Ring) -> None:
    of_ring.gives_back_what_is_refused(ring, is_told=False)


def test_an_answer_and_its_end_are_one_segment(ends: Ends) -> None:
    ends.join()
    ends.turn()
    before = segments_in(ends.client)
    ends.target.sendall(b"answer")
    ends.target.close()
    ends.until_readable(ends.client)
    ends.turn()
    assert ends.ring.is_half_closed(ends.pair)
    assert read_all(ends.client) == b"answer"
    assert segments_in(ends.client) - before == 1


@pytest.mark.parametrize("who", ["client", "target"])
def test_a_reset_is_given_back_unread(ends: Ends, who: str) -> None:
    """Who watches the descriptor again hears of it, behind what was said before."""
    ends.join()
    ends.turn()
    getattr(ends, who).sendall(b"last")
    reset(getattr(ends, who))
    stopped = ends.take()
    assert (stopped.reason, stopped.flags) == (Reason.ODD, 0)
    fd = ends.fds[who == "target"]
    with select.epoll() as again:
        again.register(fd, select.EPOLLIN | select.EPOLLET)
        ((_, mask),) = again.poll(10)
    assert mask & select.EPOLLERR
    assert os.read(fd, 100) == b"last"
    with pytest.raises(ConnectionResetError):
        os.read(fd, 100)


@pytest.mark.parametrize("who", ["client", "target"])
def test_a_pair_that_is_to_leave_is_given_back_with_what_it_has_not_read(
    ring: AsRing, who: str
) -> None:
    ends = Ends(cast("Ring", ring))
    ends.join()
    ends.turn()
    ring.epoll.leaving = True
    ends.turn()
    assert not ends.events, "who says nothing stays"
    getattr(ends, who).sendall(b"word")
    stopped = ends.take()
    assert (stopped.reason, stopped.flags, stopped.up, stopped.down) == (Reason.ASKED, 0, b"", b"")
    assert os.read(ends.fds[who == "target"], 100) == b"word"
    for fd in ends.fds:
        os.close(fd)
    ends.close()


def test_a_pair_that_is_about_to_end_does_not_leave(ring: AsRing, ends: Ends) -> None:
    ends.join()
    ends.turn()
    ring.epoll.leaving = True
    ends.client.sendall(b"question")
    ends.client.shutdown(socket.SHUT_WR)
    ends.until_readable(ends.target)
    assert read_all(ends.target) == b"question"
    ends.target.sendall(b"answer")
    ends.until_readable(ends.client)
    ends.target.close()
    ends.until(FINISHED)
    ends.ring.drop(ends.pair)
    assert read_all(ends.client) == b"answer"


def test_the_load_is_what_waits_bring(ring: AsRing) -> None:
    many = [Ends(cast("Ring", ring)) for _ in range(40)]
    for one in many:
        one.join()
    assert ring.epoll.load == 0, "a flow that is taken over is no new one"
    for _ in range(200):
        for one in many:
            one.client.sendall(b"x")
        ring.wait(0)
    assert 30 < ring.epoll.load <= 40
    ring.epoll.leaving = False
    assert ring.epoll.load == 0
    for one in many:
        one.close()


def test_urgent_data_is_given_back_unread(ends: Ends) -> None:
    ends.join()
    ends.turn()
    ends.client.send(b"!", socket.MSG_OOB)
    stopped = ends.take()
    assert (stopped.reason, stopped.flags, stopped.up) == (Reason.ODD, 0, b"")
    assert ends.ring.active == 0


def test_a_send_that_takes_a_reset_does_not_make_it_an_end(ends: Ends) -> None:
    """Both come in one wait: bytes for the target, and its reset, which the send has taken."""
    ends.join()
    ends.turn()
    ends.client.sendall(b"x")
    reset(ends.target)
    stopped = ends.take()
    assert stopped.reason in (Reason.BROKE, Reason.ODD)
    ends.client.setblocking(False)
    with pytest.raises(BlockingIOError):
        ends.client.recv(1)


def test_full_buffers_in_a_row_are_bulk(ends: Ends) -> None:
    ends.client.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 8 * BUFFER)
    ends._mine.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8 << 20)
    ends.target.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8 * BUFFER)
    ends.until_holds(4 * BUFFER)
    ends.join()
    stopped = ends.take()
    assert (stopped.reason, stopped.flags, stopped.up) == (Reason.BULK, Flags.BULK_CLIENT, b"")
    assert stopped.moved_up == 2 * BUFFER


def test_one_full_buffer_is_none(ends: Ends) -> None:
    ends.join()
    data = noise(BUFFER, seed=4)
    for _ in range(4):
        ends.client.sendall(data)
        got = b""
        while len(got) < BUFFER:
            ends.until_readable(ends.target)
            got += ends.target.recv(BUFFER)
        assert got == data
        ends.client.sendall(b"short")
        ends.until_readable(ends.target)
        assert read_exactly(ends.target, 5) == b"short"
    assert not ends.events


def test_another_descriptor_is_told(ring: AsRing) -> None:
    reader, writer = os.pipe()
    ring.epoll.register(reader, select.EPOLLIN)
    with pytest.raises(FileExistsError):
        ring.epoll.register(reader, select.EPOLLIN)
    assert ring.epoll.poll(0, 10) == []
    os.write(writer, b"x")
    assert ring.epoll.poll(1, 10) == [(reader, select.EPOLLIN)]
    ring.epoll.modify(reader, 0)
    assert ring.epoll.poll(0, 10) == []
    ring.epoll.unregister(reader)
    with pytest.raises(FileNotFoundError):
        ring.epoll.unregister(reader)
    os.close(reader)
    os.close(writer)


def test_what_python_watches_becomes_a_pair(ends: Ends) -> None:
    """And what had come before is not lost."""
    for fd in ends.fds:
        ends.ring.register(fd, select.EPOLLIN | select.EPOLLOUT | select.EPOLLET)  # type: ignore[attr-defined]
    ends.client.sendall(b"early")
    ends.turn(1)
    ends.join()
    ends.until_readable(ends.target)
    assert read_exactly(ends.target, 5) == b"early"


def test_waiting_ends_with_what_python_must_know(ends: Ends) -> None:
    """Messages alone do not end it."""
    reader, writer = os.pipe()
    ends.ring.register(reader, select.EPOLLIN)  # type: ignore[attr-defined]
    ends.join()
    ends.client.sendall(b"message")
    os.write(writer, b"x")
    ends.turn(10)
    assert ends.ring.others == [(reader, select.EPOLLIN)]  # type: ignore[attr-defined]
    ends.until_readable(ends.target)
    assert ends.target.recv(100) == b"message"
    os.close(reader)
    os.close(writer)


def test_waiting_ends_though_messages_never_do(ends: Ends) -> None:
    """The event loop must have its turn: the time is that of all waits together."""
    ends.join()
    over = threading.Event()

    def chat() -> None:
        while not over.is_set():
            ends.client.sendall(b"message")
            read_exactly(ends.target, 7)

    thread = threading.Thread(target=chat)
    thread.start()
    try:
        while ends.ring.moved(ends.pair)[0] < 7000:
            assert ends.ring.wait(0.05) is None
    finally:
        over.set()
        while thread.is_alive():
            ends.turn(0.01)
            thread.join(0.01)


def test_a_dropped_pair_is_closed_at_once(ends: Ends) -> None:
    ends.join()
    ends.turn()
    assert ends.ring.epoll.drop(ends.pair) == ()  # type: ignore[attr-defined]
    for fd in ends.fds:
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(fd)


def test_what_python_watched_a_moment_ago_is_closed_by_python(ends: Ends) -> None:
    """It may have an event of it to handle; and what is ready until then is not told."""
    ends.join()
    assert ends.ring.epoll.drop(ends.pair) == ends.fds  # type: ignore[attr-defined]
    assert ends.ring.active == 0
    ends.client.sendall(b"unread")
    ends.turn(1)
    assert not ends.events
    assert not ends.ring.others  # type: ignore[attr-defined]
    for fd in ends.fds:
        os.close(fd)


def test_what_is_stopped_by_request_is_told_by_the_next_poll(ends: Ends) -> None:
    ends.join()
    ends.ring.stop(ends.pair)
    assert ends.ring.is_due  # type: ignore[attr-defined]
    ends.turn(10)
    assert ends.events == [ends.pair << KIND_BITS | STOPPED]


def test_a_target_that_speaks_first_is_heard_at_once(ring: AsRing) -> None:
    """Connected, first words and end come as one event."""
    one = Dialled(ring, b"")  # type: ignore[arg-type]
    target = one.server.accept()[0]
    target.sendall(b"220 welcome")
    target.close()
    one.until(CONNECTED)
    assert read_all(one.client) == b"220 welcome"
    one.close()


def test_an_address_that_leads_nowhere(ring: AsRing) -> None:
    """connect(2) fails at once: told as a failure that comes later."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        client = socket.create_connection(server.getsockname())
        mine = server.accept()[0]
    client.sendall(b"said")
    nowhere = raw_address(socket.AF_INET, ("255.255.255.255", 80))
    pair, fd, is_connected = ring.epoll.dial(None, mine.detach(), nowhere, b"H", 0)
    assert not is_connected
    assert ring.wait(10) == [pair << KIND_BITS | STOPPED]
    stopped = ring.epoll.take(pair)
    assert stopped[:2] == (Reason.FAILED, errno.ENETUNREACH)
    assert stopped[3] == b"Hsaid"
    os.close(fd)
    client.close()


def test_the_environment_forbids_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(PURE, raising=False)
    assert is_native()
    monkeypatch.setenv(PURE, "1")
    assert not is_native()
    assert native_epoll() is None


def test_it_takes_no_arguments() -> None:
    with pytest.raises(TypeError, match="no arguments"):
        native.Epoll(1)
