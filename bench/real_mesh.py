"""`python -m bench.real_mesh [EVENT...]`: Swarm's own mesh (IPVS) and v6fwd, beside each other.

Needs a kernel with IPVS in network namespaces: `make test-mesh ARGS=--bench` runs it in one. A
service has two ports on three nodes: one that v6fwd serves with `proxy-v2`, for clients of both
families, and one that it leaves to the mesh, for IPv4 clients. During each event new connections
come to both at a steady rate; it is counted who was not served. `speed` compares connections a
second and bulk, in turns. In a user-mode Linux system calls cost far more than elsewhere, and the
mesh needs none: only the counts are the same there as on a real machine.
"""

from __future__ import annotations

import re
import subprocess
import sys
import time
from collections.abc import Callable, Sequence

from bench.swarm import ARRIVALS, load_web, outcome
from tests.support.process import eventually
from tests.support.swarm import NODES, Swarm, swarm_of, v4_of, v6_of
from v6fwd.demo.lab import CLIENT_V4, CLIENT_V6

SERVICE = "web"
OURS, MESHS = 8200, 8201
"""The port that v6fwd serves, and the one whose IPv4 clients stay with IPVS."""
RULE = f"""
[[docker.rule]]
host-port = "{MESHS}/tcp"
service = "{SERVICE}"
client-ip = "none"
"""
"""A label would tell this to nodes with a task alone; others would hand the flows over."""
RATE, SECONDS = 4, 30
"""New connections a second at each address, and for how long for each event."""
PATIENCE = 60.0
OF_OURS = [place for n in NODES for place in (f"{CLIENT_V6}@{v6_of(n)}", f"{CLIENT_V4}@{v4_of(n)}")]
OF_THE_MESH = [f"@{v4_of(node)}" for node in NODES]
"""By which it is asked; any answer will do."""
ROUNDS = 3


def say(what: str) -> None:
    """Tell how far it is: it takes minutes."""
    print(time.strftime("%H:%M:%S"), what, flush=True)


def begin(swarm: Swarm) -> None:
    """Start v6fwd and the service, with a task on each worker; wait until all is served."""
    words = ["--name", SERVICE, "--replicas", "2", "--constraint", "node.role==worker"]
    words += ["--container-label", "v6fwd.client-ip=proxy-v2"]
    words += ["--publish", f"{OURS}:80", "--publish", f"{MESHS}:81"]
    how = ("--stop-signal", "SIGQUIT", "--no-resolve-image", "--detach")
    swarm.manager.docker("service", "create", *words, *how, "web")
    settle(swarm)
    for node in NODES:
        eventually(lambda node=node: _answers(swarm, v4_of(node)), "IPVS answers")  # type: ignore[misc]
    swarm.serve(RULE)
    served = swarm.served.values()
    eventually(lambda: all(f"[::]:{OURS}" in each.modes() for each in served), "it is served")


def settle(swarm: Swarm) -> None:
    """Wait until both tasks run, and no update is under way."""
    state = "{{if .UpdateStatus}}{{.UpdateStatus.State}}{{end}}"
    words = ("service", "inspect", "--format", state, SERVICE)
    eventually(lambda: swarm.manager.docker(*words) in ("", "completed"), "updated", PATIENCE)
    eventually(lambda: swarm.runs(SERVICE), "all tasks run", PATIENCE)


def _answers(swarm: Swarm, host: str) -> bool:
    asked = swarm.lab.run("client", "curl", "-so", "/dev/null", "-m", "5", f"http://{host}:{MESHS}")
    return bool(asked.returncode == 0)


def nothing(_: Swarm) -> None:
    """For comparison."""


def update(swarm: Swarm, order: str = "stop-first") -> None:
    """Replace all tasks."""
    options = ("--no-resolve-image", "--detach", "--force", "--update-order", order)
    swarm.manager.docker("service", "update", *options, SERVICE)


def start_first(swarm: Swarm) -> None:
    """The same, each new task before its old one goes."""
    update(swarm, "start-first")


EVENTS: dict[str, Callable[[Swarm], None]] = {
    "nothing": nothing,
    "update": update,
    "start-first": start_first,
}


def run(swarm: Swarm, events: Sequence[str]) -> None:
    """Print two rows for each event, and how many tasks are others when the load ends."""
    print(f"{'event':<12} {'':<12} {'came':>6} {'failed':>6} {'p99':>8} {'slowest':>8}  why")
    for name in events:
        before = _tasks(swarm)
        loads = {"v6fwd": _load(swarm, OURS, OF_OURS), "mesh": _load(swarm, MESHS, OF_THE_MESH)}
        time.sleep(2)
        EVENTS[name](swarm)
        for whose, load in loads.items():
            print(f"{name:<12} {whose:<12} {outcome(load)}", flush=True)
        print(f"{name:<12} {len(_tasks(swarm) - before)} new tasks", flush=True)
        settle(swarm)


def _tasks(swarm: Swarm) -> set[str]:
    return {task for tasks in swarm.tasks(SERVICE).values() for task in tasks}


def _load(swarm: Swarm, port: int, places: Sequence[str]) -> subprocess.Popen[str]:
    words = (sys.executable, str(ARRIVALS), str(RATE * len(places)), str(SECONDS), str(port))
    process: subprocess.Popen[str] = swarm.lab.start(
        "client", *words, *places, stdout=subprocess.PIPE, text=True
    )
    return process


def speed(swarm: Swarm) -> None:
    """Print connections a second and bulk, in turns: a node with a task, and one without.

    To the mesh it is the same: IPVS takes all tasks by turns, wherever they are.
    """
    node = next(each for each in NODES if each in swarm.tasks(SERVICE))
    other = next(each for each in NODES if each not in swarm.tasks(SERVICE))
    places = {
        "mesh, IPv4": f"{v4_of(other)}:{MESHS}",
        "v6fwd, IPv4, task's node": f"{v4_of(node)}:{OURS}",
        "v6fwd, IPv4, other node": f"{v4_of(other)}:{OURS}",
        "v6fwd, IPv6, other node": f"[{v6_of(other)}]:{OURS}",
    }
    rows: dict[str, list[tuple[float, float]]] = {name: [] for name in places}
    for _ in range(ROUNDS):
        for name, where in places.items():
            rows[name].append((_connections(swarm, where), _bulk(swarm, where)))
    print(f"{'':<26} {'conn/s':>8} {'MB/s':>8}   best of {ROUNDS}, in turns")
    for name, row in rows.items():
        print(f"{name:<26} {max(a for a, _ in row):>8.0f} {max(b for _, b in row):>8.1f}")


def _connections(swarm: Swarm, where: str) -> float:
    told = swarm.lab.run("client", "ab", "-q", "-n", "600", "-c", "4", f"http://{where}/").stdout
    return float(re.findall(r"Requests per second: +([0-9.]+)", told)[0])


def _bulk(swarm: Swarm, where: str) -> float:
    words = ("curl", "-so", "/dev/null", "-w", "%{speed_download}", f"http://{where}/big")
    return float(swarm.lab.run("client", *words).stdout) / 1e6


def main(*words: str) -> None:
    """Run what is asked for, or all."""
    chosen = list(words) or [*EVENTS, "speed"]
    unknown = {*chosen} - {*EVENTS, "speed"}
    if unknown:
        sys.exit(f"unknown: {', '.join(unknown)}; there are {', '.join(EVENTS)}, speed")
    say("three Engines start")
    with swarm_of("20.10", "20.10", "20.10") as swarm:
        say("the nodes are a swarm")
        load_web(swarm, size=1 << 25)
        begin(swarm)
        say("all is served")
        run(swarm, [word for word in chosen if word != "speed"])
        if "speed" in chosen:
            speed(swarm)


if __name__ == "__main__":
    main(*sys.argv[1:])
