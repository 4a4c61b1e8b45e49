"""Asks the local Engine for the ingress network again and again, and serves its ports.

No event tells of tasks on other nodes, so the Engine is asked every INTERVAL; it answers from the
gossip within some milliseconds, on workers as on managers.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import Any

from v6fwd.config import Docker
from v6fwd.daemon.supervisor import Supervisor
from v6fwd.docker.engine.client import EngineApi, EngineError
from v6fwd.docker.engine.containers import Container
from v6fwd.docker.policy.modes import Modes
from v6fwd.docker.swarm.dockerd import HeldSockets, Sandbox, SandboxKeeper, find_sandbox
from v6fwd.docker.swarm.ingress import Ingress, gateway_address, read_ingress
from v6fwd.docker.swarm.lost_nodes import LostNodes
from v6fwd.docker.swarm.mesh_ports import LINGER, MeshPorts
from v6fwd.docker.swarm.plan import Node, Planner
from v6fwd.docker.swarm.report import nodes, services
from v6fwd.errors import RelayError
from v6fwd.log import Log
from v6fwd.model import Endpoint, Forward, Limits, Protocol

INTERVAL = 1.0
"""Seconds between two questions."""
LEAST = 0.1
"""Seconds between two questions at least, however many flows look for other tasks."""
RETRY = 0.2
"""Seconds until an Engine that does not answer is asked again: it may be restarting, and its tasks
are reached from another namespace then."""
FIRST = 2.0
"""Seconds that the start waits for the first answer."""


class SwarmMesh:
    """The mesh of one Engine, on a running event loop.

    Large because what gossip, dockerd, containers, rules and flows tell comes together here, and
    stays known while one of them is silent.
    """

    def __init__(
        self,
        docker: Docker,
        supervisor: Supervisor,
        modes: Modes,
        limits: Limits,
        log: Log,
        changed: Callable[[], None],
    ) -> None:
        """`changed` is called when IPv4 clients of other ports are to be redirected."""
        self._api = EngineApi(docker.host)
        self._docker = docker
        self._modes = modes
        self._limits = limits
        self._log = log
        self._changed = changed
        self.ports = MeshPorts(supervisor, log)
        self._containers: Sequence[Container] = ()
        self._is_told = False
        """Whether these are known."""
        self._learnt: dict[int, set[Protocol]] = {}
        """Protocols of ports, as dockerd's sockets told once."""
        self._gateway = ""
        self._keeper = SandboxKeeper()
        self._ingress: Ingress | None = None
        """What the Engine told last."""
        self._told_at = 0.0
        """When, in seconds since 1970."""
        self._lost_nodes = LostNodes()
        self._lost_at = float("-inf")
        """When the Engine did not answer last, in seconds of the loop's clock."""
        self._task: asyncio.Task[None] | None = None
        self._stirred = asyncio.Event()
        self._answered = asyncio.Event()
        supervisor.pool.sought = self._stirred.set

    def forwards(self) -> list[Forward]:
        """Return the ports whose IPv4 clients are redirected."""
        return self.ports.redirected(self._gateway) if self._gateway else []

    def told(self, containers: Sequence[Container]) -> None:
        """Take the containers that run on this node, and ask again."""
        self._containers = containers
        self._is_told = True
        self._stirred.set()

    @property
    def has_answered(self) -> bool:
        """Whether the Engine has been asked with this node's containers known."""
        return self._answered.is_set()

    async def first_answer(self) -> None:
        """Wait for it, for FIRST at most."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(FIRST):
                await self._answered.wait()

    def start(self, spawn: Callable[[Coroutine[None, None, None]], asyncio.Task[None]]) -> None:
        """Run until stopped."""
        self._task = spawn(self.run())

    def stop(self) -> None:
        """Serve no port any more."""
        if self._task is not None:
            self._task.cancel()
        self.ports.close()
        self._keeper.close()

    async def run(self) -> None:
        """Run until cancelled."""
        while True:
            pause = INTERVAL
            try:
                await self._ask()
            except (EngineError, RelayError, ValueError, OSError) as error:
                pause = RETRY
                self._lost_at = asyncio.get_running_loop().time()
                known = "are served as they were known last" if len(self.ports) else "wait"
                text = f"ports of Swarm's mesh {known}: {error}"
                self._log.limited("mesh-lost", "mesh-lost", text, burst=1)
            if self._is_told:
                self._answered.set()
            await asyncio.sleep(LEAST)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause - LEAST):
                    await self._stirred.wait()
            self._stirred.clear()

    async def _ask(self) -> None:
        """Raises EngineError, RelayError, ValueError and OSError."""
        ingress = read_ingress(await self._api.get("/networks/ingress?verbose=true"))
        self._gateway = gateway_address(await self._api.get("/networks/docker_gwbridge"))
        before = self._keeper.sandbox
        sandbox = find_sandbox(before=before)
        self._ingress, self._told_at = ingress, time.time()
        if before is not None and before.identity != sandbox.identity:
            self._lost_at = asyncio.get_running_loop().time()  # dockerd has restarted
        ingress = self._lost_nodes.complete(ingress, asyncio.get_running_loop().time())
        self._follow(ingress, sandbox, HeldSockets(sandbox.pid))

    def _follow(self, ingress: Ingress, sandbox: Sandbox, held: HeldSockets) -> None:
        now, before = asyncio.get_running_loop().time(), self.forwards()
        for port, protocols in held.protocols().items():
            self._learnt[port] = set(protocols)
        netns, identity = self._keeper.keep(sandbox), sandbox.identity
        self.ports.move(netns, identity)
        node = Node(netns, identity, self._containers, self._protocols(ingress))
        planner = Planner(self._modes, self._docker, self._limits)
        is_young = now - self._lost_at <= LINGER  # its gossip may not be complete yet
        plans = planner.plan(ingress, node)
        self.ports.follow(plans, sandbox, held, now, is_young=is_young)
        if not is_young:
            self.ports.without_tasks()
        if self.forwards() != before:
            self._changed()

    def _protocols(self, ingress: Ingress) -> Mapping[int, set[Protocol]]:
        """Return what dockerd's sockets tell, else what a rule does; TCP where nothing tells."""
        return {
            port: self._learnt.get(port) or self._by_rules(port) or {Protocol.TCP}
            for service in ingress.services
            for port, _ in service.ports
        }

    def _by_rules(self, port: int) -> set[Protocol]:
        return {
            rule.protocol
            for rule in self._docker.rules
            if rule.protocol is not None and rule.host_ports and port in rule.host_ports
        }

    def reconfigure(self, docker: Docker) -> None:
        """Apply other rules, and serve again what was drained by hand."""
        self._docker = docker
        self.ports.reopen_drained()
        self._stirred.set()

    def report(self) -> dict[str, list[Any]]:
        """Return ports, services and nodes as the Engine told of them last; and when."""
        known = self._ingress
        return {
            "published": self.ports.report(),
            "services": services(known) if known is not None else [],
            "nodes": nodes(known) if known is not None else [],
            "swarm": [{"told": self._told_at}],
        }

    def endpoints(self) -> list[Endpoint]:
        """Return all listeners that are open."""
        return self.ports.endpoints()
