"""A target's first bytes are looked at before they are moved, however they come."""

from __future__ import annotations

import contextlib
import select
import socket
from collections.abc import Iterator
from typing import Any

import pytest

from tests.support.pump import Flow, Stage, stage
from v6fwd.client_ip.first_answer import Answer, FirstAnswer, Sent, Words
from v6fwd.relay.tcp import answer_watch
from v6fwd.relay.tcp.answer_watch import AnswerWatch
from v6fwd.relay.tcp.side import Side

IN = select.EPOLLIN
GREETING, ERROR = b"* OK Dovecot ready.\r\n", b"PROXY BAD Error in IMAP command\r\n"
ANSWER = b"* CAPABILITY IMAP4rev1\r\na OK\r\n"


class Watched(Flow):
    """A flow whose target is the source of a Stage; it takes its watch away when told."""

    target: Side
    client: Side

    def __init__(self) -> None:
        super().__init__()
        self.judged: list[Answer] = []

    def seconds(self) -> float:
        """Say how long it lives."""
        return 0.0

    def answer_judged(self) -> None:
        """See WatchedFlow."""

    def saw(self, answer: Answer, now: float) -> None:  # noqa: ARG002
        """See Looks."""
        self.judged.append(answer)


@pytest.fixture
def flow() -> Iterator[Stage]:
    with stage(flow=Watched()) as made:
        assert isinstance(made.flow, Watched)
        made.flow.target, made.flow.client = made.client, made.target
        yield made


def watch(flow: Stage, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A watch that stands before the target."""
    monkeypatch.setattr(flow.turns, "change_handler", lambda *_: None, raising=False)
    made: Any = flow.flow
    return AnswerWatch(made, made, FirstAnswer(Sent.HEADER, 143, b"a CAPABILITY\r\n"))


def fill(sock: socket.socket) -> int:
    """Send until nothing more goes in; gives how many bytes did."""
    sent = 0
    with contextlib.suppress(BlockingIOError):
        while True:
            sent += sock.send(bytes(4096))
    return sent


def test_an_error_that_comes_while_a_greeting_is_looked_at(
    flow: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = watch(flow, monkeypatch)
    more = [ERROR]
    peek = answer_watch._peek

    def peek_then_more(fd: int, size: int) -> bytes:
        data = peek(fd, size)
        if more:
            flow.send(more.pop())
        return data

    monkeypatch.setattr(answer_watch, "_peek", peek_then_more)
    flow.send(GREETING)
    made.on_event(IN)
    flow.send(ANSWER)
    made.on_event(IN)
    assert flow.got(len(GREETING + ERROR + ANSWER)) == GREETING + ERROR + ANSWER
    assert flow.flow.judged[0] is Answer.ERROR  # type: ignore[attr-defined]


def test_what_comes_behind_the_last_look_waits_for_the_next(
    flow: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing was there, so an edge tells of it."""
    made = watch(flow, monkeypatch)
    peek = answer_watch._peek
    late = [ERROR]

    def peek_late(fd: int, size: int) -> bytes:
        try:
            return peek(fd, size)
        except BlockingIOError:
            flow.send(late.pop())
            raise

    monkeypatch.setattr(answer_watch, "_peek", peek_late)
    flow.send(GREETING)
    made.on_event(IN)
    assert flow.got(len(GREETING)) == GREETING
    assert flow.unread() == len(ERROR)
    made.on_event(IN)
    assert flow.got(len(ERROR)) == ERROR
    assert flow.flow.judged[0] is Answer.ERROR  # type: ignore[attr-defined]


def test_an_edge_with_nothing_behind_it_ends_nothing(
    flow: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another handler of the same batch may have read it."""
    made = watch(flow, monkeypatch)
    made.on_event(IN)
    flow.send(GREETING)
    made.on_event(IN)
    assert flow.flow.told == []
    assert flow.got(len(GREETING)) == GREETING


def test_an_end_behind_a_greeting_is_passed_on(
    flow: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = watch(flow, monkeypatch)
    flow.send(GREETING)
    flow.end()
    made.on_event(IN | select.EPOLLRDHUP)
    assert flow.flow.told == [("ended", flow.client)]
    assert flow.got(len(GREETING)) == GREETING


def test_a_client_that_takes_nothing_stops_the_greeting(monkeypatch: pytest.MonkeyPatch) -> None:
    with stage(flow=Watched(), buffer=4096) as flow:
        made_flow: Any = flow.flow
        made_flow.target, made_flow.client = flow.client, flow.target
        made = watch(flow, monkeypatch)
        flow.far.setblocking(False)
        filled = fill(flow.far)
        flow.send(GREETING)
        made.on_event(IN)
        assert (flow.client.blocked, flow.client.held) == (True, GREETING)
        flow.send(GREETING.upper())
        made.on_event(IN)
        assert flow.client.held == GREETING, "no more is read, which would take its place"
        flow.got(filled)
        flow.client.drain()
        both = GREETING + GREETING.upper()
        assert flow.got(len(both)) == both
        assert not flow.client.blocked


def test_room_at_the_client_is_no_word_of_it(flow: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is watched for room, too, where a greeting was long; its first words come later."""
    stands: list[tuple[int, Any]] = []
    change = lambda fd, handler: stands.append((fd, handler))  # noqa: E731
    monkeypatch.setattr(flow.turns, "change_handler", change, raising=False)
    client, answer = flow.target, FirstAnswer(Sent.HEADER, 143, b"")
    made_flow: Any = flow.flow
    words = answer_watch._WordsWatch(made_flow, answer)
    words.on_event(select.EPOLLOUT)
    assert (stands, answer.words) == ([], Words.NONE)
    flow.sink.send(b"\0\1\2")
    words.on_event(IN)
    assert (stands, answer.words) == ([(client.fd, client)], Words.ODD)


def test_a_client_that_is_gone_breaks_the_flow(
    flow: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = watch(flow, monkeypatch)
    flow.flow.then = flow.flow.close
    flow.far.shutdown(socket.SHUT_WR)
    flow.send(GREETING)
    made.on_event(IN)
    assert flow.flow.told == [("broke", flow.target)]
