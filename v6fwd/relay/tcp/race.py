"""Several addresses of one target, each with a head start over the next: RFC 8305, section 5."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from v6fwd.model.lean import TYPE_CHECKING, Protocol
from v6fwd.relay.reactor import Reactor
from v6fwd.relay.sockets import is_connected, pending_error, reset_on_close
from v6fwd.relay.targets.addresses import SocketAddress
from v6fwd.relay.targets.target import Target

if TYPE_CHECKING:
    import asyncio

DELAY = 0.250
"""Seconds until the next address is tried beside a silent one: RFC 8305, section 8."""
LEAST_DELAY = 0.100
"""The least that the same section recommends."""


class Racer(Protocol):
    """Who wants a connection to one of the addresses."""

    def try_next(self) -> None:
        """The present address has been silent for the delay: leave it to the race, try another."""

    def earlier_connected(self, fd: int, mask: int) -> None:
        """An address that was left to the race is connected."""

    def earlier_failed(self, error: OSError) -> None:
        """An address that was left to the race is not there."""

    def on_exception(self, error: Exception) -> None:
        """An exception that nobody expected."""


class Race:
    """The addresses of one connect: the present one, those to come, those that are silent."""

    __slots__ = (
        "_delay",
        "_earlier",
        "_left",
        "_racer",
        "_reactor",
        "_since",
        "_target",
        "_timer",
        "at",
        "is_waiting",
    )

    def __init__(
        self,
        racer: Racer,
        reactor: Reactor,
        target: Target,
        addresses: Sequence[SocketAddress],
        limit: float,
    ) -> None:
        """`limit`: the seconds that there are for all of them; 0: as many as it takes."""
        self._racer = racer
        self._reactor = reactor
        self._target = target
        self._left = list(reversed(addresses))
        self._earlier: dict[int, SocketAddress] = {}
        self._timer: asyncio.TimerHandle | None = None
        self.is_waiting = False
        """Whether the target is to tell of others."""
        self._since = -1.0  # when all that were known had been tried
        self._delay = DELAY
        if limit:
            self._delay = max(LEAST_DELAY, min(DELAY, limit / (len(addresses) + 1)))
        self.at: SocketAddress | None = self._left.pop() if self._left else None
        """The address to be tried now; None where all have been tried."""

    @property
    def waits(self) -> bool:
        """Whether an earlier address may still answer."""
        return bool(self._earlier)

    def began(self) -> None:
        """A connect to the present address is under way."""
        self._stop_timer()
        if self._left or self._target.live is not None:
            self._timer = self._reactor.loop.call_later(self._delay, self._is_late)

    def set_aside(self, fd: int) -> None:
        """Go on to the next address, and leave the present one to the race."""
        assert self.at is not None
        self._reactor.change_handler(fd, self._Earlier(self, fd))
        self._earlier[fd] = self.at
        if self._target.live is not None:  # it may never answer, and others must not wait for it
            self._note_failed(self.at)
        self.at = self._left.pop() if self._left else None

    def failed(self) -> bool:
        """Go on to the next address: the present one failed. False where there is none."""
        self._stop_timer()
        self._note_failed(self.at)
        self.at = self._left.pop() if self._left else None
        return self.at is not None

    def waits_for_others(self, then: Callable[[], None]) -> bool:
        """Have `then` called when there may be other addresses; False where that is of no use."""
        if self._target.live is None:
            return False
        now = self._reactor.clock()
        if self._since < 0:
            self._since = now
        self.is_waiting = self.is_waiting or self._target.live.others(then, self._since)
        return self.is_waiting

    def renew(self, addresses: Iterable[SocketAddress]) -> None:
        """Go on with these, but for those that are silent."""
        silent = self._earlier.values()
        self._left = [each for each in addresses if each not in silent][::-1]
        self.at = self._left.pop() if self._left else None

    def overtakes(self, fd: int) -> None:
        """An earlier address takes the place of the present one."""
        self._note_failed(self.at)
        self.at = self._earlier.pop(fd)

    def won(self) -> None:
        """The present address answered. Those that did not are reset, and passed over."""
        if self.at is not None:
            self._target.answered(self.at)
        self.give_up()

    def give_up(self) -> None:
        """Reset all but the present address, and try no other."""
        for address in self._earlier.values():
            self._note_failed(address)
        self.close()

    def close(self) -> None:
        """Reset all but the present address; the outcome is unknown."""
        self._stop_timer()
        self._left.clear()
        while self._earlier:
            self._drop(self._earlier.popitem()[0])

    def told(self, fd: int, mask: int) -> None:
        """The kernel has connected an earlier address, or gave it up."""
        if is_connected(fd):
            self._racer.earlier_connected(fd, mask)
        elif error := pending_error(fd):
            self._note_failed(self._earlier.pop(fd))
            self._drop(fd)
            self._racer.earlier_failed(OSError(error, ""))

    def _is_late(self) -> None:
        self._timer = None
        self._reactor.attempt(self._racer, self._racer.try_next)

    def _note_failed(self, address: SocketAddress | None) -> None:
        if address is not None:
            self._target.failed(address)

    def _drop(self, fd: int) -> None:
        reset_on_close(fd)
        self._reactor.close_fd(fd)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    class _Earlier:
        """Hears the events of an address that was set aside."""

        __slots__ = ("_fd", "_race")

        def __init__(self, race: Race, fd: int) -> None:
            self._race = race
            self._fd = fd

        def on_event(self, mask: int) -> None:
            """Tell the race."""
            self._race.told(self._fd, mask)

        def on_exception(self, error: Exception) -> None:
            """Give up the flow."""
            self._race._racer.on_exception(error)
