"""What a worker's helper does for it, and what it refuses: a worker may have been taken over."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from v6fwd.client_ip.destination import Destination
from v6fwd.daemon import wire
from v6fwd.daemon.helper import Desk, RefusedError
from v6fwd.daemon.helper_ops import CACHED, KEPT, HelperStore
from v6fwd.daemon.messages import Permit, Revoke
from v6fwd.daemon.permits import GRACE, Permits, permit_for, wants_permit
from v6fwd.errors import NotPermittedError, RelayError
from v6fwd.model import Address, ClientIP, Endpoint, Forward, Protocol, Transparent
from v6fwd.netns.netlink import Net
from v6fwd.relay.transparent.privileged import NetnsView, SocketRequest

V4_LOOPBACK, V6_LOOPBACK = bytes((127, 0, 0, 1)), bytes(15) + b"\x01"


def packed(text: str) -> bytes:
    return ipaddress.ip_address(text).packed


TARGET = "172.17.0.2"
NET = Net(packed(TARGET), 16)
CLIENT = Address(packed("2001:db8::1"), 54321)
VIEW = NetnsView(7, (NET,), ((bytes(16), False),))


class FakeSocket:
    """Bound to a port of its own."""

    port = 4000

    def getsockname(self) -> tuple[str, int]:
        return "", self.port


class FakeOps:
    """PrivilegedOps that note what they are asked for."""

    def __init__(self) -> None:
        self.done: list[tuple[Any, ...]] = []

    def __getattr__(self, name: str) -> Callable[..., Any]:
        def do(*words: Any) -> Any:
            self.done.append((name, *words))
            return VIEW if name == "look" else self

        return do

    def address_of(self, source: bytes, bits: int, *, is_proven: bool) -> bytes:
        self.done.append(("address_of", source, bits, is_proven))
        return packed("240.0.0.9")

    def bound_socket(self, request: SocketRequest) -> Any:
        self.done.append(("bound_socket", request))
        return FakeSocket()


def permit(netns: str = "box", target: str = TARGET, protocol: Protocol = Protocol.TCP) -> Permit:
    return Permit("[::]:80", Endpoint(target, 80, protocol=protocol), netns, "/store", 64)


class Office:
    """A desk, its permits, and time in the test's hands."""

    def __init__(self, *permits: Permit) -> None:
        self.later: list[tuple[float, Callable[[], None]]] = []
        self.ops = FakeOps()
        self.permits = Permits(lambda seconds, then: self.later.append((seconds, then)))
        for each in permits:
            self.permits.apply(each)
        self.desk = Desk(self.ops, self.permits, lambda _: (NET,))

    def ask(self, kind: str, *words: Any) -> Any:
        return wire.read_answer(self.desk.answer(kind, list(words)))

    def refuses(self, kind: str, *words: Any) -> bool:
        before = len(self.ops.done)
        try:
            self.ask(kind, *words)
        except RefusedError:
            assert len(self.ops.done) == before
            return True
        return False


def request(
    *,
    netns: str = "box",
    protocol: Protocol = Protocol.TCP,
    to: bytes = V6_LOOPBACK,
    is_pseudo: bool = False,
    port: int = 80,
    client: Address = CLIENT,
) -> SocketRequest:
    return SocketRequest(netns, 7, protocol, Destination(to, is_pseudo), port, client)


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("join", ["box"]),
        ("try_out", ["box", packed(TARGET), 80]),
        ("look", ["box", packed(TARGET), "tcp", 80]),
        ("store", ["/store"]),
        ("pseudo", ["/store", CLIENT.packed, 64, True]),
    ],
)
def test_what_a_forward_needs(kind: str, words: list[Any]) -> None:
    office = Office(permit())
    office.ask(kind, *words)
    assert office.ops.done
    assert Office().refuses(kind, *words)


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("find", [TARGET]),
        ("join", ["other"]),
        ("join", [""]),
        ("join", ["/proc/1/ns/net"]),
        ("leave", ["box"]),
        ("try_out", ["other", packed(TARGET), 80]),
        ("try_out", ["box", packed("172.17.0.3"), 80]),
        ("try_out", ["box", packed(TARGET), 22]),
        ("look", ["box", packed(TARGET), "udp", 80]),
        ("look", ["box", packed(TARGET), "tcp", 81]),
        ("store", ["/etc/shadow"]),
        ("pseudo", ["/store", CLIENT.packed, 128, True]),
        ("pseudo", ["/store", packed("192.0.2.1"), 64, True]),
        ("client_left", ["box", 7, CLIENT.packed, 54321]),
        ("own_pseudo_net", []),
    ],
    ids=str,
)
def test_what_no_forward_needs(kind: str, words: list[Any]) -> None:
    assert Office(permit()).refuses(kind, *words)


def test_a_namespace_that_is_searched() -> None:
    office = Office(permit(netns=""))
    office.ask("find", TARGET)
    office.ask("join", TARGET)
    office.ask("own_pseudo_net")
    assert office.refuses("join", "box")
    assert office.refuses("find", "172.17.0.3")


@pytest.mark.parametrize(("netns", "target"), [("none", TARGET), ("", "a-name")])
def test_targets_across_the_network(netns: str, target: str) -> None:
    office = Office(permit(netns=netns, target=target))
    office.ask("own_pseudo_net")
    for name in (target, netns, "box"):
        assert office.refuses("join", name)
    assert office.refuses("find", TARGET)


def test_every_join_is_left_once() -> None:
    office = Office(permit())
    office.ask("join", "box")
    office.permits.apply(Revoke("[::]:80"))
    office.ask("leave", "box")
    assert office.refuses("leave", "box")


@pytest.mark.parametrize(
    "wanted",
    [
        request(),
        request(client=Address(CLIENT.packed, 0)),
        request(to=V4_LOOPBACK, client=Address(packed("203.0.113.9"), 1)),
        request(to=packed(TARGET), client=Address(packed("203.0.113.9"), 1)),
        request(to=V4_LOOPBACK, is_pseudo=True, client=Address(packed("240.0.0.9"), 1)),
    ],
    ids=str,
)
def test_sockets_of_clients(wanted: SocketRequest) -> None:
    office = Office(permit())
    assert isinstance(office.desk.bound_socket(wanted), FakeSocket)
    assert office.ops.done == [("bound_socket", wanted)]


@pytest.mark.parametrize(
    "wanted",
    [
        request(netns="other"),
        request(port=22),
        request(protocol=Protocol.UDP),
        request(to=packed("172.17.0.3"), client=Address(packed("203.0.113.9"), 1)),
        request(to=packed("8.8.8.8"), client=Address(packed("203.0.113.9"), 1)),
        request(client=Address(V6_LOOPBACK, 1)),
        request(client=Address(packed("fe80::1"), 1)),
        request(client=Address(packed("ff02::1"), 1)),
        request(client=Address(bytes(16), 1)),
        request(client=Address(packed("203.0.113.9"), 1)),  # of the other family
        request(to=V4_LOOPBACK, client=Address(V4_LOOPBACK, 1)),
        request(to=V4_LOOPBACK, client=Address(packed("172.17.0.1"), 1)),  # its own network
        request(to=V4_LOOPBACK, client=Address(packed("240.0.0.9"), 1)),  # a pseudo address
        request(to=V4_LOOPBACK, is_pseudo=True, client=Address(packed("203.0.113.9"), 1)),
        request(to=V4_LOOPBACK, is_pseudo=True, client=Address(V4_LOOPBACK, 1)),
    ],
    ids=str,
)
def test_sockets_that_are_refused(wanted: SocketRequest) -> None:
    office = Office(permit())
    with pytest.raises(RefusedError):
        office.desk.bound_socket(wanted)
    assert office.ops.done == []


def test_udp_sessions_end_as_often_as_they_began() -> None:
    office = Office(permit(protocol=Protocol.UDP))
    """By the port that the socket got, which may be another than the client's."""
    office.desk.bound_socket(request(protocol=Protocol.UDP))
    assert office.refuses("client_left", "box", 7, CLIENT.packed, CLIENT.port)
    office.ask("client_left", "box", 7, CLIENT.packed, FakeSocket.port)
    assert office.ops.done[-1] == ("client_left", "box", 7, CLIENT._replace(port=FakeSocket.port))
    assert office.refuses("client_left", "box", 7, CLIENT.packed, FakeSocket.port)


def test_a_permit_that_is_revoked_is_good_for_a_while() -> None:
    """The worker learns of it later than the helper."""
    office = Office(permit())
    office.permits.apply(Revoke("[::]:80"))
    office.permits.apply(Revoke("[::]:81"))
    office.ask("join", "box")
    ((seconds, forget),) = office.later
    assert seconds == GRACE
    forget()
    assert office.refuses("join", "box")
    assert office.refuses("store", "/store")


def test_a_permit_that_is_replaced() -> None:
    """Two forwards have a target in common: the one that goes does not take it from the other."""
    office = Office(permit())
    office.permits.apply(Permit("[::]:81", Endpoint(TARGET, 80), "box", "/store", 64))
    office.permits.apply(permit(netns="new"))
    for _, forget in office.later:
        forget()
    office.ask("join", "new")
    office.ask("join", "box")
    office.permits.apply(Revoke("[::]:81"))
    for _, forget in office.later[1:]:
        forget()
    assert office.refuses("join", "box")


def test_the_permit_for_a_forward() -> None:
    options = Transparent("box", pseudo_bits=128, pseudo_store="/store")
    forward = Forward(
        Endpoint("::", 80), Endpoint(TARGET, 80), ClientIP.TRANSPARENT, transparent=options
    )
    assert permit_for(forward) == Permit("[::]:80", Endpoint(TARGET, 80), "box", "/store", 128)
    assert wants_permit(forward)
    assert not wants_permit(Forward(Endpoint("::", 80), Endpoint(TARGET, 80)))


# ---- packets -----------------------------------------------------------------------------------

_addresses = st.binary(min_size=4, max_size=4) | st.binary(min_size=16, max_size=16)
_requests = st.builds(
    SocketRequest,
    st.text(max_size=50),
    st.integers(0, 2**32 - 1),
    st.sampled_from(Protocol),
    st.builds(Destination, _addresses, st.booleans()),
    st.integers(0, 65535),
    st.builds(Address, _addresses, st.integers(0, 65535)),
)


@given(_requests)
def test_requests_for_sockets_come_back(wanted: SocketRequest) -> None:
    packet = wire.pack_bound(wanted)
    assert wire.is_bound(packet)
    assert wire.read_bound(packet) == wanted


@given(st.binary(max_size=100))
def test_rubbish_is_refused_and_nothing_else_happens(packet: bytes) -> None:
    kinds: dict[str, tuple[type, ...]] = {"look": (str, bytes, int)}
    with pytest.raises(wire.WireError):
        wire.read(packet, kinds)
    try:
        wire.read_bound(packet)
    except wire.WireError:
        return
    assert len(packet) >= len(wire.pack_bound(request(netns="")))


@pytest.mark.parametrize(
    "packet",
    [
        b"[" * 8000,
        b"{}",
        b'["look"]',
        b'["look","a","00",true]',
        b'["look","a","0g",1]',
        b'["look","a",1,1]',
        b'["look","a","00",1,2]',
        b'[["look"],"a","00",1]',
        b'["bound_socket"]',
        b'["__init__"]',
    ],
)
def test_requests_that_are_none(packet: bytes) -> None:
    with pytest.raises(wire.WireError):
        wire.read(packet, {"look": (str, bytes, int)})


def test_requests_come_back() -> None:
    packet = wire.pack("look", "box", b"\x01\x02", 80)
    assert wire.read(packet, {"look": (str, bytes, int)}) == ("look", ["box", b"\x01\x02", 80])


def test_answers_come_back() -> None:
    assert wire.read_answer(wire.pack("ok", None)) is None
    assert wire.read_view(wire.read_answer(wire.pack_view(VIEW))) == VIEW
    with pytest.raises(NotPermittedError, match="needs it"):
        wire.read_answer(wire.pack_error(NotPermittedError("needs it")))
    with pytest.raises(RelayError, match="not there"):
        wire.read_answer(wire.pack_error(RelayError("not there")))
    with pytest.raises(ConnectionRefusedError):
        wire.read_answer(wire.pack_error(ConnectionRefusedError(111, "")))
    with pytest.raises(RelayError, match="cannot be read"):
        wire.read_answer(b"[]")


# ---- a worker's cache of a store ---------------------------------------------------------------


def test_a_store_is_asked_once_in_a_while() -> None:
    asked: list[Any] = []
    now = 0.0

    def ask(*words: Any) -> str:
        asked.append(words)
        return packed("240.0.0.9").hex()

    store = HelperStore("/store", ask, lambda: now)
    for is_proven in (False, False, True, False, True):
        assert store.address_of(CLIENT.packed, 64, is_proven=is_proven) == packed("240.0.0.9")
    assert asked == [
        ("pseudo", "/store", CLIENT.packed, 64, False),
        ("pseudo", "/store", CLIENT.packed, 64, True),
    ]
    now = KEPT + 1
    store.address_of(CLIENT.packed, 64)
    assert len(asked) == 3


def test_the_cache_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("v6fwd.daemon.helper_ops.CACHED", 2)
    assert CACHED > 2
    store = HelperStore("/store", lambda *_: "f0000009", lambda: 0.0)
    for number in range(5):
        store.address_of(packed(f"2001:db8:{number}::"), 64)
    assert len(store._cache) == 2
