"""Reads the hop limits of new clients' datagrams, while relays are counted (limits/hops.py)."""

from __future__ import annotations

from v6fwd.model.lean import TYPE_CHECKING
from v6fwd.relay.limits.hops import TRIAL, Hops
from v6fwd.relay.udp.pktinfo import Family, hear_hop_limits

if TYPE_CHECKING:
    import asyncio


class HopLimits:
    """Asks the kernel for them, but not for long: known clients' datagrams cost more meanwhile."""

    def __init__(self, fd: int, family: Family) -> None:
        self._fd = fd
        self._family = family
        self._hears: asyncio.TimerHandle | None = None

    def info(
        self, meta: bytes, control_size: int, hops: Hops, loop: asyncio.AbstractEventLoop
    ) -> bytes:
        """The pktinfo of a datagram; behind it one byte, its hop limit, if it is heard."""
        info = self._family.read(meta, 0, control_size)[1]
        if not hops.is_on:
            return info
        if self._hears is None:
            hear_hop_limits(self._fd, True)
            self._hears = loop.call_later(TRIAL, self.close)
        return info + self._family.hop_limit(meta, 0, control_size)

    def close(self) -> None:
        """Ask no more."""
        if self._hears is not None:
            self._hears.cancel()
            self._hears = None
            hear_hop_limits(self._fd, False)
