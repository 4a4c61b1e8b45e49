"""The client's end of an HTTP flow: what it asks is judged before it moves."""

from __future__ import annotations

import os
from collections.abc import Sequence

from v6fwd.client_ip.http.requests import RequestStream
from v6fwd.relay.ends import End
from v6fwd.relay.http.side import HttpOwner, HttpSide, Piece
from v6fwd.relay.tcp.side import COPY_ROUNDS, buffers


class RequestSide(HttpSide):
    """The client's end."""

    __slots__ = ("deaf", "stream")

    def __init__(self, fd: int, flow: HttpOwner, stream: RequestStream) -> None:
        super().__init__(fd, flow)
        self.stream = stream
        self.deaf = False  # it was told the last word: what still comes is dropped

    def passing(self) -> int:
        """See HttpSide."""
        return self.stream.passing

    def passed(self, size: int) -> None:
        """See HttpSide."""
        self.stream.passed(size)

    def quick(self, data: bytes) -> bool:
        """See HttpSide."""
        one = self.stream.one(data)
        if one is None:
            return False
        self.http.request_began(one[1])
        self.put_one(one[0])
        return True

    def take(self, data: bytes) -> bool:
        """See HttpSide."""
        return self.pass_on(self.stream.receive(data))

    def pass_on(self, pieces: Sequence[Piece]) -> bool:
        """Send what the stream has let through, and see what it says besides."""
        stream, flow = self.stream, self.http
        if stream.begun:
            flow.requests_began()
        goes_on = True
        if pieces:
            goes_on = flow.first_came(pieces) if flow.is_dialling else self.put(pieces)
        if stream.refused is not None or stream.waiting or stream.in_head or stream.opaque:
            if flow.closed:
                return False
            flow.requests_stopped()
        return goes_on and not (flow.closed or self.paused)

    def deafen(self) -> None:
        """Drop what is on its way to the target and what still comes."""
        self.deaf = True
        self.paused = self.blocked = self.usual = False
        self.held = b""
        self.release()

    def _is_usual(self) -> bool:
        return not (self.raw or self.deaf)

    def _move(self, *, to_end: bool) -> None:
        if self.deaf:
            self._drop()
        else:
            super()._move(to_end=to_end)

    def _drop(self) -> None:
        for _ in range(COPY_ROUNDS):
            try:
                size = os.readv(self.fd, buffers)
            except BlockingIOError:
                return
            except OSError:
                size = 0
            if not size:
                self.http.heard()
                return
        self._yield()

    def _end(self) -> None:
        if self.http.is_dialling:
            self.http.close(End.CLOSED_BEFORE_REQUEST)
        else:
            super()._end()
