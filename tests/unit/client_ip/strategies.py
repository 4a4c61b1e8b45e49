"""Addresses and samples that several test files draw from."""

from __future__ import annotations

from hypothesis import strategies as st

from v6fwd.model import MAPPED_PREFIX, Address

PORTS = st.integers(0, 65535)

PACKED_IPV4 = st.binary(min_size=4, max_size=4)
# Zero groups are what RFC 5952 has rules about, and random bytes hardly ever have any.
_GROUP = st.one_of(st.just(b"\0\0"), st.binary(min_size=2, max_size=2))
_ANY_IPV6 = st.one_of(
    st.binary(min_size=16, max_size=16),
    st.lists(_GROUP, min_size=8, max_size=8).map(b"".join),
)
PACKED_IPV6 = _ANY_IPV6.filter(lambda packed: not packed.startswith(MAPPED_PREFIX))
"""Never v4-mapped: no such address gets past `Address.of`."""

IPV4 = st.builds(Address, PACKED_IPV4, PORTS)
IPV6 = st.builds(Address, PACKED_IPV6, PORTS)
PAIRS = st.one_of(st.tuples(IPV4, IPV4), st.tuples(IPV6, IPV6))
"""Source and destination of one family."""
MIXED_PAIRS = st.one_of(st.tuples(IPV4, IPV6), st.tuples(IPV6, IPV4))
