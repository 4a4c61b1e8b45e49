"""Keeps the nftables tables of `nft` as they should be: which ports' IPv4 clients come to v6fwd.

What other programs do to it (`nft flush ruleset`, a firewall's restart) is undone at once.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

from v6fwd.docker.nft import Element, RedirectTable
from v6fwd.docker.nft_watch import REMOVALS, TableWatch
from v6fwd.errors import RelayError
from v6fwd.log import Log

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
        self._desired: frozenset[Element] = frozenset()
        self._required: frozenset[Element] = frozenset()
        """Those of `_desired` whose server needs it for certain; the others are a precaution."""
        self._applied: frozenset[Element] | None = None
        """None: unknown; a crash may have left some."""
        self._skeleton: object = None
        """What the tables have beside their elements, as nft lists it."""
        self._has_worked = False
        """Whether nft has ever made a change: without nft there is nothing to take back."""
        self._timer: asyncio.TimerHandle | None = None
        """A change that waits for others, or is to be tried again."""
        self._watch = TableWatch(self._table.names, self.check, types=REMOVALS)
        """Tells of changes by others, while there is anything to change."""

    def left_behind(self) -> set[Element]:
        """Return what a former daemon redirected; nothing where nft cannot tell."""
        return self._table.left_behind()

    def set(
        self,
        required: Iterable[Element],
        precaution: Iterable[Element] = (),
        *,
        at_once: bool = True,
    ) -> None:
        """Redirect the IPv4 clients of these, and of no others."""
        self._required = frozenset(required)
        self._desired = self._required | frozenset(precaution)
        if at_once:
            self._apply()
        elif self._timer is None and self._desired != self._applied:
            self._later(GATHER)

    def close(self, *, keep: bool) -> None:
        """Change nothing more; `keep`: what is applied stays."""
        self._cancel()
        if not keep:
            self.set(())
            self._cancel()
        self._watch.stop()

    def check(self) -> None:
        """Restore the tables if another program has changed it."""
        if not self._applied:
            return
        try:
            is_right = self._table.content() == (self._skeleton, self._applied)
        except RelayError:  # one is gone, or nft is
            is_right = False
        if not is_right:
            text = "another program changed the redirect of IPv4 clients; it is restored"
            self._log.limited("nat-restored", "redirect-restored", text, burst=1)
            self._applied = None
            self._apply()

    def _apply(self) -> None:
        self._cancel()
        if self._desired == self._applied:
            return
        try:
            self._change()
        except RelayError as error:
            self._applied = None
            if self._required or self._has_worked:
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
            self._watch.stop()
        elif not self._applied:
            self._table.reset(self._desired)
            self._skeleton, _ = self._table.content()
            self._watch.start()
        else:
            self._table.add(*self._desired - self._applied)
            self._table.remove(*self._applied - self._desired)

    def _later(self, seconds: float) -> None:
        self._timer = asyncio.get_running_loop().call_later(seconds, self._apply)

    def _cancel(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
