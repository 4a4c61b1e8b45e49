"""What the requests and the answers of one client connection mean for each other.

`RequestStream` and `ResponseStream` each read one direction. An Exchange sees both and decides:
each method that gives a `Step` is told what happened, and says what is to be done about it. It
moves no byte and knows no socket.

One client connection has one target connection, so no answer can reach anybody else. Answers are
followed all the same: a refusal waits for its turn behind the answers that are due, a switch of
protocols has to answer the request that asked for it, and an answer that was cut off must not
look whole.
"""

from __future__ import annotations

from enum import Enum, auto

from v6fwd.client_ip.http.refusal import refusal
from v6fwd.client_ip.http.requests import Piece, RequestStream
from v6fwd.client_ip.http.responses import ResponseStream
from v6fwd.client_ip.http.syntax import HttpRefused, Kind
from v6fwd.model.lean import NamedTuple

MAX_OUTSTANDING = 256
"""Requests without an answer after which a client is not read on."""


class Do(Enum):
    """What is to be done now."""

    WAIT = auto()
    """Nothing, until more has happened."""
    SETTLE = auto()
    """Ask `settled`."""
    READ_ON = auto()
    """Read the client again; then ask `settled`."""
    SWITCH = auto()
    """Pass on what `requests.switched` gives, and every byte from here on, both ways."""
    STAY = auto()
    """Go on with what `stayed` gives; then ask `settled`."""
    HEAR_OUT = auto()
    """Read what the target has still said, and stop to send it requests."""
    FINISH = auto()
    """Send the client `answer` behind what is on its way to it, then an end of stream."""
    CLOSE = auto()
    """Close both connections: nothing is under way."""
    RESET = auto()
    """Reset both connections: what is under way must not look whole."""


class Outcome(Enum):
    """How it ended. The two of ResponseStream.ended have its texts as their values."""

    CLOSED = auto()
    STOPPED = auto()
    NO_REQUEST = auto()
    REFUSED = auto()
    TARGET_FAILED = auto()
    RESET_BY_TARGET = auto()
    BAD_ANSWER = auto()
    SLOW_ANSWER = auto()
    NO_ANSWER = "closed without an answer"
    CUT_ANSWER = "closed in the middle of a response"


class Step(NamedTuple):
    """What is to be done; the rest says more of FINISH, CLOSE and RESET."""

    do: Do
    outcome: Outcome = Outcome.CLOSED
    detail: str = ""
    """For the log, behind the outcome."""
    answer: bytes = b""
    """For the client; b"" where it has asked for nothing, or may ask again."""
    complaint: str = ""
    """What the operator should know about the target's answer."""


_WAIT, _SETTLE, _READ_ON = Step(Do.WAIT), Step(Do.SETTLE), Step(Do.READ_ON)
_SWITCH, _STAY, _HEAR_OUT = Step(Do.SWITCH), Step(Do.STAY), Step(Do.HEAR_OUT)


class Exchange:
    """The requests of one client connection, and the answers to them."""

    __slots__ = ("_target_broke", "answers", "count", "refused", "requests", "retiring")

    def __init__(self, requests: RequestStream, answers: ResponseStream) -> None:
        self.requests = requests
        self.answers = answers
        self.count = 0
        """Requests let through."""
        self.refused: HttpRefused | None = None
        """No further request passes; the client is told when its other answers are there."""
        self.retiring = False
        """The connection is to end when what is under way is done."""
        self._target_broke = False

    @property
    def is_cut(self) -> bool:
        """Whether a request or an answer would be cut off if the connections ended now."""
        return self.answers.outstanding > 0 or self.requests.in_body

    # -- requests --

    def began(self, kind: Kind) -> bool:
        """Note that a request was let through; False: read no more until answers get further."""
        self.answers.expect(kind)
        self.count += 1
        return self.answers.outstanding <= MAX_OUTSTANDING

    def all_began(self) -> bool:
        """Note those in `requests.begun`; as `began`."""
        goes_on = True
        for kind in self.requests.begun:
            goes_on = self.began(kind)
        self.requests.begun.clear()
        return goes_on

    def refuse(self, refused: HttpRefused) -> bool:
        """Let no further request pass; False: that was so before."""
        if self.refused is not None:
            return False
        self.refused = refused
        return True

    def head_expired(self) -> HttpRefused | None:
        """The time for the next head is over: what to `refuse`, or None if none had begun."""
        if self.requests.in_head:
            return HttpRefused(408, "the head of the request did not come in time")
        return None

    def stayed(self) -> list[Piece]:
        """The target does not switch: what the client sent behind the request is HTTP."""
        self.answers.answered_upgrade = False
        return self.requests.stayed()

    # -- answers --

    def progressed(self, *, paused: bool) -> Step:
        """Answers got further. `paused`: the client is not read at present."""
        answers = self.answers
        if self.requests.waiting:
            if answers.switched:
                return _SWITCH
            return _STAY if answers.answered_upgrade else _WAIT
        few = answers.outstanding <= MAX_OUTSTANDING // 2
        return _READ_ON if paused and few and self.refused is None else _SETTLE

    def settled(self) -> Step:
        """See whether the connection is to end now.

        To be asked when no answer waits for room at the client. A request that was refused in
        its body has an answer outstanding, which the refusal replaces unless it has begun.
        """
        refused = self.refused
        cut = refused is not None and self.requests.in_body
        if self.answers.outstanding > cut:
            return _WAIT
        if refused is not None:
            if cut and self.answers.began:
                return Step(Do.RESET, Outcome.REFUSED)
            return Step(Do.FINISH, Outcome.REFUSED, refused.why, refusal(*refused))
        if self.retiring and self.requests.is_idle:
            return Step(Do.FINISH, Outcome.STOPPED)
        return _WAIT

    @property
    def awaits_answer(self) -> bool:
        """Whether a whole request has no whole answer."""
        return self.answers.outstanding > self.requests.in_body

    def answer_expired(self) -> Step:
        """The time for an answer to begin, or to go on, is over."""
        why = "did not answer in time"
        if self.answers.began:
            return Step(Do.RESET, Outcome.SLOW_ANSWER, complaint=why)
        return Step(Do.FINISH, Outcome.SLOW_ANSWER, "", refusal(504, f"the target {why}"), why)

    def bad_answer(self, why: str) -> Step:
        """The target has said what cannot be passed on."""
        answers = self.answers
        if not answers.outstanding:  # such as a 408 to a client that had nothing to ask
            return Step(Do.FINISH, Outcome.BAD_ANSWER, why)
        if answers.began:
            return Step(Do.RESET, Outcome.BAD_ANSWER, why, complaint=why)
        answer = refusal(502, "the target's answer cannot be passed on")
        return Step(Do.FINISH, Outcome.BAD_ANSWER, why, answer, why)

    # -- ends --

    def retire(self) -> Step:
        """End the connection when what is under way is done: at once if nothing was asked."""
        self.retiring = True
        if self.count:
            return _SETTLE
        return _WAIT if self.requests.in_head else Step(Do.CLOSE, Outcome.STOPPED)

    def connect_failed(self, why: str, *, in_time: bool) -> Step:
        """There is no target; `in_time`: that was known before the time limit for it."""
        answer = refusal(502 if in_time else 504, f"cannot connect to the target: {why}")
        return Step(Do.FINISH, Outcome.TARGET_FAILED, why, answer)

    def target_ended(self) -> Step:
        """The target has ended its stream, and all that it said has been passed on."""
        answers = self.answers
        until_end = answers.passing < 0
        why = answers.ended()
        if self._target_broke and until_end:  # nothing but an end tells that the answer is whole
            return Step(Do.RESET, Outcome.RESET_BY_TARGET)
        if not why:
            return Step(Do.FINISH, Outcome.CLOSED)
        outcome = Outcome(why)
        if answers.began:
            return Step(Do.RESET, outcome)
        if self.count == 1:
            return Step(Do.FINISH, outcome, "", refusal(502, f"the target {why}"), why)
        # It closed while the request was on its way: the client may try again, RFC 9112, 9.5.
        return Step(Do.FINISH, outcome)

    def target_broke(self, *, ended: bool) -> Step:
        """The target's connection broke. It may have said why: its answer comes first.

        `ended`: all that it said has been read.
        """
        if self._target_broke or ended:
            return self.target_ended()
        self._target_broke = True
        return _HEAR_OUT
