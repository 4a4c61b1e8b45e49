"""The routing mesh as it really is, with IPVS: without v6fwd, then with it. `make test-mesh`.

It needs the user-mode Linux that scripts/test-mesh boots, so `make test` does not run it. Here
dockerd holds the sockets of published ports, which v6fwd takes.
"""

from __future__ import annotations

import dataclasses
import itertools
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from tests.docker.test_swarm import (
    ADDRESSES,
    LABELS,
    PEER_RE,
    RULES,
    create_named,
    page,
    published,
    served,
    test_a_client_is_not_believed,
    test_none_answers_over_ipv6,
    test_six_of_six_are_named,
    test_six_of_six_at_a_socket_of_ipv4,
    test_six_of_six_at_the_tasks_own_socket,
    test_six_of_six_with_a_binary_header,
)
from tests.support.process import eventually
from tests.support.swarm import NODES, Swarm, swarm_of, v4_of, v6_of

__all__ = [
    "test_a_client_is_not_believed",
    "test_none_answers_over_ipv6",
    "test_six_of_six_are_named",
    "test_six_of_six_at_a_socket_of_ipv4",
    "test_six_of_six_at_the_tasks_own_socket",
    "test_six_of_six_with_a_binary_header",
]

PLAIN = published(83)
"""The port in mode `none`: its tasks tell who connects."""
HANGS = """
import socket, sys
client = socket.create_connection((sys.argv[1], int(sys.argv[2])), 20)
client.sendall(b"GET / HTTP/1.1\\r\\n\\r\\n")
client.settimeout(5)
try:
    print("answer", client.recv(100))
except TimeoutError:
    print("silence")
"""


@dataclasses.dataclass(frozen=True, slots=True)
class Mesh:
    """Docker's own, and what it answered at each address while there was no v6fwd.

    `queued`: how many connections were in the queue of each node's dockerd then.
    """

    swarm: Swarm
    answers: dict[str, str]
    queued: dict[str, int]


@pytest.fixture(scope="module")
def mesh(request: pytest.FixtureRequest) -> Iterator[Mesh]:
    """Three nodes; `named` has a task on each worker."""
    say("three Engines start")
    with swarm_of("20.10", "20.10", "20.10") as swarm:
        try:
            say("the nodes are a swarm")
            create_named(swarm)
            say("the tasks run")
            for node in NODES:
                eventually(partial(held_by_dockerd, swarm, node, PLAIN), "dockerd has the port", 30)
                eventually(partial(answers, swarm, node), "IPVS answers", 30)
                say(f"{node}: IPVS answers")
            told = {host: unaided(swarm, host) for _, host in ADDRESSES}
            yield Mesh(swarm, told, {node: queued(swarm, node, PLAIN) for node in NODES})
        finally:
            if request.session.testsfailed:
                for node, each in swarm.served.items():
                    print(f"{node}\n{each.engine.log[-6000:]}\n{each.log}")
        say("all has been asked; the nodes end")


@pytest.fixture(scope="module")
def swarm(mesh: Mesh) -> Swarm:
    """The same nodes, with v6fwd on each."""
    say("asked without v6fwd; now v6fwd starts")
    mesh.swarm.serve(RULES)
    eventually(lambda: served(mesh.swarm), "every port is served on every node")
    say("every port is served on every node")
    return mesh.swarm


def say(what: str) -> None:
    """Tell how far it is: it takes minutes."""
    print(time.strftime("%H:%M:%S"), what, flush=True)


def answers(swarm: Swarm, node: str) -> bool:
    """Whether a node's IPVS has its rules by now."""
    words = ("curl", "-s", "--max-time", "3", f"http://{v4_of(node)}:{PLAIN}/")
    return bool(swarm.lab.run("client", *words).returncode == 0)


def unaided(swarm: Swarm, host: str) -> str:
    """What comes of a request without v6fwd."""
    return silence(swarm, host) if ":" in host else page(swarm, host, PLAIN)


def silence(swarm: Swarm, host: str) -> str:
    """What comes of a request that nobody reads."""
    asked = swarm.lab.run("client", sys.executable, "-c", HANGS, host, str(PLAIN))
    assert asked.returncode == 0, asked.stderr
    return asked.stdout.strip()


def in_sandbox(swarm: Swarm, node: str, *words: str) -> str:
    """What a command says in a node's ingress sandbox."""
    engine = swarm.engines[node]
    inside = ("nsenter", "--target", str(engine.ground), "--mount")
    net = f"--net={engine.folder}/run/netns/ingress_sbox"
    command = [*inside, "nsenter", net, *words]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def sandbox_of(swarm: Swarm, node: str) -> str:
    """A node's address in the ingress network."""
    listed = in_sandbox(swarm, node, "ip", "-4", "-brief", "address", "show", "eth0")
    found = re.search(r"\s(10\.\S+)/", listed)
    assert found, listed
    return found[1]


def held_by_dockerd(swarm: Swarm, node: str, port: int) -> bool:
    """Whether dockerd keeps a listening socket of a port."""
    pid = Path(swarm.engines[node].folder, "docker.pid").read_text().strip()
    return f"pid={pid}," in listeners_at(swarm, node, port)


def listeners_at(swarm: Swarm, node: str, port: int) -> str:
    """A line for each socket that listens there, with the processes that have it."""
    return str(swarm.lab.run(node, "ss", "-Hltnp", f"sport = :{port}").stdout)


def queued(swarm: Swarm, node: str, port: int) -> int:
    """How many connections a listening socket has that nobody accepted."""
    return int(listeners_at(swarm, node, port).split()[1])


def test_ipvs_is_at_work(mesh: Mesh) -> None:
    """Each node's sandbox has a virtual service, and both tasks behind it."""
    for node in NODES:
        listed = in_sandbox(mesh.swarm, node, "cat", "/proc/thread-self/net/ip_vs")
        [services] = re.findall(r"FWM .*\n((?:  ->.*\n)+)", listed)
        assert services.count("  -> ") == 2, listed


def test_without_v6fwd_ipv4_clients_look_alike(mesh: Mesh) -> None:
    """The task sees the asked node's sandbox."""
    for node, host in ADDRESSES:
        if ":" not in host:
            assert PEER_RE.findall(mesh.answers[host]) == [sandbox_of(mesh.swarm, node)]


def test_without_v6fwd_ipv6_clients_hang(mesh: Mesh) -> None:
    """The handshake is dockerd's, which never accepts."""
    for node, host in ADDRESSES:
        if ":" in host:
            assert mesh.answers[host] == "silence"
            assert mesh.queued[node] >= 1


def test_dockerds_sockets_are_taken(swarm: Swarm) -> None:
    """It goes on to hold them, and so nobody else can have the port: v6fwd has the same one."""
    for node, port in itertools.product(NODES, map(published, LABELS)):
        [line] = listeners_at(swarm, node, port).splitlines()
        assert held_by_dockerd(swarm, node, port)
        assert len(set(re.findall("pid=([0-9]+)", line))) > 1


def test_ipv4_clients_of_mode_none_stay_with_ipvs(swarm: Swarm) -> None:
    """On nodes that know the mode: the task sees the asked node's sandbox, and v6fwd nothing.

    The manager has no task whose label it could read, and so hands these flows over, too.
    """
    for node in NODES[1:]:
        before = flows_of(swarm, node, PLAIN)
        assert PEER_RE.findall(page(swarm, v4_of(node), PLAIN)) == [sandbox_of(swarm, node)]
        assert flows_of(swarm, node, PLAIN) == before
        assert "|GET / HTTP/1.1|" in page(swarm, v6_of(node), PLAIN)
        assert flows_of(swarm, node, PLAIN) == before + 1


def flows_of(swarm: Swarm, node: str, port: int) -> int:
    """How many flows v6fwd has had at a port of a node."""
    return int(swarm.served[node].process.forward(f"[::]:{port}")["flows"])
