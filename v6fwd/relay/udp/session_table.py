"""All UDP sessions of the process: how many there may be, and which one ends first.

Nothing ends a UDP session but time, and anybody can forge a source. So sessions have a rank, here
from the lowest to the highest:

    ASKED     only the client has sent: anybody, and any address
    ANSWERED  the target has answered: still any address, if it answers whoever asks, as DNS does
    REPLIED   the client sent after an answer, which it may not have seen
    PROVEN    the target answered that, too: what the client sent made sense to it

When room is needed the lowest rank gives way, its least recently used session first, and the
ranks below PROVEN have a bound of their own: a flood of forged sources competes with itself.
A target that answers anything proves forged sources, too. So of the PROVEN, the network that has
most sessions gives way (`shares`).
One port must not take the room of all: above ALPHA times what is free, as with TCP, its new clients
push out its own sessions.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Iterator
from itertools import islice

from v6fwd.log import attempt
from v6fwd.model import Address
from v6fwd.model.lean import TYPE_CHECKING, Protocol
from v6fwd.relay.counters import Counters
from v6fwd.relay.ends import End
from v6fwd.relay.limits.port_shares import ALPHA
from v6fwd.relay.reactor import Reactor
from v6fwd.relay.udp.shares import Shares

if TYPE_CHECKING:
    import asyncio

UNPROVEN_MOST = 16_384
"""Sessions below PROVEN. A session costs about 4 KB, most of it in the kernel."""
TICKS = 16
"""A session ends after the timeout, at most one such part of it later."""

LOOKED_AT = 64
"""Sessions of a rank among which one of a port is looked for. A flood's are soon found."""

ASKED, REPLIED, ANSWERED, PROVEN = range(4)
"""The next step of the two below ANSWERED is an answer: one comparison a datagram tells."""
_UPWARDS = (ASKED, ANSWERED, REPLIED, PROVEN)


class Session(Protocol):
    """What the table needs to know of a session."""

    rank: int
    stamp: int
    client: Address

    @property
    def counters(self) -> Counters:
        """Those of its port."""

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
        self._ranks: tuple[OrderedDict[Session, None], ...]
        self._ranks = tuple(OrderedDict() for _ in _UPWARDS)
        self._shares: Shares[Session] = Shares()
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
        return sum(map(len, self._ranks))

    def __iter__(self) -> Iterator[Session]:
        """Lowest rank first, and in it the least recently used."""
        return (session for rank in _UPWARDS for session in self._ranks[rank])

    def make_room(self, port: Counters | None = None) -> None:
        """End a session if that is needed for a new one of this port."""
        everybody = len(self)
        unproven = everybody - len(self._ranks[PROVEN])
        free = min(self._unproven_most - unproven, self._limit - everybody)
        own = 0 if port is None else port.flows - port.ended
        if 0 < own < everybody and own >= ALPHA * free and self._evict_of(port):
            return
        if free <= 0:
            self.evict()

    def evict_for(self, port: Counters) -> None:
        """End a session where the kernel has no room for a new one of this port.

        One of its own if it has most of all: a flood at one port costs the others nothing.
        """
        own = port.flows - port.ended
        if 2 * own < len(self) or not self._evict_of(port):
            self.evict()

    def _evict_of(self, port: Counters | None) -> bool:
        """End a session of this port, of its lowest rank; False if none is found quickly."""
        for number in _UPWARDS:
            for session in islice(self._ranks[number], LOOKED_AT):
                if session.counters is port:
                    self.evicted += 1
                    session.close(End.EVICTED)
                    return True
        return False

    def evict(self) -> bool:
        """End a session of the lowest rank; False if there is none."""
        for number in _UPWARDS:
            rank = self._ranks[number]
            if rank:
                crowded = self._shares.victim() if number == PROVEN else None
                self.evicted += 1
                (crowded or next(iter(rank))).close(End.EVICTED)
                return True
        return False

    def add(self, session: Session) -> None:
        """A session has started."""
        self.stamp += 1
        session.stamp = self.stamp
        self._ranks[session.rank][session] = None
        if session.rank == PROVEN:
            self._shares.add(session)
        if self._timer is None:
            self._past.clear()
            self._due = self._reactor.clock() + self._interval
            self._arm(self._interval)

    def touch(self, session: Session) -> None:
        """A session whose stamp is old has moved a datagram."""
        session.stamp = self.stamp
        self._ranks[session.rank].move_to_end(session)

    def promote(self, session: Session, rank: int) -> None:
        """A session has come to a higher rank."""
        del self._ranks[session.rank][session]
        session.rank, session.stamp = rank, self.stamp
        self._ranks[rank][session] = None
        if rank == PROVEN:
            self._shares.add(session)

    def remove(self, session: Session) -> None:
        """A session has ended."""
        rank = self._ranks[session.rank]
        if session in rank:
            del rank[session]
            if session.rank == PROVEN:
                self._shares.remove(session)

    def close_all(self, end: End) -> int:
        """End every session; gives how many there were."""
        sessions = list(self)
        for session in sessions:
            attempt(session.close, end)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        return len(sessions)

    def _arm(self, delay: float) -> None:
        self._timer = self._reactor.loop.call_later(max(0.001, delay), self._tick)

    def _tick(self) -> None:
        """Every `interval`: end the sessions that were last touched more than `timeout` ago."""
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
                attempt(session.close, End.EXPIRED)
                self.remove(session)  # one that failed to close is not met for ever
