"""Pseudo IPv4: an address of 240.0.0.0/4 that stands for an IPv6 client or its /64.

240.0.0.0/4 is reserved (RFC 1112, section 4) and on no network, so nothing real is ever hidden
behind such an address. The first probe is a keyed hash, so that nobody who lacks the key can
choose where it falls; from there on linear, past what is taken: a hash of 28 bits alone would
put two of 19,000 clients on one address with even odds. What has been given is kept elsewhere
(relay/pseudo_store.py), and that decides.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator

PSEUDO_NET = bytes((240, 0, 0, 0))
PSEUDO_BITS = 4
FIRST = 0xF000_0001
"""240.0.0.1: the net itself, 240.0.0.0, is left out."""
LAST = 0xFFFF_FFFE
"""255.255.255.254: the one above is the broadcast address."""
MOST_PROBES = 4096
"""Taken addresses in a row that are passed over; at half full that many have odds of 2**-4096."""

_COUNT = LAST - FIRST + 1


def network_of(packed: bytes, bits: int) -> bytes:
    """The first `bits` (64 or 128) of an IPv6 address, zeros behind them."""
    return packed[: bits // 8].ljust(16, b"\0")


def probes(network: bytes, bits: int, key: bytes) -> Iterator[int]:
    """The pseudo addresses to be tried for a network, as numbers, in order."""
    digest = hashlib.blake2b(network + bytes([bits]), key=key, digest_size=8).digest()
    first = int.from_bytes(digest, "big") % _COUNT
    for step in range(MOST_PROBES):
        yield FIRST + (first + step) % _COUNT


def assign(network: bytes, bits: int, key: bytes, is_free: Callable[[int], bool]) -> int | None:
    """The first free one; None where there are none left."""
    return next((number for number in probes(network, bits, key) if is_free(number)), None)


def is_pseudo(packed: bytes) -> bool:
    """Whether the address is in 240.0.0.0/4."""
    return len(packed) == 4 and packed[0] >= PSEUDO_NET[0]
