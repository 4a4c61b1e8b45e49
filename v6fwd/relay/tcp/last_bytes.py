"""What the peer of a broken connection had sent, on its way to the other end of the flow.

A server that refuses an upload answers and closes: the client's unread bytes make that a reset, and
our next write to the server fails (EPIPE, ECONNRESET). The answer is in our receive queue by then,
and tcp_recvmsg() in Linux gives what is there before it tells of the reset. So the other direction
is read to its end. The reset follows when the survivor has acknowledged every byte: SO_LINGER with
0 seconds drops what waits in the send queue.

What the survivor still sends has nobody left to go to. It is read all the same and dropped: a
server that must write before it reads on, as one that echoes, would never take the rest. A survivor
that takes nothing for PATIENCE seconds does not get it: with no idle timeout, which is the default,
the flow would live for ever.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import select
import struct

from v6fwd.model.lean import TYPE_CHECKING, Protocol
from v6fwd.relay.reactor import Reactor
from v6fwd.relay.tcp.side import COPY_SIZE, Side, buffers

if TYPE_CHECKING:
    import asyncio

FIRST_LOOK, LAST_LOOK = 0.02, 0.32
"""Seconds between two looks at the survivor: epoll does not tell that its send queue is empty. Each
is twice the one before until it takes or says something."""
PATIENCE = 10.0
"""Seconds in which the survivor must acknowledge something; a path may lose a few segments."""
DROPS = 16
"""Full buffers of the survivor's that are dropped at one look."""


class LastBytesEvents(Protocol):
    """The flow, as far as this wait needs it."""

    @property
    def reactor(self) -> Reactor:
        """The reactor that watches both ends."""

    def last_bytes_arrived(self, broken: Side) -> None:
        """The survivor has all that the peer of `broken` had sent, or will not take it."""

    def on_exception(self, error: Exception) -> None:
        """Give up after an exception that nobody expected."""


class LastBytes:
    """Delivers them, and reports once. The flow tells it when a side `ended` or `broke` again."""

    __slots__ = (
        "_all_read",
        "_broken",
        "_flow",
        "_pause",
        "_reported",
        "_since",
        "_taken",
        "_timer",
    )

    def __init__(self, flow: LastBytesEvents, broken: Side) -> None:
        self._flow = flow
        self._broken = broken
        self._all_read = False  # and written to the survivor's socket
        self._reported = False
        self._taken = float("-inf")  # bytes that the survivor had acknowledged at the last look
        self._since = 0.0
        self._pause = FIRST_LOOK
        self._timer: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Read what is left. May report before it returns."""
        broken = self._broken
        broken.other.mute()
        if broken.ended and not broken.blocked:
            self.read()
            return
        if not (broken.blocked or broken.queued):  # else it goes on when it drains, or by itself
            broken.go_on()
        if not self._reported and self._timer is None:
            self._look()

    def broke(self, side: Side) -> None:
        """Go on after another failure: of the survivor, or of reading what is left."""
        if side is self._broken:
            self.read()
        else:
            self._report()

    def read(self) -> None:
        """Wait for the survivor's send queue to be empty: all is read and written."""
        self.stop()
        self._all_read = True
        self._look()

    def stop(self) -> None:
        """Report nothing any more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _look(self) -> None:
        reactor, survivor = self._flow.reactor, self._broken.other.fd
        if drop_unread(survivor):
            self._pause = FIRST_LOOK
        unsent, now = unsent_bytes(survivor), reactor.clock()
        if self._takes_more(self._broken.moved - unsent):
            self._since, self._pause = now, FIRST_LOOK
        if (self._all_read and not unsent) or now - self._since >= PATIENCE:
            self._report()
            return
        self._timer = reactor.loop.call_later(self._pause, self._look_again)
        self._pause = min(2 * self._pause, LAST_LOOK)

    def _takes_more(self, taken: int) -> bool:
        before, self._taken = self._taken, taken
        return taken > before

    def _look_again(self) -> None:
        self._timer = None
        self._flow.reactor.attempt(self._flow, self._look)

    def _report(self) -> None:
        self.stop()
        self._reported = True
        self._flow.last_bytes_arrived(self._broken)


def drop_unread(fd: int) -> bool:
    """Read what has come, DROPS buffers at most, for nobody. Whether there was something."""
    found = 0
    with contextlib.suppress(OSError):  # nothing is there; or it broke, and that is told elsewhere
        for _ in range(DROPS):
            size = os.readv(fd, buffers)
            found += size
            if size < COPY_SIZE:
                break
    return found > 0


def is_hung_up(fd: int) -> bool:
    """Whether the connection is over both ways, and not just this call has failed (ENOMEM).

    poll(2): POLLHUP after a reset or a time-out of TCP, and when the peer of a unix socket is gone.
    """
    poll = select.poll()
    poll.register(fd, 0)
    return any(mask & select.POLLHUP for _, mask in poll.poll(0))


def unsent_bytes(fd: int) -> int:
    """Bytes that the peer has not acknowledged (tcp(7), SIOCOUTQ); 0 if that cannot be told."""
    from termios import TIOCOUTQ  # 0.15 ms of a start

    try:
        return int(struct.unpack("i", fcntl.ioctl(fd, TIOCOUTQ, b"\0\0\0\0"))[0])
    except OSError:
        return 0
