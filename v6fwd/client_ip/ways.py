"""Which way leads to a target inside its network namespace, and as whom a client can come.

The decision is taken from who listens there. A server on a wildcard address is reached through
a loopback address, because its answers can be told from all that leaves the container: nothing
with a loopback source does. One that listens on a loopback address *only* is not published by
naming the container's address, so it is not reached, unless the target itself names loopback.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from v6fwd.client_ip.trust import TrustedNetworks
from v6fwd.model import MAPPED_PREFIX, IPNetwork, parse_networks

V6_LOOPBACK = bytes(15) + b"\x01"
V4_LOOPBACK = bytes((127, 0, 0, 1))
_V6_ANY, _V4_ANY = bytes(16), bytes(4)


class Way(NamedTuple):
    """Where to connect to, and whether the client has to come as a pseudo IPv4 address."""

    destination: bytes
    is_pseudo: bool = False

    @property
    def is_loopback(self) -> bool:
        """Whether it leads to a loopback address."""
        return is_loopback(self.destination)


class Ways(NamedTuple):
    """The ways for IPv6 and for IPv4 clients; None where nobody listens for them."""

    for_v6: Way | None = None
    for_v4: Way | None = None


def find_ways(listening: Iterable[tuple[bytes, bool]], target: bytes) -> Ways:
    """Choose from the addresses listened on (and whether for IPv6 alone), and the target's own."""
    bound = [(_unmapped(packed), v6_only) for packed, v6_only in listening]
    taken = {packed for packed, _ in bound}
    any_v4 = _V4_ANY in taken or (_V6_ANY, False) in bound
    for_v4 = _choose(taken, target, any_v4, V4_LOOPBACK)
    for_v6 = _choose(taken, target, _V6_ANY in taken, V6_LOOPBACK)
    if for_v6 is None and for_v4 is not None:
        for_v6 = for_v4._replace(is_pseudo=True)
    return Ways(for_v6, for_v4)


def _choose(taken: set[bytes], target: bytes, wildcard: bool, loopback: bytes) -> Way | None:
    """The way of one family: the most exact listener is the one that the target names."""
    same_family = len(target) == len(loopback)
    if same_family and target in taken:
        return Way(target)
    if wildcard and loopback not in taken:
        return Way(loopback)
    if wildcard and same_family:  # somebody else has the port on loopback
        return Way(target)
    return None


def is_loopback(packed: bytes) -> bool:
    """Whether the address is ::1 or in 127.0.0.0/8."""
    return packed == V6_LOOPBACK or (len(packed) == 4 and packed[0] == 127)


def _unmapped(packed: bytes) -> bytes:
    return packed[12:] if packed.startswith(MAPPED_PREFIX) and len(packed) == 16 else packed


# ---- who can be shown ----------------------------------------------------------------------

_HIDDEN = {
    "a loopback address": parse_networks("127.0.0.0/8,::1/128"),
    "a link-local address": parse_networks("169.254.0.0/16,fe80::/10"),
    "no address of a single host": parse_networks("0.0.0.0/8,224.0.0.0/4,::/128,ff00::/8"),
    "in 240.0.0.0/4, where the pseudo addresses are": parse_networks("240.0.0.0/4"),
}


REMEMBERED = 4096
"""Clients whose answer is kept: finding it takes 4 us, of a budget of 100 for a flow."""


class Hidden:
    """The clients whose address the target must not see at its socket, and why.

    An application takes a loopback address, and often its own net, for its own machine, and
    gives it more rights. A link-local address means nothing without its link.
    """

    def __init__(self, own_nets: Iterable[IPNetwork] = ()) -> None:
        kinds = _HIDDEN | {"in the container's own network": tuple(own_nets)}
        self._kinds = {why: TrustedNetworks(networks) for why, networks in kinds.items()}
        self._known: dict[bytes, str | None] = {}

    def why(self, packed: bytes) -> str | None:
        """Why a client is not shown, None where it is."""
        if packed in self._known:
            return self._known[packed]
        kinds = self._kinds.items()
        found = next((why for why, networks in kinds if packed in networks), None)
        if len(self._known) >= REMEMBERED:
            del self._known[next(iter(self._known))]
        self._known[packed] = found
        return found
