"""The responses of one target connection, on their way to the client."""

from __future__ import annotations

from v6fwd.client_ip.http_syntax import Kind

Piece = bytes | memoryview

UNTIL_EOF = -1


class ResponseStream:
    """The same connection, target to client."""

    def __init__(self) -> None:
        self._kinds: list[Kind] = []
        self.outstanding = 0
        self.passing = 0
        self.error = ""
        self.began = False
        self.switched = False
        self.answered_upgrade = False

    def expect(self, kind: Kind) -> None:
        self._kinds.append(kind)
        self.outstanding += 1

    def receive(self, data: bytes) -> list[Piece]:
        return [data]

    def passed(self, count: int) -> None:
        if self.passing > 0:
            self.passing -= count

    def ended(self) -> str:
        return ""
