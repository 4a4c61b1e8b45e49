"""Ports without a shim: opened, followed, closed, and what may stand in the way."""

from __future__ import annotations

import errno
import socket
from collections.abc import Iterator

import pytest

from tests.support.logged import Logged
from tests.support.process import free_port
from v6fwd.config.rules import Rule
from v6fwd.daemon.supervisor import Supervisor
from v6fwd.docker.direct_ports import DirectPorts
from v6fwd.docker.engine.containers import Container, HostPort
from v6fwd.docker.policy.modes import Modes
from v6fwd.docker.shim.published import PublishedPort, ServedBy
from v6fwd.errors import RelayError
from v6fwd.log import Log
from v6fwd.model import ClientIP, Endpoint, Forward, Limits, Protocol, Transparent

LIMITS = Limits()
TCP, UDP = Protocol.TCP, Protocol.UDP


class RecordingSupervisor(Supervisor):
    """Without workers, so that it serves nobody; `calls` are what it was told to do."""

    def __init__(self, log: Log) -> None:
        super().__init__(1, LIMITS, log)
        self.calls: list[str] = []

    def open(self, forward: Forward, sockets: list[socket.socket] | None = None) -> None:
        self.calls.append("open" if sockets is not None else "inherit")
        super().open(forward, sockets)

    def change(self, forward: Forward) -> None:
        self.calls.append("change")
        assert forward.listen in self.forwards
        super().change(forward)

    def close(self, listen: Endpoint, grace: float | None = None) -> None:
        assert grace == 0, "its container is gone"
        self.calls.append("close")
        super().close(listen, grace)


class Bench:
    """What is tested, with what it works with."""

    def __init__(self) -> None:
        self.logged = Logged()
        self.supervisor = RecordingSupervisor(self.logged.log)
        self.modes = Modes([], Transparent(), self.logged.log)
        self.direct_ports = DirectPorts(self.supervisor, self.modes, LIMITS, self.logged.log)
        self.port = free_port()
        self.listen = Endpoint("::", self.port)

    def container(
        self, address: str = "172.17.0.2", mode: str = "x-forwarded-for", which: str = "1",
        protocol: Protocol = TCP,
    ) -> Container:  # fmt: skip
        published = frozenset({HostPort("::", self.port, 80, protocol)})
        labels = {"v6fwd.client-ip": mode} if mode else {}
        addresses = {"bridge": (address,)} if address else {}
        return Container(which, "web", "", labels, addresses, published)

    def follow(self, *containers: Container, shimmed: tuple[Endpoint, ...] = ()) -> list[str]:
        """What is done about it."""
        self.supervisor.calls.clear()
        self.direct_ports.follow(containers, shimmed)
        return list(self.supervisor.calls)

    def close(self) -> None:
        self.supervisor.listen_sockets.close_all()
        self.logged.close()


@pytest.fixture
def bench() -> Iterator[Bench]:
    bench = Bench()
    yield bench
    bench.close()


def test_a_life(bench: Bench) -> None:
    assert bench.follow(bench.container()) == ["open"]
    expected = Forward(
        bench.listen, Endpoint("172.17.0.2", 80), limits=LIMITS, client_ip=ClientIP.X_FORWARDED_FOR
    )
    assert bench.supervisor.forwards == {bench.listen: expected}
    assert list(bench.direct_ports) == [bench.listen]
    assert bench.follow(bench.container()) == []
    assert bench.follow(bench.container("172.17.0.3")) == ["change"]
    assert bench.supervisor.forwards[bench.listen].target.host == "172.17.0.3"
    assert bench.follow(bench.container("172.17.0.3", "forwarded")) == ["change"]
    assert bench.follow() == ["close"]
    assert list(bench.direct_ports) == []
    assert bench.follow() == []


def test_ipv6_alone(bench: Bench) -> None:
    """dockerd has 0.0.0.0 for itself."""
    with socket.create_server(("0.0.0.0", bench.port)):
        assert bench.follow(bench.container()) == ["open"]


@pytest.mark.parametrize("mode", ["", "nonsense", "proxy-v3"])
def test_nobody_has_asked(bench: Bench, mode: str) -> None:
    assert bench.follow(bench.container(mode=mode)) == []


def test_a_rule_asks(bench: Bench) -> None:
    bench.modes.rules = [Rule(ClientIP.NONE)]
    assert bench.follow(bench.container(mode="")) == ["open"]
    bench.modes.rules = []
    assert bench.follow(bench.container(mode="")) == ["close"]


def test_a_container_without_an_address(bench: Bench) -> None:
    """It is just ending, or it is in the host's network."""
    assert bench.follow(bench.container("")) == []
    bench.follow(bench.container())
    assert bench.follow(bench.container("")) == ["close"]


def test_a_shim_serves_it(bench: Bench) -> None:
    assert bench.follow(bench.container(), shimmed=(bench.listen,)) == []
    assert bench.follow(bench.container()) == [], "the shim has ended, the container is about to"
    assert bench.follow(bench.container(which="2")) == ["open"], "another one"


def test_a_shim_for_ipv4_alone(bench: Bench) -> None:
    assert bench.follow(bench.container(), shimmed=(Endpoint("0.0.0.0", bench.port),)) == ["open"]


def test_a_shim_for_the_other_protocol(bench: Bench) -> None:
    udp = Endpoint("::", bench.port, protocol=UDP)
    assert bench.follow(bench.container(), shimmed=(udp,)) == ["open"]


def test_another_engine_may_have_no_userland_proxy(bench: Bench) -> None:
    bench.follow(bench.container(), shimmed=(bench.listen,))
    bench.direct_ports.forget()
    assert bench.follow(bench.container()) == ["open"]


def test_a_shim_comes(bench: Bench) -> None:
    """The controller closes ours before it takes the shim's."""
    bench.follow(bench.container())
    bench.direct_ports.close(bench.listen)
    assert bench.supervisor.forwards == {}
    bench.direct_ports.close(bench.listen)
    assert bench.follow(bench.container(), shimmed=(bench.listen,)) == []


@pytest.mark.parametrize(
    ("mode", "shimmed", "warned"),
    [("proxy-v2", False, True), ("x-forwarded-for", False, False), ("proxy-v2", True, False)],
)
def test_ipv4_clients_without_a_header(
    bench: Bench, mode: str, shimmed: bool, warned: bool
) -> None:
    ours = (Endpoint("0.0.0.0", bench.port),) if shimmed else ()
    for _ in range(2):
        bench.follow(bench.container(mode=mode), shimmed=ours)
    told = [event for event, _ in bench.logged.lines() if event != "mode"]
    assert told == ["ipv4-without"] * warned


def test_a_port_in_use_is_tried_again(bench: Bench) -> None:
    """At every event, and told once: who has it may be about to end."""
    with socket.create_server(("::1", bench.port), family=socket.AF_INET6):
        for _ in range(3):
            assert bench.follow(bench.container()) == []
        events = [text for event, text in bench.logged.lines() if event == "not-served"]
        assert len(events) == 1
        assert "address already in use" in events[0]
    assert bench.follow(bench.container()) == ["open"]
    assert list(bench.direct_ports) == [bench.listen]


def test_another_relay_is_looked_for_again(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """One of a container that was started without the daemon; it may have ended since."""
    other = PublishedPort(Forward(bench.listen, Endpoint("172.17.0.2", 80)), ServedBy.DOCKER, 7)
    running = [other]
    monkeypatch.setattr("v6fwd.docker.direct_ports.published_here", lambda: running)
    assert bench.follow(bench.container()) == []
    [why] = bench.direct_ports.held().values()
    assert why == "container web was started without v6fwd: docker restart web"
    running.clear()
    assert bench.follow(bench.container()) == ["open"]
    assert bench.direct_ports.held() == {}


def test_a_port_that_the_file_forwards(bench: Bench) -> None:
    bench.supervisor.open(Forward(bench.listen, Endpoint("127.0.0.1", 9)))
    for _ in range(2):
        assert bench.follow(bench.container()) == []
    [text] = [text for event, text in bench.logged.lines() if event == "not-served"]
    assert text.endswith("it is forwarded already")
    assert bench.follow() == []
    assert bench.listen in bench.supervisor.forwards, "that one is not ours to close"


def test_drained_by_hand(bench: Bench) -> None:
    bench.follow(bench.container())
    bench.supervisor.close(bench.listen, 0)
    bench.logged.lines()
    assert bench.follow(bench.container()) == []
    for _ in range(2):
        assert bench.follow(bench.container("172.17.0.3")) == []
    [text] = [text for event, text in bench.logged.lines() if event == "not-served"]
    assert "it has been drained" in text
    assert bench.follow() == []
    assert bench.follow(bench.container()) == ["open"]


def test_a_predecessors_sockets(bench: Bench) -> None:
    held = socket.create_server(("::", bench.port), family=socket.AF_INET6)
    bench.supervisor.listen_sockets.add(bench.listen, [held])
    assert bench.follow(bench.container()) == ["inherit"]


def test_out_of_descriptors(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """It costs this port, and it is tried again."""

    def refuse(_: Endpoint) -> socket.socket:
        raise RelayError("too many open files") from OSError(errno.EMFILE, "")

    with monkeypatch.context() as patched:
        patched.setattr("v6fwd.docker.direct_ports.own", refuse)
        assert bench.follow(bench.container()) == []
    assert bench.follow(bench.container()) == ["open"]


def test_udp(bench: Bench) -> None:
    assert bench.follow(bench.container(mode="proxy-v2", protocol=UDP)) == ["open"]
    [listen] = bench.direct_ports
    assert listen.protocol is UDP
