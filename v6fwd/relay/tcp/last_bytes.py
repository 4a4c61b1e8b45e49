"""What the peer of a broken connection had sent, on its way to the other end of the flow.

A server that refuses an upload answers and closes: the client's unread bytes make that a reset, and
our next write to the server fails (EPIPE, ECONNRESET). The answer is in our receive queue by then,
and tcp_recvmsg() in Linux gives what is there before it tells of the reset. So the other direction
is read to its end. The reset follows when the survivor has acknowledged every byte: SO_LINGER with
0 seconds drops what waits in the send queue.
"""

from __future__ import annotations

import fcntl
import select
import struct
import termios
from typing import TYPE_CHECKING, Protocol

from v6fwd.relay.reactor import Reactor
from v6fwd.relay.tcp.side import Side

if TYPE_CHECKING:
    import asyncio

LOOK_INTERVAL = 0.02
"""Seconds between two looks at the send queue: epoll does not tell that it is empty."""
PATIENCE = 10.0
"""Seconds in which the survivor must acknowledge something; a path may lose a few segments."""


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

    __slots__ = ("_broken", "_flow", "_since", "_timer", "_unsent")

    def __init__(self, flow: LastBytesEvents, broken: Side) -> None:
        self._flow = flow
        self._broken = broken
        self._unsent = -1  # bytes in the survivor's send queue at the last look; -1: none yet
        self._since = 0.0
        self._timer: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Read what is left. May report before it returns."""
        broken = self._broken
        broken.other.mute()
        if broken.ended and not broken.blocked:
            self.read()
        elif not (broken.blocked or broken.queued):  # else it goes on when it drains, or by itself
            broken.go_on()

    def broke(self, side: Side) -> None:
        """Go on after another failure: of the survivor, or of reading what is left."""
        if side is self._broken:
            self.read()
        else:
            self._report()

    def read(self) -> None:
        """Wait for the survivor's send queue to be empty: all is read and written."""
        if self._timer is None:
            self._look()

    def stop(self) -> None:
        """Report nothing any more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _look(self) -> None:
        reactor, unsent = self._flow.reactor, unsent_bytes(self._broken.other.fd)
        now = reactor.clock()
        if unsent < self._unsent or self._unsent < 0:
            self._unsent, self._since = unsent, now
        if not unsent or now - self._since >= PATIENCE:
            self._report()
        else:
            self._timer = reactor.loop.call_later(LOOK_INTERVAL, self._look_again)

    def _look_again(self) -> None:
        self._flow.reactor.attempt(self._flow, self._look)

    def _report(self) -> None:
        self.stop()
        self._flow.last_bytes_arrived(self._broken)


def is_hung_up(fd: int) -> bool:
    """Whether the connection is over both ways, and not just this call has failed (ENOMEM).

    poll(2): POLLHUP after a reset or a time-out of TCP, and when the peer of a unix socket is gone.
    """
    poll = select.poll()
    poll.register(fd, 0)
    return any(mask & select.POLLHUP for _, mask in poll.poll(0))


def unsent_bytes(fd: int) -> int:
    """Bytes that the peer has not acknowledged (tcp(7), SIOCOUTQ); 0 if that cannot be told."""
    try:
        return int(struct.unpack("i", fcntl.ioctl(fd, termios.TIOCOUTQ, b"\0\0\0\0"))[0])
    except OSError:
        return 0
