"""What is known and told of modes while containers come and go."""

from __future__ import annotations

import pytest

from tests.support.logged import Logged
from v6fwd.config.rules import Rule
from v6fwd.docker.engine.containers import Container
from v6fwd.docker.policy.modes import Modes
from v6fwd.model import ClientIP, Endpoint, Forward, Protocol, Transparent

V1, V2, NONE = ClientIP.PROXY_V1, ClientIP.PROXY_V2, ClientIP.NONE


def forward(port: int = 8080, host: str = "172.17.0.2", listen: str = "::") -> Forward:
    return Forward(Endpoint(listen, port), Endpoint(host, port - 8000))


def web(label: str = "proxy-v2", address: str = "172.17.0.2", which: str = "1") -> Container:
    labels = {"v6fwd.client-ip": label} if label else {}
    return Container(which, "web", labels=labels, addresses={"bridge": (address,)})


@pytest.fixture
def modes(logged: Logged) -> Modes:
    return Modes([], Transparent(), logged.log)


def test_by_label_and_told_once(modes: Modes, logged: Logged) -> None:
    for _ in range(3):
        assert modes.of(forward(), web()).client_ip is V2
    assert logged.lines() == [
        ("mode", f"{forward()}: proxy-v2 (container web, label v6fwd.client-ip)")
    ]


def test_both_families_are_two_forwards(modes: Modes, logged: Logged) -> None:
    for listen in ("::", "0.0.0.0"):
        modes.of(forward(listen=listen), web())
    assert len(logged.lines()) == 2


def test_the_default_is_not_told(modes: Modes, logged: Logged) -> None:
    assert modes.of(forward(), web("")).client_ip is NONE
    assert logged.lines() == []


def test_a_change_is_told(modes: Modes, logged: Logged) -> None:
    modes.of(forward(), web())
    modes.rules = [Rule(V1)]
    assert modes.of(forward(), web()).client_ip is V1
    modes.rules = []
    assert modes.of(forward(), web("")).client_ip is NONE
    assert [text.partition(": ")[2] for _, text in logged.lines()] == [
        "proxy-v2 (container web, label v6fwd.client-ip)",
        "proxy-v1 (container web, rule 1)",
        "none (container web, default)",
    ]


def test_a_mistake_is_told_once_a_container(modes: Modes, logged: Logged) -> None:
    for port in (8080, 8081):
        assert modes.of(forward(port), web("nonsense")).client_ip is NONE
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


def test_without_a_container_rules_go_alone(modes: Modes, logged: Logged) -> None:
    """One that the Engine does not know of may have any name: only ports can tell."""
    modes.rules = [Rule(V2, container="*b"), Rule(V1, host_ports=range(8080, 8081))]
    assert modes.of(forward(), None).client_ip is V1
    assert modes.of(forward(8081), None).client_ip is NONE
    assert modes.remembered(forward()) is None
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


def test_remembered_for_as_long_as_the_container_runs(modes: Modes) -> None:
    assert modes.remembered(forward()) is None
    served = modes.of(forward(), web())
    modes.keep([web(), web(address="172.17.0.3", which="2")])
    assert modes.remembered(forward()) == served
    assert modes.remembered(forward(8081)) is None
    assert modes.remembered(forward(host="172.17.0.3")) is None
    modes.keep([web(address="172.17.0.3", which="2")])
    assert modes.remembered(forward()) is None


def test_remembered_with_other_limits(modes: Modes) -> None:
    """A forward is known by its two ends."""
    modes.of(forward(), web())
    again = Forward(forward().listen, forward().target, client_ip=V1)
    remembered = modes.remembered(again)
    assert remembered is not None
    assert remembered.client_ip is V2
