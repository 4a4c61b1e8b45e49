"""The target's end of an HTTP flow: its answers are followed as they pass."""

from __future__ import annotations

from v6fwd.client_ip.http.responses import ResponseStream
from v6fwd.relay.http.side import HttpOwner, HttpSide


class ResponseSide(HttpSide):
    """The target's end."""

    __slots__ = ("stream",)

    def __init__(self, fd: int, flow: HttpOwner, stream: ResponseStream) -> None:
        super().__init__(fd, flow)
        self.stream = stream

    def passing(self) -> int:
        return self.stream.passing

    def passed(self, size: int) -> None:
        self.stream.passed(size)

    def expects_head(self) -> bool:
        return not self.stream.began

    def quick(self, data: bytes) -> bool:
        if not self.stream.one(data):
            return False
        self.put_one(data)
        if self.http.attends and not self.flow.closed:
            self.http.answers_moved()
        return True

    def is_behind(self) -> bool:
        return self.stream.more

    def take(self, data: bytes) -> bool:
        stream, flow = self.stream, self.http
        pieces = stream.receive(data)
        goes_on = not pieces or self.put(pieces)
        if flow.closed:
            return False
        if stream.error:
            flow.bad_answer(stream.error)
            return False
        if stream.is_spent:
            self._end_here()
            return False
        if flow.attends:
            flow.answers_moved()
        return goes_on and not (flow.closed or self.ended) and self._has_time(stream.more)

    def _end_here(self) -> None:
        """Hear no more of the target: another reader could find its next answer elsewhere."""
        if self.blocked:
            self.ended = True  # `drain` passes it on
        else:
            self._end()

    def _move(self, *, to_end: bool) -> None:
        if self.stream.is_spent:  # its body ended in the pipe
            self._end_here()
        else:
            super()._move(to_end=to_end)

    def drain(self) -> None:
        """Something may have waited for the client to take its answers."""
        super().drain()
        if self.http.attends and not (self.flow.closed or self.blocked):
            self.http.answers_moved()

    def _yield(self) -> None:
        super()._yield()
        if self.http.attends:  # a body may have ended in the pipe
            self.http.answers_moved()
