"""Which clients are trusted, against the standard library's own arithmetic."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.client_ip.strategies import PACKED_IPV4, PACKED_IPV6
from v6fwd.client_ip.trust import TrustedNetworks
from v6fwd.model import IPNetwork, parse_networks

PACKED = st.one_of(PACKED_IPV4, PACKED_IPV6)


def is_trusted(host: str, networks: str) -> bool:
    """Whether a client at `host` is trusted by `--accept-proxy networks`."""
    return ipaddress.ip_address(host).packed in TrustedNetworks(parse_networks(networks))


@pytest.mark.parametrize(
    ("host", "networks"),
    [
        ("10.0.0.0", "10.0.0.0/8"),
        ("10.255.255.255", "10.0.0.0/8"),
        ("192.0.2.7", "192.0.2.7"),
        ("192.0.2.7", "0.0.0.0/0"),
        ("2001:db8::", "2001:db8::/32"),
        ("2001:db8:ffff:ffff:ffff:ffff:ffff:ffff", "2001:db8::/32"),
        ("::1", "::1"),
        ("fe80::1", "::/0"),
        ("::1", "10.0.0.0/8,2001:db8::/32,::1"),
        ("10.0.0.1", "::ffff:10.0.0.0/104"),  # a client is never v4-mapped, its network may be
    ],
)
def test_trusted(host: str, networks: str) -> None:
    assert is_trusted(host, networks)


@pytest.mark.parametrize(
    ("host", "networks"),
    [
        ("9.255.255.255", "10.0.0.0/8"),
        ("11.0.0.0", "10.0.0.0/8"),
        ("192.0.2.6", "192.0.2.7"),
        ("2001:db7:ffff::", "2001:db8::/32"),
        ("2001:db9::", "2001:db8::/32"),
        ("::2", "::1"),
        ("10.0.0.1", "::/0"),  # families are apart: all of IPv6 is none of IPv4
        ("::", "0.0.0.0/0"),
        ("::a00:1", "10.0.0.0/8"),  # the same number, another family
        ("0.0.0.1", "::1"),
    ],
)
def test_not_trusted(host: str, networks: str) -> None:
    assert not is_trusted(host, networks)


@given(PACKED)
def test_without_networks_nobody_is_trusted(packed: bytes) -> None:
    assert packed not in TrustedNetworks(())


def _network(packed: bytes, prefix: int) -> IPNetwork:
    return ipaddress.ip_network((packed, min(prefix, len(packed) * 8)), strict=False)


NETWORKS = st.lists(st.builds(_network, PACKED, st.integers(0, 128)), max_size=5)


@settings(max_examples=300, deadline=None)
@given(NETWORKS, PACKED, st.integers(0))
def test_as_ipaddress_has_it(networks: list[IPNetwork], packed: bytes, at: int) -> None:
    clients = [packed]
    for network in networks:  # a random address is in hardly any network: take one in each
        clients.append(network[at % network.num_addresses].packed)
    trusted = TrustedNetworks(networks)
    for client in clients:
        host = ipaddress.ip_address(client)
        assert (client in trusted) is any(host in network for network in networks)
