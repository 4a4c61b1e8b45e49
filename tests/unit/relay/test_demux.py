"""Demux: which session each datagram of a batch goes to."""

from __future__ import annotations

import ipaddress
import itertools
import socket
import struct
from typing import NamedTuple
from unittest.mock import Mock

import pytest

from v6fwd.client_ip.budget import TURN
from v6fwd.client_ip.proxy.write import write_v2_dgram
from v6fwd.client_ip.trust import TrustedNetworks
from v6fwd.model import Address, parse_networks
from v6fwd.relay.udp.demux import READ_BEFORE, Demux
from v6fwd.relay.udp.gso import datagrams
from v6fwd.relay.udp.mmsg import META_SIZE, NAME_ROOM, SLOT_SIZE, SOL_UDP, UDP_GRO, Inbox, Slot
from v6fwd.relay.udp.pktinfo import INET, INET6, Family

LOCAL = {INET: "192.0.2.1", INET6: "2001:db8::1"}
FAMILIES = pytest.mark.parametrize("family", [INET, INET6], ids=["ipv4", "ipv6"])
CLIENT = {INET: "192.0.2.7", INET6: "2001:db8::7"}
BEHIND = Address(ipaddress.ip_address("198.51.100.9").packed, 4711)
HEADER = write_v2_dgram(BEHIND, Address(ipaddress.ip_address("203.0.113.1").packed, 53))


class Datagram(NamedTuple):
    """What recvmmsg(2) gives for one slot."""

    data: bytes
    port: int = 1000
    segment: int = 0
    local: str = ""
    is_plain: bool = True
    """Whether pktinfo is its only control message."""


def filled(family: Family, datagrams: list[Datagram]) -> Inbox:
    """An Inbox that holds these datagrams, without a socket."""
    inbox = Inbox()
    for number, each in enumerate(datagrams):
        meta = _meta(family, each)
        control_size = len(meta) - NAME_ROOM
        inbox.put(number, Slot(meta.ljust(META_SIZE, b"\0"), control_size, each.data))
    return inbox


def _meta(family: Family, datagram: Datagram) -> bytes:
    local = ipaddress.ip_address(datagram.local or LOCAL[family]).packed
    client = ipaddress.ip_address(CLIENT[family]).packed
    if family is INET:
        name = struct.pack("=H", socket.AF_INET) + datagram.port.to_bytes(2, "big") + client
        info = struct.pack("@i", 1) + local + local
    else:
        port = datagram.port.to_bytes(2, "big")
        name = struct.pack("=H", socket.AF_INET6) + port + bytes(4) + client + bytes(4)
        info = local + struct.pack("@i", 1)
    control = _cmsg(family.level, family.kind, info)
    if datagram.segment or not datagram.is_plain:
        control += _cmsg(SOL_UDP, UDP_GRO, struct.pack("@i", datagram.segment))
    return name.ljust(family.name_size, b"\0").ljust(NAME_ROOM, b"\0") + control


def _cmsg(level: int, kind: int, data: bytes) -> bytes:
    text = struct.pack("@Nii", socket.CMSG_LEN(len(data)), level, kind) + data
    return text.ljust(socket.CMSG_SPACE(len(data)), b"\0")


def frozen() -> float:
    """A clock by which nothing takes any time."""
    return 0.0


class Sorted:
    """What a Demux made of datagrams: payloads by client port, in order."""

    def __init__(self, family: Family, *datagrams: Datagram, trusted: str = "") -> None:
        self.refused: list[str] = []
        self.demux = Demux(family, lambda _, why: self.refused.append(why), frozen)
        if trusted:
            self.demux.trusted = TrustedNetworks(parse_networks(trusted))
        inbox = filled(family, list(datagrams))
        self.groups = self.demux.sort(inbox, len(datagrams))
        self.payloads = {
            key: [bytes(inbox.payload[start : start + size]) for start, size, _ in items]
            for key, items in self.groups.items()
        }


@FAMILIES
def test_by_client_in_order(family: Family) -> None:
    found = Sorted(
        family, Datagram(b"a1", 1), Datagram(b"b1", 2), Datagram(b""), Datagram(b"a2", 1)
    )
    assert list(found.payloads.values()) == [[b"a1", b"a2"], [b"b1"], [b""]]
    assert [family.client(key).port for key in found.groups] == [1, 2, 1000]
    assert {family.client(key).host for key in found.groups} == {CLIENT[family]}


@FAMILIES
def test_by_the_address_that_the_client_wrote_to(family: Family) -> None:
    other = {INET: "192.0.2.2", INET6: "2001:db8::2"}[family]
    found = Sorted(family, Datagram(b"one"), Datagram(b"two", local=other), Datagram(b"three"))
    assert list(found.payloads.values()) == [[b"one", b"three"], [b"two"]]
    assert [family.local(key, 53).host for key in found.groups] == [LOCAL[family], other]


@FAMILIES
@pytest.mark.parametrize("segment", [0, 3])
def test_other_control_messages_change_no_key(family: Family, segment: int) -> None:
    message = Datagram(b"aaabbbc", segment=segment, is_plain=False)
    found = Sorted(family, Datagram(b"plain"), message, message)
    [items] = found.groups.values()
    assert items == [(0, 5, 0), (SLOT_SIZE, 7, segment), (2 * SLOT_SIZE, 7, segment)]


def test_a_flood_of_control_messages_is_not_remembered_for_good() -> None:
    many = [Datagram(b"x", port, is_plain=False) for port in range(1, 65)]
    demux = Demux(INET, lambda *_: None, frozen)
    for round_ in range(READ_BEFORE // len(many) + 1):
        ports = [each._replace(port=each.port + 100 * round_) for each in many]
        assert len(demux.sort(filled(INET, ports), len(ports))) == len(ports)
    assert len(demux._read_before) <= READ_BEFORE


# ---- behind a trusted proxy ------------------------------------------------------------------


@FAMILIES
def test_clients_that_a_header_names(family: Family) -> None:
    two = write_v2_dgram(BEHIND._replace(port=4712), Address(bytes((203, 0, 113, 1)), 53))
    sent = [HEADER + b"one", two + b"other", HEADER + b"two"]
    found = Sorted(family, *map(Datagram, sent), trusted=CLIENT[family])
    assert list(found.payloads.values()) == [[b"one", b"two"], [b"other"]]
    sources = [found.demux.headers[key].source for key in found.groups]
    assert sources == [BEHIND, BEHIND._replace(port=4712)]
    assert {family.client(key).host for key in found.groups} == {CLIENT[family]}


@FAMILIES
def test_each_segment_has_a_header_of_its_own(family: Family) -> None:
    size = len(HEADER) + 3
    message = Datagram(HEADER + b"one" + HEADER + b"two" + HEADER + b"3", segment=size)
    found = Sorted(family, message, trusted=CLIENT[family])
    assert list(found.payloads.values()) == [[b"one", b"two", b"3"]]


@FAMILIES
def test_one_without_a_header_is_refused_alone(family: Family) -> None:
    sent = [HEADER + b"one", b"none", HEADER + b"two"]
    found = Sorted(family, *map(Datagram, sent), trusted=CLIENT[family])
    assert list(found.payloads.values()) == [[b"one", b"two"]]
    assert len(found.refused) == 1


@FAMILIES
@pytest.mark.parametrize("trusted", ["", "203.0.113.0/24"])
def test_a_header_of_somebody_else_is_payload(family: Family, trusted: str) -> None:
    found = Sorted(family, Datagram(HEADER + b"x"), trusted=trusted)
    assert list(found.payloads.values()) == [[HEADER + b"x"]]
    assert not found.demux.headers


# ---- headers that take long ------------------------------------------------------------------


class Dear:
    """A Demux whose clock is a fifth of a turn later each time that it is looked at.

    The clock is a float: that may be six times in a turn.
    """

    def __init__(self, family: Family, *datagrams: Datagram) -> None:
        self.looks = 0
        self.inbox = filled(family, list(datagrams))
        self.demux = Demux(family, lambda *_: None, self._clock)
        self.demux.trusted = TrustedNetworks(parse_networks(CLIENT[family]))
        self.turns = [self._sort(len(datagrams))]
        while self.demux.has_unread:
            count = self.demux.take_unread(self.inbox)
            assert not self.demux.has_unread
            self.turns.append(self._sort(count))

    def _clock(self) -> float:
        self.looks += 1
        return self.looks * TURN / 5

    def _sort(self, count: int) -> list[tuple[bytes, bytes]]:
        groups = self.demux.sort(self.inbox, count)
        memory = self.inbox.payload
        return [
            (key, bytes(memory[start : start + size]))
            for key, items in groups.items()
            for start, size in datagrams(items)
        ]

    def payloads(self) -> list[list[bytes]]:
        """By client, in the order in which they were passed on."""
        found: dict[bytes, list[bytes]] = {}
        for key, payload in itertools.chain(*self.turns):
            found.setdefault(key, []).append(payload)
        return list(found.values())


@FAMILIES
def test_headers_are_read_for_one_turn_at_a_time(family: Family) -> None:
    """The rest of the batch comes in the next ones, in order and with nothing lost."""
    numbers = [b"%d" % number for number in range(64)]
    found = Dear(family, *(Datagram(HEADER + number, 1 + int(number) % 3) for number in numbers))
    assert max(map(len, found.turns)) <= 6
    assert found.payloads() == [numbers[0::3], numbers[1::3], numbers[2::3]]


@FAMILIES
@pytest.mark.parametrize("last", [3, 1])
def test_a_message_of_many_datagrams_is_cut(family: Family, last: int) -> None:
    numbers = [b"%03d" % number for number in range(63)] + [b"end"[:last]]
    train = Datagram(b"".join(HEADER + each for each in numbers), segment=len(HEADER) + 3)
    found = Dear(family, train, Datagram(HEADER + b"behind"))
    assert max(map(len, found.turns)) <= 6
    assert found.payloads() == [[*numbers, b"behind"]]


@FAMILIES
def test_headers_that_are_refused_take_their_time_too(family: Family) -> None:
    found = Dear(family, *[Datagram(b"none")] * 20, Datagram(HEADER + b"one"))
    assert found.payloads() == [[b"one"]]
    assert len(found.turns) >= 4


def test_a_clock_that_is_always_late_lets_one_through() -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("v6fwd.client_ip.budget.TURN", 0.0)
        found = Dear(INET, Datagram(HEADER + b"one"), Datagram(HEADER + b"two"))
    assert [len(turn) for turn in found.turns] == [1, 1]


@FAMILIES
def test_the_clock_is_not_looked_at_where_nobody_is_trusted(family: Family) -> None:
    clock = Mock(return_value=0.0)
    demux = Demux(family, lambda *_: None, clock)
    demux.sort(filled(family, [Datagram(HEADER + b"x")] * 64), 64)
    clock.assert_not_called()
