"""Reads the Engine's list of containers. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from v6fwd.config.rules import Published
from v6fwd.model import Endpoint, Forward, Protocol

_RUNNING = ("running", "paused", "restarting")
"""States of containers that have a process."""
SERVICE = "com.docker.swarm.service.name"
"""The label by which Swarm names the service of a task's container."""
_EVERYWHERE = ("0.0.0.0", "::", "")
"""Host addresses of a port that is published for the world."""


class UnknownContainerError(LookupError):
    """A container, or its address, cannot be told; the text says why."""


class HostPort(NamedTuple):
    """A port of the host, and the container's port behind it."""

    host: str
    port: int
    target: int
    protocol: Protocol


@dataclass(frozen=True, slots=True)
class Container:
    """One of the list in /containers/json."""

    id: str
    name: str
    image: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    addresses: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """By network."""
    ports: frozenset[HostPort] = frozenset()
    """What it publishes."""
    is_running: bool = True
    pid: int = 0
    """Its first process; 0: not asked for, or not known."""
    started: int = 0
    """When that began, in clock ticks since boot; 0: not known."""

    @property
    def published(self) -> frozenset[tuple[int, int, Protocol]]:
        """Host port, container port and protocol of each port published for the world."""
        return frozenset(
            (port, target, protocol)
            for host, port, target, protocol in self.ports
            if host in _EVERYWHERE
        )

    def publishes(self, forward: Forward) -> bool:
        """Return whether a proxy of dockerd's with these two ends is for this container."""
        host, port = forward.listen.host, (forward.listen.port, forward.target.port)
        hosts = _EVERYWHERE if host in _EVERYWHERE else (host,)
        return any(HostPort(each, *port, forward.protocol) in self.ports for each in hosts)

    @property
    def hosts(self) -> list[str]:
        """Return its IP addresses in all networks."""
        return [each for some in self.addresses.values() for each in some]

    def has(self, address: str) -> bool:
        """Return whether it has this IP address."""
        return address in self.hosts

    def as_published(self, host_port: int, container_port: int, protocol: Protocol) -> Published:
        """Return one of its ports, as rules and labels describe it."""
        networks = tuple(self.addresses)
        return Published(
            host_port,
            container_port,
            protocol,
            self.name,
            self.image,
            networks,
            self.labels,
            self.labels.get(SERVICE, ""),
        )

    def address(self) -> str:
        """Return an IPv4 address where it can be reached, else an IPv6 one; "" if it has none."""
        return min(self.hosts, key=lambda each: ":" in each, default="")

    def address_in(self, network: str) -> str:
        """Return its address in a network; "": in any. Raises UnknownContainerError."""
        if network and network not in self.addresses:
            known = ", ".join(self.addresses) or "none"
            raise UnknownContainerError(
                f"container {self.name} is not in network {network}; its networks: {known}"
            )
        hosts = self.addresses[network] if network else self.hosts
        address = min(hosts, key=lambda each: ":" in each, default="")
        if not address:
            raise UnknownContainerError(
                f"container {self.name} has no address of its own: it may be in the host's network"
            )
        return address

    def shares(self, address: str, other: Container) -> bool:
        """Return whether it has an address in a network in which another one has it."""
        return any(
            address in hosts and address in other.addresses.get(network, ())
            for network, hosts in self.addresses.items()
        )


def find_named(containers: Iterable[Container], name: str) -> Container:
    """Return the container with this name, or with an id that begins so.

    Raises UnknownContainerError for none, and for several.
    """
    containers = list(containers)
    found = [each for each in containers if name in (each.name, each.id)]
    found = found or [each for each in containers if each.id.startswith(name)]
    if len(found) > 1:
        raise UnknownContainerError(f"the ids of {len(found)} containers begin with {name}")
    if not found:
        raise UnknownContainerError(f"there is no container {name}")
    return found[0]


def read_containers(items: Iterable[Mapping[str, Any]]) -> list[Container]:
    """Read the answer to GET /containers/json.

    Raises AttributeError, KeyError, TypeError or ValueError for what is no container.
    """
    return [_read(item) for item in items]


def find_containers(containers: Iterable[Container], forward: Forward) -> list[Container]:
    """Return the one that a proxy of dockerd's forwards to; several where that is ambiguous.

    A container publishes the port, and has the address in one of its networks. A task of Swarm
    with a port in mode `host` is reached in docker_gwbridge, whose addresses the Engine does not
    list, so a container that publishes the port is also found where no address tells. An address
    alone means nothing: networks may overlap.
    """
    publishing = [container for container in containers if container.publishes(forward)]
    return [each for each in publishing if each.has(forward.target.host)] or publishing


def targets(container: Container) -> dict[tuple[int, Protocol], Endpoint]:
    """Return the target of each host port that it publishes for the world."""
    host = container.address()
    if not host:
        return {}
    return {
        (host_port, protocol): Endpoint(host, port, protocol=protocol)
        for host_port, port, protocol in sorted(container.published)
    }


def _read(item: Mapping[str, Any]) -> Container:
    # Links of other containers are among them, as /other/alias.
    names = [name for name in item.get("Names") or () if name.rfind("/") < 1] or [""]
    networks = (item.get("NetworkSettings") or {}).get("Networks") or {}
    return Container(
        id=_text(item["Id"]),
        name=names[0].removeprefix("/"),
        image=_text(item.get("Image") or ""),
        labels={_text(key): _text(value) for key, value in (item.get("Labels") or {}).items()},
        addresses={name: _addresses(network) for name, network in sorted(networks.items())},
        is_running=item.get("State") in _RUNNING,
        ports=frozenset(
            HostPort(
                _text(port.get("IP", "")),
                _port(port["PublicPort"]),
                _port(port["PrivatePort"]),
                Protocol(port["Type"]),
            )
            for port in item.get("Ports") or ()
            if port.get("PublicPort") and port["Type"] in tuple(Protocol)
        ),
    )


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{str(value)[:60]!r} is not a text")
    return value


def _port(value: Any) -> int:
    if type(value) is not int or not 0 < value <= 0xFFFF:
        raise ValueError(f"{str(value)[:60]!r} is not a port")
    return value


def _addresses(network: Mapping[str, Any]) -> tuple[str, ...]:
    both = (network.get("IPAddress"), network.get("GlobalIPv6Address"))
    return tuple(_text(address) for address in both if address)
