"""The targets of all forwards in a process: one for those that have the same."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Hashable, Iterable
from functools import partial

from v6fwd.log import Log
from v6fwd.model import ClientIP, Forward
from v6fwd.relay.reactor import Reactor
from v6fwd.relay.target import DirectTarget, Target
from v6fwd.relay.transparent.privileged import PrivilegedOps


class Targets:
    """Makes targets when forwards need them, and closes those that nobody needs any more."""

    def __init__(self, reactor: Reactor, log: Log) -> None:
        self._reactor = reactor
        self._log = log
        self.privileged_ops: PrivilegedOps | None = None
        """What does privileged operations for this process; None: it has the privileges itself."""
        self._targets: dict[Hashable, Target] = {}
        self._make_transparent: Callable[[Forward], Target] | None = None
        self._close_transparent: Callable[[], None] | None = None

    def of(self, forward: Forward) -> Target:
        """The target of a forward; its addresses may not be known yet."""
        key = _key(forward)
        if key not in self._targets:
            self._targets[key] = self._make(forward)
        return self._targets[key]

    def resolving(self, forward: Forward) -> Target:
        """The same; a name is resolved in the background."""
        target = self.of(forward)
        if not len(target):
            target.resolve_later(lambda: self._tell_unresolved(forward, target))
        return target

    async def resolve(self, forwards: Iterable[Forward]) -> None:
        """Learn the addresses of targets. Raises RelayError."""
        targets = {self.of(forward) for forward in forwards}
        await asyncio.gather(*(target.resolve() for target in targets))

    def leave_unused(
        self, open_forwards: Iterable[Forward], live: Callable[[], Iterable[Forward]]
    ) -> bool:
        """Close the targets that no open forward leads to, as soon as no flow does, either.

        `live` gives the forwards that flows began with, which may be older than the open ones.
        True: flows still need one of them; ask again later.
        """
        used = {_key(forward) for forward in open_forwards}
        unused = {key: target for key, target in self._targets.items() if key not in used}
        needed: set[Hashable] = set()
        if any(target.holds for target in unused.values()):
            forwards = {id(forward): forward for forward in live()}  # few, of many flows
            needed = {_key(forward) for forward in forwards.values()}
        waits = False
        for key, target in unused.items():
            if target.holds and key in needed:
                waits = True
            else:
                self._targets.pop(key).close()
        return waits

    def close(self) -> None:
        """Give everything back."""
        for target in self._targets.values():
            target.close()
        if self._close_transparent is not None:
            self._close_transparent()

    def _make(self, forward: Forward) -> Target:
        if forward.client_ip is not ClientIP.TRANSPARENT:
            return DirectTarget(forward.target, self._reactor)
        if self._make_transparent is None:
            # Imported on demand: it is a sixth of the relay, and brings SQLite along.
            from v6fwd.relay.transparent.choose import make_target
            from v6fwd.relay.transparent.resources import TransparentResources

            shared = TransparentResources(self._reactor, self._log, self.privileged_ops)
            self._make_transparent = partial(make_target, resources=shared)
            self._close_transparent = shared.close
        return self._make_transparent(forward)

    def _tell_unresolved(self, forward: Forward, target: Target) -> None:
        if not len(target):
            self._log.warning(
                "unresolved",
                f"cannot resolve target {forward.target} of {forward.listen} yet",
                target=forward.target,
                listen=forward.listen,
            )


def _key(forward: Forward) -> Hashable:
    """What two forwards have in common that share a Target."""
    is_transparent = forward.client_ip is ClientIP.TRANSPARENT
    return forward.target, forward.transparent if is_transparent else None
