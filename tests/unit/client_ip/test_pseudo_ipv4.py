"""Pseudo IPv4: always the same address for a network, never one for two, never a reserved one."""

from __future__ import annotations

import ipaddress
import itertools
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from v6fwd.client_ip.pseudo_ipv4 import (
    FIRST,
    LAST,
    MOST_PROBES,
    PSEUDO_BITS,
    PSEUDO_NET,
    assign,
    is_pseudo,
    network_of,
    probes,
)

KEY = bytes(32)
PACKED = ipaddress.IPv6Address("2001:db8:1:2:3:4:5:6").packed


def test_the_network_of_an_address() -> None:
    assert network_of(PACKED, 64) == ipaddress.IPv6Address("2001:db8:1:2::").packed
    assert network_of(PACKED, 128) == PACKED


@given(network=st.binary(min_size=16, max_size=16), key=st.binary(min_size=16, max_size=32))
def test_probes_are_a_run_of_usable_addresses(network: bytes, key: bytes) -> None:
    found = list(probes(network, 64, key))
    assert len(set(found)) == len(found) == MOST_PROBES
    assert all(FIRST <= number <= LAST for number in found)
    assert found == list(probes(network, 64, key))
    pairs = itertools.pairwise(found)
    steps = {(after - before) % (LAST - FIRST + 1) for before, after in pairs}
    assert steps == {1}


@pytest.mark.parametrize(
    ("digest", "run"), [(0, (FIRST, FIRST + 1)), (LAST - FIRST, (LAST, FIRST))]
)
def test_probes_go_from_the_last_address_to_the_first(
    monkeypatch: pytest.MonkeyPatch, digest: int, run: tuple[int, int]
) -> None:
    hashed = SimpleNamespace(digest=lambda: digest.to_bytes(8, "big"))
    monkeypatch.setattr("v6fwd.client_ip.pseudo_ipv4.blake2b", lambda *_, **__: hashed)
    assert tuple(itertools.islice(probes(PACKED, 128, KEY), 2)) == run


def test_the_net_is_the_reserved_one() -> None:
    """What is routed must be what is_pseudo knows."""
    net = ipaddress.ip_network((PSEUDO_NET, PSEUDO_BITS))
    assert net == ipaddress.ip_network("240.0.0.0/4")
    assert net[1] == ipaddress.ip_address(FIRST)
    assert net[-2] == ipaddress.ip_address(LAST)


def test_neither_the_net_nor_the_broadcast_address_is_given() -> None:
    assert str(ipaddress.IPv4Address(FIRST - 1)) == "240.0.0.0"
    assert str(ipaddress.IPv4Address(LAST + 1)) == "255.255.255.255"


def test_the_first_probe_depends_on_the_key_the_network_and_its_length() -> None:
    first = {
        next(probes(network_of(PACKED, bits), kind, key))
        for bits, kind in ((64, 64), (128, 128), (64, 128))
        for key in (KEY, b"1" * 32)
    }
    assert len(first) == 6


def test_what_is_taken_is_passed_over() -> None:
    run = list(probes(PACKED, 128, KEY))
    taken = set(run[:3])
    assert assign(PACKED, 128, KEY, lambda number: number not in taken) == run[3]
    assert assign(PACKED, 128, KEY, lambda _: False) is None


def test_ten_thousand_networks_have_as_many_addresses() -> None:
    given_out: set[int] = set()
    for number in range(10_000):
        network = network_of((0x2001_0DB8 << 96 | number << 64).to_bytes(16, "big"), 64)
        found = assign(network, 64, KEY, lambda one: one not in given_out)
        assert found is not None
        given_out.add(found)
    assert len(given_out) == 10_000


@pytest.mark.parametrize(
    ("text", "expected"), [("240.0.0.1", True), ("255.1.2.3", True), ("239.255.255.255", False)]
)
def test_what_a_pseudo_address_is(text: str, expected: bool) -> None:
    assert is_pseudo(ipaddress.IPv4Address(text).packed) is expected
    assert not is_pseudo(PACKED)
