"""How a node serves the ports of the mesh: by rules, by labels of its own tasks, by other nodes."""

from __future__ import annotations

import ipaddress
from dataclasses import replace

import pytest

from tests.support.logged import Logged
from tests.unit.docker.swarm.answers import CONTAINER, HERE, THERE, ingress
from v6fwd.config import Docker
from v6fwd.config.rules import Rule
from v6fwd.docker.engine.containers import SERVICE, Container
from v6fwd.docker.policy.modes import Modes
from v6fwd.docker.swarm.ingress import Ingress
from v6fwd.docker.swarm.plan import UNKNOWN, UNSEEN, UNTOLD, Node, Planned, Planner, hop_port
from v6fwd.model import Balance, ClientIP, Endpoint, Limits, Protocol

TCP, UDP = Protocol.TCP, Protocol.UDP


def container(label: str = "", which: str = CONTAINER) -> Container:
    """The task's container."""
    labels = {SERVICE: "pub"} | ({"v6fwd.client-ip": label} if label else {})
    return Container(which, "pub.2.x", labels=labels, addresses={"ingress": (HERE,)})


def plan(
    network: Ingress,
    *containers: Container,
    rules: tuple[Rule, ...] = (),
    protocols: tuple[Protocol, ...] = (TCP,),
) -> list[Planned]:
    """What is planned for the ports of a network."""
    docker = Docker("unix:///x", rules, swarm=True)
    modes = Modes(rules, docker.transparent, Logged().log)
    ports = {port: protocols for service in network.services for port, _ in service.ports}
    node = Node("/netns/ingress_sbox", "4-1", containers, ports)
    return list(Planner(modes, docker, Limits()).plan(network, node))


@pytest.mark.parametrize("mode", ["none", "proxy-v1", "proxy-v2", "x-forwarded-for", "forwarded"])
def test_a_label_decides_about_tasks_here(mode: str) -> None:
    [planned] = plan(ingress(HERE, THERE), container(mode))
    assert planned.forward is not None
    assert planned.forward.listen == Endpoint("::", 8080)
    assert planned.forward.target == Endpoint("pub", 80)
    assert planned.forward.client_ip == mode
    assert planned.forward.mesh.netns == "/netns/ingress_sbox"
    assert (planned.forward.mesh.local, planned.forward.mesh.remote) == ((HERE,), ())
    assert planned.forward.mesh.balance is Balance.LOCAL


def test_without_a_label_it_is_none() -> None:
    [planned] = plan(ingress(HERE), container())
    assert planned.forward is not None
    assert planned.forward.client_ip is ClientIP.NONE


def test_the_hop_believes_nodes_alone() -> None:
    """And refuses all others in the ingress network, whatever they say."""
    [planned] = plan(ingress(HERE, THERE), container("proxy-v1"))
    hop = planned.hop
    assert hop is not None
    assert hop.listen == Endpoint("10.0.0.3", hop_port(8080))
    assert set(map(str, hop.accept_proxy)) == {"10.0.0.2/32", "10.0.0.4/32"}
    assert ipaddress.IPv4Network("10.0.0.0/24") in hop.guard.deny
    assert (hop.mesh.local, hop.mesh.remote) == ((HERE,), ()), "nothing goes round"
    assert hop.client_ip is ClientIP.PROXY_V1


def test_nobody_believes_clients() -> None:
    for network in (ingress(HERE, THERE), ingress(THERE)):
        [planned] = plan(network, container("proxy-v2"))
        assert planned.forward is not None
        assert planned.forward.accept_proxy == ()


def test_without_a_task_here_flows_are_handed_over() -> None:
    """To the node of the task, which can read its label."""
    [planned] = plan(ingress(THERE))
    assert planned.forward is not None
    assert planned.source == "hop"
    assert planned.forward.client_ip is ClientIP.PROXY_V2
    mesh = planned.forward.mesh
    assert (mesh.local, mesh.remote, mesh.hops) == ((), (), ("10.0.0.4",))
    assert mesh.hop_port == hop_port(8080)
    assert planned.hop is None


def test_a_hop_port_that_is_published() -> None:
    flipped = hop_port(8080)
    other = {"other": {"Ports": [f"Target: 80, Publish: {flipped}"], "Tasks": []}}
    planned = plan(ingress(THERE, more=other))
    by_port = {each.listen.port: each for each in planned}
    assert by_port[8080].forward is None
    assert f"port {flipped}" in by_port[8080].why


@pytest.mark.parametrize("tasks", [(HERE, THERE), (THERE,), (HERE,), ()])
def test_a_rule_for_the_service_decides_on_every_node(tasks: tuple[str, ...]) -> None:
    rules = (Rule(ClientIP.NONE, service="other"), Rule(ClientIP.PROXY_V1, service="p*"))
    [planned] = plan(ingress(*tasks), container("proxy-v2"), rules=rules)
    assert planned.forward is not None
    assert planned.forward.client_ip is ClientIP.PROXY_V1
    assert {*planned.forward.mesh.local, *planned.forward.mesh.remote} == set(tasks)
    assert (planned.hop is not None) == (HERE in tasks)


def test_a_rule_that_names_a_container_decides_here_alone() -> None:
    rules = (Rule(ClientIP.PROXY_V1, container="pub.*"),)
    [planned] = plan(ingress(HERE, THERE), container(), rules=rules)
    assert planned.forward is not None
    assert planned.forward.client_ip is ClientIP.PROXY_V1
    assert planned.forward.mesh.remote == ()
    [planned] = plan(ingress(THERE), rules=rules)
    assert planned.source == "hop"


def test_what_is_not_known_is_left_to_docker() -> None:
    [planned] = plan(ingress(HERE, THERE))
    assert (planned.forward, planned.hop, planned.why) == (None, None, UNKNOWN)


def test_a_wrong_label_is_left_to_docker() -> None:
    [planned] = plan(ingress(HERE), container("proxy-v3"))
    assert (planned.forward, planned.hop) == (None, None)
    assert planned.why == "refused, as a label of container pub.2.x is wrong"


def both_here() -> Ingress:
    """Both tasks on this node; the second one's container is `b...`."""
    network = ingress(HERE, THERE)
    [service] = network.services
    tasks = tuple(replace(task, node=network.node) for task in service.tasks)
    containers = {HERE: CONTAINER, THERE: "b" * 64}
    services = (replace(service, tasks=tasks),)
    return replace(network, services=services, containers=containers)


def test_labels_that_differ() -> None:
    """Each task is served in its own mode or not at all."""
    [planned] = plan(both_here(), container("proxy-v1"), container("none", "b" * 64))
    assert planned.forward is not None
    assert planned.forward.client_ip is ClientIP.PROXY_V1
    assert planned.forward.mesh.local == (HERE,)
    [planned] = plan(both_here(), container("proxy-v1"), container("proxy-v1", "b" * 64))
    assert planned.forward is not None
    assert planned.forward.mesh.local == (THERE, HERE)


def test_a_task_that_is_starting_stops_no_other() -> None:
    """Its container is not in the list yet, or its label is wrong."""
    for others in ((), (container("proxy-v3", "b" * 64),)):
        [planned] = plan(both_here(), container("proxy-v1"), *others)
        assert planned.forward is not None
        assert planned.forward.mesh.local == (HERE,)
    [planned] = plan(both_here(), entered(4711), replace(entered(0), id="b" * 64))
    assert planned.forward is not None
    assert (planned.forward.mesh.local, planned.forward.mesh.pids) == ((HERE,), ("4711",))


def test_a_port_of_two_services_is_left_to_docker() -> None:
    """The gossip may be stale."""
    other = {"other": {"Ports": ["Target: 80, Publish: 8080"], "Tasks": []}}
    planned = plan(ingress(HERE, more=other), container("none"))
    assert [each.forward for each in planned] == [None, None]
    assert all(each.why.startswith("several services publish it") for each in planned)


def test_both_protocols() -> None:
    planned = plan(ingress(HERE), container("proxy-v2"), protocols=(TCP, UDP))
    assert [each.listen.protocol for each in planned] == [TCP, UDP]
    assert [each.forward.target.protocol for each in planned if each.forward] == [TCP, UDP]


def test_each_port_has_a_hop_of_its_own() -> None:
    ports = range(1, 65536)
    assert len({hop_port(port) for port in ports}) == len(ports)
    assert all(hop_port(hop_port(port)) == port for port in ports)


def entered(pid: int) -> Container:
    """The task's container in mode `transparent`, with its process."""
    return replace(container("transparent"), pid=pid)


def test_transparent_enters_the_tasks_here() -> None:
    """And leads to no other, for which a header would be needed."""
    [planned] = plan(ingress(HERE, THERE), entered(4711))
    for forward in (planned.forward, planned.hop):
        assert forward is not None
        assert forward.client_ip is ClientIP.TRANSPARENT
        assert (forward.mesh.local, forward.mesh.pids) == ((HERE,), ("4711",))
        assert forward.mesh.remote == ()


def test_transparent_waits_for_the_process() -> None:
    [planned] = plan(ingress(HERE), entered(0))
    assert (planned.forward, planned.hop, planned.why) == (None, None, UNKNOWN)


def test_transparent_by_a_rule_is_handed_over_where_there_is_no_task() -> None:
    rules = (Rule(ClientIP.TRANSPARENT, service="pub"),)
    [planned] = plan(ingress(THERE), rules=rules)
    assert planned.source == "hop"
    assert planned.forward is not None
    assert planned.forward.client_ip is ClientIP.PROXY_V2
    assert planned.forward.mesh.hops == ("10.0.0.4",)
    [planned] = plan(ingress(HERE, THERE), entered(4711), rules=rules)
    assert planned.forward is not None
    assert planned.forward.mesh.remote == ()


def test_nodes_with_tasks_stand_behind_those_here() -> None:
    """A node whose last task has just died hands over at once."""
    [planned] = plan(ingress(HERE, THERE), container("x-forwarded-for"))
    assert planned.forward is not None
    assert planned.forward.mesh.hops == ("10.0.0.4",)
    assert planned.forward.mesh.hop_port == hop_port(8080)
    assert not planned.forward.mesh.is_hop
    assert planned.hop is not None
    assert planned.hop.mesh.hops == ("10.0.0.4",)
    assert planned.hop.mesh.is_hop, "what comes in there goes on once at most"
    [planned] = plan(ingress(HERE, THERE), entered(4711))
    assert planned.forward is not None
    assert planned.forward.mesh.hops == ("10.0.0.4",)


def test_no_node_stands_behind_tasks_of_udp_or_of_a_rule() -> None:
    """A session's datagrams are all written in one mode; a rule leads to any task itself."""
    [planned] = plan(ingress(HERE, THERE), container("proxy-v2"), protocols=(UDP,))
    assert planned.forward is not None
    assert planned.forward.mesh.hops == ()
    rules = (Rule(ClientIP.PROXY_V1, service="pub"),)
    [planned] = plan(ingress(HERE, THERE), rules=rules)
    assert planned.forward is not None
    assert (planned.forward.mesh.remote, planned.forward.mesh.hops) == ((THERE,), ())


def test_no_node_stands_behind_where_its_port_is_published() -> None:
    other = {"other": {"Ports": [f"Target: 80, Publish: {hop_port(8080)}"], "Tasks": []}}
    planned = plan(ingress(HERE, THERE, more=other), container("none"))
    [pub] = [each for each in planned if each.service == "pub"]
    assert pub.forward is not None
    assert pub.forward.mesh.hops == ()


def test_nodes_that_the_gossip_leaves_out() -> None:
    """Engine 28 does so with itself. Whoever might be a container is neither believed nor told."""
    network = ingress(HERE, THERE)
    others = {node: box for node, box in network.nodes.items() if box != network.own}
    rules = (Rule(ClientIP.PROXY_V1, service="pub"),)
    [planned] = plan(replace(ingress(THERE), nodes=others))
    assert (planned.forward, planned.why) == (None, UNTOLD)
    [planned] = plan(replace(ingress(THERE), nodes=others), rules=rules)
    assert planned.forward is not None, "a rule needs no other node"
    unseen = {node: box for node, box in network.nodes.items() if box != "10.0.0.4"}
    [planned] = plan(replace(ingress(THERE), nodes=unseen))
    assert (planned.forward, planned.why) == (None, UNSEEN)
    [planned] = plan(replace(network, nodes=unseen), container("proxy-v1"))
    assert planned.forward is not None
    assert planned.forward.mesh.hops == ()
    assert planned.hop is not None
    assert set(map(str, planned.hop.accept_proxy)) == {"10.0.0.2/32"}
