"""NetnsPath, RoutedPath and TransparentTarget: who is preserved, from where, and who falls back."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import ipaddress
import socket
from collections.abc import Coroutine, Iterator
from pathlib import Path
from typing import Any

import pytest

from v6fwd.client_ip.destination import V4_LOOPBACK, V6_LOOPBACK, Destination
from v6fwd.client_ip.proxy.write import write_v2
from v6fwd.errors import ClientRefusedError, NotPermittedError, RelayError
from v6fwd.log import Log
from v6fwd.model import Address, Endpoint, Protocol, Transparent, TransparentFallback
from v6fwd.netns.netlink import Net
from v6fwd.relay.reactor import Reactor
from v6fwd.relay.targets.direct import DirectTarget
from v6fwd.relay.transparent.in_netns import LOOK_AGAIN, LOOK_AT_MOST, NetnsAddress, NetnsPath
from v6fwd.relay.transparent.path import Path as TargetPath
from v6fwd.relay.transparent.privileged import MeshSocket, NetnsView, SocketRequest
from v6fwd.relay.transparent.pseudo_store import PseudoStore
from v6fwd.relay.transparent.resources import TransparentResources
from v6fwd.relay.transparent.routed import RoutedPath
from v6fwd.relay.transparent.target import TransparentTarget


def address(host: str, port: int = 4711) -> Address:
    """An address from its text."""
    return Address(ipaddress.ip_address(host).packed, port)


V6, V4 = address("2001:db8::7"), address("192.0.2.7")
OWN = Net(bytes((172, 17, 0, 2)), 16)
ANY_V6, ANY_V4 = (bytes(16), False), (bytes(4), False)


class FakeOps:
    """PrivilegedOps that note what is asked; of sockets it gives only those for datagrams."""

    def __init__(self) -> None:
        self.view: NetnsView | Exception = NetnsView(1, (OWN,), (ANY_V6,))
        self.looks = 0
        self.requests: list[SocketRequest] = []
        self.left: list[tuple[int, Address]] = []
        self.joined: list[str] = []
        self.not_there: RelayError | None = None
        self.pseudo_net = 0

    def join(self, netns: str) -> None:
        self.joined.append(netns)

    def leave(self, netns: str) -> None:
        self.joined.remove(netns)

    def try_out(self, netns: str, target: bytes, port: int) -> None:  # noqa: ARG002
        if self.not_there:
            raise self.not_there

    def look(self, netns: str, target: bytes, protocol: Protocol, port: int) -> NetnsView:
        assert (netns, target, protocol, port) == ("box", OWN.packed, protocol, 80)
        self.looks += 1
        if isinstance(self.view, Exception):
            raise self.view
        return self.view

    def bound_socket(self, request: SocketRequest) -> socket.SocketType:
        self.requests.append(request)
        family = socket.AF_INET if len(request.destination.address) == 4 else socket.AF_INET6
        if request.protocol is Protocol.TCP:  # a SYN would leave
            raise ConnectionRefusedError(errno.ECONNREFUSED, "")
        return socket.SocketType(family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK, 0)

    def mesh_socket(self, request: MeshSocket) -> socket.SocketType:
        raise AssertionError(request)

    def client_left(self, netns: str, epoch: int, client: Address) -> None:
        assert netns == "box"
        self.left.append((epoch, client))

    def find(self, address: str) -> None:
        raise AssertionError(address)

    def store(self, path: str) -> PseudoStore:
        return PseudoStore(path)

    def own_pseudo_net(self) -> None:
        self.pseudo_net += 1
        if self.not_there:
            raise self.not_there

    def close(self) -> None:
        """Nothing to undo."""


class Setting:
    """A path with FakeOps and a clock in the test's hands."""

    def __init__(self, folder: Path) -> None:
        self.now = 100.0
        self.ops = FakeOps()
        self._loop = asyncio.new_event_loop()
        self._reactor = Reactor(self._loop, clock=lambda: self.now)
        self.resources = TransparentResources(self._reactor, Log(), self.ops)
        self.options = Transparent(netns="box", pseudo_store=str(folder / "pseudo.sqlite"))

    def direct(self, host: str = "172.17.0.2", protocol: Protocol = Protocol.TCP) -> DirectTarget:
        target = DirectTarget(Endpoint(host, 80, protocol=protocol), self._reactor)
        target.resolve_later(lambda: None)
        return target

    def netns(self, protocol: Protocol = Protocol.TCP) -> NetnsPath:
        return NetnsPath(self.direct(protocol=protocol), self.options, self.resources)

    def routed(self, host: str = "127.0.0.1", protocol: Protocol = Protocol.TCP) -> RoutedPath:
        return RoutedPath(self.direct(host, protocol), self.options, self.resources)

    def target(self, path: TargetPath, fallback: TransparentFallback) -> TransparentTarget:
        return TransparentTarget(self.direct(), path, fallback, Log())

    def run(self, what: Coroutine[None, None, None]) -> None:
        self._loop.run_until_complete(what)

    def close(self) -> None:
        self.resources.close()
        self._reactor.close()
        self._loop.close()


@pytest.fixture
def setting(tmp_path: Path) -> Iterator[Setting]:
    with contextlib.closing(Setting(tmp_path)) as one:
        yield one


# ---- in a namespace --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("listening", "client", "why"),
    [
        ((ANY_V6,), V6, None),
        ((ANY_V6,), V4, None),
        ((ANY_V4,), V6, None),
        (((bytes(16), True),), V4, "the target does not listen for IPv4 clients"),
        ((ANY_V6,), address("::1"), "a loopback address"),
        ((ANY_V6,), address("172.17.3.4"), "in the container's own network"),
        (((bytes(16), True),), address("127.0.0.9"), "a loopback address"),
    ],
)
def test_who_is_preserved(
    setting: Setting, listening: Any, client: Address, why: str | None
) -> None:
    setting.ops.view = NetnsView(1, (OWN,), listening)
    assert setting.netns().why_not_preserved(client) == why


def test_nobody_listens(setting: Setting) -> None:
    setting.ops.view = NetnsView(1, (OWN,), ())
    with pytest.raises(ConnectionRefusedError):
        setting.netns().why_not_preserved(V6)


@pytest.mark.parametrize(
    ("listening", "client", "destination"),
    [
        (ANY_V6, V6, Destination(V6_LOOPBACK)),
        (ANY_V6, V4, Destination(V4_LOOPBACK)),
        (ANY_V4, V6, Destination(V4_LOOPBACK, is_pseudo=True)),
        ((OWN.packed, False), V4, Destination(OWN.packed)),
    ],
)
@pytest.mark.parametrize("protocol", Protocol)
def test_what_is_asked_for(
    setting: Setting, listening: Any, client: Address, destination: Destination, protocol: Protocol
) -> None:
    """The client's own address and port, or a pseudo address with the client's port."""
    setting.ops.view = NetnsView(3, (OWN,), (listening,))
    path = setting.netns(protocol)
    assert path.why_not_preserved(client) is None
    with contextlib.suppress(OSError):
        if protocol is Protocol.TCP:
            path.connect(None, client)
        else:
            socket.close(path.connect_datagrams(client)[0])
    [request, *_] = setting.ops.requests
    assert request[:5] == ("box", 3, protocol, destination, 80)
    assert request.client.port == client.port
    if destination.is_pseudo:
        assert request.client.packed[0] >= 240
    else:
        assert request.client.packed == client.packed


def test_looks_again_after_a_while_and_soon_where_nobody_listened(setting: Setting) -> None:
    path = setting.netns()
    for passed, looks in [(0, 1), (LOOK_AGAIN, 1), (0.1, 2), (0, 2)]:
        setting.now += passed
        path.why_not_preserved(V6)
        assert setting.ops.looks == looks
    setting.now += LOOK_AGAIN + 1
    setting.ops.view = NetnsView(1, (OWN,), ())
    for passed, looks in [(0, 3), (LOOK_AT_MOST / 2, 3), (LOOK_AT_MOST, 4)]:
        setting.now += passed
        with pytest.raises(ConnectionRefusedError):
            path.why_not_preserved(V6)
        assert setting.ops.looks == looks


@pytest.mark.parametrize(
    ("view", "moved"),
    [
        (NetnsView(1, (OWN,), (ANY_V6,)), False),
        (NetnsView(2, (OWN,), (ANY_V6,)), True),  # the container was restarted
        (NetnsView(1, (OWN,), (ANY_V4,)), True),
        (NetnsView(1, (OWN,), ()), True),
        (RelayError("gone"), True),
    ],
)
def test_whether_a_session_must_move(setting: Setting, view: Any, moved: bool) -> None:
    path = setting.netns(Protocol.UDP)
    path.why_not_preserved(V6)
    fd, where = path.connect_datagrams(V6)
    socket.close(fd)
    assert where[:2] == NetnsAddress(1, Destination(V6_LOOPBACK), 0)[:2]
    setting.ops.view = view
    setting.now += 1
    path.was_refused(where)
    assert path.has_moved(where) is moved


def test_a_container_with_other_networks_has_another_filter(setting: Setting) -> None:
    path = setting.netns()
    assert path.why_not_preserved(V4) is None
    setting.ops.view = NetnsView(2, (Net(V4.packed, 24),), (ANY_V6,))
    setting.now += LOOK_AGAIN + 1
    assert path.why_not_preserved(V4) == "in the container's own network"


def test_what_a_session_had_in_place_goes_with_it(setting: Setting) -> None:
    path = setting.netns(Protocol.UDP)
    path.client_left(NetnsAddress(7, Destination(V6_LOOPBACK), 99), V6)
    path.client_left(NetnsAddress(7, Destination(V4_LOOPBACK, is_pseudo=True), 99), V6)
    path.client_left((socket.AF_INET, ("172.17.0.2", 80)), V6)  # one that fell back
    assert setting.ops.left == [(7, V6._replace(port=99))]


def test_the_namespace_is_left_at_the_end(setting: Setting) -> None:
    path = setting.netns()
    assert setting.ops.joined == ["box"]
    path.close()
    assert setting.ops.joined == []


# ---- over the network ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("host", "client", "why"),
    [
        ("127.0.0.1", V6, None),
        ("127.0.0.1", V4, "an IPv4 client, and the target is in no known network namespace"),
        ("::1", V6, "the target has no IPv4 address"),
        ("127.0.0.1", address("fe80::1"), "a link-local address"),
    ],
)
def test_who_is_preserved_over_the_network(
    setting: Setting, host: str, client: Address, why: str | None
) -> None:
    assert setting.routed(host).why_not_preserved(client) == why


def test_the_pseudo_net_is_ours_before_anybody_speaks_from_it(setting: Setting) -> None:
    path = setting.routed()
    setting.ops.not_there = RelayError("no")
    for connect in (lambda: path.connect(None, V6), lambda: path.connect_datagrams(V6)):
        with pytest.raises(RelayError):
            connect()
    assert setting.ops.pseudo_net == 2


# ---- the target ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("listening", "client", "instead"),
    [
        (ANY_V6, V6, ""),
        (ANY_V6, V4, ""),
        (ANY_V4, V6, "pseudo"),
        (ANY_V4, V4, ""),
        (ANY_V4, address("::1"), "fallback"),
    ],
)
def test_what_the_target_sees_instead(
    setting: Setting, listening: Any, client: Address, instead: str
) -> None:
    setting.ops.view = NetnsView(1, (OWN,), (listening,))
    target = setting.target(setting.netns(), TransparentFallback.NONE)
    assert target.shown_instead(client) == instead


@pytest.mark.parametrize(("client", "instead"), [(V6, "pseudo"), (V4, "fallback")])
def test_what_a_target_across_the_network_sees(
    setting: Setting, client: Address, instead: str
) -> None:
    target = setting.target(setting.routed(), TransparentFallback.NONE)
    assert target.shown_instead(client) == instead


def test_of_a_target_that_has_gone_nothing_is_known(setting: Setting) -> None:
    setting.ops.view = RelayError("gone")
    target = setting.target(setting.netns(), TransparentFallback.NONE)
    assert target.shown_instead(V6) == ""


def test_refuse_is_the_last_word(setting: Setting) -> None:
    target = setting.target(setting.netns(), TransparentFallback.REFUSE)
    for serve in (target.connect_datagrams, lambda client: target.dial(None, client)):
        with pytest.raises(ClientRefusedError, match="a loopback address"):
            serve(address("::1"))
    assert setting.ops.requests == []


@pytest.mark.parametrize(
    ("client", "headed"), [(V6, False), (address("::1"), True), (address("172.17.3.4"), True)]
)
def test_the_header_is_for_those_who_fall_back(
    setting: Setting, client: Address, headed: bool
) -> None:
    write = setting.target(setting.netns(), TransparentFallback.PROXY_V2).header_writer(None)
    assert write is not None
    assert write(client, client) == (write_v2(client, client) if headed else b"")


@pytest.mark.parametrize("error", [RelayError("gone"), ConnectionRefusedError(111, "")])
def test_a_namespace_that_is_gone_looks_as_if_nobody_listened(
    setting: Setting, error: Exception
) -> None:
    setting.ops.view = error
    target = setting.target(setting.netns(), TransparentFallback.NONE)
    with pytest.raises(ConnectionRefusedError):
        target.dial(None, V6)


@pytest.mark.parametrize(
    ("error", "falls_back"), [(NotPermittedError("needs CAP"), True), (RelayError("gone"), False)]
)
def test_without_the_right_everybody_falls_back(
    setting: Setting, error: RelayError, falls_back: bool
) -> None:
    """What is merely not there yet is looked for again."""
    target = setting.target(setting.netns(), TransparentFallback.PROXY_V2)
    setting.ops.not_there = error
    target.resolve_later(lambda: None)
    write = target.header_writer(None)
    assert write is not None
    assert bool(write(V6, V6)) is falls_back


def test_without_a_fallback_it_does_not_start(setting: Setting) -> None:
    target = setting.target(setting.netns(), TransparentFallback.REFUSE)
    setting.ops.not_there = NotPermittedError("needs CAP")
    with pytest.raises(NotPermittedError):
        setting.run(target.resolve())
