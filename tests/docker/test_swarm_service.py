"""contrib/swarm: v6fwd as a service of Swarm, without dockerd, on three real Engines."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.docker.test_swarm import ADDRESSES, LOAD, client_of
from tests.support.images import V6FWD_CHANGES, v6fwd_image
from tests.support.pages import lines
from tests.support.paths import ROOT
from tests.support.process import eventually
from tests.support.swarm import NODES, Swarm, swarm_of, v4_of, v6_of
from v6fwd.demo.lab import CLIENT_V4

pytestmark = [pytest.mark.server("curl", "/usr/sbin/dockerd"), pytest.mark.timeout(400)]

FOLDER = ROOT / "contrib/swarm"
NETWORK = "/proc/1/ns/net"
"""The node's own network, in the file; here the first process is in another one."""


@pytest.fixture(scope="module")
def swarm() -> Iterator[Swarm]:
    """Three nodes with the image `v6fwd`, and no daemon of ours."""
    with swarm_of("20.10", "20.10", "20.10") as swarm:
        tar = v6fwd_image().finished()
        words = [word for change in V6FWD_CHANGES for word in ("--change", change)]

        def load(node: str) -> None:
            swarm.engines[node].docker("import", *words, "-", "v6fwd", input=tar, text=False)

        with ThreadPoolExecutor() as pool:
            list(pool.map(load, NODES))
        yield swarm


@contextlib.contextmanager
def stack(swarm: Swarm, file: str, name: str) -> Iterator[None]:
    """A file of contrib/swarm, with a server in nginx's place that repeats the header."""
    folder = swarm.manager.folder / "stack"
    folder.mkdir(exist_ok=True)
    network = swarm.manager.folder / "net"
    for path in FOLDER.iterdir():
        text = path.read_text().replace(NETWORK, str(network))
        text = text.replace("proxy-v2", "proxy-v1").replace("image: nginx", "image: says")
        (folder / path.name).write_text(text)
    if not network.exists():
        network.touch()
        for node in NODES:
            _enter(swarm, node, "mount", "--bind", "/proc/self/ns/net", str(network))
    words = ("--resolve-image", "never", "--compose-file", str(folder / file))
    swarm.manager.docker("stack", "deploy", *words, name)
    try:
        eventually(
            lambda: swarm.runs(f"{name}_web") and swarm.runs(f"{name}_v6fwd"), "all run", 120
        )
        yield
    finally:
        print(swarm.manager.try_docker("service", "logs", f"{name}_v6fwd").stderr)
        swarm.manager.docker("stack", "rm", name)
        eventually(lambda: not swarm.tasks(f"{name}_v6fwd"), "its tasks are gone", 60)


def typed() -> tuple[str, str]:
    """The file and the name that docs/swarm.md has people deploy."""
    [line] = [line for line in lines("docs/swarm.md", "docker") if " -c v6fwd" in line]
    file, name = line.removeprefix("docker stack deploy -c ").split()
    return file, name


def _enter(swarm: Swarm, node: str, *words: str) -> None:
    """Run a command in the mounts and the network of a node."""
    ground = str(swarm.engines[node].ground)
    subprocess.run(["nsenter", "--target", ground, "--mount", "--net", *words], check=True)


def ask(swarm: Swarm, host: str) -> str:
    """What a task says of a request to port 8080; "" where it cannot be had."""
    where = f"[{host}]:8080" if ":" in host else f"{host}:8080"
    asked: str = swarm.lab.run(
        "client", "curl", "-sS", "--max-time", "9", f"http://{where}/"
    ).stdout
    return asked


def is_named(swarm: Swarm, host: str) -> bool:
    """Whether a task learns the client's own address."""
    family = 6 if ":" in host else 4
    return f"|PROXY TCP{family} {client_of(host)} {host} " in ask(swarm, host)


def test_with_the_nodes_network(swarm: Swarm) -> None:
    """All nodes, both families, one of them without a task; and nobody has a right."""
    with stack(swarm, *typed()):
        for _, host in ADDRESSES:
            eventually(lambda host=host: ask(swarm, host), f"{host} answers", 60)  # type: ignore[misc]
            assert is_named(swarm, host)
        for node, [task] in swarm.tasks("demo_v6fwd").items():
            engine = swarm.engines[node]
            pid = engine.docker("inspect", "--format", "{{.State.Pid}}", task)
            status = swarm.lab.run(node, "cat", f"/proc/{pid}/status").stdout.split("\n")
            assert "CapEff:\t0000000000000000" in status
            assert "Uid:\t65532\t65532\t65532\t65532" in status
        _update_under_load(swarm)


def _update_under_load(swarm: Swarm) -> None:
    """Names of tasks are asked again while they change."""
    hosts = [host for _, host in ADDRESSES]
    words = (sys.executable, str(LOAD), "8080", *hosts)
    load = swarm.lab.start(
        "client", *words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert load.stdout is not None
    try:
        assert load.stdout.readline()
        before = {each for ids in swarm.tasks("demo_web").values() for each in ids}
        words = ("service", "update", "--detach", "--no-resolve-image", "--force", "demo_web")
        swarm.manager.docker(*words)
        eventually(
            lambda: (
                swarm.runs("demo_web")
                and not before & {each for ids in swarm.tasks("demo_web").values() for each in ids}
            ),
            "all tasks are new",
            180,
        )
        for _ in range(3):
            assert load.stdout.readline(), "served with the new ones alone"
    finally:
        told, _ = load.communicate(timeout=60)
    found: dict[str, int] = json.loads(told.splitlines()[-1])
    print("update", found)
    served = found.pop("served")
    assert served > 200
    assert sum(found.values()) <= 4, f"two tasks went, each with clients in its queue? {found}"


def test_without_any_right(swarm: Swarm) -> None:
    """IPv4 clients of all nodes; what IPv6 clients look like is said on the page."""
    with stack(swarm, "plain-stack.yml", "plain"):
        for node in NODES:
            eventually(lambda node=node: ask(swarm, v4_of(node)), f"{node} answers", 60)  # type: ignore[misc]
            assert f"|PROXY TCP4 {CLIENT_V4} " in ask(swarm, v4_of(node))
            assert "|PROXY TCP4 172." in ask(swarm, v6_of(node)), "docker-proxy's address"
        [(node, [task]), *_] = swarm.tasks("plain_v6fwd").items()
        pid = swarm.engines[node].docker("inspect", "--format", "{{.State.Pid}}", task)
        assert (
            "CapBnd:\t0000000000000000" in swarm.lab.run(node, "cat", f"/proc/{pid}/status").stdout
        )
