"""Reads the labels of a container that name the client-ip mode of its ports. Pure.

    v6fwd.client-ip=proxy-v2               all ports of the container
    v6fwd.client-ip.80=x-forwarded-for     its port 80, TCP and UDP
    v6fwd.client-ip.53-udp=proxy-v2        its port 53, UDP only; 53/udp is the same

The ports are the container's, as in EXPOSE: whoever writes the labels knows those. The narrowest
label wins. A wrong one is logged and ignored.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from v6fwd.model import ClientIP, InputError, Protocol

PREFIX = "v6fwd."
NAME = "client-ip"
_PORT_RE = re.compile(r"([0-9]{1,5})(?:[-/](.*))?")


@dataclass(frozen=True, slots=True)
class PortLabel:
    """A valid label; 0 and None stand for all ports and both protocols."""

    key: str
    client_ip: ClientIP
    port: int = 0
    protocol: Protocol | None = None

    def fits(self, port: int, protocol: Protocol) -> bool:
        """Return whether it applies to this port of the container."""
        return self.port in (0, port) and self.protocol in (None, protocol)


@dataclass(frozen=True, slots=True)
class Labels:
    """What a container's labels say, and a line for each wrong one."""

    labels: tuple[PortLabel, ...] = ()
    errors: tuple[str, ...] = ()

    def find(self, port: int, protocol: Protocol) -> PortLabel | None:
        """Return the narrowest label for a port of the container."""
        fitting = (label for label in self.labels if label.fits(port, protocol))
        return max(fitting, key=lambda label: (label.port, bool(label.protocol)), default=None)


def read_labels(labels: Mapping[str, str]) -> Labels:
    """Read a container's labels; those without PREFIX are other programs'."""
    good: list[PortLabel] = []
    errors: list[str] = []
    for key, value in sorted(labels.items()):
        if not key.startswith(PREFIX):
            continue
        try:
            good.append(_read(key, value))
        except InputError as error:
            errors.append(f"label {key}={value}: {error}")
    errors += _contradictions(good)
    return Labels(tuple(good), tuple(errors))


def _read(key: str, value: str) -> PortLabel:
    name, dot, where = key.removeprefix(PREFIX).partition(".")
    if name != NAME:
        raise InputError(f"there is no such label; write {PREFIX}{NAME}")
    port, protocol = _port(where) if dot else (0, None)
    client_ip = client_ip_of(value)
    refuse_misfit(client_ip, protocol)
    return PortLabel(key, client_ip, port, protocol)


def _port(where: str) -> tuple[int, Protocol | None]:
    match = _PORT_RE.fullmatch(where)
    port = int(match[1]) if match else 0
    if match is None or not 1 <= port <= 65535:
        raise InputError(f"{where!r} is not a port; write 80 or 53-udp")
    if match[2] is None:
        return port, None
    if match[2] not in tuple(Protocol):
        raise InputError(f"{match[2]!r} is not a protocol; write tcp or udp")
    return port, Protocol(match[2])


def client_ip_of(value: str) -> ClientIP:
    """Return a mode by its name. Raises InputError, naming them all."""
    try:
        return ClientIP(value.strip())
    except ValueError:
        raise InputError(f"{value!r} is not a mode; write one of {', '.join(ClientIP)}") from None


def refuse_misfit(client_ip: ClientIP, protocol: Protocol | None) -> None:
    """Raise InputError for a mode that this protocol does not have."""
    if client_ip is ClientIP.PROXY_V1 and protocol is Protocol.UDP:
        raise InputError("proxy-v1 is for TCP only; for UDP write proxy-v2")
    if client_ip.is_http and protocol is Protocol.UDP:
        raise InputError(f"{client_ip} is for HTTP over TCP; for UDP write proxy-v2")


def _contradictions(labels: list[PortLabel]) -> Iterator[str]:
    """Find 53-udp beside 53/udp, the same port: the first wins, the second is logged."""
    seen: dict[tuple[int, Protocol | None], PortLabel] = {}
    for label in labels:
        first = seen.setdefault((label.port, label.protocol), label)
        if first.client_ip is not label.client_ip:
            yield f"label {label.key}={label.client_ip}: {first.key} says {first.client_ip}"
