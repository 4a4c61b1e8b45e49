"""The host as the checks see it: plain values. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias, TypeVar

from v6fwd.config.rules import Rule
from v6fwd.docker.shim.published import PublishedPort
from v6fwd.doctor.configs import ConfigFile
from v6fwd.model import Protocol
from v6fwd.netns.owners import Process
from v6fwd.netns.view import Device, DeviceAddress, Listening, Route, RoutingRule

_Value = TypeVar("_Value")
ROOTLESS_KIT = "rootlesskit"
"""The program that has the ports of a rootless Docker, with its builtin port driver."""
_DOCKERDS = (2375, 2376, 2377, 4789, 7946, 9323)
"""Ports on which dockerd itself takes clients: its API, Swarm's traffic, its metrics."""
_RELAYS = ("v6fwd", ROOTLESS_KIT, "slirp4netns")
"""Programs whose listening sockets are published or forwarded ports."""


@dataclass(frozen=True, slots=True)
class Unknown:
    """Could not be looked at; `why` is for people."""

    why: str


Maybe: TypeAlias = _Value | Unknown


def known(value: Maybe[_Value]) -> _Value | None:
    """The value, None where it could not be looked at."""
    return None if isinstance(value, Unknown) else value


@dataclass(frozen=True, slots=True)
class Port:
    """A port that clients are to reach."""

    number: int
    protocol: Protocol = Protocol.TCP

    def __str__(self) -> str:
        slash = "" if self.protocol is Protocol.TCP else "/udp"
        return f"{self.number}{slash}"

    @property
    def slashed(self) -> str:
        """As firewalls name it: 8080/tcp."""
        return f"{self.number}/{self.protocol}"


@dataclass(frozen=True, slots=True)
class DaemonJson:
    """dockerd's file: what it says, and when it was written. `error`: why it cannot be read."""

    path: str
    values: Mapping[str, Any] = field(default_factory=dict)
    written: float = 0.0
    error: str = ""


@dataclass(frozen=True, slots=True)
class Engine:
    """What Docker answers; lists as its API has them."""

    host: str
    containers: tuple[Mapping[str, Any], ...] = ()
    networks: tuple[Mapping[str, Any], ...] = ()
    info: Mapping[str, Any] = field(default_factory=dict)
    details: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """By id: the containers themselves, as far as there was time."""

    @property
    def is_rootless(self) -> bool:
        """Whether dockerd is a user's, in namespaces of his own."""
        return "name=rootless" in (self.info.get("SecurityOptions") or ())


def is_of_this_host(socket: Listening) -> bool:
    """Whether none but this host's own programs, or those of one link, reach a socket."""
    return socket.host.startswith(("127.", "fe80:")) or socket.host == "::1"


def is_ingress(socket: Listening, owner: Process) -> bool:
    """Whether dockerd keeps an ingress port of Swarm's with it: its own ports are others."""
    is_kept = owner.name == "dockerd" and socket.is_any and 6 in socket.families
    return is_kept and socket.port not in _DOCKERDS


@dataclass(frozen=True, slots=True)
class Facts:
    """Everything that was read. What was not asked for is empty.

    Large because each source has a field of its own, and nothing else decides about them.
    """

    named: tuple[Port, ...] = ()
    """Ports that the user asks about."""
    sysctls: Mapping[str, str] = field(default_factory=dict)
    """Below /proc/sys, by path: net/ipv6/bindv6only."""
    devices: tuple[Device, ...] = ()
    addresses: tuple[DeviceAddress, ...] = ()
    routes: tuple[Route, ...] = ()
    rules: tuple[RoutingRule, ...] = ()
    listening: Maybe[tuple[Listening, ...]] = ()
    owners: Mapping[int, Process] = field(default_factory=dict)
    """Whose a listening socket is, by its inode; as far as /proc shows it."""
    nft: Maybe[tuple[Mapping[str, Any], ...]] = ()
    ip6tables: Maybe[str] = ""
    iptables: Maybe[str] = ""
    denials: Maybe[tuple[str, ...]] = ()
    """Lines in which SELinux or AppArmor refused something to a program of ours or Docker's."""
    daemon_json: DaemonJson | None = None
    dockerd: tuple[Process, ...] = ()
    published: tuple[PublishedPort, ...] = ()
    engine: Maybe[Engine | None] = None
    """None: there is no Docker."""
    inside: Mapping[str, tuple[Listening, ...]] = field(default_factory=dict)
    """Who listens in a container, by its id; as far as its network could be entered."""
    configs: Mapping[str, tuple[ConfigFile, ...]] = field(default_factory=dict)
    """Configurations of well-known servers in a container, by its id."""
    docker_rules: Maybe[tuple[Rule, ...]] = ()
    """`[[docker.rule]]` of the configuration file: modes of ports while the daemon is down."""
    config_error: str = ""
    """What is wrong with that file."""
    status: Maybe[Mapping[str, Any] | None] = None
    """What `v6fwd serve` answers; None: it does not run."""
    daemon: Process | None = None
    """That daemon."""
    shim_installed: bool = False
    proxy_missing: str = ""
    """The path in "userland-proxy-path", where no program is."""

    @property
    def engine_info(self) -> Mapping[str, Any]:
        """What the Engine says of itself; nothing where it was not asked."""
        engine = known(self.engine)
        return engine.info if engine is not None else {}

    @property
    def is_rootless(self) -> bool:
        """Whether the Docker that was asked is rootless."""
        engine = known(self.engine)
        return engine is not None and engine.is_rootless

    def device(self, name: str) -> Device | None:
        """The device of that name."""
        return next((device for device in self.devices if device.name == name), None)

    @property
    def bridges(self) -> list[Device]:
        """The bridges: Docker's, and perhaps others."""
        return [device for device in self.devices if device.kind == "bridge"]

    @property
    def uplinks(self) -> list[Device]:
        """Devices by which clients may come: up, no bridge, in no bridge, not `lo`."""
        return [
            device
            for device in self.devices
            if device.is_up and device.kind not in ("bridge", "dummy", "ifb")
            if device.name != "lo" and not device.master
        ]

    def ports(self) -> list[Port]:
        """What clients are to reach: the named ones, else all that is published or forwarded."""
        if self.named:
            return list(self.named)
        found = [(each.forward.listen.port, each.forward.protocol) for each in self.published]
        found += [(socket.port, socket.protocol) for socket in self._relayed()]
        return [Port(*each) for each in sorted(set(found))]

    def _relayed(self) -> list[Listening]:
        sockets = known(self.listening) or ()
        return [
            socket
            for socket in sockets
            if socket.is_any and (owner := self.owners.get(socket.inode)) is not None
            if owner.name in _RELAYS or is_ingress(socket, owner)
        ]

    def listeners(self, port: Port) -> list[Listening]:
        """Who takes clients of a port at all addresses, or at one that is not loopback."""
        sockets = known(self.listening) or ()
        return [
            socket
            for socket in sockets
            if (socket.port, socket.protocol) == (port.number, port.protocol)
            if not is_of_this_host(socket)
        ]
