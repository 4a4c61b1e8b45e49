"""A swarm with a node of Engine 28, which leaves its own sandbox out of the gossip."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.docker.test_swarm import ADDRESSES, HOSTS, SAYS, client_of, page
from tests.support.engine import ENGINES
from tests.support.process import eventually
from tests.support.swarm import NODES, Swarm, swarm_of
from v6fwd.docker.swarm.plan import UNSEEN, UNTOLD

pytestmark = pytest.mark.server(
    "nft", "curl", "/usr/sbin/dockerd", str(ENGINES["28"] / "usr/sbin/dockerd")
)
NEW = NODES[2]
RULE = """
[[docker.rule]]
service = "ruled"
client-ip = "proxy-v1"
"""


@pytest.fixture(scope="module")
def swarm() -> Iterator[Swarm]:
    with swarm_of("20.10", "20.10", "28") as swarm:
        swarm.serve(RULE)
        yield swarm
        for served in swarm.served.values():
            assert "internal error" not in served.log


def test_a_rule_serves_all(swarm: Swarm) -> None:
    """Tasks are on Engine 28 and elsewhere; all nodes lead to both."""
    swarm.create("ruled", "--replicas", "2", "--publish", "8200:80", "--constraint",
                 "node.role==worker")  # fmt: skip
    served = swarm.served.values()
    eventually(lambda: all("[::]:8200" in each.modes() for each in served), "it is served", 60)
    for _ in range(2):
        for host in HOSTS:
            assert SAYS["proxy-v1"](client_of(host), host) in page(swarm, host, 8200)


def test_labels_serve_where_nodes_can_be_known(swarm: Swarm) -> None:
    """Nobody hands a flow to, or takes one from, an address that might be a container's."""
    swarm.create("named", "--replicas", "2", "--publish", "8180:80", "--constraint",
                 "node.role==worker", "--container-label", "v6fwd.client-ip=proxy-v1")  # fmt: skip
    served = swarm.served.values()
    eventually(lambda: all("[::]:8180" in each.modes() for each in served), "it is served", 60)
    for host in HOSTS:
        assert SAYS["proxy-v1"](client_of(host), host) in page(swarm, host, 8180)
    _move(swarm, "worker", "manager")
    eventually(lambda: UNTOLD in _why(swarm, NEW), "the new Engine's node leaves it to Docker", 60)
    for node, host in ADDRESSES:
        if node != NEW:
            assert SAYS["proxy-v1"](client_of(host), host) in page(swarm, host, 8180)
    name = swarm.engines[NEW].docker("info", "--format", "{{.Swarm.NodeID}}")
    words = ("--constraint-rm", "node.role==manager", "--constraint-add", f"node.id=={name}")
    swarm.manager.docker("service", "update", "--detach", "--no-resolve-image", *words, "named")
    for node in NODES[:2]:
        eventually(lambda node=node: UNSEEN in _why(swarm, node), f"{node} leaves it", 60)  # type: ignore[misc]


def _move(swarm: Swarm, before: str, after: str) -> None:
    words = ("--constraint-rm", f"node.role=={before}", "--constraint-add", f"node.role=={after}")
    swarm.manager.docker("service", "update", "--detach", "--no-resolve-image", *words, "named")


def _why(swarm: Swarm, node: str) -> str:
    """Why a node leaves the port to Docker."""
    held = swarm.served[node].process.status()["held"]
    return "".join(each["why"] for each in held if each["listen"] == "[::]:8180")
