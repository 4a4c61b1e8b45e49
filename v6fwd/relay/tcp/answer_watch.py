"""Looks at the first bytes of both ends of a flow, before the pump takes them.

It stands before a `Side` in the reactor, peeks (MSG_PEEK) and passes the event on. The client's
is replaced by its side after the first event, the target's when the answer is judged. Until then
the target's side reads no byte that was not looked at: an error may come right behind a greeting.
"""

from __future__ import annotations

import select
import socket
from enum import IntEnum

from v6fwd.client_ip.first_answer import ANSWER_SIZE, WORDS_SIZE, Answer, FirstAnswer, Words
from v6fwd.model.lean import Protocol
from v6fwd.relay.reactor import Reactor
from v6fwd.relay.targets.mismatch import Looks
from v6fwd.relay.tcp.side import NOT_OUT, Side


class WatchedFlow(Protocol):
    """The flow, as far as this needs it."""

    closed: bool
    client: Side
    target: Side

    @property
    def reactor(self) -> Reactor:
        """The reactor that watches both sides."""

    def seconds(self) -> float:
        """How long it lives."""

    def broke(self, side: Side) -> None:
        """The connection of `side` was reset or died."""

    def answer_judged(self) -> None:
        """Drop this."""


class Seen(IntEnum):
    """What a look at the target gave, if it was no greeting."""

    JUDGED = 0
    NOTHING = -1
    RESET = -2


class AnswerWatch:
    """Judges one flow, and tells the forward's `Looks` once; `stop` when the flow ends before."""

    __slots__ = ("_answer", "_flow", "_looks")

    def __init__(self, flow: WatchedFlow, looks: Looks, answer: FirstAnswer) -> None:
        self._flow = flow
        self._looks = looks
        self._answer = answer

    def start(self) -> None:
        """Stand before the sides that the reactor watches."""
        flow = self._flow
        flow.reactor.change_handler(flow.target.fd, self)
        if self._answer.words is Words.NONE:
            flow.reactor.change_handler(flow.client.fd, _WordsWatch(flow, self._answer))

    def on_event(self, mask: int) -> None:
        """Something has come from the target, or there is room at it."""
        flow = self._flow
        target = flow.target
        while mask & NOT_OUT and not (target.blocked or target.queued):
            seen = self.look()
            if seen == Seen.RESET:
                flow.broke(target)
                return
            if seen == Seen.JUDGED:
                break
            if seen == Seen.NOTHING:  # an edge tells of more
                mask &= ~NOT_OUT | select.EPOLLPRI
                break
            target.copy_exactly(seen)
            if flow.closed:
                return
        if mask:
            target.on_event(mask)

    def on_exception(self, error: Exception) -> None:
        """Give up the flow."""
        self._flow.target.on_exception(error)

    def look(self) -> int:
        """Judge what the target has said, or its end; gives a `Seen`, or the size of a greeting.

        A reset nobody else hears: recv(2) gives the error of a socket once.
        """
        flow = self._flow
        try:
            data = _peek(flow.target.fd, ANSWER_SIZE)
        except BlockingIOError:
            return Seen.NOTHING
        except OSError:
            self._ended()
            return Seen.RESET
        if not data:
            self._ended()
        elif (answer := self._answer.target_said(data)) is not None:
            self._judged(answer)
        else:
            return len(data)
        return Seen.JUDGED

    def _ended(self) -> None:
        flow = self._flow
        self._judged(self._answer.target_ended(flow.seconds(), client_ended=flow.client.ended))

    def stop(self) -> None:
        """The flow ends without an answer."""
        self._judged(self._answer.unanswered(self._flow.seconds()))

    def _judged(self, answer: Answer) -> None:
        flow = self._flow
        if not flow.closed:
            flow.reactor.change_handler(flow.target.fd, flow.target)
        flow.answer_judged()
        self._looks.saw(answer, flow.reactor.clock())


class _WordsWatch:
    """Stands before the client's side for one event."""

    __slots__ = ("_answer", "_flow")

    def __init__(self, flow: WatchedFlow, answer: FirstAnswer) -> None:
        self._flow = flow
        self._answer = answer

    def on_event(self, mask: int) -> None:
        """The client has said something, or has ended."""
        flow = self._flow
        client = flow.client
        if mask & NOT_OUT:
            flow.reactor.change_handler(client.fd, client)
            try:
                self._answer.client_said(_peek(client.fd, WORDS_SIZE))
            except BlockingIOError:
                pass
            except OSError:
                flow.broke(client)
                return
        client.on_event(mask)

    def on_exception(self, error: Exception) -> None:
        """Give up the flow."""
        self._flow.client.on_exception(error)


def _peek(fd: int, size: int) -> bytes:
    """What can be read; b"" at the end. Raises OSError, BlockingIOError if nothing has come."""
    sock = socket.SocketType(socket.AF_INET6, socket.SOCK_STREAM, 0, fd)
    try:
        return sock.recv(size, socket.MSG_PEEK | socket.MSG_DONTWAIT)
    finally:
        sock.detach()
