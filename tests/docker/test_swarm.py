"""Ports of Swarm's mesh on three real Engines: whoever asks, at whichever node, is named.

Namespaces have no IPVS, so Docker's own mesh does not work here, and dockerd holds no sockets: the
listeners are ours.
"""

from __future__ import annotations

import ipaddress
import json
import os
import re
import select
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Self

import pytest

from tests.support.pages import blocks
from tests.support.process import eventually
from tests.support.served import Served
from tests.support.swarm import NODES, Swarm, swarm_of, v4_of, v6_of
from v6fwd.client_ip.proxy.read import read_datagram_header, read_header
from v6fwd.client_ip.pseudo_ipv4 import is_pseudo
from v6fwd.demo.lab import CLIENT_V4, CLIENT_V6
from v6fwd.docker.swarm.plan import hop_port
from v6fwd.log import counted
from v6fwd.model import Address

pytestmark = pytest.mark.server("nft", "curl", "/usr/sbin/dockerd")

LOAD = Path(__file__).with_name("mesh_load.py")
RULES = """
[[docker.rule]]
service = "ruled"
client-ip = "proxy-v1"
[[docker.rule]]
host-port = "8191/udp"
service = "named"
client-ip = "proxy-v2"
[[docker.rule]]
host-port = "8192/udp"
container = "nobody"
client-ip = "none"
"""
"""The last one tells the protocol, where dockerd has no socket, and nothing else."""
ADDRESSES = [(node, host) for node in NODES for host in (v6_of(node), v4_of(node))]
"""By which a client asks: six, of which those of the manager have no task of `named`."""
HOSTS = [host for _, host in ADDRESSES]
LABELS = {
    80: "proxy-v1",
    81: "x-forwarded-for",
    82: "forwarded",
    83: "none",
    84: "transparent",
    85: "transparent",
    90: "proxy-v2",
}
"""The labels of `named`, by port of the container; 8100 more is the port that is published."""
UDP_PORT, UDP_BY_LABEL = 8191, 8192
PEER_RE = re.compile(r" from \[?([0-9a-f.:]+)\]?\|")
EXCHANGE = """
import socket, sys
kind = socket.SOCK_DGRAM if sys.argv[3] == "udp" else socket.SOCK_STREAM
family = socket.AF_INET6 if ":" in sys.argv[1] else socket.AF_INET
client = socket.socket(family, kind)
client.settimeout(8)
client.connect((sys.argv[1], int(sys.argv[2])))
client.sendall(bytes.fromhex(sys.argv[4]))
if kind == socket.SOCK_STREAM:
    client.shutdown(socket.SHUT_WR)
    print(b"".join(iter(lambda: client.recv(4096), b"")).hex())
else:
    answer = b""
    while b"hello" not in answer:
        answer += client.recv(4096)
    print(answer.hex())
"""
OPEN_FLOWS = """
import json, socket, sys
clients = []
for _ in range(4):
    family = socket.AF_INET6 if ":" in sys.argv[1] else socket.AF_INET
    client = socket.socket(family, socket.SOCK_STREAM)
    client.settimeout(90)
    client.connect((sys.argv[1], int(sys.argv[2])))
    client.sendall(b"hello")
    said = b""
    while b"hello" not in said:
        said += client.recv(4096)
    clients.append(client)
print("open", flush=True)
sys.stdin.readline()
for client in clients:
    client.sendall(b"more")
def end(client):
    try:
        return client.recv(4096).decode()
    except OSError as error:
        return type(error).__name__
print(json.dumps([end(client) for client in clients]), flush=True)
"""
"""Four flows that are answered, and what becomes of each after a line on stdin."""


def published(port: int) -> int:
    """Where the mesh publishes a port of `named`."""
    return 8100 + port


@pytest.fixture(scope="module")
def swarm() -> Iterator[Swarm]:
    """Three nodes with a daemon of ours each; `named` has a task on each worker."""
    with swarm_of("20.10", "20.10", "20.10") as swarm:
        try:
            prepare(swarm)
            yield swarm
        finally:
            for node, served in swarm.served.items():
                print(node, served.log[-3000:], served.engine.log[-2000:])  # where a test failed
        for served in swarm.served.values():
            assert "internal error" not in served.log
            assert "Traceback" not in served.log


def prepare(swarm: Swarm) -> None:
    """Start the daemons and the services."""
    swarm.serve(RULES)
    create_named(swarm)
    swarm.create("ruled", "--replicas", "2", "--publish", "8200:80")
    eventually(lambda: served(swarm, "[::]:8200"), "every port is served on every node")


def create_named(swarm: Swarm) -> None:
    """Start `named`, with a task on each worker."""
    words = ["--replicas", "2", "--constraint", "node.role==worker"]
    words += ["--publish", f"{UDP_PORT}:90/udp", "--publish", f"{UDP_BY_LABEL}:90/udp"]
    words += ["--container-label", "v6fwd.client-ip.90-udp=proxy-v2"]
    for port, mode in LABELS.items():
        words += ["--publish", f"{published(port)}:{port}/tcp"]
        words += ["--container-label", f"v6fwd.client-ip.{port}-tcp={mode}"]
    swarm.create("named", *words)


def served(swarm: Swarm, *more: str) -> bool:
    """Whether all ports of `named`, and more, are open on every node."""
    wanted = {f"[::]:{published(port)}" for port in LABELS}
    wanted |= {*more, f"[::]:{UDP_PORT}/udp", f"[::]:{UDP_BY_LABEL}/udp"}
    return all(wanted <= each.modes().keys() for each in swarm.served.values())


def page(swarm: Swarm, host: str, port: int) -> str:
    """What a task says of a request."""
    where = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    asked = swarm.lab.run("client", "curl", "-sS", "--max-time", "9", f"http://{where}/")
    assert asked.returncode == 0, asked.stderr
    return asked.stdout


def exchange(swarm: Swarm, host: str, port: int, protocol: str, data: bytes = b"hello") -> bytes:
    """What comes back for some bytes."""
    words = (sys.executable, "-c", EXCHANGE, host, str(port), protocol, data.hex())
    asked = swarm.lab.run("client", *words)
    assert asked.returncode == 0, asked.stderr
    return bytes.fromhex(asked.stdout)


def client_of(host: str) -> str:
    """The client's address of the family by which it asks."""
    return CLIENT_V6 if ":" in host else CLIENT_V4


SAYS: dict[str, Callable[[str, str], str]] = {
    "proxy-v1": lambda client, host: f"|PROXY TCP{6 if ':' in host else 4} {client} {host} ",
    "x-forwarded-for": lambda client, _: f"|X-Forwarded-For: {client}",
    "forwarded": lambda client, _: (
        f'|Forwarded: for="{f"[{client}]" if ":" in client else client}:'
    ),
}


@pytest.mark.parametrize("mode", SAYS)
def test_six_of_six_are_named(swarm: Swarm, mode: str) -> None:
    [port] = [port for port, each in LABELS.items() if each == mode]
    for _, host in ADDRESSES:
        said = page(swarm, host, published(port))
        assert SAYS[mode](client_of(host), host) in said
        assert said.count("PROXY") == (mode == "proxy-v1")


def test_none_answers_over_ipv6(swarm: Swarm) -> None:
    """Where the mesh lets the client hang."""
    for _, host in ADDRESSES:
        said = page(swarm, host, published(83))
        assert "|GET / HTTP/1.1|" in said
        assert CLIENT_V6 not in said


def test_six_of_six_at_the_tasks_own_socket(swarm: Swarm) -> None:
    """The server knows nothing of proxies. A node without a task hands the flow to one that has."""
    for _, host in ADDRESSES:
        [peer] = PEER_RE.findall(page(swarm, host, published(85)))
        assert Address.of(ipaddress.ip_address(peer).packed, 0).host == client_of(host)


def test_six_of_six_at_a_socket_of_ipv4(swarm: Swarm) -> None:
    """A server that listens on IPv4 alone sees a pseudo address for an IPv6 client."""
    for _, host in ADDRESSES:
        [peer] = PEER_RE.findall(page(swarm, host, published(84)))
        if ":" in host:
            assert is_pseudo(ipaddress.ip_address(peer).packed)
        else:
            assert peer == CLIENT_V4


@pytest.mark.parametrize(
    ("protocol", "port"),
    [("tcp", published(90)), ("udp", UDP_PORT), ("udp", UDP_BY_LABEL)],
    ids=["tcp", "udp-by-rule", "udp-by-label"],
)
def test_six_of_six_with_a_binary_header(swarm: Swarm, protocol: str, port: int) -> None:
    for _, host in ADDRESSES:
        said = exchange(swarm, host, port, protocol)
        read = read_datagram_header if protocol == "udp" else read_header
        header = read(said.partition(b"\n")[2])
        assert header is not None
        assert isinstance(header.source, Address)
        assert header.source.host == client_of(host)
        assert header.destination is not None
        assert header.destination.host == host
        assert said.endswith(b"hello")


def test_six_of_six_by_a_rule(swarm: Swarm) -> None:
    """Any task, with or without a label."""
    for _, host in ADDRESSES:
        assert f"|PROXY TCP{6 if ':' in host else 4} {client_of(host)} {host} " in page(
            swarm, host, 8200
        )


def test_a_client_is_not_believed(swarm: Swarm) -> None:
    """A host outside the swarm that sends a header to a node's port is named behind it."""
    forged = b"PROXY TCP4 198.51.100.1 198.51.100.2 1 2\r\nGET / HTTP/1.1\r\n\r\n"
    for _, host in ADDRESSES:
        said = exchange(swarm, host, published(80), "tcp", forged).decode()
        before, _, after = said.partition("|PROXY TCP4 198.51.100.1 ")
        assert after, "it is part of what the client says"
        assert f"|PROXY TCP{6 if ':' in host else 4} {client_of(host)} {host} " in before


def test_a_container_is_not_believed(swarm: Swarm) -> None:
    """Not even one that took Docker's rules away which keep it from other ports: the hop refuses
    all but nodes. The host cannot reach it at all."""
    [node, (task, *_)] = next(iter(swarm.tasks("named").items()))
    engine = swarm.engines[node]
    pid = engine.docker("inspect", "--format", "{{.State.Pid}}", task)
    inside = ("nsenter", "--target", pid, "--net")
    for chain in ("INPUT", "OUTPUT"):
        subprocess.run([*inside, "iptables", "-F", chain], check=True)
    hops = [
        each.removesuffix(f":{hop_port(published(80))}")
        for served in swarm.served.values()
        for each in served.modes()
        if each.endswith(f":{hop_port(published(80))}")
    ]
    assert len(hops) == 2
    forged = b"PROXY TCP4 198.51.100.1 198.51.100.2 1 2\r\nGET / HTTP/1.1\r\n\r\n"
    for address in hops:
        words = (sys.executable, "-c", EXCHANGE, address, str(hop_port(published(80))), "tcp")
        asked = subprocess.run(
            [*inside, *words, forged.hex()], capture_output=True, text=True, check=False
        )
        assert "ConnectionResetError" in asked.stderr, asked.stdout
        asked = swarm.lab.run(node, *words, forged.hex())
        assert asked.returncode != 0
    assert any("its network is denied" in served.log for served in swarm.served.values())


def test_a_task_in_mode_host_on_an_overlay(swarm: Swarm) -> None:
    """Its docker_gwbridge address, to which its port leads, is in no list of the Engine's."""
    manager = swarm.manager
    manager.docker("network", "create", "--driver", "overlay", "app")
    swarm.create(
        "hosted",
        *("--network", "app", "--container-label", "v6fwd.client-ip=transparent"),
        *("--publish", "mode=host,published=8300,target=80"),
    )
    try:
        [node] = swarm.tasks("hosted")
        served = swarm.served[node]
        eventually(lambda: served.modes().get("[::]:8300") == "transparent", "it is served")
        said = page(swarm, v6_of(node), 8300)
        [peer] = PEER_RE.findall(said)
        assert is_pseudo(ipaddress.ip_address(peer).packed), "the server is IPv4-only"
        assert page(swarm, v4_of(node), 8300).split(" from ")[1].startswith(f"{CLIENT_V4}|")
    finally:
        swarm.remove("hosted")
        eventually(lambda: not swarm.tasks("hosted"), "its task has gone", 60)


def test_the_stack_of_the_page(swarm: Swarm) -> None:
    """docs/swarm.md, with another server in nginx's place."""
    [stack] = [block for block in blocks("docs/swarm.md") if block[0].startswith("version:")]
    text = "\n".join(stack).replace("image: nginx", "image: says").replace("8080:80", "8080:90")
    engine = swarm.manager
    (engine.folder / "stack.yml").write_text(text)
    (engine.folder / "proxy.conf").write_text("# for nginx\n")
    words = ("--resolve-image", "never", "--compose-file", str(engine.folder / "stack.yml"))
    engine.docker("stack", "deploy", *words, "demo")
    try:
        served = swarm.served.values()
        eventually(lambda: all("[::]:8080" in each.modes() for each in served), "it is served", 60)
        for _, host in ADDRESSES:
            header = read_header(exchange(swarm, host, 8080, "tcp").partition(b"\n")[2])
            assert header is not None
            assert isinstance(header.source, Address)
            assert header.source.host == client_of(host)
    finally:
        engine.docker("stack", "rm", "demo")


class Load:
    """A client an address that asks `ruled` again and again while a block runs."""

    def __init__(self, swarm: Swarm, hosts: Sequence[str] = HOSTS) -> None:
        self._clients = len(hosts)
        words = (sys.executable, str(LOAD), "8200", *hosts)
        self._process = swarm.lab.start(
            "client", *words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def __enter__(self) -> Self:
        self.some_more()
        return self

    def __exit__(self, *_: object) -> None:
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait()

    def some_more(self) -> None:
        """Wait until some more were served."""
        assert self._process.stdout is not None
        for _ in range(2):
            assert self._process.stdout.readline()

    def end(self, gone: int) -> None:
        """Each client has lost at most the request that each of the `gone` tasks had of it."""
        told, _ = self._process.communicate(timeout=90)
        found: dict[str, int] = json.loads(told.splitlines()[-1])
        assert found.pop("served") > 100
        assert sum(found.values()) <= gone * self._clients, found


def settled(swarm: Swarm, replicas: int) -> None:
    """Wait until so many tasks of `ruled` run, none is about to go, and every node knows them."""

    def is_settled() -> bool:
        named = sum(map(len, swarm.tasks("ruled").values()))
        updating = swarm.manager.docker(
            "service", "inspect", "--format", "{{if .UpdateStatus}}{{.UpdateStatus.State}}{{end}}",
            "ruled",
        )  # fmt: skip
        return named == replicas and updating in ("", "completed") and swarm.runs("ruled")

    eventually(is_settled, f"{replicas} tasks run", 90)
    eventually(
        lambda: all(_knows(served, replicas) for served in swarm.served.values()), "known", 90
    )


def _knows(served: Served, tasks: int) -> bool:
    [row] = [each for each in served.process.status()["published"] if each["listen"] == "[::]:8200"]
    here, elsewhere = map(int, re.findall("([0-9]+) (?:tasks? here|elsewhere)", row["tasks"]))
    return here + elsewhere == tasks


def replaced(swarm: Swarm, *words: str) -> None:
    """Update `ruled`, and wait until all its tasks are others."""
    before = {each for ids in swarm.tasks("ruled").values() for each in ids}
    options = ("--detach", "--no-resolve-image", "--force", *words)
    swarm.manager.docker("service", "update", *options, "ruled")
    eventually(
        lambda: not before & {each for ids in swarm.tasks("ruled").values() for each in ids},
        "all tasks are new",
        90,
    )


def test_updates_and_scale_under_load(swarm: Swarm) -> None:
    """Nobody waits in vain, and nobody is without a name."""
    scale = ("service", "scale", "--detach")
    with Load(swarm) as load:
        swarm.manager.docker(*scale, "ruled=6")
        settled(swarm, 6)
        load.some_more()
        swarm.manager.docker(*scale, "ruled=2")
        settled(swarm, 2)
        load.some_more()
        replaced(swarm)
        settled(swarm, 2)
        load.some_more()
        replaced(swarm, "--update-order", "start-first")
        settled(swarm, 2)
        load.some_more()
        load.end(gone=8)


def test_a_node_is_drained_under_load(swarm: Swarm) -> None:
    """Its own listeners go on serving, with tasks elsewhere."""
    node = NODES[2]
    name = swarm.engines[node].docker("info", "--format", "{{.Swarm.NodeID}}")
    before = len(swarm.tasks("ruled").get(node, ()))
    with Load(swarm) as load:
        swarm.manager.docker("node", "update", "--availability", "drain", name)
        eventually(lambda: node not in swarm.tasks("ruled"), "it is drained", 90)
        settled(swarm, 2)
        load.some_more()
        swarm.manager.docker("node", "update", "--availability", "active", name)
        load.some_more()
        load.end(gone=before)
    eventually(lambda: swarm.runs("named"), "all tasks run again", 90)


def test_a_task_is_killed_under_load(swarm: Swarm) -> None:
    """The next one is tried, and Swarm starts another one."""
    settled(swarm, 2)
    [node, (task, *_)] = next(iter(swarm.tasks("ruled").items()))
    with Load(swarm) as load:
        swarm.engines[node].docker("kill", task)
        load.some_more()
        load.end(gone=1)
    settled(swarm, 2)


def test_a_task_is_killed(swarm: Swarm) -> None:
    """What comes next is served by others, at once: also where labels decide, which only the node
    of the killed task could read."""
    settled(swarm, 2)
    for service, ports in (("ruled", [8200]), ("named", [published(80), published(81)])):
        eventually(lambda service=service: swarm.runs(service), "all run", 90)  # type: ignore[misc]
        [node, (task, *_)] = next(iter(swarm.tasks(service).items()))
        _kill(swarm, node, task)
        for port in ports:
            for host in HOSTS:
                mode = LABELS.get(port - 8100, "proxy-v1")
                assert SAYS[mode](client_of(host), host) in page(swarm, host, port)
        if service == "named":
            for _, host in ADDRESSES:
                [peer] = PEER_RE.findall(page(swarm, host, published(85)))
                assert Address.of(ipaddress.ip_address(peer).packed, 0).host == client_of(host)


def _kill(swarm: Swarm, node: str, task: str) -> None:
    """Kill a task; returns when it has ended, and with it what it had in its queue."""
    process = swarm.engines[node].docker("inspect", "--format", "{{.State.Pid}}", task)
    pidfd = os.pidfd_open(int(process))
    try:
        swarm.engines[node].docker("kill", task)
        assert select.select([pidfd], [], [], 30)[0]
    finally:
        os.close(pidfd)


def test_a_node_dies_under_load(swarm: Swarm) -> None:
    """Its wire is cut. The second try serves until the gossip knows, some seconds later."""
    eventually(lambda: swarm.runs("named"), "all run", 90)
    settled(swarm, 2)
    node = next(node for node in swarm.tasks("ruled") if node != NODES[0])
    others = [host for each, host in ADDRESSES if each != node]
    with Load(swarm, others) as load:
        swarm.cut(node)
        load.some_more()
        load.some_more()
        swarm.mend(node)
        load.some_more()
        load.end(gone=len(swarm.tasks("ruled").get(node, ())) or 1)
    eventually(lambda: swarm.runs("named"), "all run", 90)


def test_flows_to_a_node_that_is_gone_end(swarm: Swarm) -> None:
    """With data under way; those to another node go on. The asked node hands them over by turns,
    each of its two workers, so that of four flows some go to either."""
    eventually(lambda: _is_handed_over(swarm), "it is handed to all nodes with tasks", 90)
    nodes = list(swarm.tasks("named"))
    words = (sys.executable, "-c", OPEN_FLOWS, v6_of(NODES[0]), str(published(90)))
    process = swarm.lab.start(
        "client", *words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "open\n"
        swarm.cut(nodes[0])
        told, _ = process.communicate("go on\n", timeout=120)
    finally:
        swarm.mend(nodes[0])
        process.kill()
        process.wait()
    assert set(json.loads(told)) == {"ConnectionResetError", *["more"][: len(nodes) - 1]}
    eventually(lambda: swarm.runs("named"), "all run", 90)


def _is_handed_over(swarm: Swarm) -> bool:
    """Whether the manager, which has no task of `named`, knows all nodes that have one."""
    tasks = swarm.tasks("named")
    listed = swarm.served[NODES[0]].process.status()["published"]
    [told] = [each["tasks"] for each in listed if each["listen"] == f"[::]:{published(90)}"]
    is_whole = swarm.runs("named") and sum(map(len, tasks.values())) == 2
    return is_whole and told == f"by {counted(len(tasks), 'node')} with tasks"


def test_dockerd_restarts(swarm: Swarm) -> None:
    """It takes its namespace down and makes another one, from which the tasks are reached then; the
    listener stays ours."""
    settled(swarm, 2)
    node = NODES[1]
    engine, served = swarm.engines[node], swarm.served[node]
    engine.stop()
    engine.start(**served.environment())
    for host in (v6_of(node), v4_of(node)):
        eventually(lambda host=host: _is_named(swarm, host), "it is served again", 60)  # type: ignore[misc]
    eventually(lambda: swarm.runs("ruled") and swarm.runs("named"), "all tasks run again", 60)
    settled(swarm, 2)
    for _, host in ADDRESSES:
        assert SAYS["proxy-v1"](client_of(host), host) in page(swarm, host, 8200)


def _is_named(swarm: Swarm, host: str) -> bool:
    where = f"[{host}]:8200" if ":" in host else f"{host}:8200"
    asked = swarm.lab.run("client", "curl", "-sS", "--max-time", "9", f"http://{where}/")
    return f" {client_of(host)} " in asked.stdout


def test_a_daemon_takes_over(swarm: Swarm) -> None:
    settled(swarm, 2)
    eventually(lambda: _is_handed_over(swarm), "it is handed to all nodes with tasks", 90)
    node = NODES[0]
    first = swarm.served[node].process
    swarm.served[node].start(f"swarm = true\n{RULES}")
    assert first.wait() == 0
    for host in (v6_of(node), v4_of(node)):
        assert SAYS["proxy-v1"](client_of(host), host) in page(swarm, host, 8200)
        assert SAYS["proxy-v1"](client_of(host), host) in page(swarm, host, published(80))


def test_dockerd_is_killed(swarm: Swarm) -> None:
    """The manager's, and then a worker's, too; the last one of this module. What was known goes on.

    After some seconds the others' Engines cut a node off whose Engine is silent. So its own tasks
    are asked there, by workers that have not dialled from that namespace before.
    """
    eventually(lambda: swarm.runs("named"), "all run", 90)
    settled(swarm, 2)
    _kill_engine(swarm, NODES[0])
    for node, host in ADDRESSES:
        if node != NODES[0]:
            assert SAYS["proxy-v1"](client_of(host), host) in page(swarm, host, 8200)
            assert SAYS["proxy-v1"](client_of(host), host) in page(swarm, host, published(80))
    _kill_engine(swarm, NODES[1])
    for node, host in ADDRESSES:
        if node != NODES[0]:
            assert SAYS["proxy-v1"](client_of(host), host) in page(swarm, host, published(80))


def _kill_engine(swarm: Swarm, node: str) -> None:
    """Kill it, and our workers and helpers there, which are replaced."""
    served = swarm.served[node]
    swarm.engines[node].stop(signal.SIGKILL)
    before = served.process.workers()
    for pid in before:
        os.kill(pid, signal.SIGKILL)
    eventually(lambda: _are_others(served, before), "it has other workers", 60)
    eventually(lambda: "are served as they were known last" in served.log, "it is noticed")


def _are_others(served: Served, before: list[int]) -> bool:
    now = served.process.workers()
    return len(now) == len(before) and not {*now} & {*before}
