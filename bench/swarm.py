"""`python -m bench.swarm [EVENT...]`: what clients of a swarm lose while things happen to it.

Three real Engines in namespaces, as in the tests, with v6fwd on each, and nginx as the service,
which names its client. As root. New connections come at a steady rate, over IPv6 and IPv4, to all
nodes; during each event it is counted who was not served, and how long the slowest one waited.
`labels` before the events: the mode is a label of the tasks, not a rule. `speed`: see swarm_speed.
The mesh's own IPv4 path cannot be had here, as namespaces have no IPVS: see bench/real_mesh.py.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.support.images import Image
from tests.support.process import eventually
from tests.support.swarm import NODES, Swarm, swarm_of, v4_of, v6_of
from v6fwd.demo.lab import CLIENT_V4, CLIENT_V6

RATE, SECONDS = 200, 14
"""Connections a second, and for how long for each event."""
PATIENCE = 60.0
ARRIVALS = Path(__file__).parent / "helpers" / "arrivals.py"
RULE = """
[[docker.rule]]
host-port = "8281/tcp"
service = "ruled"
client-ip = "none"
[[docker.rule]]
service = "ruled"
client-ip = "proxy-v2"
"""
"""The first one leaves the IPv4 clients of DIRECT_PORT to Docker."""
PORT, DIRECT_PORT = 8200, 8281
NGINX = """\
daemon off;
worker_processes 1;
user root;
error_log /dev/null;
pid /tmp/nginx.pid;
events { worker_connections 1024; }
http {
    access_log off;
    client_body_temp_path /tmp/1; proxy_temp_path /tmp/2; fastcgi_temp_path /tmp/3;
    uwsgi_temp_path /tmp/4; scgi_temp_path /tmp/5;
    server {
        listen 80 proxy_protocol backlog=511;
        location / { return 200 $proxy_protocol_addr; }
        location /big { root /srv; }
    }
    server {
        listen 81 backlog=511;
        location / { return 200 $remote_addr; }
        location /big { root /srv; }
    }
}
"""


def load_web(swarm: Swarm, size: int = 1 << 26) -> None:
    """Let all Engines have `web`: nginx, which stops when it is done; `size` is that of `/big`.

    Port 80 takes PROXY headers, 81 none.
    """
    image = Image()
    nginx = shutil.which("nginx") or "/usr/sbin/nginx"
    image.program(nginx)
    image.text("/etc/nginx.conf", NGINX)
    image.text("/etc/passwd", "root:x:0:0:root:/:/bin/sh\n")
    image.text("/etc/group", "root:x:0:\n")
    image.data("/srv/big", bytes(size))
    image.folder("/var/log/nginx")
    image.folder("/tmp", 0o1777)
    change = f'ENTRYPOINT ["{nginx}","-c","/etc/nginx.conf"]'
    content = image.finished()
    for engine in swarm.engines.values():
        engine.docker("import", "--change", change, "-", "web", input=content, text=False)


class Bench:
    """The swarm with its service."""

    def __init__(self, swarm: Swarm, name: str) -> None:
        self.swarm = swarm
        self.name = name
        """The service: a rule is for `ruled` alone."""

    def docker(self, *words: str) -> str:
        """Ask the manager."""
        return self.swarm.manager.docker(*words)

    def begin(self) -> None:
        """Start the service, with a task on each worker, and wait until all nodes serve it."""
        label = ("--container-label", "v6fwd.client-ip=proxy-v2")
        ports = ("--publish", f"{PORT}:80", "--publish", f"{DIRECT_PORT}:81")
        options = ("--replicas", "2", *ports, "--stop-signal", "SIGQUIT")
        how = ("--no-resolve-image", "--detach")
        self.docker("service", "create", "--name", self.name, *label, *options, *how, "web")
        self.settle(2)

    def settle(self, tasks: int) -> None:
        """Wait until so many tasks run and are served on all nodes."""
        eventually(lambda: self.swarm.runs(self.name), "all tasks run", PATIENCE)
        eventually(lambda: sum(map(len, self.tasks().values())) == tasks, "not more", PATIENCE)
        served = self.swarm.served.values()
        eventually(lambda: all(f"[::]:{PORT}" in each.modes() for each in served), "served")
        time.sleep(3)

    def tasks(self) -> dict[str, list[str]]:
        """Its containers, by node."""
        return self.swarm.tasks(self.name)

    def load(self, but: str) -> subprocess.Popen[str]:
        """Let clients come to all nodes but this one."""
        places = []
        for node in NODES:
            if node != but:
                places += [f"{CLIENT_V6}@{v6_of(node)}", f"{CLIENT_V4}@{v4_of(node)}"]
        words = (sys.executable, str(ARRIVALS), str(RATE), str(SECONDS), str(PORT), *places)
        process: subprocess.Popen[str] = self.swarm.lab.start(
            "client", *words, stdout=subprocess.PIPE, text=True
        )
        return process

    def a_task(self) -> tuple[str, str]:
        """A task on a worker that is not the last one, and its node."""
        return next((node, ids[0]) for node, ids in self.tasks().items() if node != NODES[0])

    def node_id(self, node: str) -> str:
        """A node as the manager calls it."""
        return self.swarm.engines[node].docker("info", "--format", "{{.Swarm.NodeID}}")


def nothing(_: Bench) -> None:
    """For comparison."""


def update(bench: Bench, order: str = "stop-first") -> None:
    """Replace all tasks."""
    options = ("--no-resolve-image", "--detach", "--force", "--update-order", order)
    bench.docker("service", "update", *options, bench.name)


def start_first(bench: Bench) -> None:
    """The same, each new task before its old one goes."""
    update(bench, "start-first")


def scale(bench: Bench) -> None:
    """Scale to six and back."""
    for number in (6, 2):
        bench.docker("service", "scale", "--detach", f"{bench.name}={number}")
        time.sleep(5)


def drain(bench: Bench) -> None:
    """Drain a worker with a task, and let it come back."""
    name = bench.node_id(bench.a_task()[0])
    for availability in ("drain", "active"):
        bench.docker("node", "update", "--availability", availability, name)
        time.sleep(5)


def kill_task(bench: Bench) -> None:
    """Kill a task; Swarm starts another one after 5 s."""
    node, task = bench.a_task()
    bench.swarm.engines[node].docker("kill", task)


def cut_node(bench: Bench) -> None:
    """Cut the wire of a worker with a task; nobody asks at that node."""
    node = bench.a_task()[0]
    bench.swarm.cut(node)
    time.sleep(SECONDS - 4)
    bench.swarm.mend(node)


def restart_manager(bench: Bench) -> None:
    """Restart the manager's dockerd; nobody asks at that node, which loses its tasks with it."""
    engine = bench.swarm.manager
    engine.stop()
    engine.start(**bench.swarm.served[NODES[0]].environment())


EVENTS: dict[str, Callable[[Bench], None]] = {
    "nothing": nothing,
    "update": update,
    "start-first": start_first,
    "scale": scale,
    "drain": drain,
    "kill-task": kill_task,
    "cut-node": cut_node,
    "manager": restart_manager,
}


def run(bench: Bench, events: list[str]) -> None:
    """Print a row for each event."""
    print(f"{'event':<12} {'came':>6} {'failed':>6} {'p99':>8} {'slowest':>8}  why")
    for name in events:
        bench.settle(2)
        but = {"cut-node": bench.a_task()[0], "manager": NODES[0]}.get(name, "")
        process = bench.load(but)
        time.sleep(1)
        EVENTS[name](bench)
        print(f"{name:<12} {outcome(process)}", flush=True)


def outcome(load: subprocess.Popen[str]) -> str:
    """Wait until a load has ended: who came, who failed and why, and how long they waited."""
    told: dict[str, Any] = json.loads(load.communicate(timeout=120)[0].splitlines()[-1])
    failed = sum(told["failed"].values())
    times = f"{told['p99'] * 1000:>5.0f} ms {told['slowest'] * 1000:>5.0f} ms"
    why = ", ".join(f"{word} {count}" for word, count in told["failed"].items())
    return f"{told['came']:>6} {failed:>6} {times}  {why}"


def main(*words: str) -> None:
    """Run what is asked for, or all."""
    chosen = [word for word in words if word != "labels"] or [*EVENTS, "speed"]
    unknown = {*chosen} - {*EVENTS, "speed"}
    if unknown:
        sys.exit(f"unknown: {', '.join(unknown)}; there are {', '.join(EVENTS)}, speed, labels")
    with swarm_of("20.10", "20.10", "20.10") as swarm:
        load_web(swarm)
        swarm.serve(RULE)
        bench = Bench(swarm, "labelled" if "labels" in words else "ruled")
        bench.begin()
        run(bench, [word for word in chosen if word != "speed"])
        if "speed" in chosen:
            from bench.swarm_speed import speed

            speed(bench)


if __name__ == "__main__":
    main(*sys.argv[1:])
