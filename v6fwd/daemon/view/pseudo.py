"""Finds the pseudo IPv4 address of an IPv6 client, or of its /64, for those who watch."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable

from v6fwd.errors import RelayError
from v6fwd.model import ip_text

MOST = 1000
"""Addresses remembered. A pseudo address stays what it is, so nothing grows old."""


class PseudoAddresses:
    """Asks the stores of transparent forwards. What cannot be read is as if it were not there."""

    def __init__(self) -> None:
        self._known: dict[str, str] = {}

    def of(self, client: str, stores: Iterable[str]) -> str:
        """The pseudo address of a client or a network; "" if it has none, or is IPv4."""
        if ":" not in client:
            return ""
        if client not in self._known:
            found = next(filter(None, (_find(client, store) for store in stores)), "")
            if not found:  # it may get one with its next flow
                return ""
            if len(self._known) >= MOST:
                self._known.clear()
            self._known[client] = found
        return self._known[client]


def _find(client: str, store: str) -> str:
    from v6fwd.relay.transparent.pseudo_store import find_pseudo  # SQLite: not for every daemon

    net = ipaddress.IPv6Network(client)
    try:
        entries = find_pseudo(store, net.network_address.packed)
    except RelayError:
        return ""
    bits = (64,) if net.prefixlen == 64 else (128, 64)
    found = {entry.bits: ip_text(entry.address) for entry in entries}
    return next((found[each] for each in bits if each in found), "")
