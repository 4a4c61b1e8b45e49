"""Addresses: turns, and what failed lately."""

from __future__ import annotations

import ctypes
import socket
import sys

import pytest

from v6fwd.relay.targets.addresses import PASS_OVER, Addresses, SocketAddress, raw_address


def v4(last: int) -> SocketAddress:
    return (socket.AF_INET, (f"192.0.2.{last}", 80))


def v6(last: int) -> SocketAddress:
    return (socket.AF_INET6, (f"2001:db8::{last}", 80, 0, 0))


def known(*found: SocketAddress) -> Addresses:
    addresses = Addresses()
    addresses.replace(found)
    return addresses


def test_by_turns() -> None:
    addresses = known(v4(1), v4(2), v4(3))
    firsts = [addresses.order(0.0)[0] for _ in range(6)]
    assert sorted(firsts[:3]) == [v4(1), v4(2), v4(3)]
    assert firsts[:3] == firsts[3:]


def test_each_once() -> None:
    assert known(v4(1), v4(1)).all == (v4(1),)


def test_the_other_family_is_for_need() -> None:
    addresses = known(v6(1), v6(2), v4(1))
    orders = [addresses.order(0.0) for _ in range(4)]
    assert {order[0] for order in orders} == {v6(1), v6(2)}
    assert {order[-1] for order in orders} == {v4(1)}
    for each in (v6(1), v6(2)):
        addresses.failed(each, 0.0)
    assert addresses.order(0.0)[0] == v4(1)


def test_a_failure_is_passed_over_for_a_while() -> None:
    addresses = known(v4(1), v4(2), v4(3))
    addresses.failed(v4(2), 100.0)
    for _ in range(6):
        assert addresses.order(100.0 + PASS_OVER / 2)[-1] == v4(2)
    assert v4(2) in {addresses.order(100.0 + PASS_OVER)[0] for _ in range(3)}


def test_who_answers_has_its_turn_again() -> None:
    addresses = known(v4(1), v4(2))
    addresses.failed(v4(2), 0.0)
    addresses.answered(v4(2), 0.0)
    assert {addresses.order(0.0)[0] for _ in range(2)} == {v4(1), v4(2)}


def test_where_all_fail_the_last_one_comes_last() -> None:
    addresses = known(v4(1), v4(2))
    for each in (v4(1), v4(2), v4(1)):
        addresses.failed(each, 0.0)
        assert addresses.order(0.0)[-1] == each
        assert addresses.is_worse(each, 0.0)


@pytest.mark.parametrize("moves", [False, True])
def test_another_answer(moves: bool) -> None:
    addresses = known(v4(1), v4(2))
    addresses.failed(v4(1), 0.0)
    addresses.replace([v4(3)] if moves else [v4(2), v4(1)])
    assert addresses.is_worse(v4(1), 0.0)
    assert addresses.is_worse(v4(2), 0.0) is moves


def test_the_only_address_is_never_worse() -> None:
    addresses = known(v4(1))
    addresses.failed(v4(1), 0.0)
    assert not addresses.is_worse(v4(1), 0.0)
    assert addresses.order(0.0) == [v4(1)]


def test_no_address() -> None:
    assert Addresses().order(0.0) == []
    assert not Addresses().is_worse(v4(1), 0.0)


def test_who_answers_elsewhere() -> None:
    addresses = known(v4(1), v4(2))
    assert not addresses.has_answered_elsewhere(v4(1), 0.0)
    addresses.answered(v4(2), 0.0)
    addresses.answered(v4(9), 0.0)  # of an older answer of the resolver
    assert addresses.has_answered_elsewhere(v4(1), PASS_OVER)
    assert not addresses.has_answered_elsewhere(v4(1), PASS_OVER + 1)
    assert not addresses.has_answered_elsewhere(v4(2), 0.0)
    addresses.replace([v4(1)])
    assert not addresses.has_answered_elsewhere(v4(1), 0.0)


@pytest.mark.parametrize(
    ("family", "host"), [(socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")]
)
def test_the_kernel_takes_a_raw_address(family: int, host: str) -> None:
    """As it would take the tuple."""
    with socket.create_server((host, 0), family=family) as server:
        address = server.getsockname()
        raw = raw_address(family, address)
        libc = ctypes.CDLL(None, use_errno=True)
        with socket.socket(family) as client:
            assert libc.connect(client.fileno(), raw, len(raw)) == 0
            assert client.getpeername() == address


def test_an_only_address_is_straight() -> None:
    only = known(v4(1))
    assert only.straight == raw_address(*v4(1))
    only.refuse([v4(1)])
    assert only.straight == b"", "it may not be used"
    assert known(v4(1), v4(2)).straight == b"", "each flow has to ask"
    assert known((socket.AF_UNIX, "/run/target")).straight == b""
    zone = (socket.AF_INET6, ("fe80::1%lo", 80, 0, 7))
    assert known(zone).straight[-4:] == (7).to_bytes(4, sys.byteorder)
