"""Reads the labels of a container that say who may use its ports, and how often. Pure.

    v6fwd.allow=2001:db8::/32,192.0.2.7    all ports of the container
    v6fwd.deny.80=203.0.113.0/24           its port 80
    v6fwd.client-flows.53-udp=20           its port 53, UDP only

The narrowest label of a name wins. A wrong one refuses the ports that it may be meant for: an
allow list that cannot be read must not let everybody in.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from difflib import get_close_matches
from typing import Any

from v6fwd.model import Guard, InputError, Protocol, parse_networks, parse_rate

PREFIX = "v6fwd."
MODE_LABEL = "client-ip"
"""The other label, which is read elsewhere."""
_PORT_RE = re.compile(r"([0-9]{1,5})(?:[-/](.*))?", re.DOTALL)
_COUNT_RE = re.compile("[0-9]{1,9}", re.ASCII)
_LONGEST = 64  # characters of a name that is compared: difflib takes quadratic time

Settings = tuple[tuple[str, Any], ...]
"""Fields of Guard and their values."""


def _count(text: str) -> int:
    if not _COUNT_RE.fullmatch(text):
        raise InputError(f"{text!r} is not a whole number; write 20, or 0 for no limit")
    return int(text)


GUARD_LABELS: Mapping[str, Callable[[str], Any]] = {
    "allow": parse_networks,
    "deny": parse_networks,
    "client-flows": _count,
    "client-rate": parse_rate,
}


@dataclass(frozen=True, slots=True)
class GuardLabels:
    """What a container's labels set for one port, a line for each wrong one, and the names of
    those whose wrong label may be meant for the port."""

    settings: Settings = ()
    errors: tuple[str, ...] = ()
    wrong: tuple[str, ...] = ()


def resembled(name: str) -> str:
    """Return the guard label that a name is, or may be meant to be; "" for others."""
    if name == MODE_LABEL:
        return ""
    found = get_close_matches(name[:_LONGEST].lower(), GUARD_LABELS, n=1, cutoff=0.75)
    return found[0] if found else ""


def read_guard(labels: Mapping[str, str], port: int, protocol: Protocol) -> GuardLabels:
    """Read the labels for one port of the container."""
    best: dict[str, tuple[tuple[int, bool], Any]] = {}
    errors, wrong = [], []
    for key, text in sorted(labels.items()):
        name, _, where = key.removeprefix(PREFIX).partition(".")
        meant = resembled(name) if key.startswith(PREFIX) else ""
        if not meant:
            continue
        try:
            of, of_protocol = port_of(where) if "." in key.removeprefix(PREFIX) else (0, None)
            if name != meant:
                raise InputError(f"there is no such label; write {PREFIX}{meant}")
            value = GUARD_LABELS[name](text.strip())
        except InputError as error:
            errors.append(f"label {key}={text}: {error}")
            if _may_be_for(where, port, protocol):
                wrong.append(meant)
            continue
        if of in (0, port) and of_protocol in (None, protocol):
            narrowness = of, of_protocol is not None
            if name not in best or narrowness > best[name][0]:
                best[name] = narrowness, value
    settings = tuple((name.replace("-", "_"), value) for name, (_, value) in best.items())
    return GuardLabels(settings, tuple(errors), tuple(wrong))


def port_of(where: str) -> tuple[int, Protocol | None]:
    """Read `80` or `53-udp`, the end of a label's name. Raises InputError."""
    match = _PORT_RE.fullmatch(where)
    port = int(match[1]) if match else 0
    if match is None or not 1 <= port <= 65535:
        raise InputError(f"{where!r} is not a port; write 80 or 53-udp")
    if match[2] is None:
        return port, None
    if match[2] not in tuple(Protocol):
        raise InputError(f"{match[2]!r} is not a protocol; write tcp or udp")
    return port, Protocol(match[2])


def _may_be_for(where: str, port: int, protocol: Protocol) -> bool:
    """Whether a wrong label may be meant for a port: it names that one, or none."""
    try:
        of, of_protocol = port_of(where)
    except InputError:
        match = _PORT_RE.fullmatch(where)
        return match is None or int(match[1]) in (0, port) or int(match[1]) > 65535
    return of == port and of_protocol in (None, protocol)


def guarded(base: Guard, settings: Iterable[tuple[str, Any]]) -> Guard:
    """Return the guard with these settings; what `base` denies stays denied."""
    changes = dict(settings)
    if "deny" in changes:
        changes["deny"] = tuple(dict.fromkeys((*base.deny, *changes["deny"])))
    return replace(base, **changes)
