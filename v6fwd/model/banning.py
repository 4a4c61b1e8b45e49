"""What `v6fwd ban` takes: an address or a network, and the ones that must not be banned."""

from __future__ import annotations

import ipaddress

from v6fwd.model.nouns import MAPPED_PREFIX, InputError, IPNetwork

_WIDEST = {4: 8, 6: 16}
"""Shortest prefix lengths: an allocation of a regional registry is no wider than this."""
_NEVER = {
    "127.0.0.0/8": "this host itself, where health checks come from",
    "::/64": "this host itself (::1), or no client's address",
    "0.0.0.0/8": "no client's address",
    "224.0.0.0/4": "multicast, no client's address",
    "ff00::/8": "multicast, no client's address",
}
_REFUSED = [
    (each.version, int(each.network_address), int(each.broadcast_address), str(each))
    for each in map(ipaddress.ip_network, _NEVER)
]
"""As numbers, which are compared ten times as fast."""
_PSEUDO = ipaddress.IPv4Network("240.0.0.0/4")


def parse_ban(text: str) -> IPNetwork:
    """Parse an address or a network; host bits are cleared. Raises InputError.

    A v4-mapped one is IPv4. A single address of 240.0.0.0/4 stands for the client behind it.
    """
    network = parse_client(text)
    least = _WIDEST[network.version]
    if network.prefixlen < least:
        raise InputError(f"{text!r} is too wide to ban; the widest network is a /{least}")
    first, last = int(network.network_address), int(network.broadcast_address)
    for version, never_first, never_last, never in _REFUSED:
        if version == network.version and first <= never_last and never_first <= last:
            raise InputError(f"{text!r} cannot be banned: {never} is {_NEVER[never]}")
    if network.prefixlen < 32 and network.overlaps(_PSEUDO):
        raise InputError(f"{text!r}: pseudo addresses are banned one by one, as in 240.1.2.3")
    return network


def parse_client(text: str) -> IPNetwork:
    """Parse an address or a network. Raises InputError.

    Host bits are cleared; a v4-mapped one is IPv4.
    """
    text = text.strip()
    if "%" in text:
        raise InputError(f"{text!r} has a zone, which no packet carries")
    try:
        network = ipaddress.ip_network(text, strict=False)
    except ValueError:
        raise InputError(
            f"{text!r} is neither an address nor a network;"
            " write 2001:db8::5, 2001:db8:0:1::/64 or 203.0.113.0/24"
        ) from None
    packed = network.network_address.packed
    if network.version == 6 and network.prefixlen >= 96 and packed.startswith(MAPPED_PREFIX):
        return ipaddress.IPv4Network((packed[12:], network.prefixlen - 96))
    return network


def network_text(network: IPNetwork) -> str:
    """The text of a network; that of its address if it holds only one."""
    is_one = network.prefixlen == network.max_prefixlen
    return str(network.network_address) if is_one else str(network)
