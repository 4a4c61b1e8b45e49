"""The mode of each published port, and what mode `transparent` needs to know of a container."""

from __future__ import annotations

import pytest

from v6fwd.config.rules import Rule
from v6fwd.docker.engine.containers import Container
from v6fwd.docker.policy.modes import Modes
from v6fwd.log import Log
from v6fwd.model import ClientIP, Endpoint, Forward, Transparent, TransparentFallback

HOW = Transparent(fallback=TransparentFallback.NONE, pseudo_store="/store")
FORWARD = Forward(Endpoint("::", 8080), Endpoint("172.17.0.2", 80))
LABELS = {"v6fwd.client-ip.80": "transparent"}


def container(pid: int, labels: dict[str, str]) -> Container:
    addresses = {"bridge": ("172.17.0.2",)}
    return Container("4f", "web", labels=labels, addresses=addresses, pid=pid)


@pytest.fixture
def modes() -> Modes:
    return Modes((), HOW, Log())


def served_by(modes: Modes, container: Container) -> Forward:
    served = modes.of(FORWARD, container)
    assert served is not None
    return served


def test_the_namespace_is_the_process_s(modes: Modes) -> None:
    served = served_by(modes, container(4711, LABELS))
    assert served.client_ip is ClientIP.TRANSPARENT
    assert served.transparent == Transparent("4711", TransparentFallback.NONE, 64, "/store")
    restarted = served_by(modes, container(4712, LABELS))
    assert restarted.transparent.netns == "4712"


def test_without_a_process_there_is_no_namespace(modes: Modes) -> None:
    assert served_by(modes, container(0, LABELS)).transparent == HOW


def test_without_a_container_there_is_no_namespace(modes: Modes) -> None:
    """A rule alone decides, and the container cannot be asked for."""
    modes.rules = [Rule(ClientIP.TRANSPARENT)]
    served = modes.of(FORWARD, None)
    assert served is not None
    assert served.transparent == HOW


def test_other_modes_know_nothing_of_it(modes: Modes) -> None:
    served = served_by(modes, container(4711, {"v6fwd.client-ip": "proxy-v2"}))
    assert served.transparent == Transparent()


@pytest.mark.parametrize(
    ("labels", "rule", "enters"),
    [
        (LABELS, None, True),
        ({"v6fwd.client-ip": "proxy-v2"}, None, False),
        ({}, Rule(ClientIP.TRANSPARENT, range(8080, 8081), container="web"), True),
        ({}, Rule(ClientIP.TRANSPARENT, container="db"), False),
    ],
)
def test_whose_process_must_be_known(
    modes: Modes, labels: dict[str, str], rule: Rule | None, enters: bool
) -> None:
    modes.rules = [rule] if rule else []
    assert modes.enters(container(0, labels)) is enters
