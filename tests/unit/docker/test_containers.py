"""What the Engine's API tells of containers, and whose a forward is."""

from __future__ import annotations

from typing import Any

import pytest

from v6fwd.config.rules import Published
from v6fwd.docker.engine.containers import (
    Container,
    HostPort,
    find_containers,
    read_containers,
    targets,
)
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
    ("listen", "target", "found"),
    [
        (("::", 8080), ("172.18.0.2", 80), True),
        (("0.0.0.0", 8080), ("172.17.0.2", 80), True),
        (("::", 8080), ("2001:db8:5::2", 80), True),
        (("::", 8080), ("172.19.0.3", 80), True),  # Swarm: docker_gwbridge is not listed
        (("127.0.0.1", 8081), ("172.17.0.2", 81), True),
        (("::1", 8081), ("172.17.0.2", 81), False),
        (("::", 8081), ("172.17.0.2", 81), False),
        (("::", 8080), ("172.17.0.2", 81), False),
        (("::", 8082), ("172.17.0.2", 80), False),
    ],
)
def test_whose_a_forward_is(listen: tuple[str, int], target: tuple[str, int], found: bool) -> None:
    forward = Forward(Endpoint(*listen), Endpoint(*target))
    containers = read_containers([{"Id": "1", "Names": None}, ITEM])
    assert find_containers(containers, forward) == containers[1:] * found


def test_the_protocol_counts() -> None:
    udp = Endpoint("::", 8080, protocol=Protocol.UDP)
    target = Endpoint("172.17.0.2", 80, protocol=Protocol.UDP)
    assert find_containers(read_containers([ITEM]), Forward(udp, target)) == []


def test_the_address_alone_means_nothing() -> None:
    """Networks may overlap, and anybody may be given an address; a published port is unique."""
    [web] = read_containers([ITEM])
    twin = Container("b", "twin", addresses={"other": ("172.17.0.2",)})
    forward = Forward(Endpoint("::", 8080), Endpoint("172.17.0.2", 80))
    assert find_containers([twin, web], forward) == [web]
    assert find_containers([twin], forward) == []


def test_two_that_publish_the_same_port() -> None:
    """The address decides, and where it does not, nobody."""
    port = frozenset({HostPort("0.0.0.0", 8080, 80, Protocol.TCP)})
    one, two, twin = (
        Container(name, name, addresses={"n": (address,)}, ports=port)
        for name, address in (("1", "10.0.0.1"), ("2", "10.0.0.2"), ("3", "10.0.0.2"))
    )
    forward = Forward(Endpoint("0.0.0.0", 8080), Endpoint("10.0.0.2", 80))
    assert find_containers([one, two], forward) == [two]
    assert find_containers([one, two, twin], forward) == [two, twin]


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
