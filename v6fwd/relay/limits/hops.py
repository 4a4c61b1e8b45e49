"""Ends loops that lead through several processes: counts the relays that a flow has come through.

The count is in the hop limit (IPv4: TTL) of what we send to a target. Another v6fwd sees it, and
sends one less. Systems begin with 64, 128 or 255 and a path takes some 40 routers at most, so
nobody else's packets arrive with 153 to 200. What a client forges costs that client alone.

Counting costs a flow a system call, or two. So it begins when many flows do, and stops if nobody
counts with us.
"""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Callable

from v6fwd.relay.sockets import int_option

START = 200
"""The hop limit from the first relay to the second."""
MOST = 32
"""Relays, and routers between them, that a flow may come through: a chain of so many is none."""
MANY = 64
"""Flows within a second from which on relays are counted. A loop makes thousands a second."""
TRIAL = 2.0
"""Seconds for which relays are counted, and again if a count came in; 2 ticks of the LoopWatch."""
QUIET = 8.0
"""Seconds without counting after a trial in which no count came in, however many flows begin."""

SAMPLE = 8
"""Clients of which one is asked for its count while none has come in. A loop soon meets it."""

_OURS = range(START - MOST - 15, START + 1)
_MULTICAST_HOPS = (  # of an accepted socket: that of the packet that made it, tcp_v6_syn_recv_sock
    (socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_HOPS),
    (socket.IPPROTO_IP, socket.IP_MULTICAST_TTL),
)


class Hops:
    """Whether relays are counted at the moment, and the count. One for all flows of a process."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self.is_on = False
        self._left = MANY
        self._since = self._quiet_until = self._until = float("-inf")
        self._seen = False
        self._unread = 1  # clients until the next that is asked

    def began(self) -> None:
        """Note that a flow begins."""
        self._left -= 1
        if not self._left:
            self._look()

    def suspect(self) -> None:
        """Count from now on: flows have become many."""
        if not self.is_on:
            self.is_on, self._seen, self._unread = True, False, 1
            self._until = self._clock() + TRIAL

    def _look(self) -> None:
        now = self._clock()
        are_many = now - self._since < 1.0
        self._since, self._left = now, MANY
        if not are_many:
            self.is_on = False
        elif not self.is_on:
            if now >= self._quiet_until:
                self.suspect()
        elif now >= self._until:
            self.is_on = False
            if self._seen:
                self.suspect()
            else:
                self._quiet_until = now + QUIET

    def onward_of(self, fd: int) -> int:
        """The same as `onward` for an accepted TCP client.

        What we send has a count always; what came is read of one client in SAMPLE until one has a
        count, and then of all: reading costs as much as all else that counting does.
        """
        if not self._seen:
            self._unread -= 1
            if self._unread:
                return START
            self._unread = SAMPLE
        return self.onward(received_hop_limit(fd))

    def onward(self, received: int) -> int:
        """The hop limit towards the target for a flow that came with `received`; 0: it loops."""
        if received not in _OURS:
            return START
        self._seen = True
        return received - 1 if received > START - MOST else 0


def loop_text(listen: object, target: object) -> str:
    """Why a flow goes no further."""
    return f"it has come through {MOST} relays: {listen} and its target {target} are part of a loop"


def received_hop_limit(fd: int) -> int:
    """The hop limit with which an accepted TCP client's packets came; 0: unknown."""
    for option in _MULTICAST_HOPS:
        with contextlib.suppress(OSError):  # the socket is of the other family
            return int_option(fd, *option)
    return 0


def set_hop_limit_of(fd: int, limit: int) -> None:
    """As `set_hop_limit`, for a descriptor."""
    sock = socket.SocketType(socket.AF_INET6, socket.SOCK_DGRAM, 0, fd)
    try:
        set_hop_limit(sock, limit)
    finally:
        sock.detach()


def set_hop_limit(sock: socket.SocketType, limit: int) -> None:
    """Set the hop limit of what is sent, whatever the family; a v4-mapped target has a TTL."""
    if sock.family == socket.AF_INET6:
        with contextlib.suppress(OSError):  # `set_hop_limit_of` does not know the family
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_UNICAST_HOPS, limit)
    with contextlib.suppress(OSError):
        sock.setsockopt(socket.IPPROTO_IP, socket.IP_TTL, limit)
