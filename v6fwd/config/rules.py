"""`[[docker.rule]]`: the mode of ports whose containers have no labels. Pure.

    [[docker.rule]]
    host-port = "8080"           # or "5000-5009", "53/udp"
    container = "web-*"          # and network, image, service: shell patterns, or the very name
    client-ip = "proxy-v2"

A rule matches if all its keys match. The first match wins.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any

from v6fwd.model import ClientIP, InputError, Protocol

_PORTS_RE = re.compile(r"([0-9]{1,5})(?:-([0-9]{1,5}))?(?:/(tcp|udp))?")


@dataclass(frozen=True, slots=True)
class Published:
    """A published port as the Engine's API reports it."""

    host_port: int
    container_port: int
    protocol: Protocol = Protocol.TCP
    container: str = ""
    image: str = ""
    networks: tuple[str, ...] = ()
    labels: Mapping[str, str] = field(default_factory=dict)
    service: str = ""
    """The service of Swarm whose task it is; "": none, or not known."""


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule; a key that is not set matches everything."""

    client_ip: ClientIP
    host_ports: range | None = None
    protocol: Protocol | None = None
    container: str = "*"
    network: str = "*"
    image: str = "*"
    service: str = "*"
    guard: tuple[tuple[str, Any], ...] = ()
    """Fields of model.Guard that it sets, and their values."""

    @property
    def is_for_all_containers(self) -> bool:
        """Whether it names nothing but ports."""
        return self.service == "*" and self.is_for_all_tasks

    @property
    def is_for_all_tasks(self) -> bool:
        """Whether it names nothing but ports and services."""
        return self.container == self.network == self.image == "*"

    def fits_service(self, service: str) -> bool:
        """Return whether it is for some task of this service."""
        return fnmatchcase(service, self.service)

    def fits_port(self, port: Published) -> bool:
        """Return whether it is for this port of some container."""
        return (self.host_ports is None or port.host_port in self.host_ports) and self.protocol in (
            None,
            port.protocol,
        )

    def fits(self, port: Published) -> bool:
        """Whether the rule matches this port."""
        networks = port.networks or ("",)
        return (
            self.fits_port(port)
            and fnmatchcase(port.container, self.container)
            and fnmatchcase(port.image, self.image)
            and self.fits_service(port.service)
            and any(fnmatchcase(network, self.network) for network in networks)
        )


def parse_host_ports(text: str) -> tuple[range, Protocol | None]:
    """`8080`, `5000-5009` or `53/udp`. Raises InputError."""
    match = _PORTS_RE.fullmatch(text)
    first = int(match[1]) if match else 0
    last = int(match[2] or first) if match else 0
    if match is None or not 1 <= first <= last <= 65535:
        raise InputError(f"{text!r} is not a port; write 8080, 5000-5009 or 53/udp")
    return range(first, last + 1), Protocol(match[3]) if match[3] else None
