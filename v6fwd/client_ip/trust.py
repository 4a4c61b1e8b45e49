"""Membership test of addresses in networks, on network bytes."""

from __future__ import annotations

from collections.abc import Iterable

from v6fwd.model import IPNetwork


class TrustedNetworks:
    """A set of networks."""

    __slots__ = ("_by_size",)

    def __init__(self, networks: Iterable[IPNetwork]) -> None:
        self._by_size: dict[int, list[tuple[int, int]]] = {4: [], 16: []}
        for network in networks:
            pair = (int(network.netmask), int(network.network_address))
            self._by_size[network.max_prefixlen // 8].append(pair)

    def __contains__(self, packed: bytes) -> bool:
        """Whether an address of 4 or 16 bytes is in one of the networks; not v4-mapped."""
        value = int.from_bytes(packed, "big")
        return any(value & mask == start for mask, start in self._by_size[len(packed)])
