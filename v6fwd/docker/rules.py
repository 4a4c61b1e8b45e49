"""`[[docker.rule]]` in v6fwd.toml: the mode of ports whose containers have no labels. Pure.

    [[docker.rule]]
    host-port = "8080"           # or "5000-5009", "53/udp"
    container = "web-*"          # and network, image: shell patterns, or the very name
    client-ip = "proxy-v2"

All that a rule names must fit; the first rule that fits goes, and goes before labels: the file is
the administrator's, the labels may come with somebody else's compose file.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase

from v6fwd.docker.labels import read_labels, refuse_misfit
from v6fwd.model import ClientIP, InputError, Protocol

_PORTS_RE = re.compile(r"([0-9]{1,5})(?:-([0-9]{1,5}))?(?:/(tcp|udp))?")


@dataclass(frozen=True, slots=True)
class Published:
    """A published port as the Engine's API tells of it."""

    host_port: int
    container_port: int
    protocol: Protocol = Protocol.TCP
    container: str = ""
    image: str = ""
    networks: tuple[str, ...] = ()
    labels: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule; what is not set fits everything."""

    client_ip: ClientIP
    host_ports: range | None = None
    protocol: Protocol | None = None
    container: str = "*"
    network: str = "*"
    image: str = "*"

    def fits(self, port: Published) -> bool:
        """Whether it is for this port."""
        networks = port.networks or ("",)
        return (
            (self.host_ports is None or port.host_port in self.host_ports)
            and self.protocol in (None, port.protocol)
            and fnmatchcase(port.container, self.container)
            and fnmatchcase(port.image, self.image)
            and any(fnmatchcase(network, self.network) for network in networks)
        )


@dataclass(frozen=True, slots=True)
class Choice:
    """A port's mode, where it comes from in a few words, and lines on what was wrong."""

    client_ip: ClientIP
    source: str
    errors: tuple[str, ...] = ()


def parse_host_ports(text: str) -> tuple[range, Protocol | None]:
    """`8080`, `5000-5009` or `53/udp`. Raises InputError."""
    match = _PORTS_RE.fullmatch(text)
    first = int(match[1]) if match else 0
    last = int(match[2] or first) if match else 0
    if match is None or not 1 <= first <= last <= 65535:
        raise InputError(f"{text!r} is not a port; write 8080, 5000-5009 or 53/udp")
    return range(first, last + 1), Protocol(match[3]) if match[3] else None


def choose(
    port: Published, rules: Sequence[Rule] = (), default: ClientIP = ClientIP.NONE
) -> Choice:
    """The mode of a port: by the first rule that fits, else by its labels, else the default."""
    read = read_labels(port.labels)
    label = read.find(port.container_port, port.protocol)
    wanted = [
        (rule.client_ip, f"rule {number}")
        for number, rule in enumerate(rules, start=1)
        if rule.fits(port)
    ]
    if label is not None:
        wanted.append((label.client_ip, f"label {label.key}"))
    if not wanted:
        return Choice(default, "default", read.errors)
    client_ip, source = wanted[0]
    try:
        refuse_misfit(client_ip, port.protocol)
    except InputError as error:
        return Choice(default, "default", (*read.errors, f"{source}: {error}"))
    return Choice(client_ip, source, read.errors)
