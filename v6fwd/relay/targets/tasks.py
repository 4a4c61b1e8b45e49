"""A service of Swarm whose tasks, all on this node, see their clients at their sockets."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from v6fwd.client_ip.proxy.write import HeaderWriter
from v6fwd.model import Address, Forward, Mesh, TransparentFallback
from v6fwd.model.lean import Any
from v6fwd.relay.reactor import Reactor
from v6fwd.relay.targets.addresses import SocketAddress
from v6fwd.relay.targets.mesh import MeshTarget
from v6fwd.relay.targets.target import Target
from v6fwd.relay.transparent.privileged import PrivilegedOps

KEPT = 600.0
"""Seconds for which a task that the service has no more stays prepared: its flows go on until it
ends. What was put into a namespace goes with it."""


class TransparentTasks(MeshTarget):
    """A transparent target for each task, entered by the task's process.

    There is no fallback: a client whose address cannot be preserved is refused. Other nodes' tasks
    are entered by v6fwd there, which is told the client (`Mesh.hops`).
    """

    holds = True

    def __init__(
        self,
        forward: Forward,
        reactor: Reactor,
        ops: PrivilegedOps,
        sought: Callable[[], None],
        make: Callable[[Forward], Target],
    ) -> None:
        super().__init__(forward.target, reactor, ops, sought)
        self._forward = forward
        self._make = make
        self._tasks: dict[tuple[str, str], Target] = {}
        """By address and process id."""

    def follow(self, mesh: Mesh) -> None:
        before = set(zip(self._mesh.local, self._mesh.pids, strict=True))
        now = set(zip(mesh.local, mesh.pids, strict=True))
        for task in now - self._tasks.keys():
            target = self._tasks[task] = self._make(self._to(*task))
            target.resolve_later(_nothing)
        for task in before - now:
            self._reactor.loop.call_later(KEPT, self._forget, task)
        super().follow(mesh)

    def _to(self, address: str, pid: str) -> Forward:
        """The forward to one of the tasks."""
        target = replace(self._forward.target, host=address)
        refuse = TransparentFallback.REFUSE
        options = replace(self._forward.transparent, netns=pid, fallback=refuse)
        return replace(self._forward, target=target, transparent=options, mesh=Mesh())

    def _forget(self, task: tuple[str, str]) -> None:
        if task not in zip(self._mesh.local, self._mesh.pids, strict=True):
            target = self._tasks.pop(task, None)
            if target is not None:
                target.close()

    def _at(self, address: SocketAddress) -> Target:
        """The task at an address. Raises OSError where it has gone."""
        task = address[1][0]
        pids = dict(zip(self._mesh.local, self._mesh.pids, strict=True))
        target = self._tasks.get((task, pids.get(task, "")))
        if target is None:
            raise OSError(0, "its task has gone")
        return target

    def dial(
        self,
        address: SocketAddress | None,
        source: Address | None = None,
        hop_limit: int = 0,
        *,
        speaks: bool = False,
    ) -> int:
        address = address or self._first(source)
        if self.is_hop(address):
            return super().dial(address, source, hop_limit, speaks=speaks)
        fd = self._at(address).dial(None, source, hop_limit, speaks=speaks)
        return self._counted(fd, address)

    def connect_datagrams(self, source: Address) -> tuple[int, Any]:
        address = self._first(source)
        fd, inner = self._at(address).connect_datagrams(source)
        return self._counted(fd, address), (address, inner)

    def has_moved(self, address: Any) -> bool:
        task, inner = address
        try:
            return super().has_moved(task) or self._at(task).has_moved(inner)
        except OSError:
            return len(self) > 0

    def was_refused(self, address: Any) -> None:
        task, inner = address
        super().was_refused(task)
        try:
            self._at(task).was_refused(inner)
        except OSError:
            return

    def answered(self, address: Any) -> None:
        """`address` is a session's, with what its task calls it, or a connection's."""
        super().answered(address[0] if isinstance(address[0], tuple) else address)

    def client_left(self, address: Any, source: Address) -> None:
        task, inner = address
        for (host, _), target in self._tasks.items():
            if host == task[1][0]:
                target.client_left(inner, source)

    def shown_instead(self, source: Address) -> str:
        return next((target.shown_instead(source) for target in self._tasks.values()), "")

    def header_writer(self, writer: HeaderWriter | None) -> HeaderWriter | None:  # noqa: ARG002
        return None

    def close(self) -> None:
        super().close()
        while self._tasks:
            self._tasks.popitem()[1].close()


def _nothing() -> None:
    """Nobody waits for a task."""
