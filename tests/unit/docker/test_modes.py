"""What is known and told of modes while containers come and go."""

from __future__ import annotations

import pytest

from tests.support.logged import Logged
from v6fwd.config.rules import Rule
from v6fwd.docker.engine.containers import Container, HostPort
from v6fwd.docker.policy.modes import Modes
from v6fwd.model import ClientIP, Endpoint, Forward, Protocol, Transparent

V1, V2, NONE = ClientIP.PROXY_V1, ClientIP.PROXY_V2, ClientIP.NONE


def forward(port: int = 8080, host: str = "172.17.0.2", listen: str = "::") -> Forward:
    return Forward(Endpoint(listen, port), Endpoint(host, port - 8000))


def web(label: str = "proxy-v2", address: str = "172.17.0.2", which: str = "1") -> Container:
    labels = {"v6fwd.client-ip": label} if label else {}
    ports = frozenset(HostPort("::", port, port - 8000, Protocol.TCP) for port in (8080, 8081))
    return Container(which, "web", "", labels, {"bridge": (address,)}, ports)


def mode(modes: Modes, forward: Forward, container: Container | None) -> ClientIP | None:
    """The mode of a port; None: it must not be served."""
    served = modes.of(forward, container)
    return served.client_ip if served is not None else None


@pytest.fixture
def modes(logged: Logged) -> Modes:
    return Modes([], Transparent(), logged.log)


def test_by_label_and_told_once(modes: Modes, logged: Logged) -> None:
    for _ in range(3):
        assert mode(modes, forward(), web()) is V2
    assert logged.lines() == [
        ("mode", f"{forward()}: proxy-v2 (container web, label v6fwd.client-ip)")
    ]


def test_both_families_are_two_forwards(modes: Modes, logged: Logged) -> None:
    for listen in ("::", "0.0.0.0"):
        modes.of(forward(listen=listen), web())
    assert len(logged.lines()) == 2


def test_the_default_is_not_told(modes: Modes, logged: Logged) -> None:
    assert mode(modes, forward(), web("")) is NONE
    assert logged.lines() == []


def test_what_decides_is_shown(modes: Modes) -> None:
    assert modes.source(forward(), web()) == "label v6fwd.client-ip"
    assert modes.source(forward(), web("")) == "default"
    assert modes.source(forward(), web("proxy")) == "error: label v6fwd.client-ip"
    modes.rules = [Rule(V1)]
    assert modes.source(forward(), web()) == "rule 1"
    assert modes.source(forward(), None) == "rule 1"
    modes.rules = [Rule(V1, container="web")]
    assert modes.source(forward(), None) == ""


def test_a_change_is_told(modes: Modes, logged: Logged) -> None:
    modes.of(forward(), web())
    modes.rules = [Rule(V1)]
    assert mode(modes, forward(), web()) is V1
    modes.rules = []
    assert mode(modes, forward(), web("")) is NONE
    assert [text.partition(": ")[2] for _, text in logged.lines()] == [
        "proxy-v2 (container web, label v6fwd.client-ip)",
        "proxy-v1 (container web, rule 1)",
        "none (container web, default)",
    ]


def test_a_mistake_is_told_once_a_container(modes: Modes, logged: Logged) -> None:
    for port in (8080, 8081):
        assert mode(modes, forward(port), web("nonsense")) is NONE
    [(event, text)] = logged.lines()
    assert event == "label"
    assert text.startswith("container web: label v6fwd.client-ip=nonsense: ")
    modes.of(forward(), web("nonsense", which="2"))
    assert len(logged.lines()) == 1
    modes.keep([web("nonsense", which="2")])
    modes.of(forward(), web("nonsense"))
    assert len(logged.lines()) == 1, "it has run anew"
    modes.of(forward(), web("nonsense", which="2"))
    assert logged.lines() == []


def test_a_wrong_label_that_resembles_a_header_refuses(modes: Modes, logged: Logged) -> None:
    """The server trusts a header, so nobody may come who brings one of his own."""
    for _ in range(2):
        assert modes.of(forward(), web("proxy-v3")) is None
    label, told = logged.lines()
    assert label[0] == "label"
    assert told == ("mode", f"{forward()}: refused (container web, label v6fwd.client-ip)")
    modes.rules = [Rule(NONE)]
    assert mode(modes, forward(), web("proxy-v3")) is NONE, "the administrator knows better"


@pytest.mark.parametrize(
    ("rules", "decided"),
    [
        ([], {8080: None, 8081: None}),
        ([Rule(V1, host_ports=range(8080, 8081))], {8080: V1, 8081: None}),
        ([Rule(V2, container="*b"), Rule(V1, range(8080, 8081))], {8080: None, 8081: None}),
        ([Rule(V2, network="front"), Rule(V1)], {8080: None}),
        ([Rule(V2, image="httpd"), Rule(V1)], {8080: None}),
        ([Rule(V1, range(8080, 8081)), Rule(V2, container="*b")], {8080: V1, 8081: None}),
        ([Rule(V2, range(9, 10), container="*b"), Rule(V1)], {8080: V1}),
    ],
)
def test_without_a_container_only_a_rule_for_all_decides(
    modes: Modes, logged: Logged, rules: list[Rule], decided: dict[int, ClientIP | None]
) -> None:
    """A container that the Engine does not tell of may have any name, and any label."""
    modes.rules = rules
    assert {port: mode(modes, forward(port), None) for port in decided} == decided
    assert logged.lines() == []


def test_what_is_asked_for(modes: Modes) -> None:
    assert modes.is_asked_for(forward(), web())
    assert modes.is_asked_for(forward(), web("none")), "none is a wish, too"
    assert not modes.is_asked_for(forward(), web(""))
    assert not modes.is_asked_for(forward(), web("nonsense"))
    udp = Endpoint("::", 8080, protocol=Protocol.UDP)
    assert not modes.is_asked_for(Forward(udp, udp), web("proxy-v1"))
    modes.rules = [Rule(V1)]
    assert modes.is_asked_for(forward(), web(""))


def test_a_mode_is_told_again_when_its_container_has_gone(modes: Modes, logged: Logged) -> None:
    for kept, count in (([web()], 1), ([web()], 0), ([], 0), ([web()], 1)):
        modes.keep(kept)
        if kept:
            modes.of(forward(), web())
        assert len(logged.lines()) == count
