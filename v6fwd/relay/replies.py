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

    def on_defect(self, error: Exception) -> None:
        """Something that nobody expected."""


class Replies(Slots):
    """Holds up to SLOTS replies of one listener until the events at hand have been seen."""

    def __init__(self, engine: Engine) -> None:
        super().__init__()
        self._engine = engine
        self._sending: Sending | None = None

    def room(self, sending: Sending) -> list[memoryview]:
        """Where the next reply is to be read to; `put` it before any other call."""
        count = self.count
        if not count:
            self._engine.resume_later(self)
        if self._sending is not sending or count == SLOTS:
            self.flush()
            self._sending, count = sending, 0
            family = sending.family
            self.set_format(family.name_size, family.info_space)
        return self.rooms[count]

    def flush(self) -> None:
        """Send all. What the kernel does not take is lost, as on any full link."""
        sending = self._sending
        if sending is None:
            return
        at = 0
        while at < self.count:
            try:
                at += self.send(sending.fd, at)
            except OSError as error:
                sending.lost(error)
                at += 1
        self.count = 0

    def resume(self) -> None:
        """See Resumable."""
        self.flush()

    def on_defect(self, error: Exception) -> None:
        """The replies at hand are lost; their listener says so and lives on."""
        self.count = 0
        if self._sending is not None:
            self._sending.on_defect(error)

    def forget(self, sending: Sending) -> None:
        """Send what is left for a listener that is about to close."""
        if self._sending is sending:
            self.flush()
            self._sending = None
