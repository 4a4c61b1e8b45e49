"""Which clients may be seen at a target's socket with an address of their own."""

from __future__ import annotations

from collections.abc import Iterable

from v6fwd.client_ip.trust import TrustedNetworks
from v6fwd.model import IPNetwork, parse_networks

NOT_PRESENTABLE = {
    "a loopback address": parse_networks("127.0.0.0/8,::1/128"),
    "a link-local address": parse_networks("169.254.0.0/16,fe80::/10"),
    "no address of a single host": parse_networks("0.0.0.0/8,224.0.0.0/4,::/128,ff00::/8"),
    "in 240.0.0.0/4, where the pseudo addresses are": parse_networks("240.0.0.0/4"),
}


REMEMBERED = 4096
"""Clients whose answer is kept: finding it takes 4 us, of a budget of 100 for a flow."""


class SourceFilter:
    """The clients whose address the target must not see at its socket, and why.

    An application takes a loopback address, and often its own net, for its own machine, and
    gives it more rights. A link-local address means nothing without its link.
    """

    def __init__(self, own_nets: Iterable[IPNetwork] = ()) -> None:
        kinds = NOT_PRESENTABLE | {"in the container's own network": tuple(own_nets)}
        self._kinds = {why: TrustedNetworks(networks) for why, networks in kinds.items()}
        self._known: dict[bytes, str | None] = {}

    def why(self, packed: bytes) -> str | None:
        """Why a client is not preserved; None where it is."""
        if packed in self._known:
            return self._known[packed]
        kinds = self._kinds.items()
        found = next((why for why, networks in kinds if packed in networks), None)
        if len(self._known) >= REMEMBERED:
            del self._known[next(iter(self._known))]
        self._known[packed] = found
        return found
