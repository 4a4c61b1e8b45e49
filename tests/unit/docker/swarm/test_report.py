"""What is told of a swarm: services, tasks and nodes."""

from __future__ import annotations

from tests.unit.docker.swarm.answers import HERE, THERE, ingress, recorded
from v6fwd.docker.swarm.ingress import read_ingress
from v6fwd.docker.swarm.report import nodes, services


def test_services_with_their_tasks() -> None:
    assert services(ingress(HERE, THERE)) == [
        {"service": "pub", "ports": [8080], "here": 1, "elsewhere": 1}
    ]
    assert services(ingress()) == [{"service": "pub", "ports": [8080], "here": 0, "elsewhere": 0}]


def test_nodes_with_their_tasks() -> None:
    assert nodes(ingress(HERE, THERE)) == [
        {"node": "203.0.113.12", "here": True, "tasks": 1},
        {"node": "203.0.113.11", "here": False, "tasks": 0},
        {"node": "203.0.113.13", "here": False, "tasks": 1},
    ]


def test_a_node_that_the_gossip_leaves_out() -> None:
    answer = recorded()
    sandboxes = answer["Services"][""]["Tasks"]
    answer["Services"][""]["Tasks"] = [
        each for each in sandboxes if each["EndpointIP"] != "10.0.0.3"
    ]
    assert nodes(read_ingress(answer)) == [
        {"node": "", "here": True, "tasks": 1},
        {"node": "203.0.113.11", "here": False, "tasks": 0},
        {"node": "203.0.113.13", "here": False, "tasks": 1},
    ]
