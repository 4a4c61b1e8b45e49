"""OwnListeners: which sources are listeners of ours."""

from __future__ import annotations

import contextlib
import ipaddress
import socket

import pytest

from v6fwd.model import Address
from v6fwd.relay.targets.loops import Bound, bound_of, is_local_address
from v6fwd.relay.udp.own_listeners import OwnListeners

LOCAL = {"192.0.2.1", "192.0.2.2", "2001:db8::1", "2001:db8::2"}


def is_local(packed: bytes, _: int) -> bool:
    return str(ipaddress.ip_address(packed)) in LOCAL


def at(host: str, port: int = 53) -> Address:
    return Address(ipaddress.ip_address(host).packed, port)


@pytest.mark.parametrize(
    ("bound", "v6_only", "own", "others"),
    [
        ("::", False, ["2001:db8::1", "192.0.2.1"], ["2001:db8::9", "192.0.2.9"]),
        ("::", True, ["2001:db8::1"], ["192.0.2.1"]),
        ("0.0.0.0", False, ["192.0.2.1", "192.0.2.2"], ["2001:db8::1", "192.0.2.9"]),
        ("192.0.2.1", False, ["192.0.2.1"], ["192.0.2.2", "2001:db8::1"]),
        ("2001:db8::1", False, ["2001:db8::1"], ["2001:db8::2", "192.0.2.1"]),
    ],
)
def test_who_is_ours(bound: str, v6_only: bool, own: list[str], others: list[str]) -> None:
    listeners = OwnListeners(is_local)
    listeners.add_bound(7, Bound(at(bound), v6_only))
    assert [listeners.has(at(host)) for host in own] == [True] * len(own)
    assert [listeners.has(at(host)) for host in others] == [False] * len(others)
    assert not any(listeners.has(at(host, 54)) for host in own)
    listeners.remove(7)
    assert not any(listeners.has(at(host)) for host in own)


def test_one_of_two_on_a_port_is_left() -> None:
    """As with the shards of workers."""
    listeners = OwnListeners(is_local)
    for fd in (7, 8):
        listeners.add_bound(fd, Bound(at("::"), v6_only=False))
    listeners.remove(7)
    assert listeners.has(at("2001:db8::1"))


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("127.0.0.1", True),
        ("127.1.2.3", True),
        ("::1", True),
        ("192.0.2.1", False),
        ("2001:db8::1", False),
        ("255.255.255.255", False),
        ("fe80::1", False),
    ],
)
def test_what_the_kernel_says(host: str, expected: bool) -> None:
    assert is_local_address(at(host).packed, 0) is expected


@pytest.mark.parametrize("v6_only", [False, True])
def test_what_a_socket_is_bound_to(v6_only: bool) -> None:
    with contextlib.closing(socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)) as sock:
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, v6_only)
        sock.bind(("::", 0))
        assert bound_of(sock) == Bound(at("::", sock.getsockname()[1]), v6_only)
