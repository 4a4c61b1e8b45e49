"""Nodes that the gossip loses: their tasks stay for a while, unless something else is told."""

from __future__ import annotations

from dataclasses import replace

from tests.unit.docker.swarm.answers import HERE, THERE, ingress
from v6fwd.docker.swarm.ingress import Ingress, Task
from v6fwd.docker.swarm.lost_nodes import KEEP, LostNodes

NODE = "203.0.113.13"
"""The node of THERE."""


def without(network: Ingress) -> Ingress:
    """The same when the gossip has lost that node."""
    nodes = {node: box for node, box in network.nodes.items() if node != NODE}
    return replace(network, nodes=nodes)


def tasks(network: Ingress) -> list[str]:
    return [task.address for service in network.services for task in service.tasks]


def test_its_tasks_stay_for_a_while() -> None:
    lost = LostNodes()
    assert lost.complete(ingress(HERE, THERE), 0.0) == ingress(HERE, THERE)
    now = lost.complete(without(ingress(HERE)), 1.0)
    assert tasks(now) == [THERE, HERE]
    assert now.nodes == ingress(HERE).nodes
    assert tasks(lost.complete(without(ingress(HERE)), KEEP)) == [THERE, HERE]
    assert tasks(lost.complete(without(ingress(HERE)), KEEP + 1)) == [HERE]
    assert tasks(lost.complete(without(ingress(HERE)), KEEP + 2)) == [HERE]


def test_a_service_that_was_there_alone_stays() -> None:
    lost = LostNodes()
    lost.complete(ingress(THERE), 0.0)
    gone = replace(without(ingress(HERE)), services=())
    assert tasks(lost.complete(gone, 1.0)) == [THERE]
    assert lost.complete(gone, 2.0).services[0].ports == ((8080, 80),)


def test_a_task_that_left_a_living_node_is_gone() -> None:
    lost = LostNodes()
    lost.complete(ingress(HERE, THERE), 0.0)
    assert tasks(lost.complete(ingress(HERE), 1.0)) == [HERE]


def test_a_node_that_is_told_again_tells_all() -> None:
    lost = LostNodes()
    lost.complete(ingress(HERE, THERE), 0.0)
    lost.complete(without(ingress(HERE)), 1.0)
    assert tasks(lost.complete(ingress(HERE), 2.0)) == [HERE]
    assert tasks(lost.complete(without(ingress(HERE)), 3.0)) == [HERE]


def test_an_address_that_another_one_has_is_not_its_task() -> None:
    """Else a client of one service would be led to another."""
    lost = LostNodes()
    lost.complete(ingress(HERE, THERE), 0.0)
    now = without(ingress(HERE))
    [service] = now.services
    other = replace(service, name="other", ports=((9, 9),), tasks=(Task(THERE, "203.0.113.11"),))
    found = lost.complete(replace(now, services=(service, other)), 1.0)
    assert {each.name: tasks(replace(found, services=(each,))) for each in found.services} == {
        "pub": [HERE],
        "other": [THERE],
    }


def test_a_port_that_another_one_publishes_is_not_its() -> None:
    lost = LostNodes()
    lost.complete(ingress(THERE), 0.0)
    [service] = ingress(HERE).services
    now = replace(without(ingress(HERE)), services=(replace(service, name="other"),))
    assert [each.name for each in lost.complete(now, 1.0).services] == ["other"]
