"""One direction of the TCP pump: which system calls it makes, when it stops, what it reports."""

from __future__ import annotations

import contextlib
import errno
import os
import select
import socket
import struct
from collections.abc import Iterator
from functools import partial
from typing import Any

import pytest

from tests.support.process import eventually
from tests.support.pump import KIB, Calls, Flow, Stage, stage
from tests.support.rig import noise, reset
from v6fwd.relay.sockets import end_writing
from v6fwd.relay.tcp import side as side_module
from v6fwd.relay.tcp.pipes import PipePool
from v6fwd.relay.tcp.side import READ, READ_WRITE, join

IN, OUT, ERR, HUP = select.EPOLLIN, select.EPOLLOUT, select.EPOLLERR, select.EPOLLHUP
URGENT, END = select.EPOLLPRI, select.EPOLLRDHUP
FULL = 64 * KIB
"""Bytes of a read that fills the buffer."""


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> Calls:
    """What the pump calls."""
    made = Calls()
    monkeypatch.setattr(side_module, "os", made)
    return made


@pytest.fixture(params=[False, True], ids=["large-pipes", "small-pipes"])
def flow(request: pytest.FixtureRequest) -> Iterator[Stage]:
    """A flow between sockets of the usual size."""
    with stage(flow=Flow(paced=request.param)) as made:
        yield made


@pytest.fixture(params=[False, True], ids=["large-pipes", "small-pipes"])
def narrow(request: pytest.FixtureRequest) -> Iterator[Stage]:
    """One whose target takes a few KiB, and then no more until it reads."""
    with stage(buffer=4 * KIB, flow=Flow(paced=request.param)) as made:
        yield made


def fail(name: str, fd: int, number: int, call: str, on: int) -> None:
    """For Calls.before: one call on one descriptor fails."""
    if (call, on) == (name, fd):
        raise OSError(number, os.strerror(number))


def segments_in(sock: socket.socket) -> int:
    """Segments that have come: tcpi_segs_in of struct tcp_info."""
    info = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 144)
    (count,) = struct.unpack_from("=I", info, 140)
    return int(count)


def test_masks_say_what_is_waited_for() -> None:
    """Reading and ends always, room only after the other side was full; edges, not levels."""
    assert IN | URGENT | END | select.EPOLLET == READ
    assert READ_WRITE == READ | OUT


# ---- messages -------------------------------------------------------------------------------


def test_a_message_is_one_read_and_one_write(flow: Stage, calls: Calls) -> None:
    flow.send(b"hello")
    flow.client.on_event(IN)
    assert flow.got(5) == b"hello"
    assert calls.made == [("readv", flow.client.fd), ("write", flow.target.fd)]
    assert flow.client.moved == 5
    assert flow.target.moved == 0
    assert not flow.turns.later
    assert not flow.turns.masks
    assert not flow.flow.told


def test_an_event_without_bytes_does_nothing(flow: Stage, calls: Calls) -> None:
    flow.client.on_event(IN)
    assert calls.made == [("readv", flow.client.fd)]
    assert not flow.flow.told


def test_room_that_nobody_waits_for_is_no_event(flow: Stage, calls: Calls) -> None:
    """An event can be stale, and so its mask."""
    flow.send(b"hello")
    flow.client.on_event(OUT)
    assert not calls.made
    flow.target.on_event(OUT)
    assert not calls.made


@pytest.mark.parametrize(("mark", "reads"), [(END, 1), (HUP, 2), (END | HUP, 2), (END | URGENT, 2)])
def test_an_end_behind_a_message_is_read(flow: Stage, calls: Calls, mark: int, reads: int) -> None:
    """The end gives no second edge: whoever is told of it reads on behind a short read.

    A FIN alone says that nothing can follow the short read.
    """
    flow.send(b"last words")
    flow.end()
    flow.client.on_event(IN | mark)
    assert flow.got(10) == b"last words"
    assert calls.count("readv") == reads
    assert flow.client.ended
    assert flow.flow.told == [("ended", flow.client)]


def segments_for_the_last_bytes() -> int:
    """How many segments come to the target for a message and the end behind it."""
    with stage() as flow:
        flow.send(b"last words")
        flow.end()
        before = segments_in(flow.sink)
        flow.flow.then = partial(end_writing, flow.far.fileno())
        flow.client.on_event(IN | END)
        assert flow.got(11) == b"last words"
        return segments_in(flow.sink) - before


def test_the_end_is_in_the_segment_of_the_last_bytes() -> None:
    """A segment less, and a wake-up of whoever reads them. A pause of 200 ms would undo it."""
    assert min(segments_for_the_last_bytes() for _ in range(3)) == 1


def test_the_other_side_takes_no_last_bytes(flow: Stage) -> None:
    flow.far.shutdown(socket.SHUT_WR)  # send(2) fails with EPIPE
    flow.send(b"last words")
    flow.end()
    flow.client.on_event(IN | END)
    assert flow.flow.told == [("broke", flow.target)]


def test_last_bytes_wait_for_room(narrow: Stage) -> None:
    """None of them is lost, and the end is told behind them."""
    narrow.far.setblocking(False)
    filling = bytearray()
    with contextlib.suppress(BlockingIOError):
        while True:
            filling += b"x" * narrow.far.send(b"x" * KIB)
    narrow.send(b"last words")
    narrow.end()
    narrow.client.on_event(IN | END)
    assert narrow.flow.told == []
    assert narrow.client.blocked
    assert narrow.got(len(filling)) == filling
    eventually(lambda: select.select([], [narrow.far], [], 0)[1], "there is room")
    narrow.target.on_event(OUT)
    assert narrow.got(10) == b"last words"
    assert narrow.flow.told == [("ended", narrow.client)]


def test_last_bytes_fill_the_buffer(flow: Stage) -> None:
    data = noise(2 * FULL + 10, seed=1)
    flow.send(data)
    flow.end()
    flow.client.on_event(IN | END)
    while flow.turns.later:
        flow.turns.next()
    assert flow.got(len(data)) == data
    assert flow.client.moved == len(data)
    assert flow.flow.told == [("ended", flow.client)]


def test_what_has_ended_is_read_no_more(flow: Stage, calls: Calls) -> None:
    flow.end()
    flow.client.on_event(IN | END)
    flow.client.on_event(IN | END)
    flow.client.resume()
    assert calls.count("readv") == 1
    assert flow.flow.told == [("ended", flow.client)]


def test_nobody_keeps_the_turn_for_more_than_sixteen_messages(flow: Stage, calls: Calls) -> None:
    """A client that writes as fast as it is read: after 16 copies the others come."""
    flow.send(b"1")

    def one_more(call: str, _: int) -> None:
        if call == "write":
            flow.send(b"n")

    calls.before = one_more
    flow.client.on_event(IN | HUP)
    assert calls.count("readv") == calls.count("write") == 16
    assert flow.turns.later == [flow.client]
    assert flow.client.queued
    calls.before = None
    flow.client.on_event(IN)  # whoever waits for its turn does not push in
    assert calls.count("readv") == 16
    flow.end()
    flow.turns.next()
    assert not flow.client.queued
    assert flow.got(17) == b"1" + b"n" * 16
    assert flow.client.moved == 17
    assert flow.flow.told == [("ended", flow.client)], "an end that came in the meantime"


# ---- bulk -----------------------------------------------------------------------------------


def in_bulk(flow: Stage, calls: Calls) -> None:
    """Two full reads, and the flow waits for its turn to splice."""
    flow.send(bytes(2 * FULL))
    flow.client.on_event(IN)
    assert flow.got(2 * FULL) == bytes(2 * FULL)
    assert calls.count("readv") == 2
    assert flow.turns.later == [flow.client]
    calls.made.clear()


def test_the_second_full_buffer_makes_it_bulk(flow: Stage, calls: Calls) -> None:
    in_bulk(flow, calls)
    assert flow.flow.pipes.lent == 0, "no pipe is lent to who waits for its turn"
    data = noise(150 * KIB, seed=1)
    flow.send(data)
    flow.turns.next()
    assert flow.got(len(data)) == data
    assert not calls.count("readv")
    assert calls.count("splice", flow.client.fd) >= 1
    assert flow.client.moved == 2 * FULL + len(data)


def test_a_full_buffer_between_messages_is_no_bulk(flow: Stage, calls: Calls) -> None:
    for _ in range(3):
        flow.send(bytes(FULL))
        flow.client.on_event(IN)
        assert len(flow.got(FULL)) == FULL
        flow.send(b"short")
        flow.client.on_event(IN)
        assert flow.got(5) == b"short"
    assert not flow.turns.later
    assert flow.client.full_reads == 0
    assert not calls.count("splice")


def test_a_pipe_goes_back_when_nothing_more_comes(flow: Stage, calls: Calls) -> None:
    in_bulk(flow, calls)
    flow.turns.next()
    assert calls.made == [("splice", flow.client.fd)]
    assert flow.flow.pipes.lent == 0
    assert flow.client.pipe is None
    assert not flow.turns.later


def splices(flow: Stage, calls: Calls, size: int) -> int:
    """Bring `size` bytes whenever the client is spliced; gives how often that was in a turn."""

    def more(call: str, fd: int) -> None:
        if (call, fd) == ("splice", flow.client.fd):
            flow.send(bytes(size))

    in_bulk(flow, calls)
    calls.before = more
    flow.turns.next()
    calls.before = None
    return calls.count("splice", flow.client.fd)


@pytest.mark.parametrize(("paced", "most"), [(False, 4), (True, 64)])
def test_nobody_keeps_the_turn_for_more_than_some_splices(
    calls: Calls, paced: bool, most: int
) -> None:
    with stage(flow=Flow(paced=paced)) as flow:
        assert splices(flow, calls, 16 * KIB) == most
        assert flow.turns.later == [flow.client]
        assert flow.client.queued
        assert flow.flow.pipes.lent == 0
        assert flow.client.full_reads >= 2, "16 KiB are bulk still"


def test_splices_below_16_kib_are_messages_again(flow: Stage, calls: Calls) -> None:
    assert splices(flow, calls, 16 * KIB - 1) >= 3
    assert flow.client.full_reads == 0
    flow.turns.next()
    assert calls.count("readv", flow.client.fd) == 1


def test_the_rest_of_a_full_pipe_is_no_message(flow: Stage, calls: Calls) -> None:
    """The third short splice in a row ends bulk, not the one behind each body."""
    in_bulk(flow, calls)
    flow.turns.next()
    for size in (16, 1, 1, 16, 1, 1):
        flow.send(bytes(size * KIB))
        flow.client.on_event(IN)
        assert flow.got(size * KIB) == bytes(size * KIB)
        assert flow.client.full_reads >= 2
    for _ in range(2):
        calls.made.clear()
        flow.send(bytes(KIB))
        flow.client.on_event(IN)
        assert flow.got(KIB) == bytes(KIB)
        assert flow.client.full_reads == 0
    assert not calls.count("splice")


@pytest.mark.parametrize(
    ("paced", "streak", "size"),
    [(False, 0, 1 << 20), (True, 0, FULL), (True, 3 << 20, FULL), (True, (3 << 20) + 1, 1 << 20)],
)
def test_where_tcp_paces_bodies_go_through_small_pipes(paced: bool, streak: int, size: int) -> None:
    """A stream without a pause gets a large one there, too."""
    with stage(flow=Flow(paced=paced), buffer=4 * KIB) as flow:
        flow.client.full_reads = 2
        flow.client.streak = streak
        flow.send(bytes(200 * KIB))
        flow.client.on_event(IN)
        assert flow.client.pipe is not None
        assert flow.client.pipe.size == size
        assert 0 < flow.client.piped <= size


def test_what_comes_from_the_client_goes_through_large_pipes() -> None:
    """Where TCP paces, too, and after a pause."""
    with stage(flow=Flow(paced=True), buffer=4 * KIB) as flow:
        join(flow.client, flow.target, b"", 0, watched=True)
        flow.client.full_reads = 2
        flow.client.on_event(IN)  # nothing is there: a pause
        flow.send(bytes(200 * KIB))
        flow.client.on_event(IN)
        assert flow.client.pipe is not None
        assert flow.client.pipe.size == 1 << 20


def test_a_pause_halves_what_counts_as_without_one(flow: Stage, calls: Calls) -> None:
    """So bodies of 1 MiB, one after the other, stay below 3 MiB."""
    in_bulk(flow, calls)
    flow.turns.next()
    for streak in (50, 75, 87):
        flow.send(bytes(100 * KIB))
        flow.client.on_event(IN)
        assert flow.got(100 * KIB) == bytes(100 * KIB)
        assert flow.client.streak // KIB == streak


def test_an_end_in_bulk_is_read_by_recv(flow: Stage, calls: Calls) -> None:
    """A splice of 0 bytes can be an urgent mark."""
    in_bulk(flow, calls)
    flow.end()
    flow.turns.next()
    assert calls.made == [("splice", flow.client.fd), ("readv", flow.client.fd)]
    assert flow.flow.told == [("ended", flow.client)]
    assert flow.flow.pipes.lent == 0


def test_who_gets_no_pipe_copies(calls: Calls) -> None:
    with stage(flow=Flow(pipes=0)) as flow:
        in_bulk(flow, calls)
        data = noise(FULL + 1, seed=2)
        flow.send(data)
        flow.turns.next()
        assert not calls.made
        assert flow.turns.later == [flow.client]
        assert flow.client.full_reads == 0
        flow.turns.next()
        assert flow.got(len(data)) == data
        assert not calls.count("splice")


# ---- a side that is full --------------------------------------------------------------------


def blocked(flow: Stage, calls: Calls, size: int = FULL) -> bytes:
    """Send more than the target takes, and read it up to there; gives what was sent."""
    data = noise(size, seed=3)
    flow.send(data)
    flow.client.on_event(IN)
    assert flow.client.blocked
    calls.made.clear()
    return data


def drained(flow: Stage, size: int) -> bytes:
    """Read at the target, with events as they come, until `size` bytes are there."""
    data = b""
    with select.epoll() as epoll:
        epoll.register(flow.target.fd, OUT)
        while len(data) < size:
            flow.sink.setblocking(False)
            try:
                data += flow.sink.recv(size - len(data))
            except BlockingIOError:
                pass
            if epoll.poll(0.01):
                flow.target.on_event(OUT)
                flow.turns.next()
    return data


def test_who_is_full_is_waited_for(narrow: Stage, calls: Calls) -> None:
    data = blocked(narrow, calls)
    assert narrow.turns.masks == [(narrow.target.fd, READ_WRITE)]
    assert narrow.target.watches_out
    assert narrow.client.moved + len(narrow.client.held) == len(data)
    assert 0 < narrow.client.moved < len(data)
    narrow.send(b"more")
    narrow.client.on_event(IN)
    narrow.client.resume()
    assert not calls.made, "it is read while the other side is full"
    assert drained(narrow, len(data) + 4) == data + b"more"
    assert not narrow.client.blocked
    assert not narrow.client.held
    assert narrow.client.moved == len(data) + 4


def test_who_is_full_again_is_watched_already(narrow: Stage, calls: Calls) -> None:
    for _ in range(2):
        data = blocked(narrow, calls)
        assert drained(narrow, len(data)) == data
    assert len(narrow.turns.masks) == 1


def test_room_of_the_other_direction_is_no_event(narrow: Stage, calls: Calls) -> None:
    blocked(narrow, calls)
    narrow.client.on_event(OUT)
    assert not calls.made


def test_what_a_full_side_says_is_no_room(narrow: Stage, calls: Calls) -> None:
    blocked(narrow, calls)
    narrow.sink.sendall(b"wait")
    with select.epoll() as epoll:
        epoll.register(narrow.target.fd, IN)
        assert epoll.poll(5)
    narrow.target.on_event(IN)
    assert calls.made == [("readv", narrow.target.fd), ("write", narrow.client.fd)]


def test_a_write_that_takes_nothing_loses_nothing(flow: Stage, calls: Calls) -> None:
    calls.before = partial(fail, "write", flow.target.fd, errno.EAGAIN)
    flow.send(b"hello")
    flow.client.on_event(IN)
    assert flow.client.blocked
    assert flow.client.held == b"hello"
    assert flow.client.moved == 0
    flow.target.on_event(OUT)
    assert flow.client.blocked, "still full"
    calls.before = None
    flow.send(b" again")
    flow.target.on_event(OUT)
    assert flow.got(11) == b"hello again"
    assert flow.client.moved == 11
    assert not flow.flow.told


def test_a_part_of_what_is_held_goes_out(flow: Stage, calls: Calls) -> None:
    flow.client.held, flow.client.blocked = b"hello", True
    flow.send(b"!")
    real = os.write

    def one_byte(fd: int, data: Any) -> int:
        return real(fd, data[:1])

    calls.write = one_byte  # type: ignore[method-assign]
    flow.target.on_event(OUT)
    assert flow.client.held == b"ello"
    assert flow.client.blocked
    assert flow.client.moved == 1
    del calls.write
    flow.target.on_event(OUT)
    assert flow.got(6) == b"hello!"


def test_an_end_waits_for_what_is_held(narrow: Stage, calls: Calls) -> None:
    data = blocked(narrow, calls)
    narrow.end()
    narrow.client.on_event(IN | END)
    assert not narrow.flow.told
    assert drained(narrow, len(data)) == data
    assert narrow.flow.told == [("ended", narrow.client)]


def test_who_has_ended_is_told_of_when_the_rest_is_out(flow: Stage, calls: Calls) -> None:
    flow.client.held, flow.client.blocked, flow.client.ended = b"rest", True, True
    flow.target.on_event(OUT)
    assert flow.got(4) == b"rest"
    assert flow.flow.told == [("ended", flow.client)]
    assert not flow.client.blocked
    assert not calls.count("readv")


def test_bulk_stops_with_bytes_in_its_pipe(calls: Calls) -> None:
    with stage(buffer=8 * KIB) as flow:
        flow.client.full_reads = 2
        data = noise(150 * KIB, seed=4)
        flow.send(data)
        flow.client.on_event(IN)
        assert flow.client.blocked
        assert flow.client.piped > 0
        assert flow.client.moved + flow.client.piped + flow.unread() == len(data)
        assert flow.flow.pipes.lent == 1
        assert drained(flow, len(data)) == data
        assert not calls.count("readv")
        assert flow.client.piped == 0
        assert flow.client.moved == len(data)
        assert not flow.flow.told


def test_bulk_that_is_none_any_more_gives_its_pipe_back() -> None:
    with stage(buffer=4 * KIB) as flow:
        data = noise(15 * KIB, seed=5)
        flow.client.full_reads = 2
        flow.send(data)
        flow.client.on_event(IN)
        assert flow.client.piped
        assert flow.client.full_reads == 0
        assert drained(flow, len(data)) == data
        assert flow.flow.pipes.lent == 0
        assert flow.client.pipe is None
        assert not flow.client.blocked


def test_bulk_goes_on_in_the_pipe_that_it_has() -> None:
    """Between two stops of a reader that is slow, the pipe stays."""
    with stage(buffer=8 * KIB) as flow:
        flow.client.full_reads = 2
        flow.send(bytes(150 * KIB))
        flow.client.on_event(IN)
        assert flow.flow.pipes.lent == 1
        pipe = flow.client.pipe
        flow.send(bytes(50 * KIB))
        flow.got(150 * KIB - flow.client.piped - flow.unread() + 50 * KIB)
        flow.target.on_event(OUT)
        assert flow.client.pipe is pipe
        flow.turns.next()


def test_a_flow_that_ends_gives_its_pipe_back() -> None:
    with stage(buffer=8 * KIB) as flow:
        flow.client.full_reads = 2
        flow.send(bytes(150 * KIB))
        flow.client.on_event(IN)
        pipe = flow.client.pipe
        assert pipe is not None
        flow.client.release()
        assert flow.client.pipe is None
        assert flow.client.piped == 0
        assert flow.flow.pipes.lent == 0
        flow.client.release()
        assert flow.flow.pipes.lent == 0, "it was given back twice"
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(pipe.reader)  # somebody's bytes are in it


@pytest.mark.parametrize("drains", [False, True])
def test_a_pipe_is_kept_for_others_if_it_is_empty(drains: bool) -> None:
    """One with bytes in it would give them to another flow."""
    owner = Flow()
    owner.pipes = PipePool(4, spares=4)
    with stage(flow=owner, buffer=8 * KIB) as flow:
        flow.client.full_reads = 2
        flow.send(bytes(150 * KIB))
        flow.client.on_event(IN)
        pipe = flow.client.pipe
        assert pipe is not None
        if drains:
            drained(flow, 150 * KIB)
        flow.client.release()
        again = owner.pipes.take(sustained=True)
        assert again is not None
        os.write(again.writer, b"!")
        assert os.read(again.reader, 10) == b"!"
        assert (again is pipe) is drains
        owner.pipes.give_back(again, empty=True)


# ---- connections that break -----------------------------------------------------------------


def broken(flow: Stage, calls: Calls, culprit: str) -> None:
    """A call fails: the culprit broke, and nothing more is done."""
    flow.flow.then = flow.flow.close
    calls.made.clear()
    flow.client.on_event(IN)
    assert flow.flow.told == [("broke", getattr(flow, culprit))]
    assert not flow.turns.later


@pytest.mark.parametrize("number", [errno.ECONNRESET, errno.ETIMEDOUT, errno.EHOSTUNREACH])
@pytest.mark.parametrize(
    ("full_reads", "call", "culprit"),
    [(0, "readv", "client"), (0, "write", "target"), (2, "splice", "client")],
)
def test_who_broke(
    flow: Stage, calls: Calls, number: int, full_reads: int, call: str, culprit: str
) -> None:
    flow.send(b"hello")
    flow.client.full_reads = full_reads
    calls.before = partial(fail, call, getattr(flow, culprit).fd, number)
    broken(flow, calls, culprit)


def test_target_broke_in_bulk(flow: Stage, calls: Calls) -> None:
    flow.client.full_reads = 2
    flow.send(bytes(FULL))
    client = flow.client

    def out_fails(call: str, fd: int) -> None:
        if call == "splice" and fd != client.fd:
            raise ConnectionResetError(errno.ECONNRESET, "reset")

    calls.before = out_fails
    broken(flow, calls, "target")
    assert flow.client.piped == FULL


@pytest.mark.parametrize("held", [b"held", b""])
def test_target_broke_when_it_had_room_again(flow: Stage, calls: Calls, held: bytes) -> None:
    flow.client.blocked, flow.client.held = True, held
    if not held:
        flow.client.full_reads = 2
        flow.send(bytes(FULL))
        calls.before = partial(out_is_full, flow)
        flow.client.blocked = False
        flow.client.on_event(IN)
        assert flow.client.piped == FULL
    flow.flow.then = flow.flow.close

    def fails(_call: str, fd: int) -> None:
        if fd != flow.client.fd:
            raise BrokenPipeError(errno.EPIPE, "broken pipe")

    calls.before = fails
    flow.send(b"more")
    calls.made.clear()
    flow.target.on_event(OUT | IN)
    assert flow.flow.told == [("broke", flow.target)]
    assert not calls.made


def out_is_full(flow: Stage, call: str, fd: int) -> None:
    """For Calls.before: the pipe cannot be emptied."""
    if call == "splice" and fd != flow.client.fd:
        raise BlockingIOError


def test_an_error_that_only_the_event_tells(flow: Stage, calls: Calls) -> None:
    """Nobody reads a side whose other end is full, so nobody else would find out."""
    flow.client.blocked = True
    reset(flow.source)
    eventually(lambda: is_dead(flow.near), "the reset comes")
    flow.client.on_event(IN | ERR | HUP)
    assert flow.flow.told == [("broke", flow.client)]
    assert not calls.made


def is_dead(sock: socket.socket) -> bool:
    """Whether a connection is closed (TCP_CLOSE); its error stays."""
    return sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0] == 7


def test_an_error_event_without_an_error_is_stale(flow: Stage) -> None:
    flow.client.blocked = True
    flow.client.on_event(ERR)
    assert not flow.flow.told


def test_an_error_is_asked_for_only_where_there_is_one(
    flow: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A system call for each event would be one too many."""
    asked: list[int] = []
    monkeypatch.setattr(side_module, "pending_error", asked.append)
    flow.client.on_event(IN)
    flow.client.on_event(ERR)
    assert asked == [flow.client.fd]


def test_a_reset_behind_a_message_is_found_by_reading(flow: Stage) -> None:
    flow.flow.then = flow.flow.close
    reset(flow.source)
    eventually(lambda: is_dead(flow.near), "the reset comes")
    flow.client.on_event(IN | ERR | HUP | END)
    assert flow.flow.told == [("broke", flow.client)]


def closed(flow: Stage) -> None:
    """For Flow.then: as a flow does that closes, so that touching it fails."""
    flow.flow.closed = True
    del flow.client.other, flow.target.other


@pytest.mark.parametrize("mask", [IN | END, IN | END | ERR, IN | END | ERR | HUP])
def test_after_the_report_of_an_end_nothing_is_touched(flow: Stage, mask: int) -> None:
    flow.send(b"bye")
    flow.end()
    flow.flow.then = partial(closed, flow)
    ends = flow.client, flow.target
    flow.client.on_event(mask)
    assert flow.flow.told == [("ended", ends[0])]
    ends[0].other, ends[1].other = ends[1], ends[0]


def test_after_the_report_of_a_drained_end_nothing_is_touched(flow: Stage, calls: Calls) -> None:
    flow.client.held, flow.client.blocked, flow.client.ended = b"rest", True, True
    flow.flow.then = partial(closed, flow)
    ends = flow.client, flow.target
    flow.target.on_event(OUT | IN | URGENT | ERR)
    assert flow.flow.told == [("ended", ends[0])]
    assert not calls.count("readv")
    assert not flow.target.urgent
    ends[0].other, ends[1].other = ends[1], ends[0]


def test_a_closed_flow_does_not_go_on(flow: Stage, calls: Calls) -> None:
    flow.send(b"hello")
    flow.client.queued = flow.flow.closed = True
    flow.client.resume()
    assert not calls.made
    assert not flow.client.queued


def test_what_nobody_expected_is_told(flow: Stage) -> None:
    error = MemoryError()
    flow.client.on_exception(error)
    assert flow.flow.told == [("on_exception", error)]


# ---- an urgent byte -------------------------------------------------------------------------


def test_an_urgent_byte_is_one_among_the_others(flow: Stage) -> None:
    flow.send(b"before")
    flow.source.send(b"!", socket.MSG_OOB)
    flow.source.sendall(b"after")
    with select.epoll() as epoll:
        epoll.register(flow.near, URGENT)
        assert epoll.poll(5)
    flow.client.on_event(IN | URGENT)
    while flow.unread():
        flow.client.on_event(IN)
    assert flow.got(12) == b"before!after"
    assert flow.client.urgent


def test_after_an_urgent_byte_nothing_is_spliced(flow: Stage, calls: Calls) -> None:
    """splice(2) would stop at the mark for ever."""
    flow.client.full_reads = 1
    flow.client.on_event(URGENT)
    assert flow.client.full_reads == 0, "or two more full buffers would be bulk"
    for seed in range(3):
        data = noise(2 * FULL, seed)
        flow.send(data)
        flow.client.on_event(IN)
        flow.turns.next()
        flow.turns.next()
        assert flow.got(2 * FULL) == data
    assert not calls.count("splice")


def test_an_urgent_mark_in_bulk_is_read_over(flow: Stage, calls: Calls) -> None:
    """At the mark splice gives 0, and recv reads it with what is behind, and the end."""
    in_bulk(flow, calls)
    flow.source.send(b"!", socket.MSG_OOB)
    flow.source.sendall(b"tail")
    flow.end()
    flow.turns.next()
    assert flow.got(5) == b"!tail"
    assert flow.flow.told == [("ended", flow.client)]


def test_without_an_urgent_byte_splice_may_be_used(flow: Stage) -> None:
    flow.send(b"hello")
    flow.client.on_event(IN | END)
    assert not flow.client.urgent


def test_an_urgent_event_reads_on_behind_a_short_read(flow: Stage, calls: Calls) -> None:
    """A read stops at the mark, with bytes behind it."""
    flow.send(b"x")
    flow.client.on_event(IN | URGENT)
    assert calls.count("readv") == 2


# ---- all of it ------------------------------------------------------------------------------


def test_every_byte_comes_whatever_the_sizes() -> None:
    with stage(buffer=16 * KIB) as flow:
        for seed, size in enumerate((1, FULL - 1, FULL, FULL + 1, 5 * FULL, 1)):
            data = noise(size, seed)
            flow.source.setblocking(True)
            sent, got = 0, b""
            while len(got) < size:
                if sent < size:
                    sent += flow.source.send(data[sent : sent + 100 * KIB])
                    flow.client.on_event(IN)
                    flow.turns.next()
                got += drained(flow, min(size, sent) - len(got))
                flow.client.on_event(IN)
            assert got == data
