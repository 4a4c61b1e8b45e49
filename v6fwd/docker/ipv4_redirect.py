"""Which ports' IPv4 clients come to us, kept as it should be; see nat for how."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

from v6fwd.docker.nft import Nat
from v6fwd.errors import RelayError
from v6fwd.log import Log
from v6fwd.model import Endpoint

TOGETHER = 0.05
"""Seconds that a change waits for others: `docker rm` ends 200 ports one after the other."""
AGAIN = 5.0
"""Seconds until a change that failed is tried again."""


class Ipv4Redirect:
    """Brings nft's table into line with what is wanted. The supervisor waits for nft meanwhile:
    some milliseconds, in which the workers serve as ever."""

    def __init__(self, log: Log, nat: Nat | None = None) -> None:
        self._nat = nat or Nat()
        self._log = log
        self._wanted: frozenset[Endpoint] = frozenset()
        self._there: frozenset[Endpoint] | None = None
        """None: nobody knows; a crash may have left some."""
        self._has_worked = False
        self._timer: asyncio.TimerHandle | None = None

    def want(self, endpoints: Iterable[Endpoint], *, at_once: bool = True) -> None:
        """Divert the IPv4 clients of these, and of nobody else."""
        self._wanted = frozenset(endpoints)
        if at_once:
            self._apply()
        elif self._timer is None and self._wanted != self._there:
            self._later(TOGETHER)

    def close(self, *, keep: bool) -> None:
        """No more changes; `keep`: what is there stays, for a successor."""
        self._cancel()
        if not keep:
            self.want(())
            self._cancel()

    def _apply(self) -> None:
        self._cancel()
        if self._wanted == self._there:
            return
        try:
            self._change()
        except RelayError as error:
            self._there = None
            if self._wanted or self._has_worked:  # else: no nft, so nobody has left anything
                self._tell(error)
                self._later(AGAIN)
        else:
            self._there = self._wanted
            self._has_worked = True

    def _tell(self, error: RelayError) -> None:
        if self._wanted:
            text = f"IPv4 clients go to the containers without a header: {error}"
        else:
            text = f"IPv4 clients of ports that are closed still come to us: {error}"
        self._log.limited("nat", "not-diverted", text, burst=1)

    def _change(self) -> None:
        if not self._wanted:
            self._nat.close()
        elif not self._there:
            self._nat.reset(self._wanted)
        else:
            self._nat.add(*self._wanted - self._there)
            self._nat.remove(*self._there - self._wanted)

    def _later(self, seconds: float) -> None:
        self._timer = asyncio.get_running_loop().call_later(seconds, self._apply)

    def _cancel(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
