"""Sockets that a helper makes ahead: kept for a moment, bound by the worker, guarded."""

from __future__ import annotations

import ipaddress
import os
import select
import socket
import struct
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from v6fwd.client_ip.destination import Destination
from v6fwd.client_ip.presentable import SourceFilter
from v6fwd.client_ip.pseudo_ipv4 import is_pseudo
from v6fwd.daemon import socket_filter
from v6fwd.daemon.helper import Desk, RefusedError
from v6fwd.daemon.permits import Permits, permit_for
from v6fwd.daemon.sockets_ahead import FIRST, KEPT, ORDERED, SocketsAhead, Taker
from v6fwd.daemon.wire import MOST
from v6fwd.model import Address, Endpoint, Forward, IPNetwork, Mesh, Protocol
from v6fwd.relay.budget import SOCKETS_AHEAD
from v6fwd.relay.transparent.privileged import (
    AheadRequest,
    MeshAhead,
    MeshSocket,
    SocketRequest,
)

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
        self.ordered: list[tuple[AheadRequest | MeshAhead, Taker]] = []
        self.can_deliver = True
        self.ahead = SocketsAhead(self, self._later)

    def make(self, request: AheadRequest | MeshAhead) -> list[socket.SocketType]:
        self.asked.append(request)
        sockets = [socket.SocketType(socket.AF_INET) for _ in range(request.number)]
        self.made += sockets
        return sockets

    def order(self, request: AheadRequest | MeshAhead, then: Taker) -> None:
        self.collect()
        self.ordered.append((request, then))

    def collect(self) -> None:
        while self.ordered:
            request, then = self.ordered.pop()
            then(self.make(request) if self.can_deliver else [])

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


def to_task(port: int, identity: str = "1", host: str = "127.0.0.1") -> MeshSocket:
    """A request for a socket to a task, or to a server of the test's."""
    return MeshSocket("box", Protocol.TCP, socket.inet_aton(host), port, 0, identity, speaks=True)


@pytest.fixture
def task() -> Iterator[int]:
    """The port of a server."""
    with socket.create_server(("127.0.0.1", 0), backlog=200) as server:
        yield int(server.getsockname()[1])


def test_a_socket_to_a_task_is_connected(stocks: Stocks, task: int) -> None:
    sock = stocks.ahead.to_task(to_task(task))
    assert select.select([], [sock], [], 20)[1]
    assert sock.getpeername() == ("127.0.0.1", task)
    assert stocks.asked == [MeshAhead("box", LOOPBACK, task, FIRST)]


def test_sockets_of_a_sandbox_that_is_another_by_now(stocks: Stocks, task: int) -> None:
    """dockerd has made a new one: none of the old one is used or kept."""
    stocks.ahead.to_task(to_task(task)).close()
    assert stocks.open == FIRST - 1
    stocks.ahead.to_task(to_task(task, "2")).close()
    assert len(stocks.asked) == 2
    assert stocks.open == FIRST - 1


def test_a_task_that_cannot_be_connected_to(stocks: Stocks) -> None:
    """As from a sandbox without a network: connect(2) fails at once."""
    with pytest.raises(OSError, match=r"Permission denied|Network is unreachable"):
        stocks.ahead.to_task(to_task(9, host="255.255.255.255"))
    assert stocks.open == FIRST - 1


def take(stocks: Stocks, number: int, client: Address = CLIENT) -> None:
    """Use some sockets."""
    for _ in range(number):
        stocks.ahead.take(wanted(client=client)).close()


def test_more_are_ordered_before_they_are_gone(stocks: Stocks) -> None:
    """Nobody waits for the helper then."""
    take(stocks, 2 + 4 + ORDERED // 2 - 1)
    assert not stocks.ordered
    take(stocks, 1)
    assert [request.number for request, _ in stocks.ordered] == [2 * ORDERED]
    take(stocks, ORDERED // 2)
    assert len(stocks.asked) == 3, "the order is not looked at before it is needed"
    take(stocks, 1)
    assert [request.number for request in stocks.asked] == [2, 4, ORDERED, 2 * ORDERED]


def test_an_order_that_is_not_met(stocks: Stocks) -> None:
    """Whoever needs a socket then asks for it, and hears why there is none."""
    take(stocks, 2 + 4 + ORDERED // 2)
    stocks.can_deliver = False
    take(stocks, ORDERED // 2 + 1)
    assert len(stocks.asked) == 4


def test_what_was_ordered_for_nobody_is_closed(stocks: Stocks) -> None:
    take(stocks, 2 + 4 + ORDERED // 2)
    assert stocks.ordered
    stocks.ahead.drop("box")
    assert stocks.open == 0
    stocks.collect()
    assert stocks.open == 0


def test_a_sweep_takes_what_was_ordered(stocks: Stocks) -> None:
    take(stocks, 2 + 4 + ORDERED // 2)
    stocks.sweep()
    assert not stocks.ordered
    assert stocks.open == ORDERED // 2 + 2 * ORDERED
    stocks.sweep()
    assert stocks.open == 0


def test_all_stocks_together_are_bounded(stocks: Stocks) -> None:
    """Descriptors for them are set aside."""
    for port in range(100):
        for _ in range(9):
            stocks.ahead.take(wanted()._replace(port=port)).close()
    assert stocks.open <= SOCKETS_AHEAD + 1
    assert stocks.open > MOST


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


@pytest.mark.parametrize(
    ("source", "port", "heard"),
    [(LOOPBACK, 80, True), (LOOPBACK, 81, False), (bytes((127, 0, 0, 2)), 80, False)],
)
def test_the_filter_of_a_task(source: bytes, port: int, *, heard: bool) -> None:
    code = socket_filter.task_program(LOOPBACK, 80)
    packet = bytes(12) + source + CLIENT_V4 + port.to_bytes(2, "big") + bytes(18)
    assert (verdict(code, packet, 20) == -1) is heard


@pytest.mark.skipif(os.geteuid() != 0, reason="only root loads programs")
def test_a_worker_reaches_no_other_task(task: int) -> None:
    """A connection is made only if the filter hears the answer."""
    permits = Permits(lambda *_: None)
    mesh = Mesh("box", "1", ("127.0.0.1",))
    permits.apply(permit_for(Forward(Endpoint("::", 80), Endpoint("web", task), mesh=mesh)))
    made = Stocks()
    ops: Any = SimpleNamespace(mesh_ahead=made.make)
    desk = Desk(ops, permits, lambda _: ())
    right, wrong = desk.mesh_ahead(["box", LOOPBACK, task, 2])
    with socket.create_server(("127.0.0.1", 0)) as other:
        right.settimeout(20)
        wrong.settimeout(0.2)
        right.connect(("127.0.0.1", task))
        with pytest.raises(TimeoutError):
            wrong.connect(other.getsockname())
        with pytest.raises(PermissionError):
            wrong.setsockopt(socket.SOL_SOCKET, 27, b"\0\0\0\0")  # SO_DETACH_FILTER
        for sock in (right, wrong):
            sock.close()


@pytest.mark.parametrize(
    "words",
    [
        ["box", LOOPBACK, 81, 2],
        ["box", bytes((127, 0, 0, 2)), 80, 2],
        ["other", LOOPBACK, 80, 2],
        ["box", LOOPBACK, 80, 0],
        ["box", LOOPBACK, 80, -1],
        ["box", LOOPBACK, 80, MOST + 1],
        ["box", b"", 80, 1],
    ],
)
def test_sockets_ahead_that_no_forward_needs(words: list[Any]) -> None:
    permits = Permits(lambda *_: None)
    mesh = Mesh("box", "1", ("127.0.0.1",))
    permits.apply(permit_for(Forward(Endpoint("::", 80), Endpoint("web", 80), mesh=mesh)))
    made = Stocks()
    with pytest.raises(RefusedError):
        Desk(cast("Any", made), permits, lambda _: ()).mesh_ahead(words)
    assert not made.asked
