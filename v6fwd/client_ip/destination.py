"""Chooses the address to connect to inside the target's network namespace.

It depends on the listening sockets there. A server on a wildcard address is reached through a
loopback address: packets with a loopback source never leave a container, so its answers can be
matched by routing rules. A server on a loopback address *only* is not reached unless the target
names that address: publishing the container's address does not publish its loopback.
"""

from __future__ import annotations

from collections.abc import Iterable

from v6fwd.model import MAPPED_PREFIX
from v6fwd.model.lean import NamedTuple

V6_LOOPBACK = bytes(15) + b"\x01"
V4_LOOPBACK = bytes((127, 0, 0, 1))
_V6_ANY, _V4_ANY = bytes(16), bytes(4)


class Destination(NamedTuple):
    """Where to connect to, and whether from a pseudo IPv4 address."""

    address: bytes
    is_pseudo: bool = False

    @property
    def is_loopback(self) -> bool:
        """Whether the address is loopback."""
        return is_loopback(self.address)


class Destinations(NamedTuple):
    """For IPv6 and for IPv4 clients; None if nothing listens for them."""

    for_v6: Destination | None = None
    for_v4: Destination | None = None


def find_destinations(listening: Iterable[tuple[bytes, bool]], target: bytes) -> Destinations:
    """Choose from the listening sockets (address, IPV6_V6ONLY) and the target's address."""
    bound = [(_unmapped(packed), v6_only) for packed, v6_only in listening]
    taken = {packed for packed, _ in bound}
    any_v4 = _V4_ANY in taken or (_V6_ANY, False) in bound
    for_v4 = _choose(taken, target, any_v4, V4_LOOPBACK)
    for_v6 = _choose(taken, target, _V6_ANY in taken, V6_LOOPBACK)
    if for_v6 is None and for_v4 is not None:
        for_v6 = for_v4._replace(is_pseudo=True)
    return Destinations(for_v6, for_v4)


def _choose(
    taken: set[bytes], target: bytes, wildcard: bool, loopback: bytes
) -> Destination | None:
    """The destination of one family; a socket bound to the target's address takes precedence."""
    same_family = len(target) == len(loopback)
    if same_family and target in taken:
        return Destination(target)
    if wildcard and loopback not in taken:
        return Destination(loopback)
    if wildcard and same_family:  # another socket is bound to loopback
        return Destination(target)
    return None


def is_loopback(packed: bytes) -> bool:
    """Whether the address is ::1 or in 127.0.0.0/8."""
    return packed == V6_LOOPBACK or (len(packed) == 4 and packed[0] == 127)


def _unmapped(packed: bytes) -> bytes:
    return packed[12:] if packed.startswith(MAPPED_PREFIX) and len(packed) == 16 else packed
