"""What the Engine's API tells of containers, and whose a forward is."""

from __future__ import annotations

from typing import Any

import pytest

from v6fwd.config.rules import Published
from v6fwd.docker.engine.containers import find_container, read_containers, targets
from v6fwd.model import Endpoint, Forward, Protocol

ITEM: dict[str, Any] = {
    "Id": "4f",
    "Names": ["/web"],
    "Image": "httpd:2.4",
    "State": "running",
    "Labels": {"v6fwd.client-ip": "proxy-v2"},
    "Ports": [
        {"IP": "0.0.0.0", "PrivatePort": 80, "PublicPort": 8080, "Type": "tcp"},
        {"IP": "::", "PrivatePort": 80, "PublicPort": 8080, "Type": "tcp"},
        {"IP": "127.0.0.1", "PrivatePort": 81, "PublicPort": 8081, "Type": "tcp"},
        {"IP": "0.0.0.0", "PrivatePort": 53, "PublicPort": 5353, "Type": "udp"},
        {"IP": "0.0.0.0", "PrivatePort": 9, "PublicPort": 9, "Type": "sctp"},
        {"PrivatePort": 443, "Type": "tcp"},
    ],
    "NetworkSettings": {
        "Networks": {
            "front": {"IPAddress": "172.18.0.2", "GlobalIPv6Address": ""},
            "back": {"IPAddress": "172.17.0.2", "GlobalIPv6Address": "2001:db8:5::2"},
            "none": {},
        }
    },
}


def test_a_container() -> None:
    [web] = read_containers([ITEM])
    assert web.as_published(8080, 80, Protocol.TCP) == Published(
        8080, 80, Protocol.TCP, "web", "httpd:2.4", ("back", "front", "none"), ITEM["Labels"]
    )
    assert targets(web) == {
        (8080, Protocol.TCP): Endpoint("172.17.0.2", 80),
        (5353, Protocol.UDP): Endpoint("172.17.0.2", 53, protocol=Protocol.UDP),
    }, "for the world alone"


@pytest.mark.parametrize(
    ("state", "is_running"),
    [
        *(("running", True), ("paused", True), ("restarting", True)),
        *(("created", False), ("exited", False), ("dead", False), ("removing", False)),
    ],
)
def test_which_run(state: str, is_running: bool) -> None:
    [web] = read_containers([ITEM | {"State": state}])
    assert web.is_running is is_running


@pytest.mark.parametrize(
    ("host", "name"),
    [("172.18.0.2", "web"), ("172.17.0.2", "web"), ("2001:db8:5::2", "web"), ("172.17.0.3", None)],
)
def test_whose_a_forward_is(host: str, name: str | None) -> None:
    forward = Forward(Endpoint("::", 8080), Endpoint(host, 80))
    found = find_container(read_containers([{"Id": "1", "Names": None}, ITEM]), forward)
    assert (found.name if found else None) == name


def test_what_may_be_missing() -> None:
    [bare] = read_containers([{"Id": "1", "Labels": None, "Ports": None, "NetworkSettings": None}])
    assert (bare.name, bare.labels, bare.address(), targets(bare)) == ("", {}, "", {})


@pytest.mark.parametrize(
    ("names", "name"),
    [
        (["/web"], "web"),
        (["/other/alias", "/web"], "web"),
        (["/web", "/other/alias"], "web"),
        (["web"], "web"),
        ([], ""),
        (None, ""),
    ],
)
def test_its_own_name(names: list[str] | None, name: str) -> None:
    """Links give it the names that others call it by."""
    [container] = read_containers([{"Id": "1", "Names": names}])
    assert container.name == name


def test_an_address_of_either_family() -> None:
    def address(*networks: dict[str, str]) -> str:
        named = {str(number): network for number, network in enumerate(networks)}
        item = {"Id": "1", "NetworkSettings": {"Networks": named}}
        [container] = read_containers([item])
        return container.address()

    six, four = {"GlobalIPv6Address": "2001:db8::2"}, {"IPAddress": "172.17.0.2"}
    assert address(six) == "2001:db8::2"
    assert address(six, four) == "172.17.0.2", "IPv4 is what every container has"
    assert address({**six, **four}) == "172.17.0.2"
    assert address({}) == ""


def test_ports_that_are_not_for_the_world() -> None:
    ports = [
        {"IP": "2001:db8::1", "PrivatePort": 80, "PublicPort": 8080, "Type": "tcp"},
        {"IP": "127.0.0.1", "PrivatePort": 80, "PublicPort": 8081, "Type": "tcp"},
        {"IP": "::", "PrivatePort": 80, "PublicPort": 0, "Type": "tcp"},
        {"IP": "", "PrivatePort": 80, "PublicPort": 8083, "Type": "udp"},  # podman says it so
    ]
    [container] = read_containers([{"Id": "1", "Ports": ports}])
    assert container.published == {(8083, 80, Protocol.UDP)}
