"""What the Engine knows of the ingress network, as it was recorded, and as it must not be."""

from __future__ import annotations

import ipaddress
from typing import Any

import pytest

from tests.unit.docker.swarm.answers import CONTAINER, HERE, THERE, recorded
from v6fwd.docker.swarm.ingress import Service, Task, gateway_address, read_ingress


def test_what_was_recorded() -> None:
    ingress = read_ingress(recorded())
    assert ingress.network == ipaddress.IPv4Network("10.0.0.0/24")
    assert (ingress.own, ingress.node) == ("10.0.0.3", "203.0.113.12")
    assert ingress.services == (
        Service("pub", ((8080, 80),), (Task(THERE, "203.0.113.13"), Task(HERE, "203.0.113.12"))),
    )
    assert ingress.nodes == {
        "203.0.113.11": "10.0.0.2",
        "203.0.113.12": "10.0.0.3",
        "203.0.113.13": "10.0.0.4",
    }
    assert ingress.containers == {HERE: CONTAINER}


def test_a_node_without_services() -> None:
    answer = recorded()
    answer["Services"] = None
    assert read_ingress(answer).services == ()
    assert read_ingress(answer).node == "", "the gossip has not come yet"


def test_a_node_that_the_gossip_leaves_out() -> None:
    """Engine 28 does so with itself: a task is known to be here by its container."""
    answer = recorded()
    sandboxes = answer["Services"][""]["Tasks"]
    answer["Services"][""]["Tasks"] = [
        each for each in sandboxes if each["EndpointIP"] != "10.0.0.3"
    ]
    ingress = read_ingress(answer)
    assert ingress.node == ""
    [service] = ingress.services
    assert {task.address: ingress.is_here(task) for task in service.tasks} == {
        HERE: True,
        THERE: False,
    }


def test_a_task_whose_container_has_not_come_yet() -> None:
    answer = recorded()
    del answer["Containers"][CONTAINER]
    ingress = read_ingress(answer)
    [service] = ingress.services
    assert [task.address for task in service.tasks if ingress.is_here(task)] == [HERE]


def test_a_service_without_ports_is_none_of_the_mesh() -> None:
    answer = recorded()
    answer["Services"]["pub"]["Ports"] = None
    assert read_ingress(answer).services == ()


def _set(answer: Any, path: str, value: Any) -> None:
    *parents, last = path.split("/")
    for name in parents:
        answer = answer[int(name) if isinstance(answer, list) else name]
    answer[last] = value


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("Ingress", False),
        ("Ingress", None),
        ("IPAM/Config", []),
        ("IPAM/Config", [{"Subnet": "2001:db8::/64"}]),
        ("IPAM/Config", [{"Subnet": "10.0.0.0/33"}]),
        ("Containers", None),
        ("Containers/ingress-sbox/IPv4Address", "10.0.1.3/24"),
        ("Containers/ingress-sbox/IPv4Address", ""),
        ("Services", ["pub"]),
        ("Services/a b", {"Ports": [], "Tasks": []}),
        ("Services/pub", None),
        ("Services/pub/Ports", ["Target: 80, Publish: 65536"]),
        ("Services/pub/Ports", ["Target: 0, Publish: 80"]),
        ("Services/pub/Ports", ["Target: 80, Publish: 8080, more"]),
        ("Services/pub/Ports", ["Target: \u0661, Publish: 8080"]),
        ("Services/pub/Ports", [80]),
        ("Services/pub/Tasks", [{"EndpointIP": "10.0.0.9"}]),
        ("Services/pub/Tasks/0/EndpointIP", "127.0.0.1"),
        ("Services/pub/Tasks/0/EndpointIP", "192.0.2.1"),
        ("Services/pub/Tasks/0/EndpointIP", "::1"),
        ("Services/pub/Tasks/0/EndpointIP", 7),
        ("Services/pub/Tasks/0/Info", {"Host IP": "n1; rm"}),
        ("Services/pub/Tasks/0/Info", {}),
    ],
)
def test_foreign_bytes_void_the_answer(path: str, value: Any) -> None:
    """A task's address outside the network, above all, would be dialled with a client's bytes."""
    answer = recorded()
    _set(answer, path, value)
    with pytest.raises(ValueError):  # noqa: PT011 - each has a text of its own
        read_ingress(answer)


@pytest.mark.parametrize("answer", [None, [], "", 1, {}, [recorded()]])
def test_other_answers(answer: Any) -> None:
    with pytest.raises(ValueError):  # noqa: PT011
        read_ingress(answer)


def test_a_port_of_both_protocols_comes_twice() -> None:
    answer = recorded()
    answer["Services"]["pub"]["Ports"] *= 2
    assert read_ingress(answer).services[0].ports == ((8080, 80),)


def test_more_services_than_there_can_be() -> None:
    answer = recorded()
    answer["Services"] = {f"s{number}": answer["Services"]["pub"] for number in range(10_001)}
    with pytest.raises(ValueError, match="more than 10000"):
        read_ingress(answer)


def test_the_gateway() -> None:
    containers = {"ingress-sbox": {"IPv4Address": "172.18.0.2/16"}}
    assert gateway_address({"Containers": containers}) == "172.18.0.2"
    wrong: Any
    for wrong in (None, {}, {"Containers": {}}, {"Containers": {"ingress-sbox": {}}}):
        with pytest.raises(ValueError):  # noqa: PT011
            gateway_address(wrong)
    with pytest.raises(ValueError, match="nowhere"):
        gateway_address({"Containers": {"ingress-sbox": {"IPv4Address": "nowhere/16"}}})
