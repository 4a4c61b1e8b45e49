"""Reads the labels of a container that name the client-ip mode of its ports. Pure.

    v6fwd.client-ip=proxy-v2               all ports of the container
    v6fwd.client-ip.80=x-forwarded-for     its port 80, TCP and UDP
    v6fwd.client-ip.53-udp=proxy-v2        its port 53, UDP only; 53/udp is the same

The ports are the container's, as in EXPOSE: whoever writes the labels knows those. The narrowest
label wins. A wrong one is logged. Where its value resembles a mode with a header, the server
trusts headers, and a port without one would take those of its clients for v6fwd's: the ports that
the label may be meant for are refused. All other wrong labels are ignored.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from difflib import get_close_matches

from v6fwd.docker.policy.guards import MODE_LABEL, PREFIX, port_of, resembled
from v6fwd.model import ClientIP, InputError, Protocol
from v6fwd.model.hints import did_you_mean

_PORT_RE = re.compile(r"([0-9]{1,5})(?:[-/](.*))?", re.DOTALL)
_WITH_HEADER = tuple(mode for mode in ClientIP if mode not in (ClientIP.NONE, ClientIP.TRANSPARENT))
_HEADER_WORDS = ("proxy", "forward", "header", "xff", "realip")
_LONGEST = 64  # characters: no misspelt mode has more, and difflib takes quadratic time


@dataclass(frozen=True, slots=True)
class PortLabel:
    """A label and the ports that it is for; 0 and None stand for all ports and both protocols."""

    key: str
    client_ip: ClientIP | None
    """None: it is wrong, and its ports are refused."""
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
        """Return the narrowest label for a port of the container; a wrong one before a right one
        of the same breadth."""
        fitting = (label for label in self.labels if label.fits(port, protocol))
        return max(fitting, key=_narrowness, default=None)


def _narrowness(label: PortLabel) -> tuple[int, bool, bool]:
    return label.port, label.protocol is not None, label.client_ip is None


def read_labels(labels: Mapping[str, str]) -> Labels:
    """Read a container's labels; those without PREFIX are other programs'."""
    good: list[PortLabel] = []
    errors: list[str] = []
    for key, value in sorted(labels.items()):
        if not key.startswith(PREFIX) or resembled(_name(key)):
            continue
        try:
            good.append(_read(key, value))
        except InputError as error:
            errors.append(f"label {key}={value}: {error}")
            if resembles_header(value):
                good.append(_refusal(key))
    errors += _contradictions(good)
    return Labels((*good, *_contradicted(good)), tuple(errors))


def _name(key: str) -> str:
    return key.removeprefix(PREFIX).partition(".")[0]


def _read(key: str, value: str) -> PortLabel:
    name, dot, where = key.removeprefix(PREFIX).partition(".")
    if name != MODE_LABEL:
        raise InputError(f"there is no such label; write {PREFIX}{MODE_LABEL}")
    port, protocol = port_of(where) if dot else (0, None)
    client_ip = client_ip_of(value)
    refuse_misfit(client_ip, protocol)
    return PortLabel(key, client_ip, port, protocol)


def resembles_header(value: str) -> bool:
    """Return whether a label's value names a mode with a header, or may be meant to."""
    plain = value.strip().lower()[:_LONGEST]
    letters = re.sub("[^a-z0-9]", "", plain)
    return any(word in letters for word in _HEADER_WORDS) or bool(
        get_close_matches(plain, _WITH_HEADER, n=1)
    )


def _refusal(key: str) -> PortLabel:
    """Refuse the port that a wrong label names, or all ports where it names none."""
    name, _, where = key.removeprefix(PREFIX).partition(".")
    match = _PORT_RE.fullmatch(where)
    if name != MODE_LABEL or match is None or not 1 <= int(match[1]) <= 65535:
        return PortLabel(key, None)
    is_protocol = match[2] in tuple(Protocol)
    return PortLabel(key, None, int(match[1]), Protocol(match[2]) if is_protocol else None)


def client_ip_of(value: str) -> ClientIP:
    """Return a mode by its name. Raises InputError, naming them all."""
    try:
        return ClientIP(value.strip())
    except ValueError:
        hint = did_you_mean(value, ClientIP)
        text = f"{value!r} is not a mode; write one of {', '.join(ClientIP)}{hint}"
        raise InputError(text) from None


def refuse_misfit(client_ip: ClientIP, protocol: Protocol | None) -> None:
    """Raise InputError for a mode that this protocol does not have."""
    if client_ip is ClientIP.PROXY_V1 and protocol is Protocol.UDP:
        raise InputError("proxy-v1 is for TCP only; for UDP write proxy-v2")
    if client_ip.is_http and protocol is Protocol.UDP:
        raise InputError(f"{client_ip} is for HTTP over TCP; for UDP write proxy-v2")


def _contradictions(labels: list[PortLabel]) -> Iterator[str]:
    """Tell of 53-udp beside 53/udp, the same port, with another mode."""
    for first, label in _differing(labels):
        if first.client_ip and label.client_ip:
            yield f"label {label.key}={label.client_ip}: {first.key} says {first.client_ip}"


def _contradicted(labels: list[PortLabel]) -> Iterator[PortLabel]:
    """Refuse a port whose labels contradict each other, if one of them wants a header."""
    for first, label in _differing(labels):
        if {first.client_ip, label.client_ip} & set(_WITH_HEADER):
            yield replace(label, client_ip=None)


def _differing(labels: list[PortLabel]) -> Iterator[tuple[PortLabel, PortLabel]]:
    seen: dict[tuple[int, Protocol | None], PortLabel] = {}
    for label in labels:
        first = seen.setdefault((label.port, label.protocol), label)
        if first.client_ip is not label.client_ip:
            yield first, label
