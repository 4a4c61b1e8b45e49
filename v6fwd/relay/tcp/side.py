"""One end of a TCP flow, and the moving of bytes from it to the other end.

The theory, from which the code follows:

- Descriptors are edge-triggered. A `Side` reads until a short read proves the socket empty
  (epoll(7)), except where the event says that an end is there too: then until EOF. What came
  while the other side was full is read when that side drains, whether or not an edge tells.
- A direction has two stops, and they differ: *nothing to read* (wait for this side) and *no room
  to write* (`blocked`: wait for the other side). It holds at most one copy buffer or one pipe.
- Small messages are copied: one recv, one send. After two full buffers in a row the direction
  is bulk and spliced through a pipe, which is empty whenever the socket is read; so EAGAIN from
  splice always means the socket.
- Whatever calls the flow (`ended`, `broke`) may have closed it: return at once.
"""

from __future__ import annotations

import math
import os
import select
from collections.abc import Sequence

from v6fwd.model.lean import Protocol
from v6fwd.relay.pump import FlowEvents
from v6fwd.relay.reactor import Reactor
from v6fwd.relay.sockets import pending_error, sending_more
from v6fwd.relay.tcp.pipes import Pipe, PipePool

COPY_SIZE = 64 * 1024
"""Bytes of the one buffer through which all small messages go."""
COPY_ROUNDS = 16
"""Copies in a row before the other flows get a turn."""
BULK_AFTER = 2
"""Full buffers in a row after which a direction is spliced."""
BULK_MIN = 16 * 1024
"""Bytes; three splices below this are messages again: the direction goes back to copying.

One may be the rest of a full pipe."""
BULK_KEPT = BULK_AFTER + 2
SUSTAINED = 3 << 20
"""Bytes that came almost without a pause; then a larger pipe is better."""

_IN, _OUT, _ERR = select.EPOLLIN, select.EPOLLOUT, select.EPOLLERR
_URGENT, _END = select.EPOLLPRI, select.EPOLLRDHUP
READ = _IN | _URGENT | _END | select.EPOLLET
READ_WRITE = READ | _OUT
NOT_OUT = ~_OUT
_STOPS = _URGENT | _END | _ERR | select.EPOLLHUP
_UNUSUAL = _URGENT | _ERR
_SPLICE = os.SPLICE_F_MOVE | os.SPLICE_F_NONBLOCK

buffer = memoryview(bytearray(COPY_SIZE))
buffers: Sequence[memoryview] = [buffer]
_send_more = sending_more(buffer)


class Owner(FlowEvents["Side"], Protocol):
    """The flow that a side belongs to, and what of it this pump needs."""

    @property
    def reactor(self) -> Reactor:
        """The reactor that watches both sides."""

    @property
    def pipes(self) -> PipePool:
        """Where pipes are borrowed."""

    def become_pair(self) -> bool:
        """Let another pump go on, if one wants it and nothing unusual is under way."""


class Side:
    """One end of a flow, and the direction that leads from it to the other end.

    Large because a direction is one state: every method reads or changes most of it, and a part of
    its own would cost each read a call.
    """

    __slots__ = (
        "blocked",
        "ended",
        "fd",
        "flow",
        "full_reads",
        "held",
        "moved",
        "other",
        "pipe",
        "piped",
        "queued",
        "streak",
        "urgent",
        "watches_out",
    )

    other: Side

    def __init__(self, fd: int, flow: Owner) -> None:
        self.fd = fd
        self.flow = flow
        self.held = b""  # read from here, not yet written to the other side
        self.pipe: Pipe | None = None  # lent to us while `piped` bytes are in it
        self.piped = 0
        self.blocked = False  # the other side is full
        self.queued = False  # the reactor will call `resume`
        self.ended = False  # EOF has been read here
        self.urgent = False  # MSG_OOB was used: splice would stop at its mark for ever
        self.watches_out = False
        self.full_reads = 0  # in bulk: BULK_KEPT less small splices in a row
        self.streak = 0.0  # bytes spliced without a pause, half of those before one
        self.moved = 0  # bytes that the other side has taken

    def watch(self) -> None:
        """Hear what comes from here."""
        self.flow.reactor.watch(self.fd, READ, self)

    def on_event(self, mask: int) -> None:
        """Move what can be moved, both ways."""
        if mask & _OUT and self.other.blocked:
            self.other.drain()
            if self.flow.closed:
                return
        if mask & _URGENT and not self.urgent:
            self._go_urgent()
        if mask & NOT_OUT and not (self.blocked or self.ended or self.queued):
            if (stops := mask & _STOPS) == _END:
                self._move_last()
            else:
                self._move(to_end=stops != 0)
            if self.flow.closed:
                return
        # An HTTP flow may have left its target by now, and waits for its client to close.
        if mask & _ERR and self.fd >= 0 and pending_error(self.fd):
            self.flow.broke(self)

    def on_exception(self, error: Exception) -> None:
        """Give up the flow."""
        self.flow.on_exception(error)

    def resume(self) -> None:
        """Go on after the others had a turn."""
        self.queued = False
        if not (self.flow.closed or self.blocked or self.ended):
            self._move(to_end=True)

    def drain(self) -> None:
        """The other side takes bytes again: first those that wait, then what came meanwhile."""
        try:
            if self.held:
                sent = os.write(self.other.fd, self.held)
                self.moved += sent
                self.held = self.held[sent:]
            while self.piped:
                self._pipe_to_other()
        except BlockingIOError:
            return
        except OSError:
            self.flow.broke(self.other)
            return
        if self.held:
            return
        self.blocked = False
        if self.full_reads < BULK_AFTER:
            self.release()
        if self.ended:
            self.flow.ended(self)
        else:
            self._move(to_end=True)

    @property
    def is_idle(self) -> bool:
        """Whether nothing is held or remembered: another pump could go on."""
        busy = self.blocked or self.ended or self.queued or self.urgent or self.full_reads
        return not (busy or self.held or self.pipe)

    def go_on(self) -> None:
        """Read to the end of what is there: no edge tells of it again."""
        self._move(to_end=True)

    def copy_exactly(self, size: int) -> None:
        """Move the next `size` bytes, which are there, and none of what has come behind them."""
        flow, other = self.flow, self.other
        try:
            data = os.read(self.fd, size)
        except OSError:
            flow.broke(self)
            return
        try:
            sent = os.write(other.fd, data)
        except BlockingIOError:
            sent = 0
        except OSError:
            flow.broke(other)
            return
        self.moved += sent
        if sent < len(data):
            self.held = data[sent:]
            self._block()

    def mute(self) -> None:
        """Read no more here, and drop what is held for the other side."""
        self.ended = True
        self.blocked = False
        self.held = b""
        self.release()

    def release(self) -> None:
        """Give the pipe back."""
        if self.pipe is not None:
            self.flow.pipes.give_back(self.pipe, empty=not self.piped)
            self.pipe = None
            self.piped = 0

    def _move(self, *, to_end: bool) -> None:
        if self.full_reads < BULK_AFTER:
            self._copy(to_end=to_end)
        else:
            self._splice()

    def _move_last(self) -> None:
        """The FIN is here and no reset: the end is behind a short read.

        Not at an urgent mark, where recv stops short.
        """
        if self.full_reads >= BULK_AFTER or self.urgent:
            self._move(to_end=True)
            return
        try:
            size = os.readv(self.fd, buffers)
        except BlockingIOError:
            return
        except OSError:
            self.flow.broke(self)
            return
        if not size or (self._send_last(size) and size < COPY_SIZE):
            self._end()
        elif size == COPY_SIZE and not (self.flow.closed or self.blocked or self.ended):
            self._copy(to_end=True)

    def _send_last(self, size: int) -> bool:
        """Write what is in the buffer; False where the other side does not take all."""
        other = self.other
        sent = _send_more(other.fd, size)
        if sent < 0:
            self.flow.broke(other)
            return False
        self.moved += sent
        if sent < size:
            self.held = bytes(buffer[sent:size])
            self._block()
        return sent == size

    def _copy(self, *, to_end: bool) -> None:
        """Messages: one recv, one send. A short read has emptied the socket, unless `to_end`."""
        fd, other = self.fd, self.other
        for _ in range(COPY_ROUNDS):
            try:
                size = os.readv(fd, buffers)
            except BlockingIOError:
                return
            except OSError:
                self.flow.broke(self)
                return
            if not size:
                self._end()
                return
            try:
                sent = os.write(other.fd, buffer[:size])
            except BlockingIOError:
                sent = 0
            except OSError:
                self.flow.broke(other)
                return
            self.moved += sent
            if sent < size:
                self.held = bytes(buffer[sent:size])
                self._block()
                return
            if size == COPY_SIZE:
                self.full_reads += 1
                if self.full_reads >= BULK_AFTER:
                    break
            else:
                self.full_reads = 0
                if not to_end:
                    return
        self._yield()

    def _splice(self) -> None:
        """Bulk: socket to pipe to socket, until one of them stops or others want a turn."""
        if self.pipe is None:
            self.pipe = self.flow.pipes.take(sustained=self.streak > SUSTAINED)
        if self.pipe is None or self.urgent:
            self.full_reads = 0
            self._yield()
            return
        for _ in range(self.pipe.fills):
            size = self._through_pipe(self.pipe, self.pipe.size)
            if size < 0:
                return
            if not size:
                self.full_reads = 0
                self._copy(to_end=True)
                return
        self._yield()

    def _through_pipe(self, pipe: Pipe, most: int) -> int:
        """Splice up to `most` bytes into the pipe, and all of them out; gives how many.

        0: an end of stream, or an urgent byte with one behind it: recv tells. -1: it stops here,
        for want of bytes or room, or because a connection broke.
        """
        try:
            size = os.splice(self.fd, pipe.writer, most, flags=_SPLICE)
        except BlockingIOError:
            self.release()
            self.streak /= 2
            return -1
        except OSError:
            self.flow.broke(self)
            return -1
        if not size:
            self.release()
            return 0
        self.piped = size
        self._taken(size)
        try:
            while self.piped:
                self._pipe_to_other()
        except BlockingIOError:
            self._block()
            return -1
        except OSError:
            self.flow.broke(self.other)
            return -1
        return size

    def _taken(self, size: int) -> None:
        """So many bytes are in the pipe."""
        self.streak += size
        if size >= BULK_MIN:
            self.full_reads = BULK_KEPT
        else:
            self.full_reads -= 1
            if self.full_reads < BULK_AFTER:
                self.full_reads = 0

    def _pipe_to_other(self) -> None:
        assert self.pipe is not None
        sent = os.splice(self.pipe.reader, self.other.fd, self.piped, flags=_SPLICE)
        self.piped -= sent
        self.moved += sent

    def _yield(self) -> None:
        """Let the others have a turn; the socket may hold more, and no edge will tell."""
        self.release()
        self.queued = True
        self.flow.reactor.resume_later(self)

    def _block(self) -> None:
        """The other side is full: stop reading here until it drains."""
        self.blocked = True
        other = self.other
        if not other.watches_out:
            other.watches_out = True
            self.flow.reactor.change_mask(other.fd, READ_WRITE)

    def _end(self) -> None:
        self.ended = True
        self.flow.ended(self)

    def _go_urgent(self) -> None:
        """Copy from now on: splice would stop at the mark. sockets.tune keeps the byte in line."""
        self.urgent = True
        self.full_reads = 0


class PlainSide(Side):
    """A side of a plain flow, which goes back to a pump of pairs when nothing unusual is left."""

    __slots__ = ()

    def on_event(self, mask: int) -> None:
        if mask & _UNUSUAL or not self.flow.become_pair():
            super().on_event(mask)


def join(client: Side, target: Side, held: bytes, moved: int, *, watched: bool) -> None:
    """Make two sides the ends of one flow, and watch the target's.

    The target took `moved` bytes of the client's already; `held` wait until it takes more.
    `watched`: it is watched, for reading and writing.
    """
    client.other, target.other = target, client
    client.streak = math.inf  # uploads took a quarter more CPU through small pipes
    client.moved, client.held = moved, held
    client.blocked = is_full = bool(held)
    target.watches_out = watched or is_full
    reactor = client.flow.reactor
    if watched:
        reactor.change_handler(target.fd, target)
    else:
        reactor.watch(target.fd, READ_WRITE if is_full else READ, target)
