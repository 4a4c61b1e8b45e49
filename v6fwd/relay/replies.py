"""Replies on their way from many sessions to their clients, sent with one call."""

from __future__ import annotations

from typing import Protocol

from v6fwd.relay.engine import Engine
from v6fwd.relay.mmsg import SLOTS, Slots
from v6fwd.relay.pktinfo import Family


class Sending(Protocol):
    """Whose listening socket the replies leave from."""

    fd: int
    family: Family

    def lost(self, error: OSError) -> None:
        """A reply was not taken by the kernel."""


class Replies:
    """Holds up to SLOTS replies of one listener until the events at hand have been seen."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._slots = Slots()
        self._sending: Sending | None = None

    def room(self, sending: Sending) -> list[memoryview]:
        """Where the next reply is to be read to; `put` it before any other call."""
        if self._sending is not sending or self._slots.count == SLOTS:
            self.flush()
            self._sending = sending
            family = sending.family
            self._slots.set_format(family.name_size, family.info_space)
        return self._slots.rooms[self._slots.count]

    def put(self, size: int, block: bytes) -> None:
        """A reply of `size` bytes has been read, for the client that the block names."""
        if not self._slots.count:
            self._engine.resume_later(self)
        self._slots.put(size, block)

    def flush(self) -> None:
        """Send all. What the kernel does not take is lost, as on any full link."""
        slots, sending = self._slots, self._sending
        if sending is None or not slots.count:
            return
        at = 0
        while at < slots.count:
            try:
                at += slots.send(sending.fd, at)
            except OSError as error:
                sending.lost(error)
                at += 1
        slots.count = 0

    def resume(self) -> None:
        """See Resumable."""
        self.flush()

    def forget(self, sending: Sending) -> None:
        """Send what is left for a listener that is about to close."""
        if self._sending is sending:
            self.flush()
            self._sending = None
