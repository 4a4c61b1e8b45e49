"""The HTTP pump: what is judged, what passes untouched, when it stops. A script is the judge."""

from __future__ import annotations

import errno
import os
import select
from collections.abc import Iterator
from functools import partial
from typing import Any

import pytest

from tests.support.http_reading import maker
from tests.support.pump import KIB, Calls, Flow, Stage, stage
from tests.support.rig import noise
from v6fwd.client_ip.http.exchange import Exchange
from v6fwd.client_ip.http.responses import ResponseStream
from v6fwd.client_ip.http.syntax import Kind
from v6fwd.relay.http import side as http_module
from v6fwd.relay.http.request_side import RequestSide
from v6fwd.relay.http.response_side import ResponseSide
from v6fwd.relay.http.side import HEAD_SIZE, SPLICE_FROM, HttpSide
from v6fwd.relay.tcp import side as tcp_module

IN, OUT, END, ERR = select.EPOLLIN, select.EPOLLOUT, select.EPOLLRDHUP, select.EPOLLERR
FULL = 64 * KIB
FIRST = HEAD_SIZE  # that are read where a head comes next


class Judged(HttpSide):
    """Passes all on, in the pieces that the test says, and lets `body` bytes pass untouched."""

    __slots__ = ("body", "cut", "follows", "goes_on", "is_quick", "took")

    def __init__(self, fd: int, flow: Any) -> None:
        super().__init__(fd, flow)
        self.body = 0
        self.cut = 1
        self.follows = 0
        self.goes_on = True
        self.is_quick = True
        self.took: list[tuple[str, int]] = []

    def passing(self) -> int:
        return self.body

    def passed(self, size: int) -> None:
        self.body -= size
        self.took.append(("passed", size))

    def expects_head(self) -> bool:
        return not self.body

    def is_behind(self) -> bool:
        return False

    def quick(self, data: bytes) -> bool:
        if self.is_quick:
            self.took.append(("quick", len(data)))
            self.put_one(data)
        return self.is_quick

    def take(self, data: bytes) -> bool:
        self.took.append(("take", len(data)))
        if self.body > 0:
            self.body = max(0, self.body - len(data))
        self.body += self.follows
        step = -(-len(data) // self.cut)
        pieces = [data[at : at + step] for at in range(0, len(data), step)]
        return self.put(pieces) and self.goes_on


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> Calls:
    """What both pumps call."""
    made = Calls()
    monkeypatch.setattr(tcp_module, "os", made)
    monkeypatch.setattr(http_module, "os", made)
    return made


@pytest.fixture(params=[False, True], ids=["large-pipes", "small-pipes"])
def flow(request: pytest.FixtureRequest) -> Iterator[Stage]:
    """A flow between sockets of the usual size."""
    with stage(make=Judged, flow=Flow(paced=request.param)) as made:
        yield made


def judge(flow: Stage) -> Any:
    """The client's side, whose script can be changed."""
    return flow.client


def fail(name: str, fd: int, number: int, call: str, on: int) -> None:
    """For Calls.before: one call on one descriptor fails."""
    if (call, on) == (name, fd):
        raise OSError(number, os.strerror(number))


# ---- the quick path -------------------------------------------------------------------------


def test_one_usual_message_is_one_read_and_one_write(flow: Stage, calls: Calls) -> None:
    flow.send(b"hello")
    flow.client.on_event(IN)
    assert flow.got(5) == b"hello"
    assert calls.made == [("readv", flow.client.fd), ("write", flow.target.fd)]
    assert judge(flow).took == [("quick", 5)]
    assert flow.client.moved == 5


def test_what_is_not_usual_is_judged_in_the_same_read(flow: Stage, calls: Calls) -> None:
    judge(flow).is_quick = False
    flow.send(b"hello")
    flow.client.on_event(IN)
    assert flow.got(5) == b"hello"
    assert judge(flow).took == [("take", 5)]
    assert calls.count("readv") == 1


@pytest.mark.parametrize("quick", [True, False])
@pytest.mark.parametrize("goes_on", [True, False])
def test_a_full_buffer_is_read_on_behind(flow: Stage, quick: bool, goes_on: bool) -> None:
    """The same event may stand for more, unless nothing more may be read."""
    judge(flow).is_quick, judge(flow).goes_on = quick, goes_on
    flow.send(bytes(FIRST) + b"rest")
    flow.client.on_event(IN)
    assert flow.unread() == (0 if quick or goes_on else 4)


def test_a_short_message_is_all_there_is(flow: Stage, calls: Calls) -> None:
    flow.send(bytes(FIRST - 1))
    flow.client.on_event(IN)
    assert calls.count("readv") == 1


def test_a_message_of_two_reads_needs_no_third(flow: Stage, calls: Calls) -> None:
    """The short read has emptied the socket: no end was told with it."""
    flow.send(bytes(2 * FIRST - 1))
    flow.client.on_event(IN)
    assert calls.count("readv") == 2
    assert flow.unread() == 0


@pytest.mark.parametrize("mask", [IN, IN | END])
def test_of_a_body_little_is_read_with_its_head(flow: Stage, mask: int) -> None:
    """The rest is spliced, which costs a third."""
    judge(flow).is_quick, judge(flow).follows = False, 1 << 20
    flow.send(bytes(FULL))
    flow.client.on_event(mask)
    while flow.turns.later:
        judge(flow).follows = 0
        flow.turns.next()
    assert judge(flow).took[0][1] == FIRST
    assert judge(flow).took[1:] == [("passed", FULL - FIRST)]


def test_behind_the_start_of_a_head_a_full_buffer_is_read(flow: Stage, calls: Calls) -> None:
    """Small chunks and requests in a row are not cut into more reads than are needed."""
    judge(flow).is_quick = False
    flow.send(bytes(FIRST + FULL - 1))
    flow.client.on_event(IN | OUT)
    assert judge(flow).took == [("take", FIRST), ("take", FULL - 1)]
    assert calls.count("readv") == 2


CHUNKS = b"Transfer-Encoding: chunked\r\n\r\n1\r\nx\r\n", b"0\r\n\r\n"


def test_an_answer_is_begun_by_a_head(flow: Stage) -> None:
    owner: Any = flow.flow
    answers = ResponseStream()
    answers.expect(Kind.PLAIN)
    side = ResponseSide(-1, owner, answers)
    assert side.expects_head()
    answers.receive(b"HTTP/1.1 200 OK\r\n" + CHUNKS[0])
    assert not side.expects_head()
    answers.receive(CHUNKS[1])
    assert side.expects_head()


def test_a_request_is_begun_by_a_head(flow: Stage) -> None:
    owner: Any = flow.flow
    requests = maker()()
    side = RequestSide(-1, owner, Exchange(requests, ResponseStream()))
    assert side.expects_head()
    requests.receive(b"POST / HTTP/1.1\r\nHost: a\r\n" + CHUNKS[0])
    assert not side.expects_head()
    requests.receive(CHUNKS[1])
    assert side.expects_head()


def test_inside_a_body_a_full_buffer_is_read(flow: Stage) -> None:
    judge(flow).body = SPLICE_FROM - 1
    flow.send(bytes(FULL))
    flow.client.on_event(IN | OUT)
    assert judge(flow).took[0] == ("take", FULL)


@pytest.mark.parametrize("stop", ["closed", "blocked", "ended", "queued"])
def test_who_was_stopped_by_a_full_message_reads_no_more(
    flow: Stage, calls: Calls, stop: str
) -> None:
    real = calls.write

    def then_stop(fd: int, data: Any) -> int:
        owner: Any = flow.flow if stop == "closed" else flow.client
        setattr(owner, stop, True)
        return real(fd, data)

    calls.write = then_stop  # type: ignore[method-assign]
    flow.send(bytes(FULL) + b"rest")
    flow.client.on_event(IN)
    assert calls.count("readv") == 1


@pytest.mark.parametrize("stop", ["blocked", "ended", "queued", "paused"])
def test_who_has_stopped_is_not_read(flow: Stage, calls: Calls, stop: str) -> None:
    flow.send(b"hello")
    if stop == "paused":
        flow.client.pause()  # type: ignore[attr-defined]
    else:
        setattr(flow.client, stop, True)
    flow.client.on_event(IN)
    assert not calls.made


@pytest.mark.parametrize("mask", [IN, IN | END])
def test_an_end_is_told(flow: Stage, mask: int) -> None:
    flow.end()
    flow.client.on_event(mask)
    assert flow.client.ended
    assert flow.flow.told == [("ended", flow.client)]


@pytest.mark.parametrize("mask", [IN, IN | END])
def test_an_event_without_bytes_does_nothing(flow: Stage, calls: Calls, mask: int) -> None:
    flow.client.on_event(mask)
    assert calls.count("readv") == 1
    assert not flow.flow.told
    assert not judge(flow).took


@pytest.mark.parametrize("mask", [IN, IN | END])
@pytest.mark.parametrize(("call", "culprit"), [("readv", "client"), ("write", "target")])
def test_who_broke(flow: Stage, calls: Calls, mask: int, call: str, culprit: str) -> None:
    flow.send(b"hello")
    flow.flow.then = flow.flow.close
    calls.before = partial(fail, call, getattr(flow, culprit).fd, errno.ECONNRESET)
    flow.client.on_event(mask)
    assert flow.flow.told == [("broke", getattr(flow, culprit))]


# ---- judged ---------------------------------------------------------------------------------


def test_an_end_behind_a_message_is_read(flow: Stage, calls: Calls) -> None:
    flow.send(b"bye")
    flow.end()
    flow.client.on_event(IN | END)
    assert flow.got(3) == b"bye"
    assert judge(flow).took == [("take", 3)]
    assert calls.count("readv") == 2
    assert flow.flow.told == [("ended", flow.client)]


def test_without_an_end_a_short_read_is_the_last(flow: Stage, calls: Calls) -> None:
    flow.client.watches_out = True
    flow.send(b"bye")
    flow.client.on_event(IN | OUT)
    assert calls.count("readv") == 1
    assert judge(flow).took == [("take", 3)]


def test_nobody_keeps_the_turn_for_more_than_sixteen_messages(flow: Stage, calls: Calls) -> None:
    flow.send(b"1")

    def one_more(call: str, _: int) -> None:
        if call == "write":
            flow.send(b"n")

    calls.before = one_more
    flow.client.on_event(IN | END)
    calls.before = None
    assert calls.count("readv") == 16
    assert flow.turns.later == [flow.client]
    flow.turns.next()
    assert flow.got(17) == b"1" + b"n" * 16


def test_a_full_read_is_not_the_last(flow: Stage) -> None:
    """Only a short one has emptied the socket."""
    flow.send(bytes(FIRST) + b"rest")
    flow.client.on_event(IN | OUT)
    assert flow.unread() == 0
    assert judge(flow).took == [("take", FIRST), ("take", 4)]


def test_an_answer_up_to_the_end_is_moved_as_it_is_from_there(flow: Stage, calls: Calls) -> None:
    """Its head says so: nothing behind it is judged."""
    judge(flow).follows = -1
    flow.send(b"head")
    flow.client.on_event(IN | END)
    assert flow.turns.later == [flow.client]
    assert calls.count("readv") == 1
    flow.send(b"body")
    flow.turns.next()
    assert judge(flow).took == [("take", 4)]
    assert flow.got(8) == b"headbody"


def test_the_judge_stops_the_reading(flow: Stage, calls: Calls) -> None:
    judge(flow).goes_on = False
    flow.send(b"hello")
    flow.client.on_event(IN | END)
    assert calls.count("readv") == 1
    assert not flow.turns.later


def test_who_was_paused_goes_on(flow: Stage, calls: Calls) -> None:
    """No edge tells what came in the meantime, an end among it."""
    judge(flow).pause()
    flow.send(b"hello")
    flow.end()
    flow.client.on_event(IN | END)
    assert not calls.made
    judge(flow).go_on()
    assert flow.got(5) == b"hello"
    assert flow.flow.told == [("ended", flow.client)]


def test_who_was_paused_takes_the_quick_path_again(flow: Stage) -> None:
    judge(flow).pause()
    judge(flow).go_on()
    flow.send(b"hello")
    flow.client.on_event(IN)
    assert judge(flow).took == [("quick", 5)]


@pytest.mark.parametrize("stop", ["closed", "blocked", "ended", "queued"])
def test_who_has_stopped_does_not_go_on(flow: Stage, calls: Calls, stop: str) -> None:
    judge(flow).pause()
    owner: Any = flow.flow if stop == "closed" else flow.client
    setattr(owner, stop, True)
    judge(flow).go_on()
    assert not calls.made


class Behind(Judged):
    """Has something left to judge, during which `stop` happens."""

    __slots__ = ("is_left", "stop")

    def __init__(self, fd: int, flow: Any) -> None:
        super().__init__(fd, flow)
        self.is_left = True
        self.stop = ""

    def is_behind(self) -> bool:
        return self.is_left

    def take(self, data: bytes) -> bool:
        if not self.is_left:
            return super().take(data)
        self.is_left = False
        if self.stop:
            setattr(self.flow if self.stop == "closed" else self, self.stop, True)
        return True


@pytest.mark.parametrize("stop", ["", "closed", "blocked", "ended", "queued"])
def test_what_was_left_is_a_turn_of_its_own(calls: Calls, stop: str) -> None:
    """The others come before what can be read; who has stopped meanwhile waits for no turn."""
    with stage(make=Behind) as flow:
        judge(flow).stop = stop
        flow.send(b"hello")
        flow.client.on_event(IN | END)
        assert not calls.count("readv")
        assert flow.turns.later == ([] if stop else [flow.client])
        if not stop:
            flow.turns.next()
            assert flow.got(5) == b"hello"


# ---- raw ------------------------------------------------------------------------------------


def test_raw_bytes_are_not_judged(flow: Stage) -> None:
    judge(flow).pause()
    judge(flow).go_raw()
    flow.send(b"hello")
    flow.client.on_event(IN)
    assert flow.got(5) == b"hello"
    judge(flow).go_on()
    flow.send(b"again")
    flow.client.on_event(IN)
    assert flow.got(5) == b"again"
    assert not judge(flow).took


def test_raw_bytes_become_bulk(flow: Stage, calls: Calls) -> None:
    judge(flow).go_raw()
    flow.send(bytes(2 * FULL))
    flow.client.on_event(IN)
    flow.send(bytes(15 * KIB))
    flow.turns.next()
    assert calls.count("splice", flow.client.fd) >= 1
    assert flow.client.full_reads == 0, "15 KiB are a message again"
    assert not judge(flow).took


def test_a_body_up_to_the_end_is_moved_as_it_is(flow: Stage) -> None:
    judge(flow).body = -1
    flow.send(b"hello")
    flow.client.on_event(IN | END)
    assert flow.got(5) == b"hello"
    assert not judge(flow).took


# ---- bodies ---------------------------------------------------------------------------------


@pytest.mark.parametrize("behind", [b"", b"GET"])
def test_a_body_goes_through_a_pipe_and_not_a_byte_behind_it(
    flow: Stage, calls: Calls, behind: bytes
) -> None:
    body = noise(FULL, seed=1)
    judge(flow).body = FULL
    flow.send(body + behind)
    flow.client.on_event(IN | END)
    flow.turns.next()
    assert flow.got(FULL + len(behind)) == body + behind
    assert judge(flow).took == [("passed", FULL), *([("take", 3)] if behind else [])]
    assert calls.sizes[0] == FULL


def test_a_body_of_17_kib_is_spliced(flow: Stage, calls: Calls) -> None:
    judge(flow).body = 17 * KIB
    flow.send(bytes(17 * KIB))
    flow.client.on_event(IN | END)
    assert calls.sizes[0] == 17 * KIB
    assert judge(flow).took == [("passed", 17 * KIB)]


def test_a_small_body_is_copied(flow: Stage, calls: Calls) -> None:
    judge(flow).body = SPLICE_FROM - 1
    flow.send(bytes(SPLICE_FROM - 1))
    flow.client.on_event(IN | END)
    assert not calls.count("splice")
    assert judge(flow).took == [("take", SPLICE_FROM - 1)]


def test_no_more_is_asked_of_a_pipe_than_it_takes(flow: Stage, calls: Calls) -> None:
    judge(flow).body = 5 << 20
    flow.send(b"some")
    flow.client.on_event(IN | END)
    assert calls.sizes[0] == 1 << 20


@pytest.mark.parametrize(("paced", "most"), [(False, 4), (True, 64)])
def test_nobody_keeps_the_turn_for_more_than_some_splices(
    calls: Calls, paced: bool, most: int
) -> None:
    with stage(make=Judged, flow=Flow(paced=paced)) as flow:

        def more(call: str, fd: int) -> None:
            if (call, fd) == ("splice", flow.client.fd):
                flow.send(bytes(16 * KIB))

        judge(flow).body = 2 << 20
        flow.send(b"x")
        calls.before = more
        flow.client.on_event(IN | END)
        calls.before = None
        assert calls.count("splice", flow.client.fd) == most
        assert flow.turns.later == [flow.client]
        assert flow.flow.pipes.lent == 0
        assert judge(flow).body == (2 << 20) - 1 - most * 16 * KIB


@pytest.mark.parametrize(
    ("paced", "body", "size"),
    [
        (False, 1 << 20, 1 << 20),
        (True, 1 << 20, 64 * KIB),
        (True, 3 << 20, 64 * KIB),
        (True, (3 << 20) + 1, 1 << 20),
    ],
)
def test_where_tcp_paces_small_bodies_go_through_small_pipes(
    calls: Calls, paced: bool, body: int, size: int
) -> None:
    with stage(make=Judged, flow=Flow(paced=paced)) as flow:
        judge(flow).body = body
        flow.send(b"some")
        flow.client.on_event(IN | END)
        assert calls.sizes[0] == size


def test_the_rest_of_a_body_is_copied(flow: Stage, calls: Calls) -> None:
    """Little is left: the loop of splices ends early."""
    judge(flow).body = SPLICE_FROM + 100
    flow.send(bytes(200))
    flow.client.on_event(IN | END)
    assert calls.count("splice", flow.client.fd) == 1
    assert flow.turns.later == [flow.client]
    assert flow.flow.pipes.lent == 0


def test_a_body_that_ends_early_is_found_by_recv(flow: Stage, calls: Calls) -> None:
    judge(flow).body = 1 << 20
    flow.end()
    flow.client.on_event(IN | END)
    assert calls.made == [("splice", flow.client.fd), ("readv", flow.client.fd)]
    assert flow.flow.told == [("ended", flow.client)]
    assert flow.flow.pipes.lent == 0


def test_a_body_without_a_pipe_is_copied(calls: Calls) -> None:
    with stage(make=Judged, flow=Flow(pipes=0)) as flow:
        judge(flow).body = SPLICE_FROM
        flow.send(bytes(1000))
        flow.end()
        flow.client.on_event(IN | END)
        assert len(flow.got(1000)) == 1000
        assert not calls.count("splice")
        assert judge(flow).took == [("take", 1000)]
        assert flow.flow.told == [("ended", flow.client)]


def test_a_body_behind_an_urgent_byte_is_copied(flow: Stage, calls: Calls) -> None:
    flow.client.urgent = True
    judge(flow).body = FULL
    flow.send(bytes(1000))
    flow.client.on_event(IN | END)
    assert not calls.count("splice")
    assert judge(flow).took == [("take", 1000)]


def test_a_body_in_parts_is_no_message(flow: Stage) -> None:
    """A short splice of a body says nothing of whether the rest is bulk."""
    flow.client.full_reads = 2
    judge(flow).body = 1 << 20
    flow.send(bytes(100))
    flow.client.on_event(IN | END)
    assert flow.client.full_reads == 2


def test_a_judged_body_that_becomes_bulk_gets_a_pipe(flow: Stage, calls: Calls) -> None:
    """A head says that a long body follows: the copying ends there, and has to go on later."""
    judge(flow).follows = 1 << 20
    flow.send(b"head")
    flow.client.on_event(IN | END)
    assert flow.turns.later == [flow.client]
    assert calls.count("readv") == 1


# ---- writing --------------------------------------------------------------------------------


@pytest.mark.parametrize("pieces", [1, 2, 16, 17, 40])
def test_pieces_go_out_in_one_call(flow: Stage, calls: Calls, pieces: int) -> None:
    judge(flow).cut = pieces
    data = noise(pieces * 10, seed=2)
    flow.send(data)
    flow.client.on_event(IN | END)
    assert flow.got(len(data)) == data
    assert flow.client.moved == len(data)
    assert calls.count("writev") == (1 if 1 < pieces <= 16 else 0)
    assert calls.count("write") == (0 if 1 < pieces <= 16 else 1)


@pytest.mark.parametrize("pieces", [1, 4, 40])
def test_who_is_full_is_waited_for(pieces: int) -> None:
    """What did not fit is held, in its order, and reading stops."""
    with stage(make=Judged, buffer=4 * KIB) as flow:
        judge(flow).cut = pieces
        data = noise(FIRST - 100, seed=3)
        flow.send(data)
        flow.client.on_event(IN | END)
        assert flow.client.blocked
        assert 0 < flow.client.moved < len(data)
        assert flow.client.moved + len(flow.client.held) == len(data)
        assert flow.turns.masks
        got = b""
        with select.epoll() as epoll:
            epoll.register(flow.target.fd, OUT)
            while len(got) < len(data):
                got += flow.sink.recv(len(data))
                if epoll.poll(0.01):
                    flow.target.on_event(OUT)
        assert got == data
        assert flow.client.moved == len(data)


@pytest.mark.parametrize("pieces", [2, 40])
@pytest.mark.parametrize("number", [errno.EPIPE, errno.ECONNRESET])
def test_a_target_that_broke_is_told(flow: Stage, calls: Calls, pieces: int, number: int) -> None:
    def fails(call: str, _fd: int) -> None:
        if call.startswith("write"):
            raise OSError(number, os.strerror(number))

    flow.flow.then = flow.flow.close
    judge(flow).cut = pieces
    calls.before = fails
    flow.send(bytes(100))
    flow.client.on_event(IN | END)
    assert flow.flow.told == [("broke", flow.target)]
    assert flow.client.moved == 0
    assert calls.count("readv") == 1


def test_a_target_without_room_for_any_piece(flow: Stage, calls: Calls) -> None:
    def is_full(call: str, _fd: int) -> None:
        if call.startswith("write"):
            raise BlockingIOError

    judge(flow).cut = 3
    calls.before = is_full
    flow.send(b"abc")
    flow.client.on_event(IN | END)
    assert flow.client.held == b"abc"
    assert flow.client.blocked
    assert not flow.flow.told
