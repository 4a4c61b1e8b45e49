"""Targets by container, `docker:web:80`: follows each to the address that it has now.

While a container has no address its clients are refused: another container may have the old one.
While the Engine is away nobody gives addresses to containers, so those known last stay good.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

from v6fwd.docker.engine.containers import Container, UnknownContainerError, find_named
from v6fwd.errors import RelayError
from v6fwd.log import Log, in_background
from v6fwd.model import NO_NETNS, ClientIP, Endpoint, Forward

PATIENCE = 3.0
"""Seconds that the start waits for the Engine's first answer."""
HINT = "is Docker running, and may this user read its socket (root, group docker)?"


class StartingError(UnknownContainerError):
    """A container runs whose process, which must be known, is not known yet."""


class ContainerTargets:
    """A TargetSource that asks one Engine."""

    def __init__(self, host: str, log: Log) -> None:
        """`host` is the Engine's socket, `unix:///run/docker.sock`."""
        self._host = host
        self._log = log
        self._forwards: Callable[[], Iterable[Forward]] = tuple
        self._change: Callable[[Forward], None] = _ignore
        self._watching: asyncio.Task[None] | None = None
        self._told = asyncio.Event()
        self._lost = "Docker has not answered yet"
        self._containers: Sequence[Container] = ()
        """All, of the last answer."""
        self._running: dict[str, Container] = {}
        """Those that run, by id; with their process if a forward needs it."""
        self._ended: set[str] = set()
        """Ids of containers of which an event has told the end."""
        self._why: dict[Endpoint, str] = {}
        """What was logged last of each forward, by listener."""

    async def begin(
        self, forwards: Callable[[], Iterable[Forward]], change: Callable[[Forward], None]
    ) -> None:
        self._forwards, self._change = forwards, change
        self.follow()
        if self._watching is None:
            return
        try:
            async with asyncio.timeout(PATIENCE):
                await self._told.wait()
        except TimeoutError:
            pass
        if self._lost:
            raise RelayError(f"cannot follow {self._named()}: {self._lost}; {HINT}")

    def follow(self) -> None:
        if self._watching is None and any(each.target.container for each in self._forwards()):
            self._watching = in_background(self._watch(), "targets by container")
        if not self._lost:
            self._update()

    def use(self, host: str) -> None:
        """Ask another Engine from now on."""
        if host != self._host:
            self._host = host
            self.close()
            self._containers, self._running = (), {}
            self.follow()

    def close(self) -> None:
        if self._watching is not None:
            self._watching.cancel()
            self._watching = None

    # -- where they are --

    def resolved(self, forward: Forward) -> Forward:
        if not forward.target.container:
            return forward
        try:
            return self._at(forward, *self._find(forward.target))
        except UnknownContainerError:
            return self._at(forward, None, "")

    def _find(self, target: Endpoint) -> tuple[Container, str]:
        """The container and its address. Raises UnknownContainerError."""
        if not self._containers and self._lost:
            raise UnknownContainerError(self._lost)
        name, _, network = target.container.partition("@")
        container = find_named(self._containers, name)
        running = self._running.get(container.id)
        if running is None:
            if container.is_running and container.id not in self._ended:
                raise StartingError(f"container {name} is starting")
            raise UnknownContainerError(f"container {name} is not running")
        address = running.address_in(network)
        for other in self._running.values():
            if other is not running and other.shares(address, running):
                raise UnknownContainerError(
                    f"container {other.name} has its address {address}, too"
                )
        return running, address

    @staticmethod
    def _at(forward: Forward, container: Container | None, address: str) -> Forward:
        """The forward at an address. Mode `transparent` enters the container by its process."""
        how = forward.transparent
        if forward.client_ip is ClientIP.TRANSPARENT and how.netns != NO_NETNS:
            how = replace(how, netns=str(container.pid) if container and container.pid else "")
        return replace(forward, target=replace(forward.target, host=address), transparent=how)

    # -- what the watcher calls --

    async def _watch(self) -> None:
        from v6fwd.docker.engine.client import EngineApi  # few have such targets
        from v6fwd.docker.engine.watcher import Watcher

        watcher = Watcher(
            EngineApi(self._host),
            self._log,
            self._found,
            self._listed,
            self._changed,
            self._is_entered,
            lost=self._note_lost,
            happened=self._happened,
        )
        await watcher.run()

    def _found(self) -> None:
        self._lost = ""
        self._ended.clear()  # events may be lost

    def _happened(self, event: object) -> None:
        """Note at once which container has ended: Engine 20.10 lists it as running for a while."""
        match event:
            case {"Type": "container", "Action": "die", "Actor": {"ID": str(name)}}:
                self._ended.add(name)
                if self._running.pop(name, None) is not None:
                    self._update()
            case {"Type": "container", "Action": "start" | "destroy", "Actor": {"ID": str(name)}}:
                self._ended.discard(name)

    def _note_lost(self, why: str) -> None:
        self._lost = why
        if self._told.is_set():
            text = f"{why}; until it answers these stay where they were: {self._named()}"
            self._log.warning("engine-lost", text)
        self._told.set()

    def _listed(self, containers: Sequence[Container]) -> None:
        self._containers = containers

    def _changed(self, containers: Sequence[Container]) -> None:
        self._running = {each.id: each for each in containers if each.id not in self._ended}
        if self._update():
            self._told.set()

    def _is_entered(self, container: Container) -> bool:
        """Whether a forward enters its namespace: then its process must be known."""
        for forward in self._forwards():
            if forward.target.container and forward.client_ip is ClientIP.TRANSPARENT:
                try:
                    name = forward.target.container.partition("@")[0]
                    if find_named(self._containers, name).id == container.id:
                        return True
                except UnknownContainerError:
                    continue
        return False

    def _update(self) -> bool:
        """Bring all forwards to where their targets are; False while one is starting."""
        is_known = True
        for forward in [each for each in self._forwards() if each.target.container]:
            now = self.resolved(forward)
            if now != forward:
                self._change(now)
            try:
                self._tell(now, f"is at {self._find(now.target)[1]}")
            except StartingError:
                is_known = False
            except UnknownContainerError as error:
                self._tell(now, str(error))
        return is_known

    def _tell(self, forward: Forward, where: str) -> None:
        """Log where a target is, or why nowhere, when that changes."""
        if self._why.get(forward.listen) == where:
            return
        self._why[forward.listen] = where
        what = f"target {forward.target} of {forward.listen}"
        if forward.target.host:
            self._log.info("target", f"{what} {where}", target=forward.target)
        else:
            text = f"{what} is nowhere: {where}; its clients are refused"
            self._log.warning("target", text, target=forward.target)

    def _named(self) -> str:
        targets = {str(each.target) for each in self._forwards() if each.target.container}
        return ", ".join(sorted(targets))


def _ignore(_: Forward) -> None:
    """Nobody has begun."""
