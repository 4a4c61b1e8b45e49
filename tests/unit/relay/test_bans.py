"""The table of bans: who is in it, what a worker sees of it and cannot do to it."""

from __future__ import annotations

import ipaddress
import mmap
import os
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from v6fwd.model import IPNetwork
from v6fwd.relay.limits import bans as module
from v6fwd.relay.limits.bans import Bans, BanTable, TableFullError, key_of, network_of


class Clock:
    """Seconds since 1970, as the test sets them."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def table(clock: Clock) -> Iterator[BanTable]:
    table = BanTable(clock)
    yield table
    table.close()


def net(text: str) -> IPNetwork:
    return ipaddress.ip_network(text)


def packed(text: str) -> bytes:
    return ipaddress.ip_address(text).packed


def seen(table: BanTable) -> Bans:
    """What a worker sees that starts now."""
    return table.reader()


def test_nobody_is_banned(table: BanTable) -> None:
    bans = seen(table)
    assert not bans
    assert packed("2001:db8::1") not in bans
    assert not Bans()
    assert packed("2001:db8::1") not in Bans()


@pytest.mark.parametrize(
    ("banned", "inside", "outside"),
    [
        ("2001:db8::5", "2001:db8::5", "2001:db8::6"),
        ("2001:db8:0:1::/64", "2001:db8:0:1:2:3:4:5", "2001:db8:0:2::1"),
        ("2001:db8::/33", "2001:db8:7fff::1", "2001:db8:8000::1"),
        ("203.0.113.7", "203.0.113.7", "203.0.113.8"),
        ("203.0.113.0/25", "203.0.113.127", "203.0.113.128"),
    ],
)
def test_a_network_is_banned(table: BanTable, banned: str, inside: str, outside: str) -> None:
    table.add(net(banned), 0)
    bans = seen(table)
    assert bans
    assert packed(inside) in bans
    assert packed(outside) not in bans


def test_families_are_kept_apart(table: BanTable) -> None:
    """::cb00:7107 has the number that 203.0.113.7 is."""
    table.add(net("203.0.113.7"), 0)
    table.add(net("2001:db8::/32"), 0)
    bans = seen(table)
    assert packed("::cb00:7107") not in bans
    assert packed("32.1.13.184") not in bans


def test_a_worker_that_runs_sees_what_changes(table: BanTable) -> None:
    bans = seen(table)
    table.add(net("2001:db8::5"), 0)
    bans.refresh()
    assert packed("2001:db8::5") in bans
    assert table.remove(net("2001:db8::5"))
    assert packed("2001:db8::5") not in bans
    bans.refresh()
    assert not bans


def test_a_ban_ends_in_time_before_anybody_sweeps(table: BanTable, clock: Clock) -> None:
    network = net("2001:db8::/64")
    table.add(network, 1010)
    bans = seen(table)
    clock.now = 1009.9
    assert packed("2001:db8::1") in bans
    assert table.until(network) == 1010
    clock.now = 1010.0
    assert packed("2001:db8::1") not in bans
    assert table.until(network) is None
    assert [*table] == []
    assert len(table) == 1


def test_sweeping_all_parts_forgets_what_is_over_and_nothing_else(
    table: BanTable, clock: Clock
) -> None:
    for number in range(300):
        table.add(net(f"2001:db8::{number:x}"), 1010 if number % 2 else 0)
    clock.now = 1011.0
    for part in range(4):
        table.sweep(part, 4)
    assert len(table) == 150
    assert {int(network.network_address) % 2 for network, _ in table} == {0}


def test_the_same_ban_again_changes_its_end_alone(table: BanTable) -> None:
    table.add(net("2001:db8::5"), 2000)
    table.add(net("2001:db8::5"), 3000)
    assert [*table] == [(net("2001:db8::5"), 3000)]
    assert len(table) == 1


def test_what_is_not_banned_is_not_removed(table: BanTable) -> None:
    table.add(net("2001:db8::/64"), 0)
    assert not table.remove(net("2001:db8::/65"))
    assert not table.remove(net("2001:db8::"))
    assert not table.remove(net("::/0"))
    assert len(table) == 1
    assert table.covering(net("2001:db8::7")) == net("2001:db8::/64")
    assert table.covering(net("2001:db8::/64")) is None


def test_all_bans_end_at_once(table: BanTable) -> None:
    for number in range(100):
        table.add(net(f"192.0.2.{number}"), 0)
    bans = seen(table)
    table.clear()
    bans.refresh()
    assert len(table) == 0
    assert not bans


def test_a_bucket_that_is_full_refuses_and_loses_nothing(
    table: BanTable, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_BUCKETS", 1)
    networks = [net(f"2001:db8::{number:x}") for number in range(1, 65)]
    for network in networks:
        table.add(network, 0)
    with pytest.raises(TableFullError):
        table.add(net("2001:db8:1::"), 0)
    bans = seen(table)
    assert all(network.network_address.packed in bans for network in networks)
    assert packed("2001:db8:1::") not in bans


def test_100_000_bans_take_8_mb(table: BanTable) -> None:
    """Of all processes together: workers map the same pages. And each of them is found."""
    networks = [ipaddress.IPv6Network((n << 100, 64)) for n in range(1, 100_001)]
    for network in networks:
        table.add(network, 0)
    assert os.fstat(table.fd).st_blocks * 512 < 8 << 20
    bans = seen(table)
    assert sum(network.network_address.packed in bans for network in networks) == 100_000


def test_a_count_of_the_filter_never_overflows(
    table: BanTable, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A count that stands still is right: it only says that somebody may be there."""
    monkeypatch.setattr(module, "_FILTER_MASK", 0)
    networks = [net(f"2001:db8::{number:x}") for number in range(300)]
    for network in networks:
        table.add(network, 0)
    for network in networks[:299]:
        table.remove(network)
    assert networks[299].network_address.packed in seen(table)


def test_a_worker_cannot_write(table: BanTable) -> None:
    """Neither by its own mapping nor by a new one: the memory is sealed."""
    bans = seen(table)
    assert isinstance(bans._memory, mmap.mmap)
    with pytest.raises(TypeError):
        bans._memory[0] = 1
    with pytest.raises(PermissionError):
        mmap.mmap(table.fd, 4096)
    with pytest.raises(PermissionError):
        os.ftruncate(table.fd, 0)
    with pytest.raises(PermissionError):
        os.pwrite(table.fd, b"x", 0)


@given(
    st.integers(0, (1 << 128) - 1),
    st.integers(1, 128),
)
def test_the_key_of_a_network_tells_it(number: int, bits: int) -> None:
    network = ipaddress.IPv6Network((number, bits), strict=False)
    if not network.overlaps(net("::ffff:0:0/96")):
        assert network_of(key_of(network)) == network
    ipv4 = ipaddress.IPv4Network((number & 0xFFFFFFFF, bits % 33), strict=False)
    assert network_of(key_of(ipv4)) == ipv4


@given(st.lists(st.tuples(st.integers(0, 255), st.integers(118, 128)), max_size=30), st.data())
def test_it_agrees_with_a_list_of_networks(
    some: list[tuple[int, int]], data: st.DataObject
) -> None:
    """Adding, removing and looking up, as with ipaddress."""
    table = BanTable(float)
    base = int(ipaddress.ip_address("2001:db8::"))
    listed: set[IPNetwork] = set()
    for number, bits in some:
        network = ipaddress.IPv6Network((base + number, bits), strict=False)
        if network in listed and data.draw(st.booleans()):
            listed.remove(network)
            assert table.remove(network)
        else:
            listed.add(network)
            table.add(network, 0)
    bans = table.reader()
    for number in range(256):
        address = ipaddress.IPv6Address(base + number)
        assert (address.packed in bans) == any(address in network for network in listed)
    assert {network for network, _ in table} == listed
    table.close()
