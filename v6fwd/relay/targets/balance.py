"""Chooses among the tasks of a service: the order in which a new flow tries them. Pure."""

from __future__ import annotations

from _blake2 import blake2b  # hashlib brings OpenSSL, 3.4 MB
from collections import Counter

from v6fwd.model import Balance, Mesh

PASS_OVER = 10.0
"""Seconds for which a task that failed comes behind the others. The gossip of a swarm drops the
tasks of a node that died after some 8 s."""
_CLIENT = {4: 4, 16: 8}
"""Bytes of an address that name a client: a host has a whole /64 (RFC 4291, 2.5.1)."""


class Balancer:
    """Remembers whose turn it is, which tasks failed lately, and how many flows each has."""

    def __init__(self) -> None:
        self._turn = 0
        self._failed: dict[str, float] = {}  # until when
        self._flows: Counter[str] = Counter()

    def order(self, mesh: Mesh, now: float, client: bytes = b"") -> list[str]:
        """All tasks, the first choice first. `client`: its packed address, for affinity."""
        self._turn += 1
        if mesh.balance is Balance.LOCAL:
            local, remote = mesh.local, mesh.remote
            tasks = self._arranged(mesh, local, client) + self._arranged(mesh, remote, client)
        else:
            tasks = self._arranged(mesh, mesh.local + mesh.remote, client)
        if not self.has_failures(now):
            return list(tasks)
        good = [task for task in tasks if task not in self._failed]
        return [*good, *(task for task in tasks if task in self._failed)]

    def _arranged(self, mesh: Mesh, group: tuple[str, ...], client: bytes) -> tuple[str, ...]:
        if len(group) < 2:
            return group
        if mesh.affinity and client:
            return tuple(sorted(group, key=lambda task: _weight(client, task)))
        start = self._turn % len(group)
        by_turns = group[start:] + group[:start]
        if mesh.balance is Balance.LEAST_FLOWS:
            return tuple(sorted(by_turns, key=lambda task: self._flows[task]))
        return by_turns

    def has_failures(self, now: float) -> bool:
        """Whether any task is passed over."""
        if self._failed:
            self._failed = {task: due for task, due in self._failed.items() if due > now}
        return bool(self._failed)

    def began(self, task: str) -> None:
        """Count a flow of a task, from its first connect on."""
        self._flows[task] += 1

    def ended(self, task: str) -> None:
        """Count it no more."""
        self._flows[task] -= 1
        if self._flows[task] <= 0:
            del self._flows[task]

    def failed(self, task: str, now: float) -> None:
        """Pass over a task for a while."""
        self._failed[task] = now + PASS_OVER

    def answered(self, task: str) -> None:
        """A task works: it has its turn again."""
        self._failed.pop(task, None)

    def has_failed(self, task: str, now: float) -> bool:
        """Whether a task is passed over."""
        return self._failed.get(task, now) > now


def _weight(client: bytes, task: str) -> bytes:
    """Rendezvous hashing: a task that comes or goes moves its own share of the clients only."""
    named = client[: _CLIENT.get(len(client), len(client))]
    return blake2b(named + task.encode(), digest_size=8).digest()
