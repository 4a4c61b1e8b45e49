"""The native ring: bytes, ends, resets, what it gives back, and what it refuses."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import resource
import select
import socket
import sys
import termios
from collections.abc import Iterator

import pytest

from tests.support.rig import noise, read_all, read_exactly, reset
from v6fwd.relay.pump import (
    CONNECTED,
    FINISHED,
    KIND,
    KIND_BITS,
    READABLE,
    STOPPED,
    WAITING,
    Flags,
    Reason,
    Stopped,
)
from v6fwd.relay.ring.native import Ring
from v6fwd.relay.targets.addresses import raw_address

native = pytest.importorskip("v6fwd.relay.ring._ring", reason="the native ring is not built")
BUFFER = 16 * 1024
MOST_AT_ONCE = 4 * BUFFER


class Ends:
    """A ring with one flow: two connections over TCP, our ends of which are the ring's."""

    def __init__(self, ring: Ring) -> None:
        self.ring = ring
        with socket.create_server(("127.0.0.1", 0)) as server:
            self.client, self._mine = _connected(server)
            self.target, self._other = _connected(server)
        self.fds = self._mine.fileno(), self._other.fileno()
        self.events: list[int] = []
        self.pair = -1

    def connect(self, first: bytes = b"", header_size: int = 0) -> None:
        """Let the ring have both; the target is connected already."""
        fds = self._mine.detach(), self._other.detach()
        self.pair = self.ring.connect(self, *fds, first, header_size)
        if self.ring.is_connected(self.pair):
            self.events.append(self.pair << KIND_BITS | CONNECTED)

    def join(self) -> None:
        self.pair = self.ring.join(self, self._mine.detach(), self._other.detach(), 0, 0)

    def turn(self, seconds: float = 0) -> None:
        self.events += self.ring.wait(seconds) or ()

    def until(self, kind: int) -> None:
        """Turn until the ring has told it."""
        for _ in range(400):
            if self.pair << KIND_BITS | kind in self.events:
                return
            self.turn(0.05)
        raise AssertionError(f"not told: {kind}, but {self.events}")

    def until_readable(self, sock: socket.socket) -> None:
        poll = select.poll()  # select(2) knows no descriptor above 1023
        poll.register(sock, select.POLLIN)
        for _ in range(400):
            if poll.poll(0):
                return
            self.turn(0.05)
        raise AssertionError("nothing came")

    def until_holds(self, size: int) -> None:
        """Let the client send so much, of which nothing is read yet."""
        self.client.sendall(bytes(size))
        for _ in range(400):
            if unread(self.fds[0]) == size:
                return
            self.turn(0.05)
        raise AssertionError("not all has come")

    def take(self) -> Stopped:
        self.until(STOPPED)
        return Stopped(*self.ring.take(self.pair))

    def close(self) -> None:
        for sock in (self.client, self.target, self._mine, self._other):
            sock.close()


def unread(fd: int) -> int:
    """Bytes that can be read (tcp(7), SIOCINQ)."""
    return int.from_bytes(fcntl.ioctl(fd, termios.FIONREAD, bytes(4)), sys.byteorder)


def _connected(server: socket.socket) -> tuple[socket.socket, socket.socket]:
    theirs = socket.create_connection(server.getsockname())
    ours = server.accept()[0]
    theirs.settimeout(10)
    ours.setblocking(False)
    return theirs, ours


@pytest.fixture(params=[False, True], ids=["many", "once"])
def ring(request: pytest.FixtureRequest) -> Iterator[Ring]:
    """One that reads as it can here, and one that reads as it does before Linux 6.17."""
    try:
        one = native.Ring(request.param)
    except OSError as error:
        pytest.skip(f"no ring here: {error}")
    yield one
    one.close()


@pytest.fixture
def ends(ring: Ring) -> Iterator[Ends]:
    one = Ends(ring)
    yield one
    one.close()


def test_header_and_first_bytes_go_together(ends: Ends) -> None:
    ends.client.sendall(b"hello")
    ends.connect(b"HEADER", 6)
    ends.until(CONNECTED)
    assert ends.target.recv(100) == b"HEADERhello"
    assert ends.ring.moved(ends.pair) == (5, 0), "the header is not counted"


def test_a_silent_client_does_not_hold_the_header_up(ends: Ends) -> None:
    ends.connect(b"HEADER", 6)
    ends.until(CONNECTED)
    assert ends.target.recv(100) == b"HEADER"
    assert ends.ring.moved(ends.pair) == (0, 0)


def test_bytes_arrive_in_order_both_ways(ends: Ends) -> None:
    ends.join()
    for size in (1, 100, BUFFER - 1, 7):
        for here, there in ((ends.client, ends.target), (ends.target, ends.client)):
            data = noise(size, seed=size)
            here.sendall(data)
            ends.until_readable(there)
            assert read_exactly(there, size) == data
    total = 1 + 100 + BUFFER - 1 + 7
    assert ends.ring.moved(ends.pair) == (total, total)


def test_ends_are_passed_on_and_both_finish_it(ends: Ends) -> None:
    ends.join()
    ends.client.sendall(b"question")
    ends.client.shutdown(socket.SHUT_WR)
    ends.until_readable(ends.target)
    ends.turn(0.05)
    assert read_all(ends.target) == b"question"
    assert ends.ring.is_half_closed(ends.pair)
    ends.target.sendall(b"answer")
    ends.target.close()
    ends.until(FINISHED)
    assert ends.ring.moved(ends.pair) == (8, 6)
    ends.ring.drop(ends.pair)
    assert read_all(ends.client) == b"answer"
    assert ends.ring.active == 0


def test_an_end_before_the_connection_is_passed_on_behind_the_bytes(ends: Ends) -> None:
    ends.client.sendall(b"all")
    ends.client.shutdown(socket.SHUT_WR)
    ends.connect(b"H", 1)
    ends.until(CONNECTED)
    for _ in range(3):
        ends.turn(0.02)
    assert read_all(ends.target) == b"Hall"


def test_an_answer_and_its_end_are_one_segment(ends: Ends, request: pytest.FixtureRequest) -> None:
    """But where a recv does not go on by itself: it does not see the end with the bytes."""
    goes_on = "many" in request.node.name and linux() >= (6, 17)
    ends.join()
    ends.turn()
    before = segments_in(ends.client)
    ends.target.sendall(b"answer")
    ends.target.close()
    for _ in range(100):
        if ends.ring.is_half_closed(ends.pair):
            break
        ends.turn(0.05)
    ends.turn()  # which sends what the last one has brought
    assert read_all(ends.client) == b"answer"
    assert segments_in(ends.client) - before == (1 if goes_on else 2)


def test_an_end_joins_bytes_that_are_not_sent_yet(
    ends: Ends, request: pytest.FixtureRequest
) -> None:
    goes_on = "many" in request.node.name and linux() >= (6, 17)
    ends.join()
    ends.turn()
    before = segments_in(ends.client)
    ends.target.sendall(b"answer")
    ends.turn(10)  # it is read, and the next turn sends it
    ends.target.close()
    for _ in range(100):
        ends.turn(0.05)
        if ends.ring.is_half_closed(ends.pair):
            break
    assert read_all(ends.client) == b"answer"
    assert segments_in(ends.client) - before == (1 if goes_on else 2)


def linux() -> tuple[int, ...]:
    return tuple(map(int, os.uname().release.split(".")[:2]))


def segments_in(sock: socket.socket) -> int:
    """Segments that have come: tcpi_segs_in of struct tcp_info."""
    info = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 144)
    return int.from_bytes(info[140:144], sys.byteorder)


class Dialled:
    """A ring with one flow to a server, whose socket the ring has made."""

    def __init__(self, ring: Ring, said: bytes, header: bytes = b"", hop_limit: int = 0) -> None:
        self.ring = ring
        self.server = socket.create_server(("127.0.0.1", 0))
        self.server.settimeout(10)
        self.client, mine = _connected(self.server)
        self.client.sendall(said)
        self.events: list[int] = []
        self.address = raw_address(socket.AF_INET, self.server.getsockname())
        self.pair, self.fd, self.is_told = ring.dial(
            self, mine.detach(), self.address, header, hop_limit
        )

    def until(self, kind: int) -> None:
        for _ in range(400):
            self.events += self.ring.wait(0.05) or ()
            if self.pair << KIND_BITS | kind in self.events:
                return
        raise AssertionError(f"not told: {kind}")

    def close(self) -> None:
        self.client.close()
        self.server.close()


@pytest.mark.parametrize("hop_limit", [0, 77])
def test_it_dials_and_sends_what_is_there(ring: Ring, hop_limit: int) -> None:
    """Across loopback the handshake is done at once, so nothing needs to be waited for."""
    one = Dialled(ring, b"hello", b"HEADER", hop_limit)
    assert one.is_told
    assert not ring.is_connected(one.pair)
    assert ring.wait(0) == []
    has_sent_what_was_there(one, hop_limit)


def has_sent_what_was_there(one: Dialled, hop_limit: int) -> None:
    """And the options of its socket are those that they should be."""
    assert one.ring.is_connected(one.pair)
    target = one.server.accept()[0]
    assert target.recv(100) == b"HEADERhello"
    assert segments_in(target) == 2, "the SYN, and what acknowledges ours"
    sock = socket.socket(fileno=os.dup(one.fd))
    assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
    assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_OOBINLINE)
    assert not hop_limit or sock.getsockopt(socket.IPPROTO_IP, socket.IP_TTL) == hop_limit
    sock.close()
    assert one.ring.moved(one.pair) == (5, 0)
    target.close()
    one.client.close()
    one.until(FINISHED)
    one.close()


def test_a_target_that_is_not_connected_at_once_is_told(ring: Ring) -> None:
    """Its queue is full, so that the kernel drops what would connect."""
    with Crowded() as address:
        with socket.create_server(("127.0.0.1", 0)) as server:
            client, mine = _connected(server)
        client.sendall(b"said")
        pair, _, is_told = ring.dial(None, mine.detach(), address, b"HEADER", 0)
        assert is_told
        assert ring.wait(0) == [pair << KIND_BITS | WAITING]
        assert not ring.is_connected(pair)
        ring.stop(pair)
        while pair << KIND_BITS | STOPPED not in (ring.wait(0.05) or ()):
            pass
        stopped = Stopped(*ring.take(pair))
        assert (stopped.reason, stopped.first + stopped.up) == (Reason.ASKED, b"HEADERsaid")
        assert (stopped.moved_up, stopped.moved_down) == (0, 0)
    client.close()


class Crowded:
    """The address of a server whose queue of clients is full."""

    def __init__(self) -> None:
        self._server = socket.create_server(("127.0.0.1", 0), backlog=0)
        self._client = socket.create_connection(self._server.getsockname())

    def __enter__(self) -> bytes:
        return raw_address(socket.AF_INET, self._server.getsockname())

    def __exit__(self, *_: object) -> None:
        self._client.close()
        self._server.close()


def test_what_is_stopped_before_its_first_bytes_are_sent_says_that_they_were(ring: Ring) -> None:
    one = Dialled(ring, b"hello", b"HEADER")
    ring.stop(one.pair)
    one.until(STOPPED)
    assert ring.is_connected(one.pair)
    stopped = Stopped(*ring.take(one.pair))
    assert (stopped.first, stopped.up, stopped.moved_up) == (b"", b"", 5)
    target = one.server.accept()[0]
    assert target.recv(100) == b"HEADERhello"
    target.close()
    os.close(one.fd)
    one.close()


@pytest.mark.parametrize("said", [b"hello", b""])
@pytest.mark.parametrize("how", ["drop", "close"])
def test_what_is_given_up_before_its_first_bytes_are_sent_sends_none(
    ring: Ring, how: str, said: bytes
) -> None:
    one = Dialled(ring, said, b"HEADER")
    ring.reset(one.pair)
    if how == "drop":
        ring.drop(one.pair)
        ring.wait(0)
    else:
        ring.close()
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(one.fd)
    with pytest.raises(ConnectionResetError):
        one.client.recv(1)
    one.close()


def test_a_ring_that_closes_lets_go_of_what_it_has_not_sent(ends: Ends) -> None:
    fds = ends._mine.fileno(), ends._other.fileno()
    ends.join()
    ends.turn()
    ends.client.sendall(b"x")
    ends.turn(10)  # it is read, and the next turn would send it
    ends.ring.close()
    for fd in fds:
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(fd)


def test_a_client_that_speaks_before_the_next_enter_was_not_silent(ring: Ring) -> None:
    one = Dialled(ring, b"")
    one.client.sendall(b"late")
    assert ring.wait(0) == []
    assert ring.is_connected(one.pair)
    target = one.server.accept()[0]
    assert target.recv(100) == b"late"
    assert segments_in(target) == 2, "the SYN, and what acknowledges ours"
    ring.drop(one.pair)
    target.close()
    one.close()


def test_what_is_stopped_before_it_is_dialled_is_not_dialled(ring: Ring) -> None:
    one = Dialled(ring, b"", b"HEADER")
    ring.stop(one.pair)
    one.client.sendall(b"late")
    one.until(STOPPED)
    stopped = Stopped(*ring.take(one.pair))
    assert (stopped.first, stopped.up, stopped.moved_up) == (b"HEADER", b"", 0)
    one.server.setblocking(False)
    with pytest.raises(BlockingIOError):
        one.server.accept()
    os.close(one.fd)
    one.close()


def test_it_dials_for_a_silent_client(ring: Ring) -> None:
    one = Dialled(ring, b"")
    assert one.is_told
    one.until(WAITING)
    hears_its_target_first(one)


def hears_its_target_first(one: Dialled) -> None:
    """As a client of a mail server does."""
    target = one.server.accept()[0]
    one.until(CONNECTED)
    target.sendall(b"220 welcome")
    one.client.settimeout(0.02)
    for _ in range(400):
        one.ring.wait(0.02)
        with contextlib.suppress(TimeoutError):
            assert one.client.recv(100) == b"220 welcome"
            break
    target.close()
    one.close()


def test_it_dials_what_refuses(ring: Ring) -> None:
    gives_back_what_is_refused(ring, is_told=True)


def gives_back_what_is_refused(ring: Ring, *, is_told: bool) -> None:
    """What has been read of the client is given back."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        closed = raw_address(socket.AF_INET, server.getsockname())
    with socket.create_server(("127.0.0.1", 0)) as server:
        client, mine = _connected(server)
    client.sendall(b"said")
    pair, fd, told = ring.dial(None, mine.detach(), closed, b"HEADER", 0)
    assert told == is_told
    while pair << KIND_BITS | STOPPED not in (ring.wait(0.05) or ()):
        pass
    stopped = Stopped(*ring.take(pair))
    assert (stopped.reason, stopped.errno) == (Reason.FAILED, errno.ECONNREFUSED)
    assert stopped.first + stopped.up == b"HEADERsaid"
    os.close(fd)
    client.close()


def test_a_dial_without_descriptors_takes_nothing(ring: Ring) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        client, mine = _connected(server)
        address = raw_address(socket.AF_INET, server.getsockname())
    client.sendall(b"said")
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (mine.fileno() + 1, limits[1]))
    spare = []
    try:
        with contextlib.suppress(OSError):
            while True:
                spare.append(os.dup(0))
        with pytest.raises(OSError, match="Too many open files"):
            ring.dial(None, mine.fileno(), address, b"", 0)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
        for fd in spare:
            os.close(fd)
    assert ring.active == 0
    assert mine.recv(10) == b"said"
    client.close()
    mine.close()


@pytest.mark.parametrize("who", ["client", "target"])
def test_a_reset_stops_it(ends: Ends, who: str) -> None:
    ends.join()
    ends.turn()
    reset(getattr(ends, who))
    stopped = ends.take()
    assert stopped.reason == Reason.BROKE
    assert stopped.errno == errno.ECONNRESET
    assert stopped.flags == (Flags.BROKE_CLIENT if who == "client" else Flags.BROKE_TARGET)


def test_a_send_that_takes_a_reset_does_not_make_it_an_end(ends: Ends) -> None:
    """The kernel tells of a reset once. Who reads after a send has failed sees an end of stream."""
    ends.join()
    ends.turn()
    ends.client.sendall(b"x")
    ends.turn(10)  # it is read, and the next turn sends it
    reset(ends.target)
    stopped = ends.take()
    assert (stopped.reason, stopped.flags) == (Reason.BROKE, Flags.BROKE_TARGET)
    ends.client.setblocking(False)
    with pytest.raises(BlockingIOError):
        ends.client.recv(1)


def test_what_does_not_fit_is_given_back_in_order(ends: Ends) -> None:
    ends.target.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    ends._other.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    ends.join()
    data = noise(BUFFER, seed=3)
    sent = b""
    for _ in range(1000):
        piece = data[: BUFFER - 1]  # never a full buffer: that would be bulk
        ends.client.sendall(piece)
        sent += piece
        for _ in range(3):
            ends.turn(0.01)
        if ends.events:
            break
    stopped = ends.take()
    assert stopped.reason == Reason.FULL
    assert 0 < len(stopped.up) < BUFFER, "one buffer is held at most"
    moved = stopped.moved_up
    assert sent[moved : moved + len(stopped.up)] == stopped.up
    assert read_exactly(ends.target, moved) == sent[:moved]


def test_a_burst_for_a_full_receiver_is_held_within_bounds(ends: Ends) -> None:
    ends.target.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    ends._other.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    ends._mine.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8 << 20)
    ends.join()
    ends.turn()
    ends.client.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 8 << 20)
    ends.client.settimeout(0)
    data = noise(4 << 20, seed=5)
    ends.client.send(data)
    stopped = ends.take()
    assert len(stopped.up) <= MOST_AT_ONCE + BUFFER
    moved = stopped.moved_up
    assert data[moved : moved + len(stopped.up)] == stopped.up
    assert read_exactly(ends.target, moved) == data[:moved]


def test_full_buffers_in_a_row_are_bulk(ends: Ends) -> None:
    ends.client.sendall(bytes(4 * BUFFER))
    ends.join()
    stopped = ends.take()
    assert (stopped.reason, stopped.flags, stopped.up) == (Reason.BULK, Flags.BULK_CLIENT, b"")
    assert 2 * BUFFER <= stopped.moved_up <= 4 * BUFFER


def test_a_target_that_refuses(ring: Ring) -> None:
    """What the client has said is given back, for the next address."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        client, mine = _connected(server)
        closed = server.getsockname()
    target = socket.socket()
    target.setblocking(False)
    target.connect_ex(closed)
    client.sendall(b"said")
    pair = ring.connect(None, mine.detach(), target.fileno(), b"HEADER", 6)
    stopped = None
    for _ in range(100):
        if pair << KIND_BITS | STOPPED in (ring.wait(0.05) or ()):
            stopped = Stopped(*ring.take(pair))
            break
    assert stopped is not None
    assert (stopped.reason, stopped.errno) == (Reason.FAILED, errno.ECONNREFUSED)
    assert stopped.first + stopped.up == b"HEADERsaid"
    client.close()
    target.close()


def test_who_asks_gets_both_back(ends: Ends) -> None:
    ends.join()
    ends.turn()
    assert ends.ring.owner(ends.pair) is ends
    ends.ring.stop(ends.pair)
    stopped = ends.take()
    assert (stopped.reason, stopped.flags) == (Reason.ASKED, 0)
    assert ends.ring.owner(ends.pair) is None
    assert ends.ring.active == 0


def test_two_sweeps_stop_what_is_half_closed(ends: Ends) -> None:
    ends.join()
    ends.ring.sweep(0)
    ends.client.shutdown(socket.SHUT_WR)
    ends.until_readable(ends.target)
    ends.ring.sweep(0)
    ends.turn()
    assert not ends.events
    ends.ring.sweep(0)
    stopped = ends.take()
    assert (stopped.reason, stopped.flags) == (Reason.LONELY, Flags.ENDED_CLIENT)


def test_a_sweep_stops_no_more_than_it_is_told(ring: Ring) -> None:
    many = [Ends(ring) for _ in range(5)]
    for one in many:
        one.join()
    ring.wait(0)
    ring.sweep(3)
    stopped: list[int] = []
    while len(stopped) < 3:
        stopped += [event >> KIND_BITS for event in ring.wait(1) or ()]
    reasons = {Stopped(*ring.take(pair)).reason for pair in stopped}
    assert reasons == {Reason.ASKED}
    assert ring.active == 2
    ring.sweep(0)
    assert ring.wait(0) is None
    for one in many:
        if one.pair in stopped:
            for fd in one.fds:
                os.close(fd)
        one.close()


def test_the_load_is_what_waits_bring(ring: Ring) -> None:
    many = [Ends(ring) for _ in range(40)]
    for one in many:
        one.join()
    ring.wait(0)
    assert ring.load() == 0, "a flow that is taken over is no new one"
    for _ in range(200):
        for one in many:
            one.client.sendall(b"x")
        ring.wait(0)
    assert 20 < ring.load() <= 40
    assert ring.load() == 0, "nothing since then"
    for one in many:
        one.close()


@pytest.mark.parametrize("resets", [False, True])
def test_a_flow_that_is_dropped_closes_once_nothing_is_under_way(ends: Ends, resets: bool) -> None:
    ends.join()
    ends.turn()
    if resets:
        ends.ring.reset(ends.pair)
    ends.ring.drop(ends.pair)
    for _ in range(100):
        if not ends.ring.active:
            break
        ends.turn(0.05)
    assert ends.ring.active == 0
    assert not ends.events, "a dropped flow tells nothing"
    if resets:
        with pytest.raises(ConnectionResetError):
            ends.client.recv(1)
    else:
        assert ends.client.recv(1) == b""


def test_a_number_means_one_pair_only(ring: Ring) -> None:
    """Nor does an event of an old one meet a new one in the same place."""
    first, second = Ends(ring), Ends(ring)
    first.join()
    old = first.pair
    first.client.close()
    first.target.close()
    first.until(FINISHED)
    ring.drop(old)
    second.join()
    assert second.pair != old
    assert second.pair & 0xFFFFF == old & 0xFFFFF, "it is the same place"
    assert ring.owner(old) is None
    with pytest.raises(ValueError, match="no such flow"):
        ring.moved(old)
    for one in (first, second):
        one.close()


def test_what_is_told_of_a_pair_that_was_given_up_meets_no_other(ring: Ring) -> None:
    """It was to be told before the wait that gives it, and another pair has its place by then."""
    first, second = Ends(ring), Ends(ring)
    with socket.socket() as not_connected:
        first._other.close()
        first._other = not_connected.dup()
    first.connect(b"HEADER", 6)  # fails at once
    old = first.pair
    ring.drop(old)
    events = ring.wait(0) or []
    second.join()
    assert events == [old << KIND_BITS | STOPPED]
    assert ring.owner(events[0] >> KIND_BITS) is None
    for one in (first, second):
        one.close()


def test_more_flows_than_buffers_lose_nothing(ring: Ring) -> None:
    """ENOBUFS is no error: who gets no buffer is read again."""
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(2048, limits[0]), limits[1]))
    many = [Ends(ring) for _ in range(300)]
    for number, one in enumerate(many):
        one.join()
        one.client.sendall(number.to_bytes(2, "big"))
    for number, one in enumerate(many):
        one.until_readable(one.target)
        assert read_exactly(one.target, 2) == number.to_bytes(2, "big")
        one.close()
    ring.close()
    resource.setrlimit(resource.RLIMIT_NOFILE, limits)


def test_another_descriptor_is_watched_once(ring: Ring) -> None:
    reader, writer = os.pipe()
    ring.poll(reader)
    assert ring.wait(0) is None
    os.write(writer, b"x")
    assert ring.wait(1) == [READABLE]
    assert ring.wait(0) is None
    os.close(reader)
    os.close(writer)


def test_a_resting_ring_rings_its_bell(ends: Ends) -> None:
    ends.join()
    assert not ends.ring.rest()
    assert not select.select([ends.ring.fileno()], [], [], 0)[0]
    ends.client.sendall(b"x")
    assert select.select([ends.ring.fileno()], [], [], 10)[0]
    ends.turn()
    assert not select.select([ends.ring.fileno()], [], [], 0)[0]
    ends.until_readable(ends.target)
    assert ends.target.recv(1) == b"x"


def test_what_cannot_be(ends: Ends) -> None:
    ends.join()
    for call in (ends.ring.take, ends.ring.moved, ends.ring.drop):
        with pytest.raises(ValueError, match=r"no such flow|has not stopped"):
            call(ends.pair if call == ends.ring.take else 1 << 24)
    with pytest.raises(ValueError, match="no such header"):
        ends.ring.connect(None, 0, 0, b"short", 6)
    for address in (b"", b"\2\0", bytes(500)):
        with pytest.raises(ValueError, match="no such address"):
            ends.ring.dial(None, 0, address, b"", 0)
    with pytest.raises(OSError, match="not supported"):
        ends.ring.dial(None, 0, bytes(16), b"", 0)
    with pytest.raises((TypeError, OverflowError)):
        ends.ring.moved(-1)


def test_a_closed_ring_says_so(ends: Ends) -> None:
    ends.join()
    ends.turn()
    ends.ring.close()
    ends.ring.close()
    assert ends.client.recv(1) == b""
    with pytest.raises(ValueError, match="closed"):
        ends.ring.wait(0)


def test_kinds_fit_into_an_event() -> None:
    assert {CONNECTED, FINISHED, STOPPED, READABLE} <= set(range(KIND + 1))
