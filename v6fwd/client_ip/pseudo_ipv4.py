"""Pseudo IPv4: an address of 240.0.0.0/4 that stands for an IPv6 client or its /64.

240.0.0.0/4 is reserved (RFC 1112, section 4) and routed nowhere, so such an address never
belongs to a real host. The first candidate is a keyed hash, which nobody without the key can
predict. Linear probing follows: with a hash of 28 bits alone, 19,000 clients would collide with
a probability of one half. Assigned addresses are stored in relay/transparent/pseudo_store.py.
"""

from __future__ import annotations

from _blake2 import blake2b  # hashlib brings OpenSSL, 3.4 MB
from collections.abc import Callable, Iterator

PSEUDO_NET = bytes((240, 0, 0, 0))
PSEUDO_BITS = 4
FIRST = 0xF000_0001
"""240.0.0.1; 240.0.0.0 is the network address."""
LAST = 0xFFFF_FFFE
"""255.255.255.254; 255.255.255.255 is the broadcast address."""
MOST_PROBES = 4096
"""Limit of linear probing; with half of all addresses taken it fails with odds of 2**-4096."""

_COUNT = LAST - FIRST + 1


def network_of(packed: bytes, bits: int) -> bytes:
    """The first `bits` (64 or 128) of an IPv6 address, padded with zeros."""
    return packed[: bits // 8].ljust(16, b"\0")


def probes(network: bytes, bits: int, key: bytes) -> Iterator[int]:
    """The candidates for a network in order, as numbers."""
    digest = blake2b(network + bytes([bits]), key=key, digest_size=8).digest()
    first = int.from_bytes(digest, "big") % _COUNT
    for step in range(MOST_PROBES):
        yield FIRST + (first + step) % _COUNT


def assign(network: bytes, bits: int, key: bytes, is_free: Callable[[int], bool]) -> int | None:
    """The first free candidate; None if all are taken."""
    return next((number for number in probes(network, bits, key) if is_free(number)), None)


def is_pseudo(packed: bytes) -> bool:
    """Whether the address is in 240.0.0.0/4."""
    return len(packed) == 4 and packed[0] >= PSEUDO_NET[0]
