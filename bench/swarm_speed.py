"""`speed` of bench.swarm: connections a second and bulk, by the mesh and beside it, in turns.

A task of the mesh is behind more network than a container of a bridge: one more bridge and pair of
devices, and VXLAN between nodes. What that costs without v6fwd, `no relay` tells: a client in the
node's network asks the container, one in ingress_sbox the task. `forward` is `v6fwd forward` at
the same places, one process that makes its sockets itself. The mesh's own IPv4 path cannot be had
here, as namespaces have no IPVS; `NAT` has a rule of nftables in ingress_sbox in its place.
"""

from __future__ import annotations

import contextlib
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from statistics import median

from bench.swarm import DIRECT_PORT, PORT, Bench
from tests.support.engine import Engine
from tests.support.process import eventually
from tests.support.swarm import NODES, v4_of, v6_of

ROUNDS = 5
PLAIN_PORT, FORWARD_PORT = 8300, 9000
NAT = """
table ip bench {{
  chain in {{ type nat hook prerouting priority -110; tcp dport {port} dnat to {task}:81; }}
  chain out {{ type nat hook postrouting priority 90; ip daddr {task} masquerade; }}
}}
"""


@dataclass(frozen=True, slots=True)
class Row:
    """A way from a client to a server."""

    name: str
    client: tuple[str, ...]
    """What a client's command begins with."""
    url: str
    base: str = ""
    """The row that it is compared with."""


def speed(bench: Bench) -> None:
    """Print a row for each way, with its ratio to the one that it is compared with."""
    node = bench.a_task()[0]
    other = next(each for each in NODES if each not in bench.tasks())
    engines = bench.swarm.engines
    plain = engines[node].run("--label", "v6fwd.client-ip=proxy-v2", "--publish",
                              f"{PLAIN_PORT}:80", "web")  # fmt: skip
    served = bench.swarm.served[node]
    eventually(lambda: f"[::]:{PLAIN_PORT}" in served.modes(), "it is served")
    container = engines[node].docker("inspect", "--format", "{{.NetworkSettings.IPAddress}}", plain)
    task = _task(engines[node])
    with contextlib.ExitStack() as stack:
        for prefix, host in (
            (_on(bench, node), container),
            (_in_sandbox(engines[node]), task),
            (_in_sandbox(engines[other]), task),
        ):
            stack.enter_context(_forward(prefix, f"{host}:80"))
        _translate(engines[other], task)
        rows = _rows(bench, node, other, container, task)
        _print(rows, _measured(rows))
    engines[node].remove(plain)


def _rows(bench: Bench, node: str, other: str, container: str, task: str) -> list[Row]:
    client, host = _on(bench, "client"), _on(bench, node)
    here, there = (_in_sandbox(bench.swarm.engines[each]) for each in (node, other))
    forward = f"http://127.0.0.1:{FORWARD_PORT}/"
    return [
        Row("plain published port", client, f"http://[{v6_of(node)}]:{PLAIN_PORT}/"),
        Row("mesh, task's node", client, f"http://[{v6_of(node)}]:{PORT}/", "plain published port"),
        Row("mesh, other node", client, f"http://[{v6_of(other)}]:{PORT}/", "plain published port"),
        Row("NAT, other node", client, f"http://{v4_of(other)}:{DIRECT_PORT}/"),
        Row("no relay, container", host, f"http://{container}:81/"),
        Row("no relay, task", here, f"http://{task}:81/", "no relay, container"),
        Row("no relay, task far", there, f"http://{task}:81/", "no relay, container"),
        Row("forward, container", host, forward),
        Row("forward, task", here, forward, "forward, container"),
        Row("forward, task far", there, forward, "forward, container"),
    ]


def _measured(rows: list[Row]) -> dict[str, list[tuple[float, float]]]:
    """Measure each ROUNDS times, in turns."""
    found: dict[str, list[tuple[float, float]]] = {row.name: [] for row in rows}
    for _ in range(ROUNDS):
        for row in rows:
            found[row.name].append((_connections(row), _bulk(row)))
    return found


def _print(rows: list[Row], found: dict[str, list[tuple[float, float]]]) -> None:
    print(f"{'':<22} {'conn/s':>8} {'MB/s':>8}   medians of {ROUNDS}, ratios of each round's")
    for row in rows:
        mine = found[row.name]
        line = f"{row.name:<22} {_median(mine, 0):>8.0f} {_median(mine, 1):>8.0f}"
        if row.base:
            ratios = [(a / c, b / d) for (a, b), (c, d) in zip(mine, found[row.base], strict=True)]
            line += f"   {_median(ratios, 0):.2f} {_median(ratios, 1):.2f} of {row.base}"
        print(line, flush=True)


def _median(pairs: list[tuple[float, float]], which: int) -> float:
    return median(pair[which] for pair in pairs)


def _on(bench: Bench, host: str) -> tuple[str, ...]:
    return tuple(bench.swarm.lab.command(host))


def _in_sandbox(engine: Engine) -> tuple[str, ...]:
    path = f"/proc/{engine.ground}/root{engine.folder}/run/netns/ingress_sbox"
    return "nsenter", f"--net={path}"


def _task(engine: Engine) -> str:
    """The ingress address of this node's task."""
    [network] = json.loads(engine.docker("network", "inspect", "ingress"))
    ends = network["Containers"].items()
    [address] = [end["IPv4Address"] for name, end in ends if name != "ingress-sbox"]
    return str(address).partition("/")[0]


@contextlib.contextmanager
def _forward(prefix: tuple[str, ...], target: str) -> Iterator[None]:
    """`v6fwd forward` at loopback in a namespace, in the mode of the others."""
    words = ("forward", f"127.0.0.1:{FORWARD_PORT}", target, "--client-ip", "proxy-v2")
    command = [*prefix, sys.executable, "-m", "v6fwd", *words]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stderr is not None
            while "ready" not in (line := process.stderr.readline()):
                assert line, "it has ended"
            yield
        finally:
            process.terminate()


def _translate(engine: Engine, task: str) -> None:
    """Let the kernel pass DIRECT_PORT's IPv4 clients on to the task, as the mesh does.

    The rules go with the namespace.
    """
    rules = NAT.format(port=DIRECT_PORT, task=task)
    command = [*_in_sandbox(engine), "nft", "-f", "-"]
    subprocess.run(command, input=rules, text=True, check=True)


def _connections(row: Row) -> float:
    words = ("ab", "-q", "-n", "4000", "-c", "8", row.url)
    told = subprocess.run([*row.client, *words], capture_output=True, text=True, check=True).stdout
    assert "Non-2xx" not in told, told
    assert re.search(r"Failed requests: +0\b", told), told
    return float(re.findall(r"Requests per second: +([0-9.]+)", told)[0])


def _bulk(row: Row) -> float:
    """The better of two transfers."""
    words = ("curl", "-sSfo", "/dev/null", "-w", "%{speed_download}\n")
    command = [*row.client, *words, f"{row.url}big"]
    return max(
        float(subprocess.run(command, capture_output=True, text=True, check=True).stdout) / 1e6
        for _ in range(2)
    )
