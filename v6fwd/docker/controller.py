"""Serves the published ports of an Engine in the daemon: shims in, forwards out.

`Intake` finds the shims, `AdoptedPorts` holds their ports, the `Watcher` reports the containers,
`Decisions` decides; the controller passes what each of them finds on to the others.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Collection, Coroutine, Sequence
from typing import Any

from v6fwd.config import Docker
from v6fwd.daemon.supervisor import Supervisor
from v6fwd.docker.adopted_ports import HOLD, AdoptedPorts, close_all
from v6fwd.docker.decisions import Decisions
from v6fwd.docker.direct_ports import DirectPorts
from v6fwd.docker.engine.client import EngineApi
from v6fwd.docker.engine.containers import Container
from v6fwd.docker.engine.watcher import Watcher
from v6fwd.docker.intake import Intake
from v6fwd.docker.ipv4_clients import Ipv4Clients
from v6fwd.docker.memory import Memory
from v6fwd.docker.policy.modes import Modes, needs_all
from v6fwd.docker.prestart import Prestart
from v6fwd.docker.report import report
from v6fwd.docker.shim.process import LET_GO, Shim
from v6fwd.docker.swarm.mesh import SwarmMesh
from v6fwd.folder import state_folder
from v6fwd.log import Log, attempt, counted, in_background
from v6fwd.model import Endpoint, Limits


class Controller:
    """A ForwardSource of the daemon: opens and closes forwards as Docker publishes ports.

    Large because shims, containers, modes and the firewall report to it, and each report is a
    method. The ports, the intake of shims and every rule have classes of their own.
    """

    def __init__(self, docker: Docker, limits: Limits, log: Log) -> None:
        self._docker = docker
        self._limits = limits
        self._log = log
        self._modes = Modes(docker.rules, docker.transparent, log, docker.guard)
        self._memory = Memory(state_folder(docker.transparent.pseudo_store), log)
        self._intake = Intake(self, log)
        self._ipv4_clients = Ipv4Clients(log)
        self._prestart = Prestart(log)
        self._watcher = self._watcher_of(docker.host)
        self._tasks: set[asyncio.Task[None]] = set()
        """The watcher, and whatever waits for the workers; cancelled at the end."""
        self._watching: asyncio.Task[None] | None = None
        """The watcher's; another Engine ends it."""
        self._has_begun = False
        """Whether it is at work, and the four that follow are there."""
        self._ports: AdoptedPorts
        """Ports with a shim."""
        self._decisions: Decisions
        """About these."""
        self._direct_ports: DirectPorts
        """Ports without one."""
        self._mesh: SwarmMesh | None = None
        """Ports of Swarm's routing mesh, if these are to be served."""
        self._supervisor: Supervisor

    # -- what the daemon calls --

    async def begin(self, supervisor: Supervisor) -> None:
        """Take over the shims that live, and read the announcements of others. Raises
        RelayError."""
        self._supervisor = supervisor
        self._ports = AdoptedPorts(supervisor, self._limits, self._log)
        self._decisions = Decisions(
            self._ports, self._modes, self._memory, lambda: self._watcher.is_lost
        )
        self._direct_ports = DirectPorts(supervisor, self._modes, self._limits, self._log)
        self._has_begun = True
        self._memory.load()
        self._intake.open()
        self._ipv4_clients.begin()
        await self._intake.scan()
        self._ipv4_clients.scanned(self._ports)
        self._watching = self._spawn(self._watcher.run())
        await self._begin_mesh()
        if len(self._ports):
            self._log.info("adopted", f"took over {counted(len(self._ports), 'published port')}")
            with contextlib.suppress(TimeoutError):  # a port that comes meanwhile has its own HOLD
                async with asyncio.timeout(HOLD):
                    await self._ports.all_decided.wait()
        self._ipv4_clients.apply(self._ports)

    async def _begin_mesh(self) -> None:
        """Serve the ports of Swarm's mesh, if that is wanted."""
        self._make_mesh()
        if self._mesh is not None:
            await self._mesh.first_answer()

    def _make_mesh(self) -> None:
        """Serve the ports of Swarm's mesh, or serve them no more, as is wanted now."""
        if self._mesh is not None:
            self._mesh.stop()
            self._mesh_changed()
            self._mesh = None
        if self._docker.swarm:
            parts = self._docker, self._supervisor, self._modes, self._limits, self._log
            self._mesh = SwarmMesh(*parts, self._mesh_changed)
            self._mesh.start(self._spawn)

    def _mesh_changed(self) -> None:
        if self._mesh is not None:
            self._ipv4_clients.mesh = self._mesh.forwards()
            self._ipv4_clients.apply(self._ports)

    def endpoints(self) -> Collection[Endpoint]:
        """Return the listeners that are served for Docker."""
        adopted = (forward.listen for forward in self._ports.open_forwards())
        mesh = self._mesh.endpoints() if self._mesh is not None else ()
        return [*adopted, *self._direct_ports, *mesh]

    def held(self) -> list[dict[str, str]]:
        """Return the ports that are not served, and why."""
        held = self._direct_ports.held() | self._ports.held()
        if self._mesh is not None:
            held |= self._mesh.ports.left()
        return [
            {"listen": str(forward.listen), "target": str(forward.target), "why": why}
            for forward, why in held.items()
        ]

    def report(self) -> dict[str, Any]:
        """Return the published ports with their containers, and the mistakes in labels."""
        told = report(self._ports, self._direct_ports, self._decisions, self._modes)
        if self._mesh is not None:
            mesh = self._mesh.report()
            told = {**mesh, **told, "published": told["published"] + mesh["published"]}
        return told

    def reconfigure(self, docker: Docker) -> None:
        """Apply other rules to new flows, and ask another Engine if the file names one."""
        self._modes.rules = docker.rules
        self._modes.transparent = docker.transparent
        self._modes.guard = docker.guard
        before, self._docker = self._docker, docker
        if docker.host != before.host and self._watching is not None:
            self._watching.cancel()
            self._watcher = self._watcher_of(docker.host)
            self._watching = self._spawn(self._watcher.run())
        if (docker.host, docker.swarm) != (before.host, before.swarm):
            self._make_mesh()
        elif self._mesh is not None:
            self._mesh.reconfigure(docker)
        self._ports.reopen_drained()
        self._direct_ports.reopen_drained()
        self._watcher.stir()
        self._ipv4_clients.check()

    def close(self, *, succeeded: bool) -> None:
        """Open and close nothing more. `succeeded`: another daemon goes on with the ports.

        A predecessor goes on, too, where this daemon could not take over from it.
        """
        if not self._has_begun:
            return
        self._has_begun = False
        for task in self._tasks:
            task.cancel()
        self._tasks.clear()
        attempt(self._prestart.close)  # whatever fails: the redirect of IPv4 clients must go
        goes_on = self._intake.close() or succeeded
        waiting = len(self._ports)
        self._ipv4_clients.close(keep=goes_on or waiting > 0)
        if waiting and not goes_on:
            text = (
                f"clients of {counted(waiting, 'published port')} HANG from now on, until the next"
                " `v6fwd serve --docker`; `v6fwd docker release` lets each shim go on alone"
            )
            self._log.warning("waiting", text)
        mesh = self._mesh.forwards() if self._mesh is not None else ()
        kept = [*filter(needs_all, mesh)]
        if kept and not succeeded:
            text = (
                f"IPv4 clients of {counted(len(kept), 'port')} of Swarm's mesh HANG from now on,"
                " until the next `v6fwd serve --docker`"
            )
            self._log.warning("waiting", text)
        self._ports.clear()

    # -- what the intake calls --

    def adopt(self, shim: Shim) -> None:
        """Take a shim's port over. Raises RelayError and NoShimError, as AdoptedPorts does."""
        listen = shim.flags.forward.listen
        former = self._ports.get(listen)
        if former is not None and former.shim.has_ended():
            self.ended(former.shim)
        if (
            self._memory.container_of(shim) is None
        ):  # dockerd waits for the answer, and its container with it
            self._ipv4_clients.apply(self._ports, [shim.flags.forward])
        sockets = self._direct_ports.take_back(listen)
        self._prestart.look()  # Engine 28 has made the namespace by now, and waits for the answer
        try:
            port = self._ports.adopt(shim, sockets)
        except BaseException:
            close_all(sockets)
            self._ipv4_clients.apply(self._ports, at_once=False)
            raise
        self._decisions.adopted(port)

    def stop(self, shim: Shim) -> None:
        """Free a shim's port, then tell it: dockerd gives the port away once it has ended."""
        self.ended(shim)
        self._spawn(self._tell_let_go(shim))

    def ended(self, shim: Shim) -> None:
        """Close the port of a shim that has ended."""
        port = self._ports.get(shim.flags.forward.listen)
        if port is not None and self._ports.close_of(shim):
            if self._ipv4_clients.ended(port, self._watcher.asked):
                self._watcher.stir()
            self._ipv4_clients.apply(self._ports, at_once=False)

    async def _tell_let_go(self, shim: Shim) -> None:
        await self._supervisor.settled()
        if self._intake.has(shim):
            shim.tell(LET_GO)

    # -- what the watcher calls --

    def _watcher_of(self, host: str) -> Watcher:
        return Watcher(
            EngineApi(host),
            self._log,
            lambda: self._direct_ports.forget(),  # perhaps another Engine answers now
            self._listed,
            self._changed,
            self._modes.enters,
        )

    def _listed(self, containers: Sequence[Container]) -> None:
        """Note which containers there are."""
        has_placeholder = self._docker.transparent_address
        expected = filter(self._modes.enters, containers) if has_placeholder else ()
        attempt(self._prestart.expect, expected)  # an aid: ports are served all the same

    def _changed(self, containers: Sequence[Container]) -> None:
        """Note which containers run, and serve their ports accordingly."""
        attempt(self._prestart.run, containers)
        self._decisions.changed(containers)
        self._direct_ports.follow(containers, self._ports.listens())
        if self._mesh is not None:
            self._mesh.told(containers)
        if self._mesh is None or self._mesh.has_answered:
            self._ipv4_clients.answered(self._watcher.answered)
        self._ipv4_clients.apply(self._ports)

    def _spawn(self, coroutine: Coroutine[None, None, None]) -> asyncio.Task[None]:
        task = in_background(coroutine, "docker")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task
