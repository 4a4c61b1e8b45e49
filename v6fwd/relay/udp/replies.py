"""Sends the replies of many sessions to their clients with one call.

They are read straight into slots of memory and sent from there. Those of one session that wait
together become one segmented message (gso) if they can: the kernel's send path costs more than
all that is done here.
"""

from __future__ import annotations

from v6fwd.model.lean import Protocol
from v6fwd.relay.reactor import Reactor
from v6fwd.relay.udp.gso import CUT_IT, MAX_DATAGRAM, MAX_SEGMENTS, Item, Sender, datagrams
from v6fwd.relay.udp.mmsg import META_SIZE, PIECES, SLOT_SIZE, SLOTS, Growing, Inbox
from v6fwd.relay.udp.pktinfo import Family

LOOKS = 2
"""Turns of the reactor for which replies wait for more, while there are events."""
HOLD = 0.001
"""Seconds that they wait at most: events of TCP can take long."""
_ENOUGH = SLOTS // 2
"""Slots in use from which replies do not wait: the next events need some, too."""


class Sending(Protocol):
    """Whose listening socket the replies leave from."""

    fd: int
    family: Family

    def lost(self, error: OSError) -> None:
        """A reply was not taken by the kernel."""

    def on_exception(self, error: Exception) -> None:
        """Log a defect."""


class Answered(Protocol):
    """A session, whose client gets the replies."""

    block: bytes
    """Name and control message of replies to the client, made by Family.block."""
    down_limit: int
    """The longest segment worth sending; each client has a path of its own."""


_Run = list[int]
"""The message that a session's next reply may still join: its number, segment size and count."""


class Replies(Growing):
    """Holds up to SLOTS replies of one listener until the events at hand have been seen."""

    def __init__(self, reactor: Reactor, sender: Sender) -> None:
        super().__init__()
        self._reactor = reactor
        self._sender = sender
        self._inbox = Inbox()
        self._inbox_address = self._inbox.address
        starts, view = range(0, SLOTS * SLOT_SIZE, SLOT_SIZE), self._inbox.payload
        self._rooms = [[view[start : start + SLOT_SIZE]] for start in starts]
        self._used = 0  # slots
        self._looks = 0
        self._until = 0.0
        self._sending: Sending | None = None
        self._runs: dict[Answered, _Run] = {}
        self._owners: list[Answered] = []

    def room(self, sending: Sending) -> list[memoryview]:
        """Where the next reply is to be read to; `put` it before any other call."""
        used = self._used
        if not used:
            self._reactor.resume_later(self)
            self._until = self._reactor.clock() + HOLD
            self._looks = 0
        if self._sending is not sending or used == SLOTS:
            self._send_for(sending)
            used = 0
        return self._rooms[used]

    def put(self, session: Answered, size: int) -> None:
        """The next slot holds a datagram of `size` bytes now."""
        used = self._used
        self._used = used + 1
        address = self._inbox_address + used * SLOT_SIZE
        run = self._runs.get(session)
        if run is not None and self._joined(run, session.down_limit, address, size):
            return
        if self.count == SLOTS:  # segmented messages that had to be taken apart
            self._send()
        self._runs[session] = [self.begin(address, size, session.block), size, 1]
        self._owners.append(session)

    def receive(self, sending: Sending, fd: int) -> list[Item]:
        """Read a batch, to be handed to `put_all` before any other call. Raises OSError."""
        self.room(sending)
        if self._used > SLOTS // 2:
            self.flush()
            self._reactor.resume_later(self)
        first, inbox = self._used, self._inbox
        count = inbox.receive(fd, first)
        sizes, controls = inbox.sizes(count, first), inbox.control_sizes(count, first)
        if not any(controls):
            return [(number * SLOT_SIZE, size, 0) for number, size in enumerate(sizes, first)]
        meta, read = inbox.meta(count, first), sending.family.read
        return [
            ((first + at) * SLOT_SIZE, size, read(meta, at * META_SIZE, control)[2])
            for at, (size, control) in enumerate(zip(sizes, controls, strict=True))
        ]

    def put_all(self, session: Answered, items: list[Item]) -> None:
        """The next slots hold what `receive` gave."""
        for item in items:
            if item[2]:
                self._put_segmented(session, item)
            else:
                self.put(session, item[1])

    def flush(self) -> None:
        """Send all. What the kernel does not take is lost, as on any full link."""
        self._send()
        self._used = 0

    def resume(self) -> None:
        """Send now, or wait for the replies of the next events."""
        reactor = self._reactor
        self._looks += 1
        may_wait = self._used < _ENOUGH and self._looks <= LOOKS
        if may_wait and reactor.at_once > 1 and reactor.clock() < self._until:
            reactor.resume_later(self)
        else:
            self.flush()

    def on_exception(self, error: Exception) -> None:
        """The replies at hand are lost; their listener says so and lives on."""
        self.clear()
        self._used = 0
        if self._sending is not None:
            self._sending.on_exception(error)

    def forget(self, sending: Sending) -> None:
        """Send what is left for a listener that is about to close."""
        if self._sending is sending:
            self.flush()
            self._sending = None

    def clear(self) -> None:
        super().clear()
        self._runs.clear()
        self._owners.clear()

    def _send_for(self, sending: Sending) -> None:
        self.flush()
        self._sending = sending
        self.set_format(sending.family.name_size, sending.family.info_space)

    def _joined(self, run: _Run, limit: int, address: int, size: int) -> bool:
        """Put a datagram into the run, if it fits; a shorter one ends it."""
        number, segment, count = run
        if not 0 < size <= segment <= limit:
            return False
        if count == PIECES or count * segment + size > MAX_DATAGRAM:
            return False
        if count == 1:
            self.make_segmented(number, segment)
        self.extend(number, address, size, count)
        run[2] = count + 1
        if size < segment:
            run[1] = 0
        return True

    def _put_segmented(self, session: Answered, item: Item) -> None:
        self._used += 1
        self._runs.pop(session, None)
        start, size, segment = item
        if segment <= session.down_limit and size <= min(MAX_DATAGRAM, segment * MAX_SEGMENTS):
            number = self._begin(session, start, size)
            if size > segment:
                self.make_segmented(number, segment)
            return
        for piece, length in datagrams([item]):
            self._begin(session, piece, length)

    def _begin(self, session: Answered, start: int, size: int) -> int:
        if self.count == SLOTS:  # segmented messages that had to be taken apart
            self._send()
        self._owners.append(session)
        return self.begin(self._inbox.address + start, size, session.block)

    def _send(self) -> None:
        sending, at = self._sending, 0
        while sending is not None and at < self.count:
            try:
                at += self.send(sending.fd, at)
            except OSError as error:
                self._failed(sending, at, error)
                at += 1
        self.clear()

    def _failed(self, sending: Sending, number: int, error: OSError) -> None:
        if not self.segment(number) or error.errno not in CUT_IT:
            sending.lost(error)
            return
        sizes = sending.family.name_size, sending.family.info_space
        recipient = _ClientRecipient(sending, self._owners[number])
        self._sender.cut_up(self, number, recipient, sizes, error)


class _ClientRecipient:
    """The client of one session, as the Sender's Recipient."""

    def __init__(self, sending: Sending, session: Answered) -> None:
        self._sending = sending
        self._session = session
        self.fd = sending.fd

    @property
    def limit(self) -> int:
        return self._session.down_limit

    @limit.setter
    def limit(self, limit: int) -> None:
        self._session.down_limit = limit

    def failed(self, error: OSError, *, again: bool) -> bool:  # noqa: ARG002 - lost is lost
        self._sending.lost(error)
        return False
