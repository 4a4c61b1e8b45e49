"""Gives containers that are to see IPv6 clients a placeholder IPv6 address while they start.

Apache with `Listen 80`, like many others, asks getaddrinfo(3) where to listen. With AI_ADDRCONFIG
glibc leaves IPv6 out where there is no address of it but ::1, so in a container of an IPv4 network
they listen on 0.0.0.0, and no IPv6 address fits into such a socket. A container that may get
clients in mode `transparent` is given an address that leads nowhere, on `lo`, as soon as its
namespace is there: between that and its first process both Engines take tens of milliseconds. When
its ports are listened on it has served its purpose, and goes: with it, programs would go on asking
the DNS for IPv6 addresses that they cannot reach.

Whose namespace it is tells the control group of the process that waits in it to become the first
one: the Engine answers nothing about a container that it starts.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Collection, Iterable

from v6fwd.docker.engine.cgroup import container_of
from v6fwd.docker.engine.containers import Container
from v6fwd.errors import RelayError, reason
from v6fwd.log import Log
from v6fwd.netns.policy import add_placeholder, listening
from v6fwd.netns.search import processes_in
from v6fwd.netns.watch import LinkWatch, all_numbers

LOOK_INTERVAL = 1.0
"""Seconds between two looks whether a container that has started listens."""
REMEMBERED = 256
"""Newcomers that nobody expected when they came: the Engine may tell of one too late."""


class Starting:
    """A container with a placeholder address. Raises RelayError."""

    def __init__(self, pid: int) -> None:
        self.policy = add_placeholder(str(pid))
        self.container: Container | None = None

    def listens(self) -> bool:
        """Whether it has started, and there are servers for all that it publishes."""
        if self.container is None:
            return False
        ports = [(protocol, port) for _, port, protocol in self.container.published]
        return all(listening(self.policy, *each) for each in ports)

    def close(self) -> None:
        """It is as Docker made it."""
        with contextlib.suppress(RelayError):
            self.policy.remove_placeholder()
        self.policy.close()


class Prestart:
    """Watches, on a running event loop, as long as any container is expected."""

    def __init__(self, log: Log) -> None:
        self._log = log
        self._expected: Collection[str] = ()
        self._starting: dict[str, Starting] = {}
        self._newcomers: dict[str, int] = {}
        self._watch: LinkWatch | None = None
        self._timer: asyncio.TimerHandle | None = None

    def expect(self, containers: Iterable[Container]) -> None:
        """Those that are to be prepared, whether they run or may be started."""
        states = {container.id: container.is_running for container in containers}
        self._expected = states.keys()
        for name in self._starting.keys() - self._expected:
            self._let_go(name)
        if not states:
            self._stop_watching()
        elif self._watch is None:
            self._start_watching()
        for name, pid in list(self._newcomers.items()):
            if name in states:
                del self._newcomers[name]
                if not states[name] and container_of(pid) == name:
                    self._prepare(name, pid)

    def run(self, containers: Iterable[Container]) -> None:
        """These have been started."""
        for container in containers:
            starting = self._starting.get(container.id)
            if starting is not None:
                starting.container = container
                self._look_soon()

    def look(self) -> None:
        """Prepare who has come; called when there is news, and before dockerd goes on."""
        try:
            if self._watch is not None:
                self._look(self._watch.read())
        except OSError as error:
            self._tell(f"cannot look for containers that start: {reason(error)}")

    def _look(self, numbers: set[int]) -> None:
        if not numbers:
            return
        for number, pid in processes_in(numbers):
            name = container_of(pid)
            if name in self._expected:
                self._prepare(name, pid)
                numbers.discard(number)
                if not numbers:
                    return
            else:
                self._remember(name, pid)

    def _remember(self, name: str, pid: int) -> None:
        if not name:
            return
        self._newcomers.pop(name, None)
        self._newcomers[name] = pid
        if len(self._newcomers) > REMEMBERED:
            del self._newcomers[next(iter(self._newcomers))]

    def close(self) -> None:
        """Take back all of it."""
        self.expect(())
        if self._timer is not None:
            self._timer.cancel()

    def _start_watching(self) -> None:
        try:
            self._watch = LinkWatch()
            for _, pid in processes_in(all_numbers()):  # one may be starting right now
                self._remember(container_of(pid), pid)
        except OSError as error:
            self._tell(f"cannot look for containers that start: {reason(error)}")
        if self._watch is not None:
            asyncio.get_running_loop().add_reader(self._watch, self.look)

    def _stop_watching(self) -> None:
        if self._watch is not None:
            asyncio.get_running_loop().remove_reader(self._watch)
            self._watch.close()
            self._watch = None

    def _prepare(self, name: str, pid: int) -> None:
        before = self._starting.get(name)
        if before is not None:
            if not before.policy.namespace.is_gone():
                return
            self._let_go(name)
        try:
            starting = self._starting[name] = Starting(pid)
        except RelayError as error:
            self._tell(f"container {name[:12]}: {error}")
            return
        process = starting.policy.namespace.process
        asyncio.get_running_loop().add_reader(process, self._let_go, name)

    def _let_go(self, name: str) -> None:
        """It listens, or has ended, or is not to be prepared any more."""
        starting = self._starting.pop(name)
        asyncio.get_running_loop().remove_reader(starting.policy.namespace.process)
        starting.close()

    def _look_soon(self) -> None:
        if self._timer is None:
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(LOOK_INTERVAL, self._look_who_listens)

    def _look_who_listens(self) -> None:
        self._timer = None
        for name, starting in list(self._starting.items()):
            with contextlib.suppress(OSError):
                if starting.listens():
                    self._let_go(name)
        if any(starting.container is not None for starting in self._starting.values()):
            self._look_soon()

    def _tell(self, why: str) -> None:
        text = f"{why}; servers in it that look for IPv6 may find none"
        self._log.limited("preparation", "not-prepared", text)
