"""The targets of all forwards in a process: one for those that have the same."""

from __future__ import annotations

import socket
from collections.abc import Callable, Hashable, Iterable

from v6fwd.errors import RelayError
from v6fwd.log import Log, attempt
from v6fwd.model import ClientIP, Endpoint, Forward, Mesh, Protocol
from v6fwd.model.lean import TYPE_CHECKING
from v6fwd.relay.budget import SOCKETS_AHEAD
from v6fwd.relay.reactor import Reactor
from v6fwd.relay.targets.direct import DirectTarget
from v6fwd.relay.targets.loops import Loops
from v6fwd.relay.targets.resolver import Resolver
from v6fwd.relay.targets.target import Target

if TYPE_CHECKING:  # imported on demand: a sixth of the relay, and SQLite
    from v6fwd.relay.targets.mesh import MeshTarget
    from v6fwd.relay.transparent.privileged import PrivilegedOps
    from v6fwd.relay.transparent.resources import TransparentResources

LOOP_PAUSE = 60.0
"""Seconds for which a target is refused whose flows came in again."""


class Targets:
    """Makes targets when forwards need them, and closes those that nobody needs any more."""

    def __init__(self, reactor: Reactor, log: Log) -> None:
        self._reactor = reactor
        self._log = log
        self.privileged_ops: PrivilegedOps | None = None
        """What does privileged operations for this process; None: it has the privileges itself."""
        self._targets: dict[Hashable, Target] = {}
        self._followers: dict[Hashable, tuple[Endpoint, Callable[[Mesh], None]]] = {}
        """Of targets that are services: lead one to the tasks of now. With its listener."""
        self.sought: Callable[[Endpoint], None] = _tell_nobody
        """Called when flows of a service look for other tasks than those that are known."""
        self._resolver = Resolver()
        self._loops = Loops()
        self._looped: set[Hashable] = set()
        """Of targets whose flows came in again: they are refused for LOOP_PAUSE."""
        self._privileged: TransparentResources | None = None

    def of(self, forward: Forward) -> Target:
        """The target of a forward; its addresses may not be known yet."""
        key = _key(forward)
        if key not in self._targets:
            target = self._targets[key] = self._make(forward)
            target.on_found = lambda: self._refuse_loop(target, forward)
        if key in self._followers:
            self._lead(key, forward)
        return self._targets[key]

    def _lead(self, key: Hashable, forward: Forward) -> None:
        """Lead a service's flows to the tasks of now; those that began in another mode to nodes.

        Sessions would speak to nodes in that mode: what a client says could be taken for a header.
        """
        from dataclasses import replace  # 1 ms of a start, and this is for Swarm

        hops = forward.mesh.hops if forward.protocol is Protocol.TCP else ()
        nodes = replace(forward.mesh, local=(), remote=(), pids=(), hops=hops)
        for other, (listen, follow) in self._followers.items():
            if other == key:
                follow(forward.mesh)
            elif listen == forward.listen:
                follow(nodes)

    def resolving(self, forward: Forward) -> Target:
        """The same; a name is resolved in the background."""
        target = self.of(forward)
        if not len(target):
            target.resolve_later(lambda: self._tell_unresolved(forward, target))
        return target

    async def resolve(self, forwards: Iterable[Forward]) -> None:
        """Learn the addresses of targets. Raises RelayError."""
        from v6fwd.relay.event_loop import asyncio  # it is imported where one awaits

        targets = {self.of(forward) for forward in forwards}
        await asyncio.gather(*(target.resolve() for target in targets))

    # -- loops --

    def listens(self, key: Hashable, forward: Forward, sock: socket.socket) -> None:
        """A socket is listened on for a forward; `refuse_loops` must follow."""
        self._loops.add(key, sock, forward.protocol, self.of(forward))

    def changed(self, key: Hashable, forward: Forward) -> None:
        """A socket is listened on for another forward; `refuse_loops` must follow."""
        self._loops.change(key, self.of(forward))

    def left(self, key: Hashable) -> None:
        """A socket is listened on no more; `refuse_loops` must follow."""
        self._loops.remove(key)

    def refuse_loops(self, forwards: Iterable[Forward]) -> None:
        """Let no forward lead back to itself: addresses that do are refused, and it is logged."""
        for forward in {_key(forward): forward for forward in forwards}.values():
            self._refuse_loop(self.of(forward), forward)

    def refuse_for_a_while(self, forward: Forward) -> None:
        """Its flows came in again, and no address tells why: let no flow go there for a time."""
        key = _key(forward)
        if key not in self._targets or key in self._looped:
            return
        self._looped.add(key)
        self._refuse_loop(self._targets[key], forward)
        self._reactor.loop.call_later(LOOP_PAUSE, self._try_again, key)

    def _try_again(self, key: Hashable) -> None:
        self._looped.discard(key)
        if (target := self._targets.get(key)) is not None:
            target.refuse(())
            target.on_found()

    def check(self, forwards: Iterable[Forward]) -> None:
        """Raises RelayError where all addresses of a target lead back to the forward."""
        for forward in forwards:
            target = self.of(forward)
            if target.found and len(self._loops.leading_back(target, forward.protocol)) == len(
                target.found
            ):
                raise RelayError(_loop_text(forward))

    def _refuse_loop(self, target: Target, forward: Forward) -> None:
        if _key(forward) in self._looped:
            back = [*target.found]
        else:
            back = self._loops.leading_back(target, forward.protocol)
        target.refuse(back)
        if back:
            self._log.limited(
                f"loop {forward.target}",
                "loop",
                _loop_text(forward),
                burst=1,
                target=forward.target,
                listen=forward.listen,
            )

    # -- the end of a target --

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
                self._followers.pop(key, None)
                attempt(self._targets.pop(key).close)
        return waits

    @property
    def sockets_ahead(self) -> int:
        """How many descriptors sockets take at most that are made before a flow needs them."""
        return SOCKETS_AHEAD if self.privileged_ops is not None else 0

    def close(self) -> None:
        """Give everything back."""
        for target in self._targets.values():
            attempt(target.close)
        if self._privileged is not None:
            self._privileged.close()

    def _make(self, forward: Forward) -> Target:
        if forward.mesh.netns:
            return self._make_mesh(forward)
        if forward.client_ip is not ClientIP.TRANSPARENT or forward.target.is_absent:
            return DirectTarget(forward.target, self._reactor, self._resolver)
        from v6fwd.relay.transparent.choose import make_target

        return make_target(forward, self._shared(), self._resolver)

    def _make_mesh(self, forward: Forward) -> Target:
        from v6fwd.relay.targets.mesh import MeshTarget

        target: MeshTarget
        listen = forward.listen
        parts = self._reactor, self._shared().ops, lambda: self.sought(listen)
        if forward.client_ip is ClientIP.TRANSPARENT:
            from v6fwd.relay.targets.tasks import TransparentTasks

            target = TransparentTasks(forward, *parts, self._make)
        else:
            target = MeshTarget(forward.target, *parts)
        self._followers[_key(forward)] = listen, target.follow
        return target

    def _shared(self) -> TransparentResources:
        """What targets have in common that need privileges."""
        if self._privileged is None:
            from v6fwd.relay.transparent.resources import TransparentResources

            self._privileged = TransparentResources(self._reactor, self._log, self.privileged_ops)
        return self._privileged

    def _tell_unresolved(self, forward: Forward, target: Target) -> None:
        if not (len(target) or forward.target.is_absent):
            self._log.warning(
                "unresolved",
                f"cannot resolve target {forward.target} of {forward.listen} yet",
                target=forward.target,
                listen=forward.listen,
            )


def _tell_nobody(_: Endpoint) -> None:
    """Nobody knows of other tasks."""


def _loop_text(forward: Forward) -> str:
    return (
        f"target {forward.target} of {forward.listen} leads back to the forward itself;"
        " it must be the address of the server behind it"
    )


def _key(forward: Forward) -> Hashable:
    """What two forwards have in common that share a Target."""
    if forward.mesh.netns:
        # Its own: what a flow tells of its client must not change with the tasks.
        return forward.listen, forward.target, forward.client_ip
    is_transparent = forward.client_ip is ClientIP.TRANSPARENT
    return forward.target, forward.transparent if is_transparent else None
