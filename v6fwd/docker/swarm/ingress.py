"""Reads what the local Engine knows of the ingress network: services, tasks, nodes. Pure.

The answer to GET /networks/ingress?verbose=true is made of the gossip of all nodes, so all of it is
foreign: names and addresses that are none void the whole answer.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

_PORT_RE = re.compile(r"Target: ([0-9]{1,5}), Publish: ([0-9]{1,5})", re.ASCII)
_NAME_RE = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,127}", re.ASCII)
_CONTAINER_RE = re.compile(r"[0-9a-f]{64}", re.ASCII)
_SANDBOX, _ENDPOINT = "ingress-sbox", "ingress-endpoint"
"""What the Engine calls its own end of the network, and the gossip that of each node."""
_MOST = 10_000
"""Services, and tasks of one: a swarm has fewer."""


@dataclass(frozen=True, slots=True)
class Task:
    """A task of a service: its address in the ingress network, and that of its node."""

    address: str
    node: str


@dataclass(frozen=True, slots=True)
class Service:
    """A service with ports in the mesh."""

    name: str
    ports: tuple[tuple[int, int], ...]
    """Published port and the tasks' port."""
    tasks: tuple[Task, ...]


@dataclass(frozen=True, slots=True)
class Ingress:
    """The ingress network, as one node sees it."""

    network: ipaddress.IPv4Network
    own: str
    """This node's address in the network: that of its ingress_sbox."""
    services: tuple[Service, ...]
    nodes: Mapping[str, str]
    """Each node's address in the network, by its own address."""
    containers: Mapping[str, str]
    """The ids of this node's containers in the network, by address."""

    def is_here(self, task: Task) -> bool:
        """Whether a task is on this node."""
        return task.address in self.containers or task.node == (self.node or None)

    @property
    def node(self) -> str:
        """The address of this node; "" where the gossip does not have it yet."""
        return next((node for node, address in self.nodes.items() if address == self.own), "")


def read_ingress(answer: Any) -> Ingress:
    """Read the Engine's answer. Raises ValueError."""
    try:
        return _read(answer)
    except (AttributeError, KeyError, TypeError) as error:
        raise ValueError(f"not an ingress network: {error!r}") from None


def _read(answer: Any) -> Ingress:
    if answer["Ingress"] is not True:
        raise ValueError("not the ingress network")
    network = _network(answer["IPAM"]["Config"])
    own, containers = "", {}
    for name, each in (answer["Containers"] or {}).items():
        address = _address(each["IPv4Address"].partition("/")[0], network)
        if name == _SANDBOX:
            own = address
        elif _CONTAINER_RE.fullmatch(name):
            containers[address] = name
    if not own:
        raise ValueError("this node is not in the ingress network yet")
    gossip = _bounded(answer.get("Services") or {})
    services = tuple(_services(gossip, network))
    return Ingress(network, own, services, _nodes(gossip, network), containers)


def _nodes(gossip: Mapping[str, Any], network: ipaddress.IPv4Network) -> dict[str, str]:
    """Return the sandboxes of nodes: tasks of no service. Engine 28 leaves out its own."""
    return {
        task.node: task.address
        for service in gossip.values()
        for task in _tasks(service, network, _ENDPOINT)
    }


def _services(services: Mapping[str, Any], network: ipaddress.IPv4Network) -> Iterator[Service]:
    for name, each in sorted(services.items()):
        if not name:
            continue
        if not _NAME_RE.fullmatch(name):
            raise ValueError(f"{name[:60]!r} is no name of a service")
        ports = tuple(sorted(set(_ports(each["Ports"] or ()))))
        if ports:
            yield Service(name, ports, tuple(_tasks(each, network)))


def _ports(ports: Sequence[str]) -> Iterator[tuple[int, int]]:
    for text in ports:
        match = _PORT_RE.fullmatch(text)
        target, published = (int(match[1]), int(match[2])) if match else (0, 0)
        if not 0 < target < 65536 or not 0 < published < 65536:
            raise ValueError(f"{text[:60]!r} is no published port")
        yield published, target


def _tasks(
    service: Mapping[str, Any], network: ipaddress.IPv4Network, named: str = ""
) -> list[Task]:
    """Return its tasks; `named`: those with this name alone."""
    tasks = {
        _address(task["EndpointIP"], network): str(ipaddress.ip_address(task["Info"]["Host IP"]))
        for task in _bounded(service.get("Tasks") or ())
        if named in ("", task["Name"])
    }
    return [Task(address, node) for address, node in sorted(tasks.items())]


def _network(config: Sequence[Mapping[str, str]]) -> ipaddress.IPv4Network:
    for each in config:
        network = ipaddress.ip_network(each["Subnet"])
        if isinstance(network, ipaddress.IPv4Network):
            return network
    raise ValueError("the ingress network has no IPv4 addresses")


def _address(text: str, network: ipaddress.IPv4Network) -> str:
    address = ipaddress.IPv4Address(text)
    if address not in network:
        raise ValueError(f"{address} is not in {network}")
    return str(address)


def _bounded(some: Any) -> Any:
    if len(some) > _MOST:
        raise ValueError(f"more than {_MOST} of a kind")
    return some


def gateway_address(answer: Any) -> str:
    """Read where Docker's rule sends IPv4 clients: the sandbox's address in docker_gwbridge.

    `answer` is that to GET /networks/docker_gwbridge. Raises ValueError.
    """
    try:
        text = answer["Containers"][_SANDBOX]["IPv4Address"]
        return str(ipaddress.IPv4Address(text.partition("/")[0]))
    except (AttributeError, KeyError, TypeError) as error:
        raise ValueError(f"no address of {_SANDBOX}: {error!r}") from None
