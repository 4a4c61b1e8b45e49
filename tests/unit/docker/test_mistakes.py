"""Labels that have no effect, or a wrong one, and why."""

from __future__ import annotations

import pytest

from v6fwd.config.rules import Rule
from v6fwd.docker.engine.containers import Container, HostPort
from v6fwd.docker.policy.mistakes import label_mistakes, labels_without_port
from v6fwd.model import ClientIP, Protocol

TCP, UDP = Protocol.TCP, Protocol.UDP


def container(labels: dict[str, str], *ports: tuple[int, Protocol]) -> Container:
    published = (HostPort("::", 8000 + port, port, protocol) for port, protocol in ports)
    return Container("1", "web", labels=labels, ports=frozenset(published))


@pytest.mark.parametrize(
    "labels",
    [
        {},
        {"v6fwd.client-ip": "proxy-v2"},
        {"v6fwd.client-ip.80": "proxy-v2", "v6fwd.allow.80-tcp": "::/0"},
        {"v6fwd.client-flows.53/udp": "3"},
        {"traefik.http.81": "another program's"},
    ],
)
def test_right_labels(labels: dict[str, str]) -> None:
    assert label_mistakes(container(labels, (80, TCP), (53, UDP))) == []


@pytest.mark.parametrize(
    ("key", "value", "why"),
    [
        (
            "v6fwd.client-ip.8080",
            "proxy-v2",
            "publishes no port 8080 of its own (published: 80/tcp)",
        ),
        ("v6fwd.client-ip.80-udp", "proxy-v2", "publishes no port 80 of its own"),
        ("v6fwd.allow.81", "::/0", "publishes no port 81 of its own"),
        ("v6fwd.client-ip", "proxy_v3", "is not a mode"),
        ("v6fwd.client-ip.81", "proxy_v3", "is not a mode"),
        ("v6fwd.allow", "everybody", "is not a network"),
        ("v6fwd.client-ip.http", "proxy-v2", "is not a port"),
    ],
)
def test_one_line_for_a_wrong_label(key: str, value: str, why: str) -> None:
    (line,) = label_mistakes(container({key: value}, (80, TCP)))
    assert line.startswith(f"label {key}={value}: ")
    assert why in line


def test_labels_of_others_are_no_business_of_ours() -> None:
    """Whatever port they name."""
    labels = {"com.8080": "x", "traefik.8080": "x", "v6fwd.client-ip.8080": "none"}
    found = [*labels_without_port(labels, [(80, Protocol.TCP)])]
    assert found == [("v6fwd.client-ip.8080", 8080)]


def test_nothing_is_published() -> None:
    (line,) = label_mistakes(container({"v6fwd.client-ip.80": "proxy-v2"}))
    assert line.endswith("(published: none)")


def test_a_label_that_does_not_fit_one_of_its_ports() -> None:
    labels = {"v6fwd.client-ip": "x-forwarded-for"}
    (line,) = label_mistakes(container(labels, (80, TCP), (53, UDP), (54, UDP)))
    assert line.startswith("label v6fwd.client-ip: x-forwarded-for is for HTTP over TCP")


def test_a_rule_comes_before_the_label() -> None:
    labels = {"v6fwd.client-ip": "x-forwarded-for"}
    assert label_mistakes(container(labels, (53, UDP)), [Rule(ClientIP.PROXY_V2)]) == []
