"""Sockets that a helper makes ahead: kept for a moment, bound by the worker, guarded."""

from __future__ import annotations

import ipaddress
import os
import socket
import struct
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from v6fwd.client_ip.destination import Destination
from v6fwd.client_ip.presentable import SourceFilter
from v6fwd.client_ip.pseudo_ipv4 import is_pseudo
from v6fwd.daemon import socket_filter
from v6fwd.daemon.sockets_ahead import FIRST, KEPT, SocketsAhead
from v6fwd.daemon.wire import MOST
from v6fwd.model import Address, IPNetwork, Protocol
from v6fwd.relay.transparent.privileged import AheadRequest, MeshAhead, SocketRequest

LOOPBACK = bytes((127, 0, 0, 1))
TO = Destination(LOOPBACK)
CLIENT = Address(LOOPBACK, 0)
OWN: list[IPNetwork] = [ipaddress.ip_network("172.17.0.0/16"), ipaddress.ip_network("fd00::/8")]


def wanted(netns: str = "box", epoch: int = 1, client: Address = CLIENT) -> SocketRequest:
    return SocketRequest(netns, epoch, Protocol.TCP, TO, 80, client)


class Stocks:
    """SocketsAhead, what it asked for, and time in the test's hands."""

    def __init__(self) -> None:
        self.asked: list[AheadRequest | MeshAhead] = []
        self.made: list[socket.SocketType] = []
        self.sweeps: list[Callable[[], None]] = []
        self.ahead = SocketsAhead(self._make, self._later)

    def _make(self, request: AheadRequest | MeshAhead) -> list[socket.SocketType]:
        self.asked.append(request)
        sockets = [socket.SocketType(socket.AF_INET) for _ in range(request.number)]
        self.made += sockets
        return sockets

    def _later(self, seconds: float, then: Callable[[], None]) -> None:
        assert seconds == KEPT
        self.sweeps.append(then)

    def sweep(self) -> None:
        self.sweeps.pop()()

    @property
    def open(self) -> int:
        return sum(sock.fileno() >= 0 for sock in self.made)


@pytest.fixture
def stocks() -> Iterator[Stocks]:
    stocks = Stocks()
    yield stocks
    for sock in stocks.made:
        sock.close()


def test_many_for_one_request(stocks: Stocks) -> None:
    taken = [stocks.ahead.take(wanted()) for _ in range(300)]
    assert len({sock.fileno() for sock in taken}) == 300
    assert [each.number for each in stocks.asked][:7] == [2, 4, 8, 16, 32, 64, 64]
    assert max(each.number for each in stocks.asked) == MOST
    assert taken[0].getsockname()[0] == "127.0.0.1"


def test_what_nobody_takes_is_closed(stocks: Stocks) -> None:
    """It would keep the namespace of a dead container."""
    stocks.ahead.take(wanted()).close()
    assert stocks.open == FIRST - 1
    stocks.sweep()
    assert stocks.open == FIRST - 1
    stocks.sweep()
    assert stocks.open == 0
    assert not stocks.sweeps
    stocks.ahead.take(wanted())
    assert stocks.sweeps


def test_a_namespace_that_is_another_by_now(stocks: Stocks) -> None:
    for request in (wanted(epoch=1), wanted(epoch=2), wanted("other")):
        stocks.ahead.take(request).close()
    assert stocks.open == 3 * (FIRST - 1)
    stocks.ahead.drop("box", but=2)
    assert stocks.open == 2 * (FIRST - 1)
    stocks.ahead.drop("box")
    assert stocks.open == FIRST - 1
    stocks.ahead.close()
    assert stocks.open == 0


def test_an_address_that_cannot_be_bound(stocks: Stocks) -> None:
    with pytest.raises(OSError, match="assign requested address"):
        stocks.ahead.take(wanted(client=Address(bytes((203, 0, 113, 9)), 0)))
    assert stocks.open == FIRST - 1


# ---- the filter --------------------------------------------------------------------------------


def verdict(code: bytes, packet: bytes, header: int) -> int:
    """Run a filter as the kernel would, on a packet whose TCP header is at `header`."""
    steps = [struct.unpack("=BBhi", code[at : at + 8]) for at in range(0, len(code), 8)]
    value = at = 0
    while True:
        operation, _, offset, immediate = steps[at]
        at += 1
        if operation in (0x30, 0x28, 0x20):
            size = {0x30: 1, 0x28: 2, 0x20: 4}[operation]
            start = immediate + 0x100000 if immediate < 0 else header + immediate
            value = int.from_bytes(packet[start : start + size], "big")
        elif operation == 0x54:
            value &= immediate & 0xFFFFFFFF
        elif operation == 0x56:
            at += offset if value != immediate & 0xFFFFFFFF else 0
        elif operation == 0x05:
            at += offset
        elif operation == 0xB4:
            value = immediate
        elif operation == 0x95:
            return value


def hears(destination: Destination, port: int, source: bytes, source_port: int, us: bytes) -> bool:
    """Whether a socket for a destination at port 80, bound to `us`, hears a packet."""
    code = socket_filter.program(destination, port, OWN)
    head = bytes(12 if len(source) == 4 else 8)
    packet = head + source + us + source_port.to_bytes(2, "big") + bytes(18)
    return verdict(code, packet, len(head) + 2 * len(source)) == -1


_v4, _v6 = st.binary(min_size=4, max_size=4), st.binary(min_size=16, max_size=16)
_nearby = st.sampled_from(
    [
        ipaddress.ip_address(text).packed
        for text in [
            "127.0.0.1",
            "172.17.0.1",
            "172.18.0.1",
            "169.254.1.1",
            "240.0.0.1",
            "0.0.0.1",
            "224.0.0.1",
            "203.0.113.1",
            "::1",
            "::",
            "fe80::1",
            "fec0::1",
            "ff02::1",
            "fd00::1",
            "fc00::1",
            "2001:db8::1",
        ]
    ]
)


@given(_v4 | _v6 | _nearby, st.booleans())
def test_it_agrees_with_the_filter_of_sources(us: bytes, pseudo: bool) -> None:
    """The worker can only be whom the helper would have bound."""
    target = LOOPBACK if len(us) == 4 else bytes(15) + b"\x01"
    is_pseudo_target = pseudo and len(us) == 4
    allowed = is_pseudo(us) if is_pseudo_target else SourceFilter(OWN).why(us) is None
    assert hears(Destination(target, is_pseudo_target), 80, target, 80, us) == allowed


CLIENT_V4, CLIENT_V6 = bytes((203, 0, 113, 1)), ipaddress.ip_address("2001:db8::1").packed


@pytest.mark.parametrize(
    ("target", "source", "port", "us"),
    [
        (LOOPBACK, LOOPBACK, 81, CLIENT_V4),
        (LOOPBACK, bytes((127, 0, 0, 2)), 80, CLIENT_V4),
        (LOOPBACK, bytes((172, 17, 0, 2)), 80, CLIENT_V4),
        (bytes(15) + b"\x01", bytes(14) + b"\x01\x01", 80, CLIENT_V6),
        (bytes(15) + b"\x01", b"\x20" + bytes(14) + b"\x01", 80, CLIENT_V6),
    ],
)
def test_it_hears_the_target_only(target: bytes, source: bytes, port: int, us: bytes) -> None:
    assert hears(Destination(target), 80, target, 80, us)
    assert not hears(Destination(target), 80, source, port, us)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root loads programs")
def test_the_kernel_takes_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """A connection is made only if the filter hears the answer; and it stays on."""

    def connects(port: int) -> bool:
        program = socket_filter.load(socket_filter.program(TO, port, OWN))
        with socket.socket() as sock:
            socket_filter.guarded(sock, program)
            os.close(program)
            with pytest.raises(PermissionError):
                sock.setsockopt(socket.SOL_SOCKET, 27, b"\0\0\0\0")  # SO_DETACH_FILTER
            sock.settimeout(0.2)
            try:
                sock.connect(("127.0.0.1", here))
            except TimeoutError:
                return False
            return True

    with socket.create_server(("127.0.0.1", 0)) as server:
        here = int(server.getsockname()[1])
        assert not connects(here)  # its own address is a loopback address
        nets: dict[str, Any] = {}
        monkeypatch.setattr(socket_filter, "NOT_PRESENTABLE", nets)
        assert connects(here)
        assert not connects(here + 1)


def test_programs_for_all_kinds_of_targets_are_short() -> None:
    """The kernel takes 4,096 steps; a container has some networks."""
    for target in (LOOPBACK, bytes(16)):
        code = socket_filter.program(Destination(target), 80, OWN * 50)
        assert len(code) // 8 < 1000
