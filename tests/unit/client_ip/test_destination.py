"""Which destination leads to a target inside its namespace, and who must not be shown to it."""

from __future__ import annotations

import ipaddress

import pytest

from v6fwd.client_ip.destination import Destination, Destinations, find_destinations
from v6fwd.client_ip.presentable import REMEMBERED, SourceFilter
from v6fwd.model import parse_networks

OWN = "172.17.0.2"


def packed(text: str) -> bytes:
    """Network bytes."""
    return ipaddress.ip_address(text).packed


def told(destinations: Destinations) -> tuple[str, str]:
    """The ways for IPv6 and IPv4 clients in words."""
    return tuple(  # type: ignore[return-value]
        ""
        if destination is None
        else f"{ipaddress.ip_address(destination.address)}{' pseudo' * destination.is_pseudo}"
        for destination in destinations
    )


@pytest.mark.parametrize(
    ("listening", "for_v6", "for_v4"),
    [
        ("", "", ""),
        ("::", "::1", "127.0.0.1"),
        (":: only", "::1", ""),
        ("0.0.0.0", "127.0.0.1 pseudo", "127.0.0.1"),
        (":: only, 0.0.0.0", "::1", "127.0.0.1"),
        (OWN, f"{OWN} pseudo", OWN),
        (f"::ffff:{OWN}", f"{OWN} pseudo", OWN),
        (f":: only, {OWN}", "::1", OWN),
        ("127.0.0.1", "", ""),
        ("::1", "", ""),
        ("172.17.0.9", "", ""),
        # another program has the port on loopback: around it
        (f"127.0.0.1, {OWN}", f"{OWN} pseudo", OWN),
        ("0.0.0.0, 127.0.0.1", f"{OWN} pseudo", OWN),
        ("::, ::1", "127.0.0.1 pseudo", "127.0.0.1"),
        ("::, ::1, 127.0.0.1", f"{OWN} pseudo", OWN),
    ],
)
def test_ways_to_an_ipv4_target(listening: str, for_v6: str, for_v4: str) -> None:
    words = [word.split() for word in listening.split(", ") if word]
    bound = [(packed(word[0]), len(word) > 1) for word in words]
    assert told(find_destinations(bound, packed(OWN))) == (for_v6, for_v4)


@pytest.mark.parametrize(
    ("listening", "target", "for_v6", "for_v4"),
    [
        ("127.0.0.1", "127.0.0.1", "127.0.0.1 pseudo", "127.0.0.1"),
        ("::1", "::1", "::1", ""),
        ("2001:db8::5", "2001:db8::5", "2001:db8::5", ""),
        ("::", "2001:db8::5", "::1", "127.0.0.1"),
        ("0.0.0.0", "2001:db8::5", "127.0.0.1 pseudo", "127.0.0.1"),
    ],
)
def test_ways_to_other_targets(listening: str, target: str, for_v6: str, for_v4: str) -> None:
    assert told(find_destinations([(packed(listening), False)], packed(target))) == (for_v6, for_v4)


@pytest.mark.parametrize(
    ("address", "is_loopback"),
    [
        ("::1", True),
        ("127.0.0.1", True),
        ("127.9.9.9", True),
        ("172.17.0.2", False),
        ("128.0.0.1", False),
        ("7f00::1", False),  # begins with the byte 127
        ("::2", False),
    ],
)
def test_what_is_loopback(address: str, is_loopback: bool) -> None:
    assert Destination(packed(address)).is_loopback is is_loopback


@pytest.mark.parametrize(
    ("client", "why"),
    [
        ("2001:db8::1", None), ("192.0.2.1", None), ("fd00::1", None), ("10.0.0.1", None),
        ("239.1.2.3", "single host"), ("ff02::1", "single host"), ("::", "single host"),
        ("0.0.0.0", "single host"), ("::1", "loopback"), ("127.9.9.9", "loopback"),
        ("fe80::1", "link-local"), ("169.254.1.1", "link-local"), ("240.1.2.3", "240.0.0.0/4"),
        ("255.255.255.255", "240.0.0.0/4"), (OWN, "own network"), ("172.17.255.1", "own network"),
        ("172.18.0.1", None), ("2001:db8:5::9", "own network"),
    ],
)  # fmt: skip
def test_who_is_hidden(client: str, why: str | None) -> None:
    hidden = SourceFilter(parse_networks("172.17.0.0/16,2001:db8:5::/64"))
    for _ in range(2):  # the second answer is remembered
        found = hidden.why(packed(client))
        assert (found is None) if why is None else (found is not None and why in found)
        assert packed(client) in hidden._known


def test_what_is_remembered_is_bounded() -> None:
    hidden = SourceFilter()
    for number in range(REMEMBERED + 10):
        assert hidden.why(number.to_bytes(4, "big").replace(b"\0", b"\1")) is None
    assert hidden.why(packed("::1")) is not None
    assert len(hidden._known) <= REMEMBERED
