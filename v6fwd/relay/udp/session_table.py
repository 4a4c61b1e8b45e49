"""All UDP sessions of the process: how many there may be, who goes first, and when.

Nothing ends a UDP session but time, and anybody can forge a source. So sessions have a rank:

    0  only the client has spoken: anybody, and any address
    1  the target has answered: still any address, if it answers whoever asks, as DNS does
    2  the client spoke after an answer: it gets them, so the address is its own

When room is needed the lowest rank gives way, its least recently used session first, and the
lower two ranks have a bound of their own: a flood of forged sources competes with itself.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict, deque
from collections.abc import Iterator
from typing import Protocol

from v6fwd.relay.ends import End
from v6fwd.relay.reactor import Reactor

UNPROVEN_MOST = 16_384
"""Sessions below rank 2. A session costs about 4 KB, most of it in the kernel."""
TICKS = 16
"""A session ends after the timeout, this fraction of it later at most."""

ASKED, ANSWERED, PROVEN = range(3)


class Session(Protocol):
    """What the table needs to know of a session."""

    rank: int
    stamp: int

    def close(self, end: End) -> None:
        """Give everything back and leave the table; `end` is for the log."""


class Sessions:
    """The table; a session moves to its rank's end when it moves a datagram.

    `stamp` is a coarse clock: it counts ticks and, because only a new client makes somebody go,
    new clients. Whoever carries the present stamp need not be moved: a busy session nearly always.
    """

    def __init__(self, reactor: Reactor, timeout: float, limit: int) -> None:
        self._reactor = reactor
        self.set_limit(limit)
        self._interval = timeout / TICKS
        self._ranks: tuple[OrderedDict[Session, None], ...] = tuple(OrderedDict() for _ in range(3))
        self._timer: asyncio.TimerHandle | None = None
        self._past: deque[int] = deque(maxlen=TICKS + 1)
        self._due = 0.0
        self.stamp = 0
        self.evicted = 0

    def set_limit(self, limit: int) -> None:
        """Allow for so many from now on."""
        self._limit = limit
        self._unproven_most = min(limit, UNPROVEN_MOST)

    def __len__(self) -> int:
        asked, answered, proven = self._ranks
        return len(asked) + len(answered) + len(proven)

    def __iter__(self) -> Iterator[Session]:
        """Lowest rank first, and in it the least recently used."""
        return (session for rank in self._ranks for session in rank)

    def make_room(self) -> None:
        """End a session if that is needed for a new one."""
        asked, answered, proven = self._ranks
        unproven = len(asked) + len(answered)
        if unproven >= self._unproven_most or unproven + len(proven) >= self._limit:
            self.evict()

    def evict(self) -> bool:
        """End the least recently used session of the lowest rank; False if there is none."""
        for rank in self._ranks:
            if rank:
                self.evicted += 1
                next(iter(rank)).close(End.EVICTED)
                return True
        return False

    def add(self, session: Session) -> None:
        """A session has started."""
        self.stamp += 1
        session.stamp = self.stamp
        self._ranks[session.rank][session] = None
        if self._timer is None:
            self._past.clear()
            self._due = self._reactor.clock() + self._interval
            self._arm(self._interval)

    def touch(self, session: Session) -> None:
        """A session whose stamp is old has moved a datagram."""
        session.stamp = self.stamp
        self._ranks[session.rank].move_to_end(session)

    def promote(self, session: Session, rank: int) -> None:
        """A session has shown more of itself."""
        del self._ranks[session.rank][session]
        session.rank, session.stamp = rank, self.stamp
        self._ranks[rank][session] = None

    def remove(self, session: Session) -> None:
        """A session has ended."""
        self._ranks[session.rank].pop(session, None)

    def close_all(self, end: End) -> int:
        """End every session; gives how many there were."""
        sessions = list(self)
        for session in sessions:
            session.close(end)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        return len(sessions)

    def _arm(self, delay: float) -> None:
        self._timer = self._reactor.loop.call_later(max(0.001, delay), self._tick)

    def _tick(self) -> None:
        """Every `interval`: whoever was last touched more than `timeout` ago is done."""
        self._timer = None
        now = self._reactor.clock()
        if now >= self._due:
            self._due = now + self._interval
            self._past.append(self.stamp)
            self.stamp += 1
            if len(self._past) > TICKS:
                self._expire(self._past[0])
        if len(self):
            self._arm(self._due - now)

    def _expire(self, stamp: int) -> None:
        for rank in self._ranks:
            while rank:
                session = next(iter(rank))
                if session.stamp > stamp:
                    break
                session.close(End.EXPIRED)
