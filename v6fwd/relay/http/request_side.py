"""The client's end of an HTTP flow: what it asks is judged before it moves."""

from __future__ import annotations

from collections.abc import Sequence

from v6fwd.client_ip.http.exchange import Exchange
from v6fwd.relay.ends import End
from v6fwd.relay.http.side import HttpOwner, HttpSide, Piece


class RequestSide(HttpSide):
    """The client's end."""

    __slots__ = ("exchange", "stream")

    def __init__(self, fd: int, flow: HttpOwner, exchange: Exchange) -> None:
        super().__init__(fd, flow)
        self.exchange = exchange
        self.stream = exchange.requests

    def passing(self) -> int:
        return self.stream.passing

    def passed(self, size: int) -> None:
        self.stream.passed(size)

    def expects_head(self) -> bool:
        return not self.stream.in_body

    def quick(self, data: bytes) -> bool:
        one = self.stream.one(data)
        if one is None:
            return False
        if not self.exchange.began(one[1]):
            self.http.pause_requests()
        self.put_one(one[0])
        return True

    def is_behind(self) -> bool:
        return self.stream.more

    def take(self, data: bytes) -> bool:
        return self.pass_on(self.stream.receive(data))

    def pass_on(self, pieces: Sequence[Piece]) -> bool:
        """Send what the stream has let through, and see what it says besides."""
        stream, flow = self.stream, self.http
        if stream.begun:
            flow.requests_began()
        goes_on = True
        if pieces:
            goes_on = self.put(pieces) if flow.has_target else flow.first_came(pieces)
        if stream.refused is not None or stream.waiting or stream.in_head or stream.opaque:
            if flow.closed:
                return False
            flow.requests_stopped()
        return goes_on and not (flow.closed or self.paused) and self._has_time(stream.more)

    def leave(self) -> None:
        """Read no more here, and drop what is held for the target: another reads the client."""
        self.ended = self.paused = True
        self.blocked = self.usual = False
        self.held = b""
        self.release()

    def _end(self) -> None:
        if self.http.has_target:
            super()._end()
        else:
            self.http.close(End.CLOSED_BEFORE_REQUEST)
