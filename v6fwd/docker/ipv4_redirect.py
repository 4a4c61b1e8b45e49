"""Keeps the nftables table of `nft` as it should be: which ports' IPv4 clients come to v6fwd."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

from v6fwd.docker.nft import RedirectTable
from v6fwd.errors import RelayError
from v6fwd.log import Log
from v6fwd.model import Endpoint

GATHER = 0.05
"""Seconds that a change waits for others: `docker rm` ends 200 ports one after the other."""
RETRY = 5.0
"""Seconds until a change that failed is tried again."""


class Ipv4Redirect:
    """Makes what is applied equal what is desired.

    The supervisor waits for nft(8): some milliseconds, in which the workers go on serving.
    """

    def __init__(self, log: Log, table: RedirectTable | None = None) -> None:
        self._table = table or RedirectTable()
        self._log = log
        self._desired: frozenset[Endpoint] = frozenset()
        self._applied: frozenset[Endpoint] | None = None
        """None: unknown; a crash may have left some."""
        self._has_worked = False
        """Whether nft has ever made a change: without nft there is nothing to take back."""
        self._timer: asyncio.TimerHandle | None = None
        """A change that waits for others, or is to be tried again."""

    def set(self, listens: Iterable[Endpoint], *, at_once: bool = True) -> None:
        """Redirect the IPv4 clients of these listeners, and of no others."""
        self._desired = frozenset(listens)
        if at_once:
            self._apply()
        elif self._timer is None and self._desired != self._applied:
            self._later(GATHER)

    def close(self, *, keep: bool) -> None:
        """Change nothing more; `keep`: what is applied stays, for a successor."""
        self._cancel()
        if not keep:
            self.set(())
            self._cancel()

    def _apply(self) -> None:
        self._cancel()
        if self._desired == self._applied:
            return
        try:
            self._change()
        except RelayError as error:
            self._applied = None
            if self._desired or self._has_worked:
                self._warn(error)
                self._later(RETRY)
        else:
            self._applied = self._desired
            self._has_worked = True

    def _warn(self, error: RelayError) -> None:
        if self._desired:
            text = f"IPv4 clients reach the containers without a header: {error}"
        else:
            text = f"IPv4 clients of closed ports are still redirected: {error}"
        self._log.limited("nat", "not-diverted", text, burst=1)

    def _change(self) -> None:
        if not self._desired:
            self._table.close()
        elif not self._applied:
            self._table.reset(self._desired)
        else:
            self._table.add(*self._desired - self._applied)
            self._table.remove(*self._applied - self._desired)

    def _later(self, seconds: float) -> None:
        self._timer = asyncio.get_running_loop().call_later(seconds, self._apply)

    def _cancel(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
