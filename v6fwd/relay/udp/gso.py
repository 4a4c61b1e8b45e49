"""Segmented messages: datagrams of one flow and one size that the kernel takes and gives as one.

`UDP_GRO` on a receiving socket gives such a message and its segment size, `UDP_SEGMENT` on a
sending one takes it: up to 64 datagrams for the price of one. Boundaries are exact: all segments
have the same size but for the last, which may be shorter. The README calls it a train.
Here datagrams become messages, segmented where that is possible, and what a path cannot carry
segmented is split into single datagrams again.
"""

from __future__ import annotations

import errno
from collections.abc import Iterable, Iterator, Sequence

from v6fwd.model.lean import Protocol
from v6fwd.relay.udp.mmsg import Messages, Outbox

MAX_DATAGRAM = 65_507
"""Payload bytes: what IPv4's 16-bit length leaves behind 20 and 8 bytes of headers."""
MAX_SEGMENTS = 64
"""Datagrams of a segmented message: UDP_MAX_SEGMENTS of Linux before 6.9."""

CUT_IT = {errno.EINVAL, errno.EMSGSIZE, errno.EIO, errno.EOPNOTSUPP}
"""udp(7), udp_send_skb: a segment above the path's MTU, or a device that cannot do checksums."""

Item = tuple[int, int, int]
"""A datagram: where it starts in the payload, its size, and its segment size; 0: one datagram."""
Message = tuple[list[int], int]
"""What Outbox.add takes: addresses and lengths, and a segment size."""


def datagrams(items: Iterable[Item]) -> Iterator[tuple[int, int]]:
    """Start and size of each datagram, segments taken apart."""
    for start, size, segment in items:
        if segment and size > segment:
            for offset in range(0, size, segment):
                yield start + offset, min(segment, size - offset)
        else:
            yield start, size


def count_of(items: Sequence[Item]) -> int:
    """How many datagrams the items are."""
    return sum(-(-size // segment) if segment else 1 for _, size, segment in items)


def first_of(items: list[Item]) -> tuple[Item, list[Item]]:
    """The first datagram, and the rest."""
    start, size, segment = items[0]
    if not segment or size <= segment:
        return (start, size, 0), items[1:]
    left = (start + segment, size - segment, segment)
    return (start, segment, 0), [left, *items[1:]]


def pack(items: Sequence[Item], base: int, limit: int) -> Iterable[Message]:
    """Messages for datagrams in memory at `base`; no segment is longer than `limit`."""
    pieces = _alike(items, base, limit)
    if not pieces:
        return _packed(items, base, limit)
    _, size, segment = items[0]
    segment = segment or size
    return [(pieces, segment if len(items) > 1 or size > segment else 0)]


def _alike(items: Sequence[Item], base: int, limit: int) -> list[int]:
    """The pieces of the one message that the usual items make: one segmented, or equal ones.

    Nothing if they are not usual. It takes a third of the time that `_packed` needs.
    """
    pieces: list[int] = []
    count = len(items)
    start, size, segment = items[0] if items else (0, 0, 0)
    if count == 1 and 0 < segment <= limit and size <= min(MAX_DATAGRAM, segment * MAX_SEGMENTS):
        return [base + start, size]
    if not 0 < size <= limit or count > MAX_SEGMENTS or size * count > MAX_DATAGRAM:
        return pieces
    for start, length, segment in items:
        if length != size or segment:
            return []
        pieces += (base + start, length)
    return pieces


def _packed(items: Sequence[Item], base: int, limit: int) -> Iterator[Message]:
    single: list[Item] = []
    for item in items:
        start, size, segment = item
        if 0 < segment <= limit and size <= MAX_DATAGRAM and size <= segment * MAX_SEGMENTS:
            yield from _runs(single, base, (), limit)
            single.clear()
            yield [base + start, size], segment if size > segment else 0
        else:
            single.append(item)
    yield from _runs(single, base, (), limit)


def pack_behind(
    header: tuple[int, int], items: Sequence[Item], base: int, limit: int
) -> Iterator[Message]:
    """The same with a header, given by address and length, in front of every datagram."""
    return _runs(items, base, header, limit)


def _runs(
    items: Sequence[Item], base: int, header: tuple[int, ...], limit: int
) -> Iterator[Message]:
    """Make one message of each run of datagrams as long as the first; a shorter one ends it."""
    extra = header[1] if header else 0
    pieces: list[int] = []
    segment = total = count = 0
    for start, size in datagrams(items):
        whole = extra + size
        fits = 0 < whole <= segment <= limit and total + whole <= MAX_DATAGRAM
        if not (fits and count < MAX_SEGMENTS):
            if count:
                yield pieces, segment if count > 1 else 0
            pieces, total, count, segment = [], 0, 0, whole
        pieces += header
        pieces += (base + start, size)
        total += whole
        count += 1
        if whole < segment:
            yield pieces, segment
            pieces, total, count, segment = [], 0, 0, 0
    if count:
        yield pieces, segment if count > 1 else 0


class Recipient(Protocol):
    """Where messages go: a socket, and who handles its errors."""

    fd: int
    limit: int
    """The longest segment that is worth a try."""

    def failed(self, error: OSError, *, again: bool) -> bool:
        """A send failed; True to try once more, which `again` says has been done. Counts."""


class Sender:
    """Sends messages, several with one call."""

    def __init__(self) -> None:
        self.outbox = Outbox()
        self._cut = Outbox()

    def post(
        self,
        recipient: Recipient,
        messages: Iterable[Message],
        sizes: tuple[int, int] = (0, 0),
        block: bytes = b"",
    ) -> None:
        """Send messages; `sizes` of name and pktinfo and the block are for unconnected sockets."""
        outbox = self.outbox
        outbox.set_format(*sizes)
        try:
            for pieces, segment in messages:
                if not outbox.has_room(len(pieces)):
                    self._deliver(outbox, recipient, sizes)
                    outbox.clear()
                outbox.add(pieces, segment, block)
            self._deliver(outbox, recipient, sizes)
        finally:
            outbox.clear()

    def _deliver(self, outbox: Messages, recipient: Recipient, sizes: tuple[int, int]) -> None:
        at, tried = 0, -1
        while at < outbox.count:
            try:
                at += outbox.send(recipient.fd, at)
            except OSError as error:
                if outbox.segment(at) and error.errno in CUT_IT:
                    self.cut_up(outbox, at, recipient, sizes, error)
                elif recipient.failed(error, again=tried == at):
                    tried = at
                    continue
                at += 1

    def cut_up(
        self,
        outbox: Messages,
        number: int,
        recipient: Recipient,
        sizes: tuple[int, int],
        error: OSError,
    ) -> None:
        """Send a segmented message as single datagrams, and none with such segments from now on."""
        segment = outbox.segment(number)
        recipient.limit = 0 if error.errno in (errno.EIO, errno.EOPNOTSUPP) else segment - 1
        cut, block = self._cut, outbox.block(number)
        cut.clear()
        cut.set_format(*sizes)
        for pieces in cut_pieces(outbox.pieces(number), segment):
            if not cut.has_room(len(pieces)):
                self._deliver(cut, recipient, sizes)
                cut.clear()
            cut.add(pieces, 0, block)
        self._deliver(cut, recipient, sizes)
        cut.clear()


def cut_pieces(pieces: Sequence[int], segment: int) -> Iterator[list[int]]:
    """Addresses and lengths of each datagram of a segmented message."""
    part: list[int] = []
    room = segment
    for address, length in zip(pieces[::2], pieces[1::2], strict=True):
        here, left = address, length
        while left:
            size = min(room, left)
            part += (here, size)
            here, left, room = here + size, left - size, room - size
            if not room:
                yield part
                part, room = [], segment
    if part:
        yield part
