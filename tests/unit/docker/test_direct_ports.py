"""Ports without a shim: opened, followed, closed, and what may stand in the way."""

from __future__ import annotations

import errno
import socket
from collections.abc import Iterator

import pytest

from tests.support.logged import Logged
from tests.support.process import free_port
from v6fwd.config.rules import Rule
from v6fwd.docker.direct_ports import DirectPorts
from v6fwd.docker.engine.containers import Container
from v6fwd.docker.policy.modes import Modes
from v6fwd.errors import RelayError
from v6fwd.model import ClientIP, Endpoint, Forward, Limits, Protocol, Transparent

LIMITS = Limits()
TCP, UDP = Protocol.TCP, Protocol.UDP


class FakeForwards:
    """A supervisor that serves nobody."""

    def __init__(self) -> None:
        self.forwards: dict[Endpoint, Forward] = {}
        self.listen_sockets: dict[Endpoint, list[socket.socket]] = {}
        self.calls: list[str] = []

    def open(self, forward: Forward, sockets: list[socket.socket] | None = None) -> None:
        self.calls.append("open" if sockets is not None else "inherit")
        assert forward.listen not in self.forwards
        if sockets is not None:
            self.listen_sockets[forward.listen] = sockets
        self.forwards[forward.listen] = forward

    def change(self, forward: Forward) -> None:
        self.calls.append("change")
        assert forward.listen in self.forwards
        self.forwards[forward.listen] = forward

    def close(self, listen: Endpoint, grace: float | None = None) -> None:
        assert grace == 0, "its container is gone"
        self.calls.append("close")
        del self.forwards[listen]
        for sock in self.listen_sockets.pop(listen):
            sock.close()

    async def settled(self) -> None:
        raise AssertionError("there is no need to wait")


class Room:
    """What is tested, with what it works with."""

    def __init__(self) -> None:
        self.logged = Logged()
        self.forwards = FakeForwards()
        self.modes = Modes([], Transparent(), self.logged.log)
        self.unshimmed = DirectPorts(self.forwards, self.modes, LIMITS, self.logged.log)
        self.port = free_port()
        self.listen = Endpoint("::", self.port)

    def container(
        self, address: str = "172.17.0.2", mode: str = "x-forwarded-for", which: str = "1",
        protocol: Protocol = TCP,
    ) -> Container:  # fmt: skip
        published = frozenset({(self.port, 80, protocol)})
        labels = {"v6fwd.client-ip": mode} if mode else {}
        addresses = {"bridge": (address,)} if address else {}
        return Container(which, "web", "", labels, addresses, published)

    def follow(self, *containers: Container, shimmed: tuple[Endpoint, ...] = ()) -> list[str]:
        """What is done about it."""
        self.forwards.calls.clear()
        self.unshimmed.follow(containers, shimmed)
        return list(self.forwards.calls)

    def close(self) -> None:
        for sockets in self.forwards.listen_sockets.values():
            for sock in sockets:
                sock.close()
        self.logged.close()


@pytest.fixture
def room() -> Iterator[Room]:
    room = Room()
    yield room
    room.close()


def test_a_life(room: Room) -> None:
    assert room.follow(room.container()) == ["open"]
    expected = Forward(
        room.listen, Endpoint("172.17.0.2", 80), limits=LIMITS, client_ip=ClientIP.X_FORWARDED_FOR
    )
    assert room.forwards.forwards == {room.listen: expected}
    assert list(room.unshimmed) == [room.listen]
    assert room.follow(room.container()) == []
    assert room.follow(room.container("172.17.0.3")) == ["change"]
    assert room.forwards.forwards[room.listen].target.host == "172.17.0.3"
    assert room.follow(room.container("172.17.0.3", "forwarded")) == ["change"]
    assert room.follow() == ["close"]
    assert list(room.unshimmed) == []
    assert room.follow() == []


def test_ipv6_alone(room: Room) -> None:
    """dockerd has 0.0.0.0 for itself."""
    with socket.create_server(("0.0.0.0", room.port)):
        assert room.follow(room.container()) == ["open"]


@pytest.mark.parametrize("mode", ["", "nonsense"])
def test_nobody_has_asked(room: Room, mode: str) -> None:
    assert room.follow(room.container(mode=mode)) == []


def test_a_rule_asks(room: Room) -> None:
    room.modes.rules = [Rule(ClientIP.NONE)]
    assert room.follow(room.container(mode="")) == ["open"]
    room.modes.rules = []
    assert room.follow(room.container(mode="")) == ["close"]


def test_a_container_without_an_address(room: Room) -> None:
    """It is just ending, or it is in the host's network."""
    assert room.follow(room.container("")) == []
    room.follow(room.container())
    assert room.follow(room.container("")) == ["close"]


def test_a_shim_serves_it(room: Room) -> None:
    assert room.follow(room.container(), shimmed=(room.listen,)) == []
    assert room.follow(room.container()) == [], "the shim has ended, the container is about to"
    assert room.follow(room.container(which="2")) == ["open"], "another one"


def test_a_shim_for_ipv4_alone(room: Room) -> None:
    assert room.follow(room.container(), shimmed=(Endpoint("0.0.0.0", room.port),)) == ["open"]


def test_a_shim_for_the_other_protocol(room: Room) -> None:
    udp = Endpoint("::", room.port, protocol=UDP)
    assert room.follow(room.container(), shimmed=(udp,)) == ["open"]


def test_another_engine_may_have_no_userland_proxy(room: Room) -> None:
    room.follow(room.container(), shimmed=(room.listen,))
    room.unshimmed.forget()
    assert room.follow(room.container()) == ["open"]


def test_a_shim_comes(room: Room) -> None:
    """The adopter closes ours before it takes the shim's."""
    room.follow(room.container())
    room.unshimmed.close(room.listen)
    assert room.forwards.forwards == {}
    room.unshimmed.close(room.listen)
    assert room.follow(room.container(), shimmed=(room.listen,)) == []


@pytest.mark.parametrize(
    ("mode", "shimmed", "warned"),
    [("proxy-v2", False, True), ("x-forwarded-for", False, False), ("proxy-v2", True, False)],
)
def test_ipv4_clients_without_a_header(room: Room, mode: str, shimmed: bool, warned: bool) -> None:
    ours = (Endpoint("0.0.0.0", room.port),) if shimmed else ()
    for _ in range(2):
        room.follow(room.container(mode=mode), shimmed=ours)
    told = [event for event, _ in room.logged.lines() if event != "mode"]
    assert told == ["ipv4-without"] * warned


def test_a_port_in_use_is_tried_again(room: Room) -> None:
    """At every event, and told once: who has it may be about to end."""
    with socket.create_server(("::1", room.port), family=socket.AF_INET6):
        for _ in range(3):
            assert room.follow(room.container()) == []
        events = [text for event, text in room.logged.lines() if event == "not-served"]
        assert len(events) == 1
        assert "address already in use" in events[0]
    assert room.follow(room.container()) == ["open"]
    assert list(room.unshimmed) == [room.listen]


def test_a_port_that_the_file_forwards(room: Room) -> None:
    room.forwards.forwards[room.listen] = Forward(room.listen, Endpoint("127.0.0.1", 9))
    for _ in range(2):
        assert room.follow(room.container()) == []
    [text] = [text for event, text in room.logged.lines() if event == "not-served"]
    assert text.endswith("it is forwarded already")
    assert room.follow() == []
    assert room.listen in room.forwards.forwards, "that one is not ours to close"


def test_drained_by_hand(room: Room) -> None:
    room.follow(room.container())
    room.forwards.close(room.listen, 0)
    room.logged.lines()
    assert room.follow(room.container()) == []
    for _ in range(2):
        assert room.follow(room.container("172.17.0.3")) == []
    [text] = [text for event, text in room.logged.lines() if event == "not-served"]
    assert "it has been drained" in text
    assert room.follow() == []
    assert room.follow(room.container()) == ["open"]


def test_a_predecessors_sockets(room: Room) -> None:
    held = socket.create_server(("::", room.port), family=socket.AF_INET6)
    room.forwards.listen_sockets[room.listen] = [held]
    assert room.follow(room.container()) == ["inherit"]


def test_out_of_descriptors(room: Room, monkeypatch: pytest.MonkeyPatch) -> None:
    """It costs this port, and it is tried again."""

    def refuse(_: Endpoint) -> socket.socket:
        raise RelayError("too many open files") from OSError(errno.EMFILE, "")

    with monkeypatch.context() as patched:
        patched.setattr("v6fwd.docker.direct_ports.own", refuse)
        assert room.follow(room.container()) == []
    assert room.follow(room.container()) == ["open"]


def test_udp(room: Room) -> None:
    assert room.follow(room.container(mode="proxy-v2", protocol=UDP)) == ["open"]
    [listen] = room.unshimmed
    assert listen.protocol is UDP
