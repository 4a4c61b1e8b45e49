"""An HTTP flow: a TCP flow that lets requests through one by one, each with its client's address.

- The target is dialled when the first request is whole and valid. One client connection has one
  target connection, so an answer cannot reach anybody else; that is why answers pass unchanged.
- They are followed all the same: a refusal waits for its turn behind the answers that are due,
  a switch of protocols has to be the answer to the request that asked for it, and an answer
  that was cut off must not look whole.
- A last word to a client is followed by FIN, and what it still sends is dropped for a while: to
  close with bytes unread is a reset, which can destroy the answer (RFC 9112, section 9.6).
"""

from __future__ import annotations

import errno
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

from v6fwd.client_ip.http.refusal import refusal
from v6fwd.client_ip.http.requests import RequestStream
from v6fwd.client_ip.http.responses import ResponseStream
from v6fwd.client_ip.http.syntax import HttpRefused, Kind
from v6fwd.relay.ends import End, end_of
from v6fwd.relay.http.request_side import RequestSide
from v6fwd.relay.http.response_side import ResponseSide
from v6fwd.relay.http.side import Piece
from v6fwd.relay.sockets import end_writing, local_address, reset_on_close
from v6fwd.relay.tcp.flow import TcpFlow
from v6fwd.relay.tcp.side import READ, Side

if TYPE_CHECKING:
    from v6fwd.relay.http.forward import HttpForward

MAX_OUTSTANDING = 256
"""Requests without an answer after which a client is not read on."""


class HttpFlow(TcpFlow):
    """One client's connection, its requests and the answers to them."""

    __slots__ = (
        "_answers",
        "_http",
        "_parting",
        "_refused",
        "_requests",
        "_retiring",
        "_target_broke",
        "attends",
        "count",
        "is_dialling",
    )

    client: RequestSide
    target: ResponseSide

    def __init__(self, forward: HttpForward, client_fd: int, slot: int) -> None:
        super().__init__(forward, client_fd, slot)
        self._http = forward
        self._answers = ResponseStream()
        self._refused: HttpRefused | None = None
        self._parting: tuple[bytes, End, str] | None = None
        self._retiring = False
        self._target_broke = False
        self.attends = False  # something waits for the answers to get further
        self.is_dialling = True  # there is no target yet
        self.count = 0  # requests let through

    # -- requests --

    def _serve(self, rest: bytes) -> None:
        assert self._source is not None
        source, destination = self._source, self._destination
        if destination is None:
            destination = local_address(self._client_fd)
        proxies = self._http.proxies
        trusted = proxies is not None and source.packed in proxies
        self._requests = RequestStream(self._http.rules, source, destination, trusted=trusted)
        self.client = client = RequestSide(self._client_fd, self, self._requests)
        resources = self._http.resources
        resources.reactor.watch(client.fd, READ, client)
        resources.heads.add(self)
        if not rest or client.take(rest):
            client.go_on()

    def requests_began(self) -> None:
        """See HttpOwner."""
        for kind in self._requests.begun:
            self.request_began(kind)
        self._requests.begun.clear()
        self._http.resources.heads.discard(self)

    def request_began(self, kind: Kind) -> None:
        """See HttpOwner. Its head has come in one piece: no clock runs for it."""
        self._answers.expect(kind)
        self.count += 1
        if self._answers.outstanding > MAX_OUTSTANDING:
            self._pause()

    def _pause(self) -> None:
        """Read no request until answers have got further."""
        self.client.pause()
        self.attends = True

    def first_came(self, pieces: Sequence[Piece]) -> bool:
        """See HttpOwner."""
        self._first = b"".join(pieces)
        self.client.blocked = True
        self._dial()
        return not (self.closed or self.client.blocked)

    def _begin(self, first: bytes, sent: int, *, watched: bool) -> None:
        client = self.client
        self.is_dialling = False
        target = ResponseSide(self._target_fd, self, self._answers)
        if client.raw:
            target.go_raw()
        self._join(client, target, first, sent, watched=watched)
        if watched and not client.blocked and not client.paused:
            client.go_on()

    def requests_stopped(self) -> None:
        """See HttpOwner."""
        requests = self._requests
        if requests.refused is not None:
            self._refuse(requests.refused)
        elif requests.waiting:
            self._pause()
        elif requests.opaque:
            self._go_raw()
        elif self not in self._http.resources.heads:
            self._http.resources.heads.add(self)

    def head_expired(self) -> None:
        """The time for the head of a request is over."""
        if self._requests.in_head:
            self._refuse(HttpRefused(408, "the head of the request did not come in time"))
        else:
            self.close(End.NO_REQUEST)

    def _refuse(self, refused: HttpRefused) -> None:
        """No further request passes; the client is told when its other answers are there."""
        if self._refused is not None:
            return
        self._refused = refused
        self._http.counters.http_refused += 1
        self._http.tell_refused(self._source, refused, self._requests.opaque_why)
        self._pause()
        if self.is_dialling and self._first is None:
            self._part_refused()
        elif not self.is_dialling:
            self.answers_moved()

    def _part_refused(self) -> None:
        assert self._refused is not None
        self.part(refusal(*self._refused), End.REFUSED, self._refused.why)

    # -- answers --

    def answers_moved(self) -> None:
        """See HttpOwner."""
        requests, answers = self._requests, self._answers
        if self.client.deaf:
            return
        if requests.waiting:
            if answers.switched:
                self._switch()
                return
            if not answers.answered_upgrade:
                return
            self._stay()
        elif self._may_ask_again():
            self.client.go_on()
        cut = self._refused is not None and requests.in_body
        if self.closed or answers.outstanding > cut or self.target.blocked:
            return
        if cut and answers.began:
            self.abort(End.REFUSED)
        elif self._refused is not None:
            self._part_refused()
        elif self._retiring:
            self._retire_if_idle()

    def _may_ask_again(self) -> bool:
        few = self._answers.outstanding <= MAX_OUTSTANDING // 2
        return few and self.client.paused and self._refused is None

    def _switch(self) -> None:
        """The target speaks another protocol from here on, and so does the client."""
        kept = self._requests.switched()
        self._go_raw()
        if not kept or self.client.put([kept]):
            self.client.go_on()

    def _go_raw(self) -> None:
        self._http.resources.heads.discard(self)
        self.client.go_raw()
        self.attends = False
        if not self.is_dialling:
            self.target.go_raw()

    def _stay(self) -> None:
        """The target does not switch: what came behind the request is HTTP."""
        self._answers.answered_upgrade = False
        self.client.paused = False  # what was kept may say to pause again
        self.attends = self._retiring
        if self.client.pass_on(self._requests.stayed()):
            self.client.go_on()

    def bad_answer(self, why: str) -> None:
        """See HttpOwner."""
        if not self._answers.outstanding:  # such as a 408 to a client that had nothing to ask
            self.part(b"", End.BAD_ANSWER, why)
            return
        self._http.tell_bad_answer(why)
        if self._answers.began:
            self.abort(End.BAD_ANSWER, why)
        else:
            self.part(refusal(502, "the target's answer cannot be passed on"), End.BAD_ANSWER, why)

    # -- ends --

    def retire(self) -> None:
        """Close when what is under way is done."""
        if self.client.raw or self.client.deaf:
            return
        self._retiring = self.attends = True
        if not self.is_dialling:
            self._retire_if_idle()
        elif self._first is None and not self._requests.in_head:
            self.close(End.STOPPED)

    def _retire_if_idle(self) -> None:
        if self._requests.is_idle and not (self._answers.outstanding or self.target.blocked):
            self.part(b"", End.STOPPED)

    def half_ended(self, side: Side) -> None:
        """See Owner. A target that has ended its stream hears no further request."""
        if side is self.client or self.client.raw:
            super().half_ended(side)
        elif self._parting is not None:
            self.part(*self._parting)
        else:
            self._target_ended()

    def _target_ended(self) -> None:
        unsure = self._target_broke and self._answers.passing < 0
        why = self._answers.ended()
        end = end_of(f"target {why}") or End.BAD_ANSWER
        if unsure:  # a reset in place of the end that would tell that the answer is whole
            self.abort(End.RESET_BY_TARGET)
        elif not why:
            self.part(b"", End.CLOSED)
        elif self._answers.began:
            self.abort(end)
        elif self.count == 1:
            self._http.tell_bad_answer(why)
            self.part(refusal(502, f"the target {why}"), end)
        else:  # it closed while the request was on its way: the client may try that again
            self.part(b"", end)

    def broke(self, side: Side) -> None:
        """See Owner. A target that reads no more may have said why: its answer comes first."""
        if self.is_dialling or side is self.client or self.client.raw or self.target.blocked:
            super().broke(side)
        elif self._target_broke or side.ended:
            self._target_ended()
        else:
            self._target_broke = True
            self.client.pause()
            self.client.blocked = False
            self.target.go_on()

    def _give_up(self, error: OSError) -> None:
        why = self._tell_dial_failed(error)
        status = 504 if error.errno == errno.ETIMEDOUT else 502
        self.part(refusal(status, f"cannot connect to the target: {why}"), End.TARGET_FAILED, why)

    def part(self, answer: bytes, end: End, detail: str = "") -> None:
        """Tell the client `answer`, after what it is about to get, and that this was all."""
        if self.client.deaf:
            return
        if not self.is_dialling:
            if self.target.blocked:
                self._parting = answer, end, detail
                self.target.ended = True  # what else it says is not passed on
                return
            self._leave_target()
        self._parting = answer, end, detail
        client = self.client
        client.deafen()
        try:
            if answer and os.write(client.fd, answer) < len(answer):
                self.abort(end, detail)
                return
            end_writing(client.fd)
        except OSError:
            self.abort(End.RESET_BY_CLIENT)
            return
        if client.ended:
            self.close(end, detail)
            return
        self._http.resources.partings.add(self)
        client.go_on()

    def _leave_target(self) -> None:
        """Close the target's connection; a request or answer that is not whole must not look so."""
        target = self.target
        if self._target_fd < 0:
            return
        if self._answers.outstanding or self._requests.in_body:
            reset_on_close(self._target_fd)
        target.ended = True
        target.release()
        self.reactor.close_fd(self._target_fd)
        self._target_fd = -1

    def heard(self) -> None:
        """See HttpOwner; also: it had its time."""
        assert self._parting is not None
        self.close(*self._parting[1:])

    def close(self, end: End, detail: str = "") -> None:
        """See TcpFlow."""
        resources = self._http.resources
        resources.heads.discard(self)
        resources.partings.discard(self)
        has_client = hasattr(self, "client")
        super().close(end, detail)
        if has_client and self.is_dialling:
            del self.client

    def _record(self, end: str, **counts: int) -> None:
        super()._record(end, requests=self.count, **counts)
