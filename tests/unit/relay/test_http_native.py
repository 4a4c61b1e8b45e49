"""Sides with the native module do what those without it do, with fewer calls."""

from __future__ import annotations

import select
import socket
import struct
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.http_reading import maker
from tests.support.process import eventually
from tests.support.pump import KIB, Calls, Flow, Stage, stage
from tests.support.usual_heads import some_head
from v6fwd.client_ip.http.exchange import MAX_OUTSTANDING, Exchange
from v6fwd.client_ip.http.responses import ResponseStream
from v6fwd.relay.http import native
from v6fwd.relay.http import side as http_module
from v6fwd.relay.http.native import NativeRequestSide, NativeResponseSide, Sides
from v6fwd.relay.http.request_side import RequestSide
from v6fwd.relay.http.response_side import ResponseSide
from v6fwd.relay.http.side import HEAD_SIZE
from v6fwd.relay.pairs.native import PURE
from v6fwd.relay.tcp.side import Side

NATIVE: Sides = NativeRequestSide, NativeResponseSide
PURE_SIDES: Sides = RequestSide, ResponseSide
IN, OUT = select.EPOLLIN, select.EPOLLOUT

pytestmark = pytest.mark.skipif(
    find_spec("v6fwd.relay.http._pass") is None, reason="the native module is not built"
)

FIRST = b"GET /first HTTP/1.1\r\nHost: a\r\nA: b\r\n\r\n"
SAME = b"GET /same?x HTTP/1.1\r\nHost: a\r\nA: b\r\n\r\n"
OTHER = b"GET /other HTTP/1.1\r\nC: d\r\nHost: a\r\nE: f\r\n\r\n"
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"


class Owner(Flow):
    """The flow: notes what the sides ask for."""

    def __init__(self, exchange: Exchange) -> None:
        super().__init__()
        self.exchange = exchange
        self.has_target, self.attends = True, False
        self.client: RequestSide | None = None

    def requests_began(self) -> None:
        if not self.exchange.all_began():
            self.pause_requests()

    def pause_requests(self) -> None:
        self.tell("pause", "")
        assert self.client is not None
        self.client.pause()

    def requests_stopped(self) -> None:
        self.tell("stopped", self.exchange.requests.refused)

    def first_came(self, pieces: Sequence[object]) -> bool:
        raise AssertionError(pieces)

    def answers_moved(self) -> None:
        self.tell("answers", "")

    def bad_answer(self, why: str) -> None:
        self.tell("bad", why)

    def words(self) -> list[str]:
        return [word for word, _ in self.told]


class Web:
    """An HTTP flow, after its first request: `source` is the client, `sink` the target."""

    def __init__(self, stage: Stage, exchange: Exchange) -> None:
        self.stage, self.exchange = stage, exchange
        self.client: Any = stage.client
        self.target: Any = stage.target
        self.flow: Any = stage.flow

    def asks(self, data: bytes, mask: int = IN) -> bytes:
        """The client sends, and its side has an event; what the target gets."""
        self.stage.send(data)
        before = self.client.moved
        self.client.on_event(mask)
        self._turns()
        return self.stage.got(self.client.moved - before)

    def answers(self, data: bytes, mask: int = IN) -> bytes:
        """The same from the target to the client."""
        stage = self.stage
        there = len(_peek(stage.far)) + len(data)
        stage.sink.sendall(data)
        eventually(lambda: len(_peek(stage.far)) >= there, "the answer comes")
        before = self.target.moved
        self.target.on_event(mask)
        self._turns()
        return _received(stage.source, self.target.moved - before)

    def _turns(self) -> None:
        while self.stage.turns.later and not self.flow.closed:
            self.stage.turns.next()

    def seen(self) -> tuple[object, ...]:
        requests, answers = self.exchange.requests, self.exchange.answers
        asked = self.exchange.count, requests.known is None, requests.passing, requests.in_head
        told = [*answers._expected], answers.passing, answers.began, answers.error
        return (*asked, *told, self.client.paused, self.flow.words())


def _peek(sock: socket.socket) -> bytes:
    try:
        return sock.recv(1 << 20, socket.MSG_PEEK)
    except BlockingIOError:
        return b""


def _received(sock: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size and (piece := sock.recv(size - len(data))):
        data += piece
    return data


@contextmanager
def web(sides: Sides = NATIVE, *, first: bytes = FIRST, buffer: int = 0) -> Iterator[Web]:
    exchange = Exchange(maker()(), ResponseStream())
    owner = Owner(exchange)

    def make(fd: int, flow: Any) -> Side:
        if owner.client is not None:
            return sides[1](fd, flow, exchange.answers)
        owner.client = sides[0](fd, flow, exchange)
        return owner.client

    with stage(make=make, flow=owner, buffer=buffer) as flow:
        one = Web(flow, exchange)
        one.asks(first)
        yield one


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> Calls:
    """What is called in Python."""
    made = Calls()
    monkeypatch.setattr(http_module, "os", made)
    return made


# ---- the same as without --------------------------------------------------------------------

_ODD_REQUESTS = [
    FIRST.replace(b"GET", b"HEAD"),
    SAME * 2,
    SAME[:20],
    SAME + OTHER[:30],
    b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc",
    b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\na",
    OTHER.replace(b"Host: a", b"Host: b"),
    OTHER.replace(b"C: d", b"Connection: keep-alive"),
    OTHER.replace(b"C: d", b"Connection: close"),
    OTHER.replace(b"C: d", b"X-Forwarded-For: ::1"),
    OTHER.replace(b"C: d", b"C: "),
    OTHER.replace(b"C: d", b"C_D: 1"),
    OTHER.replace(b"HTTP/1.1", b"HTTP/1.0"),
    b"\r\n" + SAME,
]
_ODD_ANSWERS = [
    ANSWER * 2,
    ANSWER[:-2],
    ANSWER[:20],
    ANSWER.replace(b"200 OK", b"204 "),
    ANSWER.replace(b"Content-Length: 5", b"Connection: close\r\nContent-Length: 5"),
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n\r\n",
    b"HTTP/1.1 100 Continue\r\n\r\n" + ANSWER,
    b"HTTP/1.0 200 OK\r\nContent-Length: 0\r\n\r\n",
    b"nonsense",
]
requests_ = st.tuples(st.just("asks"), st.sampled_from([SAME, OTHER, FIRST, *_ODD_REQUESTS]))
heads = st.tuples(st.just("asks"), st.randoms(use_true_random=False).map(some_head))
answers_ = st.tuples(st.just("answers"), st.sampled_from([ANSWER, ANSWER, *_ODD_ANSWERS]))


@given(st.lists(st.one_of(requests_, answers_, answers_, heads), max_size=12))
@settings(max_examples=150)
def test_the_same_passes_whatever_comes(script: list[tuple[str, bytes]]) -> None:
    """What both ends get, what is counted, what the flow is told, after each step."""
    with web() as one, web(PURE_SIDES) as other:
        for who, data in script:
            if other.flow.told or other.exchange.requests.refused:
                return
            assert getattr(one, who)(data) == getattr(other, who)(data)
            assert one.seen() == other.seen()


# ---- the quick path -------------------------------------------------------------------------


@pytest.mark.parametrize("request_", [SAME, OTHER])
def test_a_usual_message_takes_no_call_of_python(calls: Calls, request_: bytes) -> None:
    with web() as one:
        calls.made.clear()
        passed = one.asks(request_)
        assert passed.startswith(request_.partition(b"\r\n")[0])
        assert b"X-Real-IP: 2001:db8:1::2\r\n" in passed
        assert one.answers(ANSWER) == ANSWER
        assert not calls.made
        assert one.exchange.count == 2
        assert one.exchange.answers.outstanding == 1


@pytest.mark.parametrize("request_", [SAME, OTHER])
def test_the_answer_to_head_has_no_body(request_: bytes) -> None:
    """Whatever its length says; what follows is the next answer."""
    with web() as one:
        one.answers(ANSWER)
        for _ in range(2):
            one.asks(request_.replace(b"GET", b"HEAD"))
            head = ANSWER.removesuffix(b"hello")
            assert one.answers(head) == head
            assert one.exchange.answers.outstanding == 0


def test_another_host_is_read_once(calls: Calls) -> None:
    """Python finds what goes with it; from then on it is usual."""
    with web() as one:
        calls.made.clear()
        for _ in range(3):
            assert b"Host: b" in one.asks(OTHER.replace(b"Host: a", b"Host: b"))
        assert calls.count("write") == 1


@pytest.mark.parametrize("state", ["blocked", "queued", "ended", "paused", "raw"])
def test_who_has_stopped_is_not_read(state: str) -> None:
    with web() as one:
        for side in (one.client, one.target):
            if state == "paused":
                side.pause()
            elif state == "raw":
                side.go_raw()
            else:
                setattr(side, state, True)
        if state == "raw":
            assert one.asks(b"anything") == b"anything"
            assert one.answers(b"at all") == b"at all"
            return
        assert one.asks(SAME) == b""
        assert one.answers(ANSWER) == b""


def test_too_many_requests_without_an_answer_pause_the_client() -> None:
    with web() as one:
        for _ in range(MAX_OUTSTANDING - 1):
            one.asks(SAME)
        assert one.flow.words() == []
        one.asks(SAME)
        assert one.flow.words() == ["pause"]


def test_who_waits_for_an_answer_is_told() -> None:
    with web() as one:
        one.flow.attends = True
        one.answers(ANSWER)
        assert one.flow.words() == ["answers"]


def test_a_full_buffer_is_read_on_behind() -> None:
    with web() as one:
        many = SAME.replace(b"A: b", b"A: " + b"b" * 2000) * 9
        assert len(many) > HEAD_SIZE
        assert one.asks(many).count(b"GET /same?x") == 9
        assert one.stage.unread() == 0


def test_an_answer_as_long_as_the_buffer_is_read_on_behind() -> None:
    """The same event may stand for the next one."""
    with web() as one:
        one.asks(SAME)
        head = b"HTTP/1.1 200 OK\r\nContent-Length: 16000\r\nA: \r\n\r\n"
        pad = HEAD_SIZE - 16_000 - len(head)
        full = head.replace(b"A: ", b"A: " + b"a" * pad) + b"x" * 16_000
        assert len(full) == HEAD_SIZE
        assert one.answers(full + ANSWER) == full + ANSWER
        assert one.exchange.answers.outstanding == 0


def test_a_head_of_any_length() -> None:
    """Up to the buffer's size, and beyond."""
    with web() as one, web(PURE_SIDES) as other:
        for size in (100, 7000, 8100, 8192, 8200, 15_000, 16_200):
            head = OTHER.replace(b"f\r\n", b"f" * size + b"\r\n")
            if len(head) < HEAD_SIZE:
                assert one.asks(head) == other.asks(head)
                assert one.seen() == other.seen()


# ---- ends and faults ------------------------------------------------------------------------


def test_an_event_without_bytes_does_nothing() -> None:
    with web() as one:
        one.client.on_event(IN)
        one.target.on_event(IN)
        assert not one.flow.told


def test_an_end_is_told() -> None:
    with web() as one:
        one.stage.end()
        one.client.on_event(IN)
        assert one.client.ended
        assert one.flow.told == [("ended", one.client)]


def reset(sock: socket.socket, other: socket.socket) -> None:
    """Reset a connection, and wait until its other end knows."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()
    poll = select.poll()
    poll.register(other, select.POLLIN)
    assert poll.poll(20_000)


def test_a_client_that_broke_is_told() -> None:
    with web() as one:
        reset(one.stage.source, one.stage.near)
        one.client.on_event(IN)
        assert one.flow.told == [("broke", one.client)]


def test_a_target_that_broke_is_told() -> None:
    """Its request has begun all the same: what it had said may still come."""
    with web() as one:
        reset(one.stage.sink, one.stage.far)
        one.stage.send(SAME)
        one.client.on_event(IN)
        assert one.flow.told == [("broke", one.target)]
        assert one.exchange.count == 2


@pytest.mark.parametrize("fields", [b"A: b\r\n", b"C: d\r\n"])
def test_what_does_not_fit_is_held(fields: bytes) -> None:
    """A target that reads nothing: the request is counted once, and comes whole."""
    with web(buffer=4 * KIB) as one:
        sent = bytearray()
        before = one.client.moved
        while not one.client.blocked:
            one.stage.send(b"GET /%b HTTP/1.1\r\nHost: a\r\n%b\r\n" % (b"x" * 5000, fields))
            one.client.on_event(IN)
        asked = one.exchange.count - 1
        while one.client.blocked:
            sent += one.stage.sink.recv(1 << 20)
            one.client.other.on_event(OUT)
        sent += one.stage.got(one.client.moved - before - len(sent))
        assert sent.count(b"GET /xxx") == sent.count(b"X-Real-IP: ") == asked
        assert sent.endswith(b"\r\n\r\n")
        assert not one.flow.told


def test_an_answer_that_does_not_fit_is_held() -> None:
    """A client that reads nothing: each answer is counted once, and comes whole."""
    with web() as one:
        one.stage.near.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4 * KIB)
        answer = ANSWER.replace(b"5", b"9000").replace(b"hello", b"x" * 9000)
        count = 0
        one.answers(answer)
        got = b""
        while not one.target.blocked:
            one.asks(SAME)
            one.stage.sink.sendall(answer)
            eventually(lambda: len(_peek(one.stage.far)) == len(answer), "the answer comes")
            one.target.on_event(IN)
            count += 1
        assert one.exchange.answers.outstanding == 0
        while one.target.blocked:
            got += one.stage.source.recv(1 << 20)
            one.client.on_event(OUT)
        got += _received(one.stage.source, count * len(answer) - len(got))
        assert got == answer * count
        assert not one.flow.told


# ---- the module ------------------------------------------------------------------------------


def test_arguments_are_checked() -> None:
    frame = b"", b"", b"", b""
    for wrong in ((), (1, 2), ("1", 2, (b"", b"", frame)), (1, 2, (b"", "", frame))):
        with pytest.raises(TypeError):
            native.pass_request(*wrong)
    with pytest.raises(IndexError):
        native.pass_request(1, 2, (b"", b"", (b"",)))  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        native.pass_response(1)  # type: ignore[call-arg]
    with pytest.raises(OSError, match="Bad file descriptor"):
        native.pass_response(-1, -1)


def test_a_rewritten_head_that_is_too_large_is_not_passed() -> None:
    """Whatever the caller says that a head is to be rewritten to."""
    near, far = socket.socketpair()
    with near, far:
        far.send(SAME)
        block = SAME[SAME.index(b"\r\n") :]
        known = block, b"x" * (2 * HEAD_SIZE), (b"", b"", b"", b"")
        assert native.pass_request(near.fileno(), near.fileno(), known) == SAME
        far.send(OTHER)
        known = b"", b"", (b"a", b"", b"x" * (2 * HEAD_SIZE), b"")
        assert native.pass_request(near.fileno(), near.fileno(), known) == OTHER


def test_without_the_module_python_does(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(PURE, raising=False)
    assert native.sides() == NATIVE
    monkeypatch.setenv(PURE, "1")
    assert native.sides() == PURE_SIDES
    monkeypatch.delenv(PURE)
    monkeypatch.setattr(native, "_module", None)
    assert native.sides() == PURE_SIDES
