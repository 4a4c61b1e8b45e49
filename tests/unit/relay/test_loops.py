"""Loops: which targets lead back to themselves."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest

from v6fwd.model import Protocol
from v6fwd.relay.targets.addresses import SocketAddress
from v6fwd.relay.targets.loops import Loops

TCP = Protocol.TCP


@dataclass(eq=False)
class Place:
    """A target."""

    found: list[SocketAddress] = field(default_factory=list)


def to(host: str, port: int) -> SocketAddress:
    if ":" in host:
        return socket.AF_INET6, (host, port, 0, 0)
    return socket.AF_INET, (host, port)


@pytest.fixture
def sockets() -> Iterator[contextlib.ExitStack]:
    with contextlib.ExitStack() as stack:
        yield stack


def bound(sockets: contextlib.ExitStack, host: str, port: int = 0) -> tuple[socket.socket, int]:
    """A bound socket, dual-stack for `::`, and its port."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    sock = sockets.enter_context(socket.socket(family))
    if family == socket.AF_INET6:
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
    sock.bind((host, port))
    return sock, sock.getsockname()[1]


@pytest.mark.parametrize(
    ("listen", "target", "loops"),
    [
        ("::", "127.0.0.1", True),
        ("::", "127.9.9.9", True),
        ("::", "::1", True),
        ("::", "::ffff:127.0.0.1", True),
        ("::", "0.0.0.0", True),
        ("::", "::", True),
        ("::", "192.0.2.7", False),  # nobody's here
        ("0.0.0.0", "127.0.0.1", True),
        ("0.0.0.0", "::1", False),
        ("127.0.0.1", "127.0.0.1", True),
        ("127.0.0.1", "127.0.0.2", False),
        ("::1", "::1", True),
        ("::1", "127.0.0.1", False),
    ],
)
def test_itself(sockets: contextlib.ExitStack, listen: str, target: str, loops: bool) -> None:
    sock, port = bound(sockets, listen)
    place, table = Place([to(target, port)]), Loops()
    table.add("a", sock, TCP, place)
    assert table.leading_back(place, TCP) == (place.found if loops else [])
    assert table.leading_back(place, Protocol.UDP) == [], "that is another port"
    table.remove("a")
    assert table.leading_back(place, TCP) == []


def test_another_port_is_no_loop(sockets: contextlib.ExitStack) -> None:
    sock, port = bound(sockets, "::1")
    place, table = Place([to("::1", port - 1)]), Loops()
    table.add("a", sock, TCP, place)
    assert table.leading_back(place, TCP) == []


def test_unix_sockets_lead_elsewhere(sockets: contextlib.ExitStack) -> None:
    place, table = Place([(socket.AF_UNIX, "/run/app.sock")]), Loops()
    table.add("a", bound(sockets, "::1")[0], TCP, place)
    assert table.leading_back(place, TCP) == []


def test_a_circle_of_three_and_a_chain(sockets: contextlib.ExitStack) -> None:
    socks, ports = zip(*(bound(sockets, "::1") for _ in range(3)), strict=True)
    places = [Place([to("::1", ports[(number + 1) % 3])]) for number in range(3)]
    table = Loops()
    for number in range(3):
        table.add(number, socks[number], TCP, places[number])
    assert all(table.leading_back(place, TCP) == place.found for place in places)
    last = Place([to("192.0.2.7", 80)])
    table.change(2, last)
    assert [table.leading_back(place, TCP) for place in (*places[:2], last)] == [[], [], []]


def test_who_leads_into_a_circle_is_not_of_it(sockets: contextlib.ExitStack) -> None:
    (one, port), (two, other) = bound(sockets, "::1"), bound(sockets, "::1")
    circle, into = Place([to("::1", port)]), Place([to("::1", port)])
    table = Loops()
    table.add("a", one, TCP, circle)
    table.add("b", two, TCP, into)
    assert table.leading_back(circle, TCP) == circle.found
    assert table.leading_back(into, TCP) == []
    assert other != port


def test_only_the_address_that_leads_back(sockets: contextlib.ExitStack) -> None:
    sock, port = bound(sockets, "127.0.0.1")
    place, table = Place([to("127.0.0.1", port), to("127.0.0.2", port)]), Loops()
    table.add("a", sock, TCP, place)
    assert table.leading_back(place, TCP) == place.found[:1]


def test_added_twice_is_removed_once(sockets: contextlib.ExitStack) -> None:
    sock, port = bound(sockets, "::1")
    place, table = Place([to("::1", port)]), Loops()
    for _ in range(2):
        table.add("a", sock, TCP, place)
    table.remove("a")
    table.remove("a")
    assert table.leading_back(place, TCP) == []
