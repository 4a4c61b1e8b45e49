"""What `v6fwd docker status` and the metrics tell of a swarm, as its gossip has it. Pure."""

from __future__ import annotations

from collections import Counter
from typing import Any

from v6fwd.docker.swarm.ingress import Ingress


def services(ingress: Ingress) -> list[dict[str, Any]]:
    """Return the services that publish ports in the mesh, with how many tasks they have."""
    return [
        {
            "service": service.name,
            "ports": [port for port, _ in service.ports],
            "here": sum(map(ingress.is_here, service.tasks)),
            "elsewhere": sum(not ingress.is_here(task) for task in service.tasks),
        }
        for service in ingress.services
    ]


def nodes(ingress: Ingress) -> list[dict[str, Any]]:
    """Return the nodes, this one first, with how many tasks of these services each has.

    The address of this node is "" where the gossip leaves it out.
    """
    tasks = Counter(
        ingress.node if ingress.is_here(task) else task.node
        for service in ingress.services
        for task in service.tasks
    )
    others = sorted((ingress.nodes.keys() | tasks.keys()) - {ingress.node})
    return [
        {"node": node, "here": node == ingress.node, "tasks": tasks[node]}
        for node in (ingress.node, *others)
    ]
