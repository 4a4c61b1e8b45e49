"""An HTTP flow: requests pass one by one, each with the address of its client.

The target is connected when the first request is whole and valid. What the two directions mean
for each other is decided in client_ip/http/exchange.py; here it is done.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Sequence

from v6fwd.client_ip.http.exchange import Do, Outcome, Step
from v6fwd.client_ip.http.syntax import HttpRefused
from v6fwd.client_ip.proxy.read import Header
from v6fwd.relay.ends import End
from v6fwd.relay.flows import Lull
from v6fwd.relay.http.forward import HttpForward
from v6fwd.relay.http.linger import Linger
from v6fwd.relay.http.request_side import RequestSide
from v6fwd.relay.http.response_side import ResponseSide
from v6fwd.relay.http.side import Piece
from v6fwd.relay.sockets import end_writing, local_address, reset_on_close
from v6fwd.relay.tcp.connect import Connect
from v6fwd.relay.tcp.first_bytes import FirstBytes
from v6fwd.relay.tcp.last_bytes import LastBytes
from v6fwd.relay.tcp.side import Side, join
from v6fwd.relay.tcp.stream import StreamFlow

_ENDS = {outcome: End[outcome.name] for outcome in Outcome}


class HttpFlow(StreamFlow):
    """One client's connection, its requests and the answers to them.

    Large because its two sides, the three waits and the Exchange all speak
    to it. The decisions are the Exchange's; each method here does one thing that it may ask for.
    """

    __slots__ = ("_exchange", "_http", "_last", "_lingers", "_told", "attends", "has_target")

    client: RequestSide
    target: ResponseSide

    def __init__(self, http: HttpForward, client_fd: int, slot: int) -> None:
        super().__init__(http.tcp, client_fd, slot)
        self._http = http
        self._told: Header | None = None  # the header of a client that is trusted to send one
        self._last: Step | None = None  # to be done when the client has taken what is held for it
        self._lingers = False  # the client was told that this was all
        self.attends = False  # something waits for the answers to get further
        self.has_target = False

    # -- requests --

    def identified(self, header: Header | None, rest: bytes) -> None:
        """Read requests; `rest` is the first of them, or a part of it."""
        assert self._source is not None
        self._told = header if self._forward.forward.mesh.is_hop else None
        destination = header.destination if header is not None else None
        if destination is None:
            destination = local_address(self._client_fd)
        secure = header is not None and header.is_tls
        self._exchange = exchange = self._http.exchange(self._source, destination, secure=secure)
        self.client = client = self._http.request_side(self._client_fd, self, exchange)
        client.watch()
        self._forward.resources.heads.add(self)
        if not rest or client.take(rest):
            client.go_on()

    def requests_began(self) -> None:
        """Note the requests that were let through: no clock runs for a head any more."""
        if not self._exchange.all_began():
            self.pause_requests()
        if self._exchange.requests.switching:  # its answer may come before its body is through
            self.attends = True
        self._forward.resources.heads.discard(self)

    def pause_requests(self) -> None:
        """Read no request until answers have got further."""
        self.client.pause()
        self.attends = True

    def first_came(self, pieces: Sequence[Piece]) -> bool:
        """Connect to the target, which gets these pieces; True to read on."""
        client = self.client
        client.blocked = True
        first = b"".join(pieces)
        parts = self._forward, client.fd, self._source, self._told, first
        self._wait = connect = Connect(self, self._forward, FirstBytes(*parts))
        connect.start()
        return not (self.closed or client.blocked)

    def connected(
        self,
        fd: int,
        held: bytes,
        moved: int,
        *,
        watched: bool,
        client_ended: bool,  # noqa: ARG002
    ) -> None:
        """Let requests and answers pass. A client that has ended is found so when it is read."""
        client = self.client
        self.target = target = self._http.response_side(fd, self, self._exchange.answers)
        self.has_target = True
        connect, self._wait = self._wait, None
        if client.raw:
            target.go_raw()
        join(client, target, held, moved, watched=watched)
        if self._started >= self._forward.looks.look_from:
            self._watch_answer(connect)
        if watched and not client.blocked and not client.paused:
            client.go_on()

    def requests_stopped(self) -> None:
        """Do what the request stream has come to that its side does not decide."""
        requests = self._exchange.requests
        if requests.refused is not None:
            self._refuse(requests.refused)
        elif requests.waiting:
            self.pause_requests()
            self.answers_moved()
        elif requests.opaque:
            self._go_raw()
        elif self not in self._forward.resources.heads:
            self._forward.resources.heads.add(self)

    def expired(self) -> None:
        """The time for the head of a request is over."""
        refused = self._exchange.head_expired()
        if refused is None:
            self.close(End.NO_REQUEST)
        else:
            self._refuse(refused)

    def _refuse(self, refused: HttpRefused) -> None:
        if not self._exchange.refuse(refused):
            return
        self.counters.http_refused += 1
        self._http.tell_refused(self._source, refused, self._exchange.requests.opaque_why)
        self.pause_requests()
        self.answers_moved()

    # -- answers --

    def answers_moved(self) -> None:
        """Do what waited for the answers to get further, or for the client to take them."""
        if self._lingers:
            return
        do = self._exchange.progressed(paused=self.client.paused).do
        if do is Do.SWITCH:
            self._switch()
        elif do is not Do.WAIT:
            if do is Do.STAY:
                self._stay()
            elif do is Do.READ_ON:
                self.client.go_on()
            self._settle()

    def _settle(self) -> None:
        if self.closed or self._wait is not None or (self.has_target and self.target.blocked):
            return
        self._do(self._exchange.settled())

    def _switch(self) -> None:
        """The target speaks another protocol from here on, and so does the client."""
        kept = self._exchange.requests.switched()
        self._go_raw()
        if not kept or self.client.put([kept]):
            self.client.go_on()

    def _go_raw(self) -> None:
        self._forward.resources.heads.discard(self)
        self.client.go_raw()
        self.attends = False
        if self.has_target:
            self.target.go_raw()

    def _stay(self) -> None:
        self.client.paused = False  # what was kept may say to pause again
        self.attends = self._exchange.retiring
        if self.client.pass_on(self._exchange.stayed()):
            self.client.go_on()

    def bad_answer(self, why: str) -> None:
        """Answer in the target's place, if its answer has not begun."""
        self._do(self._exchange.bad_answer(why))

    # -- time limits --

    def lull(self, lull: Lull) -> int | None:
        """Bytes that moved, if it is the client's or the target's turn as the limit has it."""
        if not lull.is_http:
            return super().lull(lull)
        if not self.has_target or self._lingers or self._wait is not None:
            return None
        client, target, exchange = self.client, self.target, self._exchange
        if client.raw:
            return self.progress() if lull is Lull.TUNNEL else None
        if (
            lull is Lull.BODY
            and exchange.requests.in_body
            and not (client.blocked or client.paused)
        ):
            return self.progress()
        if lull is Lull.RESPONSE and exchange.awaits_answer and not target.blocked:
            return target.moved
        return None

    def overdue(self, lull: Lull) -> None:
        """Answer in the place of whoever was too slow, where no answer has begun."""
        if lull is Lull.BODY:
            self._refuse(HttpRefused(408, "the body of the request did not come in time"))
        elif lull is Lull.RESPONSE:
            self._do(self._exchange.answer_expired())
        else:
            super().overdue(lull)

    # -- ends --

    def retire(self) -> None:
        """Close when what is under way is done."""
        if not hasattr(self, "client"):  # its PROXY header has not come: nothing is under way
            self.close(End.STOPPED)
        elif not (self.client.raw or self._lingers):
            self.attends = True
            step = self._exchange.retire()
            if step.do is Do.SETTLE:
                self._settle()
            else:
                self._do(step)

    def ended(self, side: Side) -> None:
        """Pass an end of stream on. A target that has ended its stream hears no more requests."""
        if side is self.client or self.client.raw:
            super().ended(side)
        elif self._last is not None:
            self._finish(self._last)
        else:
            self._do(self._exchange.target_ended())

    def broke(self, side: Side) -> None:
        """Pass a reset on; but a target that reads no more may have said why."""
        self._look_last(side)
        if not self.has_target or self.client.raw:
            super().broke(side)
        elif isinstance(self._wait, LastBytes):
            self._wait.broke(side)
        elif side is self.client:  # nobody is left to take an answer to what it had asked
            self._reset_by(side)
        else:
            self._do(self._exchange.target_broke(ended=side.ended))

    def connect_failed(self, error: OSError) -> None:
        """Answer in the target's place."""
        self._wait = None
        in_time = error.errno != errno.ETIMEDOUT
        self._do(self._exchange.connect_failed(self._tell_failed(error), in_time=in_time))

    def _do(self, step: Step) -> None:
        if step.complaint:
            self._http.tell_bad_answer(self.source, step.complaint)
        end = _ENDS[step.outcome]
        if step.do is Do.FINISH:
            self._finish(step)
        elif step.do is Do.CLOSE:
            self.close(end, step.detail)
        elif step.do is Do.RESET:
            self._reset_behind(step)
        elif step.do is Do.HEAR_OUT:
            self.client.pause()
            self.client.blocked = False
            self.target.go_on()

    def _reset_behind(self, step: Step) -> None:
        """Reset both, behind the bytes of the answer that are on their way to the client."""
        self._last = step
        if not self.has_target or self._wait is not None or self.target.blocked:
            self._abort_last()
            return
        self.target.mute()
        self.client.mute()
        self._wait = last_bytes = LastBytes(self, self.target)
        last_bytes.read()

    def last_bytes_arrived(self, broken: Side) -> None:
        """Reset, for the reason that was found before the wait."""
        if self._last is None:
            super().last_bytes_arrived(broken)
        else:
            self._abort_last()

    def _abort_last(self) -> None:
        assert self._last is not None
        self.abort(_ENDS[self._last.outcome], self._last.detail)

    def _finish(self, step: Step) -> None:
        """Tell the client the last answer, after what it is about to get, and that this was all."""
        if self._lingers:
            return
        if self.has_target and self.target.blocked:
            self._last = step
            self.target.ended = True  # what else it says is not passed on
            return
        self._leave_target()
        self._last = step
        self._lingers = True
        self._forward.resources.heads.discard(self)
        had_ended = self.client.ended
        self.client.leave()
        try:
            if step.answer and os.write(self.client.fd, step.answer) < len(step.answer):
                self._abort_last()
                return
            end_writing(self.client.fd)
        except OSError:
            self.abort(End.RESET_BY_CLIENT)
            return
        if had_ended:
            self.lingered()
            return
        self._wait = linger = Linger(self, self.client.fd, self._forward.resources)
        linger.start()

    def _leave_target(self) -> None:
        """Close the target's connection; what is not whole must not look so."""
        if not self.has_target:
            return
        target = self.target
        if self._exchange.is_cut:
            reset_on_close(target.fd)
        target.ended = True
        target.release()
        self.reactor.close_fd(target.fd)
        target.fd = -1

    def lingered(self) -> None:
        """Close: the client has done so, or had its time."""
        assert self._last is not None
        self.close(_ENDS[self._last.outcome], self._last.detail)

    def close(self, end: End, detail: str = "") -> None:
        """Give back what HTTP needed besides."""
        self._forward.resources.heads.discard(self)
        super().close(end, detail)
        if hasattr(self, "client"):  # there was no target
            del self.client

    def _record(self, end: str, **counts: int) -> None:
        asked = self._exchange.count if hasattr(self, "_exchange") else 0
        super()._record(end, requests=asked, **counts)
