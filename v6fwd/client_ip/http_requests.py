"""The requests of one client connection, on their way to the target."""

from __future__ import annotations

from v6fwd.client_ip.http_syntax import HttpRefused, HttpRules, Kind
from v6fwd.model import Address

Piece = bytes | memoryview


class RequestStream:
    """One client connection, client to target."""

    def __init__(
        self, rules: HttpRules, client: Address, destination: Address, *, trusted: bool
    ) -> None:
        self._given = (rules, client, destination, trusted)
        self.passing = 0
        self.refused: HttpRefused | None = None
        self.opaque = False
        self.opaque_why = ""
        self.begun: list[Kind] = []
        self.waiting = False
        self.in_head = False
        self.closing = False

    @property
    def is_idle(self) -> bool:
        return not self.in_head and not self.passing

    def receive(self, data: bytes) -> list[Piece]:
        return [data]

    def passed(self, count: int) -> None:
        self.passing -= count

    def switched(self) -> bytes:
        self.opaque = True
        self.waiting = False
        return b""

    def stayed(self) -> list[Piece]:
        self.waiting = False
        return []
