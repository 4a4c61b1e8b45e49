"""Keeps the tasks of nodes that the gossip has lost. Pure.

A node that is slow for some seconds is dropped by the others' gossip with all its tasks, and with
services that have no others. It joins again within a second, but what it has is told only by the
next bulk sync, up to 30 s later (libnetwork, bulkSyncInterval). Its tasks serve all the time. If it
is dead, they are silent, and passed over.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from v6fwd.docker.swarm.ingress import Ingress, Service

KEEP = 40.0
"""Seconds: the next bulk sync, and 10 s for it. Swarm gives a task's address away only after it
has ended, and does so to its other addresses first."""


class LostNodes:
    """Completes each answer of the Engine by what the last ones told of nodes that it has lost."""

    def __init__(self) -> None:
        self._before: Ingress | None = None
        self._since: dict[str, float] = {}
        """Since when a node is lost, in seconds."""

    def complete(self, ingress: Ingress, now: float) -> Ingress:
        """Return the answer with the tasks of such nodes.

        A node is lost if its sandbox was told and is no more: a living one has it always.
        """
        before = self._before
        if before is not None:
            lost = before.nodes.keys() - ingress.nodes.keys() - {before.node}
            self._since = {node: self._since.get(node, now) for node in lost}
            kept = {node for node, since in self._since.items() if now - since < KEEP}
            if kept:
                nodes = {node: before.nodes[node] for node in kept}
                services = tuple(_completed(ingress, before, kept))
                ingress = replace(ingress, services=services, nodes={**nodes, **ingress.nodes})
        self._before = ingress
        return ingress


def _completed(ingress: Ingress, before: Ingress, lost: set[str]) -> Iterator[Service]:
    """Yield the services of now, and those of before, with their tasks on lost nodes."""
    taken = {task.address for service in ingress.services for task in service.tasks}
    taken |= {*ingress.containers, ingress.own, *ingress.nodes.values()}
    published = {port for service in ingress.services for port, _ in service.ports}
    known = {service.name: service for service in ingress.services}
    for name, service in {each.name: each for each in before.services}.items():
        tasks = [each for each in service.tasks if each.node in lost and each.address not in taken]
        if name in known:
            tasks = [*known[name].tasks, *tasks]
            known[name] = replace(known[name], tasks=tuple(sorted(tasks, key=lambda t: t.address)))
        elif tasks and not published & {port for port, _ in service.ports}:
            known[name] = replace(service, tasks=tuple(tasks))
    yield from known.values()
