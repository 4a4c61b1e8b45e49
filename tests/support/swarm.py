"""For tests of a swarm: three real Engines, a client and the wires between them."""

from __future__ import annotations

import contextlib
import itertools
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.support.engine import ENGINES, Engine
from tests.support.images import Image
from tests.support.process import eventually
from tests.support.served import Served
from tests.support.shim import install
from v6fwd.demo.lab import CLIENT_V4, CLIENT_V6, Lab

NODES = ("n1", "n2", "n3")
"""The first is the manager."""
_SWITCH = "switch"
_serial = itertools.count()


def v6_of(node: str) -> str:
    """A node's IPv6 address."""
    return f"2001:db8:1::1{node[1:]}"


def v4_of(node: str) -> str:
    """A node's IPv4 address, by which the others reach it, too."""
    return f"203.0.113.1{node[1:]}"


class Wires(Lab):
    """A client and the nodes at one switch."""

    def __init__(self) -> None:
        super().__init__()
        token = f"{os.getpid()}-swarm-{next(_serial)}"
        self._names = {each: f"v6fwd-{token}-{each}" for each in (*NODES, "client", _SWITCH)}

    def __enter__(self) -> Wires:
        try:
            for name in self._names.values():
                subprocess.run(["ip", "netns", "add", name], check=True)
            for host in self._names:
                self.ip(host, "link", "set", "lo", "up")
            self.ip(_SWITCH, "link", "add", "br0", "type", "bridge")
            self.ip(_SWITCH, "link", "set", "br0", "up")
            for node in NODES:
                self._join(node, v6_of(node), v4_of(node))
            self._join("client", CLIENT_V6, CLIENT_V4)
        except BaseException:
            self._remove()
            raise
        return self

    def _join(self, host: str, v6: str, v4: str) -> None:
        self._link(_SWITCH, f"to-{host}", host, "eth0")
        self.ip(_SWITCH, "link", "set", f"to-{host}", "master", "br0", "up")
        self.ip(host, "link", "set", "eth0", "addrgenmode", "none")
        self.ip(host, "address", "add", f"{v6}/64", "dev", "eth0", "nodad")
        self.ip(host, "address", "add", f"{v4}/24", "dev", "eth0")
        self.ip(host, "link", "set", "eth0", "up")


SAYS = """\
#!/bin/sh
# Answers any HTTP request with the lines that came, its own address and that of the one who asks.
text=
while read -r line; do
    line=$(printf %s "$line" | tr -d '\\r')
    [ -z "$line" ] && break
    text="$text|$line"
done
head='HTTP/1.1 200 OK\\r\\nContent-Length: %d\\r\\nConnection: close\\r\\n\\r\\n%s'
body="$SOCAT_SOCKADDR from $SOCAT_PEERADDR$text"
printf "$head" ${#body} "$body"
"""
SAYS_SERVER = """\
#!/bin/sh
# Stops as good servers do: takes no more requests, and finishes those that it has.
trap 'kill $listeners; sleep 1; exit 0' TERM
echo='SYSTEM:echo $SOCAT_SOCKADDR from $SOCAT_PEERADDR; cat'
listeners=
listen() {
    socat "$1,fork,reuseaddr" "$2" &
    listeners="$listeners $!"
}
for port in 80 81 82 83 84; do
    listen "TCP4-LISTEN:$port" EXEC:/bin/says
done
listen TCP6-LISTEN:85,ipv6only=0 EXEC:/bin/says
listen TCP4-LISTEN:90 "$echo"
listen UDP4-RECVFROM:90 "$echo"
wait
"""


def says_image() -> Image:
    """`says`: ports 80 to 85 repeat an HTTP request, 90 all that comes; 85 listens on `::`."""
    image = Image()
    image.busybox(("sh", "cat", "kill", "tr", "printf", "sleep"))
    image.program(shutil.which("socat") or "")
    image.text("/bin/says", SAYS, 0o755)
    image.text("/bin/says-server", SAYS_SERVER, 0o755)
    return image


SAYS_CHANGES = ('ENTRYPOINT ["/bin/says-server"]', "ENV PATH=/usr/bin:/bin")


class Swarm:
    """The nodes, each with a daemon of ours when `serve` has started it."""

    def __init__(self, lab: Lab, engines: dict[str, Engine]) -> None:
        self.lab = lab
        self.engines = engines
        self.served = {name: Served(engine) for name, engine in engines.items()}

    @property
    def manager(self) -> Engine:
        """The Engine that services are made at."""
        return self.engines[NODES[0]]

    def serve(self, more: str = "") -> None:
        """Run `v6fwd serve --docker` on every node."""
        for served in self.served.values():
            served.start(f"swarm = true\n{more}")

    def create(self, name: str, *words: str) -> None:
        """Create a service of `says`, and wait until its tasks run."""
        image = ("--no-resolve-image", "says")
        self.manager.docker("service", "create", "--quiet", "--detach", "--name", name, *words,
                            *image)  # fmt: skip
        eventually(lambda: self.runs(name), f"all tasks of {name} run", 60)

    def runs(self, name: str) -> bool:
        """Whether as many tasks of a service run as should."""
        listed = self.manager.docker(
            "service", "ls", "--filter", f"name={name}", "--format", "{{.Name}} {{.Replicas}}"
        )
        running, _, wanted = listed.removeprefix(f"{name} ").split(" ")[0].partition("/")
        return bool(wanted) and running == wanted

    def remove(self, *services: str) -> None:
        """Remove services."""
        self.manager.docker("service", "rm", *services)

    def cut(self, node: str) -> None:
        """Cut a node's wire."""
        self.lab.ip(_SWITCH, "link", "set", f"to-{node}", "down")

    def mend(self, node: str) -> None:
        """Undo `cut`."""
        self.lab.ip(_SWITCH, "link", "set", f"to-{node}", "up")

    def tasks(self, name: str) -> dict[str, list[str]]:
        """The ids of a service's containers, by node."""
        wanted = f"label=com.docker.swarm.service.name={name}"
        found = {
            node: engine.docker("ps", "--quiet", "--filter", wanted).split()
            for node, engine in self.engines.items()
        }
        return {node: ids for node, ids in found.items() if ids}


@contextlib.contextmanager
def swarm_of(*versions: str) -> Iterator[Swarm]:
    """Three joined nodes with these Engines; all that they leave ends with them."""
    with contextlib.ExitStack() as stack:
        folder = Path(tempfile.mkdtemp(prefix="v6fwd-swarm-"))
        stack.callback(shutil.rmtree, folder)
        lab = stack.enter_context(Wires())
        engines = {}
        for node, version in zip(NODES, versions, strict=True):
            (folder / node).mkdir()
            shim = {"userland-proxy-path": str(install(folder / node))}
            engine = Engine(lab, folder / node, ENGINES[version], node, **shim)
            engines[node] = engine
            stack.callback(_end, engine)
        swarm = Swarm(lab, engines)
        for served in swarm.served.values():
            stack.callback(served.end)
        with ThreadPoolExecutor() as pool:
            list(pool.map(_start, engines.values(), swarm.served.values()))
        _join(engines)
        yield swarm


def _start(engine: Engine, served: Served) -> None:
    engine.start(**served.environment())
    says_image().load(engine, "says", *SAYS_CHANGES)


def _join(engines: dict[str, Engine]) -> None:
    manager = engines[NODES[0]]
    manager.docker("swarm", "init", "--advertise-addr", v4_of(NODES[0]))
    token = manager.docker("swarm", "join-token", "--quiet", "worker")
    for node in NODES[1:]:
        words = ("--advertise-addr", v4_of(node), f"{v4_of(NODES[0])}:2377")
        engines[node].docker("swarm", "join", "--token", token, *words)


def _end(engine: Engine) -> None:
    engine.end()
    assert not engine.processes()
