"""Decides how this node serves each port of the mesh. Pure, but for the rules' `Modes`.

- A rule that is for all tasks of a service decides on every node alike: flows go to any task, with
  the address told as the rule says.
- Otherwise the mode is a label of the tasks' containers, which only their own node can read. A node
  with tasks serves these. If they fail, or there are none, it hands flows to nodes that have some,
  by the hop: a PROXY v2 header to their v6fwd, inside the ingress network.
"""

from __future__ import annotations

import ipaddress
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from v6fwd.config import Docker
from v6fwd.docker.engine.containers import Container
from v6fwd.docker.policy.modes import Modes
from v6fwd.docker.swarm.ingress import Ingress, Service, Task
from v6fwd.model import ClientIP, Endpoint, Forward, Limits, Mesh, Protocol

UNKNOWN = "the containers of its tasks here are not known yet"
UNSEEN = (
    "the gossip does not tell the sandboxes of its tasks' nodes, as with Engine 28; write a rule"
)
UNTOLD = (
    "the gossip does not tell this node's sandbox, as with Engine 28, so that other nodes do not"
    " believe it; write a rule"
)
_ANY = "::"
_FLIPPED = 0x8000

Protocols = Mapping[int, Collection[Protocol]]
"""Which protocols a published port has; the gossip does not tell."""


@dataclass(frozen=True, slots=True)
class Planned:
    """A port of the mesh on this node: how it is served, or why not."""

    listen: Endpoint
    service: str
    forward: Forward | None = None
    """What clients are served with; None: the port is left to Docker."""
    hop: Forward | None = None
    """What other nodes' flows are served with; None: they are refused."""
    why: str = ""
    """Why `forward` is None."""
    source: str = ""
    """What decided the mode: "rule 1", "label v6fwd.client-ip", "default", "hop"."""


@dataclass(frozen=True, slots=True)
class Node:
    """What a node knows besides the gossip."""

    sandbox: str
    """The path of ingress_sbox."""
    identity: str
    containers: Sequence[Container]
    """Those that run on this node."""
    protocols: Protocols


def hop_port(port: int) -> int:
    """Return where nodes take each other's flows for a published port, inside the ingress network.

    The top bit is flipped: each port has one of its own, away from those that are mostly published,
    at which Docker's rules in the sandbox would catch it.
    """
    return port ^ _FLIPPED


class Planner:
    """Plans by rules and labels."""

    def __init__(self, modes: Modes, docker: Docker, limits: Limits) -> None:
        self._modes = modes
        self._docker = docker
        self._limits = limits

    def plan(self, ingress: Ingress, node: Node) -> Iterator[Planned]:
        """Yield all ports of the mesh."""
        uses = Counter(port for service in ingress.services for port, _ in service.ports)
        for service in ingress.services:
            for port, target in service.ports:
                for protocol in sorted(node.protocols.get(port, ())):
                    listen = Endpoint(_ANY, port, protocol=protocol)
                    if uses[port] > 1:
                        why = "several services publish it, or it leads to several ports"
                        yield Planned(listen, service.name, why=why)
                        continue
                    yield self._port(ingress, node, service, listen, target, uses)

    def _port(
        self,
        ingress: Ingress,
        node: Node,
        service: Service,
        listen: Endpoint,
        target: int,
        uses: Mapping[int, int],
    ) -> Planned:
        local = [task.address for task in service.tasks if ingress.is_here(task)]
        remote = [task for task in service.tasks if not ingress.is_here(task)]
        forward = Forward(
            listen,
            Endpoint(service.name, target, protocol=listen.protocol),
            limits=self._limits,
            mesh=Mesh(
                node.sandbox,
                node.identity,
                tuple(local),
                balance=self._docker.swarm_balance,
                affinity=self._docker.swarm_affinity,
            ),
        )
        if hop_port(listen.port) not in uses:
            # A session's datagrams are all written in one mode.
            nodes = () if local and listen.protocol is Protocol.UDP else _nodes_of(remote, ingress)
            mesh = replace(forward.mesh, hops=nodes, hop_port=hop_port(listen.port))
            forward = replace(forward, mesh=mesh)
        planned = Planned(listen, service.name)
        decided = by_rule = self._modes.of_service(forward, service.name)
        if by_rule is not None:
            tasks = tuple(task.address for task in remote)
            every = replace(by_rule, mesh=replace(by_rule.mesh, remote=tasks, hops=()))
            planned = replace(planned, forward=every, source="rule")
        elif local:
            decided, why = self._by_labels(forward, ingress, node)
            planned = replace(planned, forward=decided, why=why, source="label")
        else:
            return self._handed_over(planned, forward, ingress, remote)
        if decided is None:
            return planned
        if decided.client_ip is ClientIP.TRANSPARENT:
            if not local:
                return self._handed_over(planned, forward, ingress, remote)
            decided = _entered(decided, ingress, node)
            if decided is None:
                return replace(planned, forward=None, why=UNKNOWN)
            planned = replace(planned, forward=decided)
        return replace(planned, hop=self._hop(decided, ingress) if local else None)

    def _by_labels(
        self, forward: Forward, ingress: Ingress, node: Node
    ) -> tuple[Forward | None, str]:
        """Return the forward to tasks here in the mode that they ask for, and why there is none.

        While an update changes a label, tasks differ: those are served that are most of a kind.
        """
        running = {container.id: container for container in node.containers}
        tasks: dict[Forward, list[str]] = {}
        wrong = ""
        for task in forward.mesh.local:
            container = running.get(ingress.containers.get(task, ""))
            if container is None:  # it is starting or ending
                continue
            mode = self._modes.of_service(forward, forward.target.host, container)
            if mode is None:
                wrong = f"refused, as a label of container {container.name} is wrong"
                continue
            mode = replace(mode, transparent=replace(mode.transparent, netns=""))
            tasks.setdefault(mode, []).append(task)
        if not tasks:
            return None, wrong or UNKNOWN
        mode = max(tasks, key=lambda each: (len(tasks[each]), each.client_ip))
        return replace(mode, mesh=replace(mode.mesh, local=tuple(tasks[mode]))), ""

    def _hop(self, decided: Forward, ingress: Ingress) -> Forward:
        """Return what takes other nodes' flows to the tasks here.

        Only the sandboxes of nodes are believed; all others in the ingress network are refused.
        """
        nodes = tuple(
            ipaddress.IPv4Network(address)
            for address in sorted(ingress.nodes.values())
            if address != ingress.own
        )
        port = hop_port(decided.listen.port)
        listen = Endpoint(ingress.own, port, protocol=decided.protocol)
        guard = replace(decided.guard, deny=(*decided.guard.deny, ingress.network))
        mesh = replace(decided.mesh, remote=(), is_hop=True)
        return replace(decided, listen=listen, accept_proxy=nodes, guard=guard, mesh=mesh)

    def _handed_over(
        self, planned: Planned, forward: Forward, ingress: Ingress, remote: Sequence[Task]
    ) -> Planned:
        """Hand flows to the nodes that have tasks, and know their labels."""
        why = ""
        if not forward.mesh.hop_port:
            port = hop_port(forward.listen.port)
            why = f"port {port}, by which nodes hand its flows on, is published, too; write a rule"
        elif remote and not forward.mesh.hops:
            why = UNSEEN
        elif not ingress.node:
            why = UNTOLD
        if why:
            return replace(planned, why=why)
        mesh = replace(forward.mesh, local=())
        guard = self._docker.guard
        handed = replace(forward, mesh=mesh, client_ip=ClientIP.PROXY_V2, guard=guard)
        return replace(planned, forward=handed, source="hop")


def _nodes_of(tasks: Sequence[Task], ingress: Ingress) -> tuple[str, ...]:
    """Return the sandboxes of the nodes that have these tasks."""
    nodes = {task.node for task in tasks}
    return tuple(sorted(ingress.nodes[node] for node in nodes if node in ingress.nodes))


def _entered(decided: Forward, ingress: Ingress, node: Node) -> Forward | None:
    """Return a transparent forward to the tasks here; None while no process is known."""
    running = {container.id: container.pid for container in node.containers}
    pids = {task: running.get(ingress.containers.get(task, ""), 0) for task in decided.mesh.local}
    known = {task: str(pid) for task, pid in pids.items() if pid}
    if not known:
        return None
    mesh = replace(decided.mesh, local=tuple(known), remote=(), pids=tuple(known.values()))
    return replace(decided, mesh=mesh)
