"""Decides whether an adopted port is served, and in which mode, as its container wants it."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from v6fwd.docker.adopted_ports import AdoptedPort, AdoptedPorts
from v6fwd.docker.engine.containers import Container, find_containers
from v6fwd.docker.memory import Memory
from v6fwd.docker.policy.modes import Modes
from v6fwd.log import attempt

UNKNOWN = "Docker is silent, so which container it belongs to is not known"
STARTING = "its container has not started yet"


class Decisions:
    """Fails closed: a port whose container is not known waits, unless a rule decides."""

    def __init__(
        self,
        ports: AdoptedPorts,
        modes: Modes,
        memory: Memory,
        engine_is_lost: Callable[[], bool],
    ) -> None:
        self._ports = ports
        self._modes = modes
        self._memory = memory
        self._engine_is_lost = engine_is_lost
        self.containers: Sequence[Container] = ()
        """Those that run, as the Engine told last."""

    def adopted(self, port: AdoptedPort) -> None:
        """Decide about a new port, or wait for the Engine's word on it.

        An Engine that answers tells of the container when it has started; what it told before is
        of former containers. One that is silent may be restarting over containers that live on.
        """
        container = self._memory.container_of(port.shim)
        found = [container] if container else find_containers(self.containers, port.forward)
        if container or (found and self._engine_is_lost()):
            self._decide(port, found)
        else:
            self._ports.await_mode(port, self._hold_ended)

    def changed(self, containers: Sequence[Container]) -> None:
        """Decide anew, as these containers run now."""
        self.containers = containers
        self._modes.keep(containers)
        for port in self._ports:
            found = find_containers(containers, port.forward)
            if found:
                attempt(self._decide, port, found)
        self._remember()

    def container_of(self, port: AdoptedPort) -> Container | None:
        """Return a port's container, where there is no doubt about it."""
        found = find_containers(self.containers, port.forward)
        if not found:
            return self._memory.container_of(port.shim)
        return found[0] if len(found) == 1 else None

    def _hold_ended(self, port: AdoptedPort) -> None:
        """Decide without further waiting; but dockerd may still be starting other shims of the
        container, which takes seconds for hundreds of ports."""
        found = find_containers(self.containers, port.forward)
        try:
            self._decide(port, found)
            self._remember()
        finally:
            if not found and not port.is_open:
                self._ports.await_mode(port, self._hold_ended)

    def _decide(self, port: AdoptedPort, found: Sequence[Container]) -> None:
        if len(found) > 1:
            names = " and ".join(container.name for container in found)
            self._ports.hold(port, f"refused, as both {names} publish it")
            return
        container = found[0] if found else None
        forward = self._modes.of(port.forward, container)
        if forward is not None:
            self._ports.serve(port, forward)
        elif container is not None:
            self._ports.hold(port, f"refused, as a label of container {container.name} is wrong")
        elif not port.is_open and self._engine_is_lost():
            self._ports.hold(port, UNKNOWN)
        elif not port.is_open:
            self._ports.hold(port, STARTING, is_usual=True)

    def _remember(self) -> None:
        known = {
            port.shim: found[0]
            for port in self._ports
            if len(found := find_containers(self.containers, port.forward)) == 1
        }
        self._memory.keep(known)
