"""Exchange: what to do about requests and answers, as tables of what was said. No socket."""

from __future__ import annotations

import pytest

from tests.support.http_reading import maker
from tests.support.web import OK, get, request
from v6fwd.client_ip.http.exchange import MAX_OUTSTANDING, Do, Exchange, Outcome, Step
from v6fwd.client_ip.http.responses import ResponseStream
from v6fwd.client_ip.http.syntax import HttpRefused, Kind

GET = get()
UPGRADE = get("/", "Connection: Upgrade", "Upgrade: x")
HALF_HEAD = b"GET / HTTP/1.1\r\n"
HALF_BODY = request("POST", "/", "Content-Length: 9", body=b"1234")
CHUNKED = request("POST", "/", "Transfer-Encoding: chunked")
BAD_CHUNK = b"zz\r\n"
SWITCH = b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n"
EARLY = b"HTTP/1.1 100 Continue\r\n\r\n"
HALF = b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf"
UNTIL_END = b"HTTP/1.1 200 OK\r\n\r\nso far"
LATE = HttpRefused(408, "late")


def exchange(*said: bytes, refused: HttpRefused | None = None) -> Exchange:
    """After requests and answers in turn, the client's first."""
    one = Exchange(maker()(), ResponseStream())
    for number, data in enumerate(said):
        if number % 2:
            one.answers.receive(data)
        else:
            one.requests.receive(data)
            one.all_began()
    refused = refused or one.requests.refused
    if refused is not None:
        one.refuse(refused)
    return one


def status(step: Step) -> int:
    """That of the answer in a step; 0: there is none."""
    return int(step.answer.split()[1]) if step.answer else 0


def summary(step: Step) -> tuple[Do, Outcome, int]:
    """What tells steps apart."""
    return step.do, step.outcome, status(step)


def test_the_first_refusal_is_the_one() -> None:
    one = exchange(GET)
    assert one.refuse(LATE)
    assert not one.refuse(HttpRefused(400, "another"))
    assert one.refused == LATE


# ---- while answers come ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("said", "paused", "do"),
    [
        ((GET, OK), False, Do.SETTLE),
        ((GET, OK), True, Do.READ_ON),
        ((UPGRADE, b""), True, Do.WAIT),
        ((UPGRADE, EARLY), True, Do.WAIT),
        ((UPGRADE, SWITCH), True, Do.SWITCH),
        ((UPGRADE, OK), True, Do.STAY),
        ((GET * MAX_OUTSTANDING, b""), True, Do.SETTLE),
        ((GET * MAX_OUTSTANDING, OK * (MAX_OUTSTANDING // 2 - 1)), True, Do.SETTLE),
        ((GET * MAX_OUTSTANDING, OK * (MAX_OUTSTANDING // 2)), True, Do.READ_ON),
    ],
)
def test_progressed(said: tuple[bytes, ...], paused: bool, do: Do) -> None:
    assert exchange(*said).progressed(paused=paused) == Step(do)


def test_a_client_that_was_refused_is_not_read_again() -> None:
    assert exchange(GET, OK, refused=LATE).progressed(paused=True).do is Do.SETTLE


def test_too_many_requests_pause_their_client() -> None:
    one = exchange(GET * (MAX_OUTSTANDING - 1))
    assert one.began(Kind.PLAIN)
    assert not one.began(Kind.PLAIN)
    assert one.count == MAX_OUTSTANDING + 1


def test_what_followed_a_refused_switch_is_http() -> None:
    one = exchange(UPGRADE + GET, OK)
    assert one.count == 1
    assert b"".join(one.stayed()).startswith(b"GET / HTTP/1.1\r\n")
    one.all_began()
    assert one.count == 2
    assert one.progressed(paused=False).do is Do.SETTLE


# ---- refusals ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ((b"BAD\r\n\r\n",), (Do.FINISH, Outcome.REFUSED, 400)),
        ((GET + b"BAD\r\n\r\n", b""), (Do.WAIT, Outcome.CLOSED, 0)),
        ((GET + b"BAD\r\n\r\n", HALF), (Do.WAIT, Outcome.CLOSED, 0)),
        ((GET + b"BAD\r\n\r\n", OK), (Do.FINISH, Outcome.REFUSED, 400)),
        ((CHUNKED, b"", BAD_CHUNK), (Do.FINISH, Outcome.REFUSED, 400)),
        ((CHUNKED, HALF, BAD_CHUNK), (Do.RESET, Outcome.REFUSED, 0)),
        ((GET + CHUNKED, b"", BAD_CHUNK), (Do.WAIT, Outcome.CLOSED, 0)),
        ((GET + CHUNKED, OK, BAD_CHUNK), (Do.FINISH, Outcome.REFUSED, 400)),
        ((GET, b""), (Do.WAIT, Outcome.CLOSED, 0)),
        ((GET, OK), (Do.WAIT, Outcome.CLOSED, 0)),
    ],
)
def test_a_refusal_waits_for_its_turn(
    said: tuple[bytes, ...], expected: tuple[Do, Outcome, int]
) -> None:
    assert summary(exchange(*said).settled()) == expected


def test_the_first_refusal_counts() -> None:
    one = exchange(GET, OK, refused=LATE)
    assert not one.refuse(HttpRefused(400, "other"))
    assert (one.settled().detail, status(one.settled())) == ("late", 408)


@pytest.mark.parametrize(
    ("said", "late"), [((), False), ((GET, OK), False), ((HALF_HEAD,), True), ((b"\r",), False)]
)
def test_a_head_that_does_not_come(said: tuple[bytes, ...], late: bool) -> None:
    refused = exchange(*said).head_expired()
    assert (refused is not None and refused.status == 408) == late


# ---- the target's faults -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("said", "expected", "complains"),
    [
        ((GET, b"SSH-2.0\r\n"), (Do.FINISH, Outcome.BAD_ANSWER, 502), True),
        ((GET, OK + b"HTTP/1.1 408 Timeout\r\n\r\n"), (Do.FINISH, Outcome.BAD_ANSWER, 0), False),
        ((CHUNKED, HALF), (Do.RESET, Outcome.BAD_ANSWER, 0), True),
    ],
)
def test_a_bad_answer(
    said: tuple[bytes, ...], expected: tuple[Do, Outcome, int], complains: bool
) -> None:
    step = exchange(*said).bad_answer("why")
    assert summary(step) == expected
    assert (step.detail, step.complaint) == ("why", "why" if complains else "")


ENDED = {
    "between answers": ((GET, OK), (Do.FINISH, Outcome.CLOSED, 0)),
    "as the end of the answer": ((GET, UNTIL_END), (Do.FINISH, Outcome.CLOSED, 0)),
    "in an answer": ((GET, HALF), (Do.RESET, Outcome.CUT_ANSWER, 0)),
    "in the head of an answer": ((GET, b"HTTP/1.1 2"), (Do.FINISH, Outcome.CUT_ANSWER, 502)),
    "without an answer": ((GET, b""), (Do.FINISH, Outcome.NO_ANSWER, 502)),
    "without the second": ((GET, OK, GET, b""), (Do.FINISH, Outcome.NO_ANSWER, 0)),
    "after a switch": ((UPGRADE, SWITCH), (Do.FINISH, Outcome.CLOSED, 0)),
}


@pytest.mark.parametrize(("said", "expected"), ENDED.values(), ids=ENDED.keys())
def test_the_target_ends(said: tuple[bytes, ...], expected: tuple[Do, Outcome, int]) -> None:
    assert summary(exchange(*said).target_ended()) == expected


@pytest.mark.parametrize(("said", "expected"), ENDED.values(), ids=ENDED.keys())
def test_a_target_that_broke_is_heard_out(
    said: tuple[bytes, ...], expected: tuple[Do, Outcome, int]
) -> None:
    """After that it ends as any other; but a reset is no end of an answer without a length."""
    one = exchange(*said)
    assert one.target_broke(ended=False) == Step(Do.HEAR_OUT)
    if said[-1] is UNTIL_END:
        expected = (Do.RESET, Outcome.RESET_BY_TARGET, 0)
    assert summary(one.target_broke(ended=False)) == expected


def test_a_target_that_broke_behind_its_end_has_no_more_to_say() -> None:
    assert summary(exchange(GET, HALF).target_broke(ended=True))[0] is Do.RESET


@pytest.mark.parametrize(("in_time", "code"), [(True, 502), (False, 504)])
def test_no_target(in_time: bool, code: int) -> None:
    step = exchange(GET).connect_failed("connection refused", in_time=in_time)
    assert summary(step) == (Do.FINISH, Outcome.TARGET_FAILED, code)
    assert step.detail == "connection refused"
    assert b"connection refused" in step.answer


# ---- retiring ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("said", "at_once", "in_the_end"),
    [
        ((), Do.CLOSE, None),
        ((HALF_HEAD,), Do.WAIT, Do.WAIT),
        ((GET, b""), Do.SETTLE, Do.WAIT),
        ((GET, HALF), Do.SETTLE, Do.WAIT),
        ((GET, OK), Do.SETTLE, Do.FINISH),
        ((HALF_BODY, OK), Do.SETTLE, Do.WAIT),
        ((GET, OK, HALF_HEAD), Do.SETTLE, Do.WAIT),
    ],
)
def test_retiring(said: tuple[bytes, ...], at_once: Do, in_the_end: Do | None) -> None:
    one = exchange(*said)
    assert one.settled().do is Do.WAIT
    step = one.retire()
    assert step.do is at_once
    if step.do is Do.CLOSE:
        assert step.outcome is Outcome.STOPPED
    if in_the_end is not None:
        assert one.settled().do is in_the_end
    if in_the_end is Do.FINISH:
        assert summary(one.settled()) == (Do.FINISH, Outcome.STOPPED, 0)


@pytest.mark.parametrize(
    ("said", "is_cut"),
    [((GET, b""), True), ((GET, OK), False), ((HALF_BODY, OK), True), ((GET, HALF), True)],
)
def test_what_is_not_whole(said: tuple[bytes, ...], is_cut: bool) -> None:
    assert exchange(*said).is_cut == is_cut


# ---- time --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("said", "awaits", "expected"),
    [
        ((GET,), True, (Do.FINISH, Outcome.SLOW_ANSWER, 504)),
        ((GET, EARLY), True, (Do.FINISH, Outcome.SLOW_ANSWER, 504)),
        ((GET, HALF), True, (Do.RESET, Outcome.SLOW_ANSWER, 0)),
        ((GET + HALF_BODY,), True, (Do.FINISH, Outcome.SLOW_ANSWER, 504)),
        ((GET, OK), False, None),
        ((HALF_BODY,), False, None),
    ],
    ids=["none", "an early one", "half", "the next has begun", "whole", "the body is not whole"],
)
def test_an_answer_that_is_late(
    said: tuple[bytes, ...], awaits: bool, expected: tuple[Do, Outcome, int] | None
) -> None:
    one = exchange(*said)
    assert one.awaits_answer == awaits
    if expected is not None:
        assert summary(one.answer_expired()) == expected
