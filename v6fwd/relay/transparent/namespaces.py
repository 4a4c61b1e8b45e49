"""The network namespaces that this process uses: each entered once, and left when nobody needs it.

A container that restarts gets a new namespace under its old name. That is noticed when a dial
fails or within LOOK_INTERVAL, and the old one is let go, so that the kernel can remove it.
"""

from __future__ import annotations

import asyncio

from v6fwd.errors import RelayError
from v6fwd.log import Log
from v6fwd.netns.policy import NetnsPolicy, PseudoRoute
from v6fwd.relay.reactor import Reactor
from v6fwd.relay.transparent.pseudo_store import PseudoStore

LOOK_INTERVAL = 1.0
"""Seconds between two looks whether the names still lead to the same namespaces."""
RETRY_INTERVAL = 0.2
"""Seconds between two attempts to enter one that cannot be entered, however many clients come."""


class Namespaces:
    """All that transparent forwards of a process share."""

    def __init__(self, reactor: Reactor, log: Log) -> None:
        self.reactor = reactor
        self.log = log
        self._users: dict[str, int] = {}
        self._inside: dict[str, NetnsPolicy] = {}
        self._failed: dict[str, tuple[float, str]] = {}
        self._stores: dict[str, PseudoStore] = {}
        self._route: PseudoRoute | None = None
        self._timer: asyncio.TimerHandle | None = None

    def join(self, name: str) -> None:
        """A forward leads to this namespace."""
        self._users[name] = self._users.get(name, 0) + 1
        if self._timer is None:
            self._timer = self.reactor.loop.call_later(LOOK_INTERVAL, self._look)

    def leave(self, name: str) -> None:
        """The forward has gone; with the last one go the rules."""
        self._users[name] -= 1
        if not self._users[name]:
            del self._users[name]
            self._drop(name)

    def inside(self, name: str) -> NetnsPolicy:
        """The namespace, entered. Raises RelayError where that cannot be."""
        found = self._inside.get(name)
        if found is not None:
            return found
        now = self.reactor.clock()
        since, why = self._failed.get(name, (float("-inf"), ""))
        if now - since < RETRY_INTERVAL:
            raise RelayError(why)
        try:
            found = self._inside[name] = NetnsPolicy(name)
        except RelayError as error:
            self._failed[name] = (now, str(error))
            raise
        if self._failed.pop(name, None):
            self.log.info("netns", f"network namespace {name} is there", netns=name)
        return found

    def check(self, name: str) -> None:
        """Let go of the namespace if its name leads elsewhere by now."""
        inside = self._inside.get(name)
        if inside is not None and inside.namespace.is_gone():
            self._drop(name)
            self._failed[name] = (float("-inf"), "gone")
            self.log.info("netns-gone", f"network namespace {name} has gone", netns=name)

    def store(self, path: str) -> PseudoStore:
        """The store of pseudo addresses. Raises RelayError."""
        found = self._stores.get(path)
        if found is None:
            found = self._stores[path] = PseudoStore(path)
            found.write_seen_from(self.reactor.loop)
        return found

    def speak_as_pseudo(self) -> None:
        """Make pseudo addresses ours to speak from in our own namespace. Raises RelayError."""
        if self._route is None:
            self._route = PseudoRoute()

    def close(self) -> None:
        """Undo everything."""
        if self._timer is not None:
            self._timer.cancel()
        for name in list(self._inside):
            self._drop(name)
        if self._route is not None:
            self._route.close()
            self._route = None
        for store in self._stores.values():
            store.close()
        self._stores.clear()

    def _drop(self, name: str) -> None:
        inside = self._inside.pop(name, None)
        if inside is not None:
            inside.close()

    def _look(self) -> None:
        for name in list(self._inside):
            self.check(name)
        self._timer = None
        if self._users:
            self._timer = self.reactor.loop.call_later(LOOK_INTERVAL, self._look)
