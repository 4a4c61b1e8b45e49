"""Gives containers in mode `transparent` a placeholder IPv6 address while they start.

Apache with `Listen 80`, like many others, asks getaddrinfo(3) where to listen. With AI_ADDRCONFIG
glibc leaves IPv6 out where the only IPv6 address is ::1, so in a container of an IPv4 network such
servers listen on 0.0.0.0, and such a socket cannot have an IPv6 peer. A container that may get
clients in mode `transparent` is given an address that leads nowhere, on `lo`, as soon as its
namespace exists; both Engines take tens of milliseconds from there to its first process. The
address is removed when all published ports have a server: with it, programs would go on asking the
DNS for IPv6 addresses that they cannot reach.

The control group of the process that waits in the namespace to become the first one tells whose
namespace it is: the Engine does not answer about a container that it starts.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Collection, Iterable

from v6fwd.docker.engine.cgroup import container_of
from v6fwd.docker.engine.containers import Container
from v6fwd.errors import RelayError, reason
from v6fwd.log import Log, attempt
from v6fwd.netns.policy import add_placeholder, listening
from v6fwd.netns.search import processes_in
from v6fwd.netns.watch import LinkWatch, all_numbers

LOOK_INTERVAL = 1.0
"""Seconds between two looks whether a container that has started listens."""
MAX_UNEXPECTED = 256
"""Namespaces kept in mind that nobody expected: the Engine may tell of a container too late."""


class StartingContainer:
    """A container that has the placeholder address. Raises RelayError where it cannot be set."""

    def __init__(self, pid: int) -> None:
        self.policy = add_placeholder(str(pid))
        self.container: Container | None = None

    def listens(self) -> bool:
        """Return whether it has started, and all its published ports have a server."""
        if self.container is None:
            return False
        ports = [(protocol, port) for _, port, protocol in self.container.published]
        return all(listening(self.policy, *each) for each in ports)

    def close(self) -> None:
        """Leave the namespace as Docker made it."""
        with contextlib.suppress(RelayError):
            self.policy.remove_placeholder()
        self.policy.close()


class Prestart:
    """Watches for new namespaces, on a running event loop, as long as a container is expected."""

    def __init__(self, log: Log) -> None:
        self._log = log
        self._expected: Collection[str] = ()
        """Ids of the containers that get the address."""
        self._starting: dict[str, StartingContainer] = {}
        """Those that have it, by id."""
        self._unexpected: dict[str, int] = {}
        """Process ids in other containers' new namespaces, by id, oldest first."""
        self._watch: LinkWatch | None = None
        self._timer: asyncio.TimerHandle | None = None
        """The next look for servers."""

    def expect(self, containers: Iterable[Container]) -> None:
        """Set the containers that get the address when they start, whether they run or not."""
        states = {container.id: container.is_running for container in containers}
        self._expected = states.keys()
        for name in self._starting.keys() - self._expected:
            attempt(self._remove_address, name)
        if not states:
            self._stop_watching()
        elif self._watch is None:
            self._start_watching()
        for name, pid in list(self._unexpected.items()):
            if name in states:
                del self._unexpected[name]
                if not states[name] and container_of(pid) == name:
                    self._set_address(name, pid)

    def run(self, containers: Iterable[Container]) -> None:
        """Note that these have been started."""
        for container in containers:
            starting = self._starting.get(container.id)
            if starting is not None:
                starting.container = container
                self._look_soon()

    def look(self) -> None:
        """Look for new namespaces: when the kernel reports one, and before dockerd goes on."""
        try:
            if self._watch is not None:
                self._look(self._watch.read())
        except OSError as error:
            self._warn(f"cannot look for starting containers: {reason(error)}")

    def _look(self, numbers: set[int]) -> None:
        if not numbers:
            return
        for number, pid in processes_in(numbers):
            name = container_of(pid)
            if name in self._expected:
                self._set_address(name, pid)
                numbers.discard(number)
                if not numbers:
                    return
            else:
                self._note_unexpected(name, pid)

    def _note_unexpected(self, name: str, pid: int) -> None:
        if not name:
            return
        self._unexpected.pop(name, None)
        self._unexpected[name] = pid
        if len(self._unexpected) > MAX_UNEXPECTED:
            del self._unexpected[next(iter(self._unexpected))]

    def close(self) -> None:
        """Remove every placeholder address, and watch no more."""
        self.expect(())
        if self._timer is not None:
            self._timer.cancel()

    def _start_watching(self) -> None:
        try:
            self._watch = LinkWatch()
            for _, pid in processes_in(all_numbers()):  # one may be starting right now
                self._note_unexpected(container_of(pid), pid)
        except OSError as error:
            self._warn(f"cannot look for starting containers: {reason(error)}")
        if self._watch is not None:
            asyncio.get_running_loop().add_reader(self._watch, self.look)

    def _stop_watching(self) -> None:
        if self._watch is not None:
            asyncio.get_running_loop().remove_reader(self._watch)
            self._watch.close()
            self._watch = None

    def _set_address(self, name: str, pid: int) -> None:
        before = self._starting.get(name)
        if before is not None:
            if not before.policy.namespace.is_gone():
                return
            self._remove_address(name)
        try:
            starting = self._starting[name] = StartingContainer(pid)
        except RelayError as error:
            self._warn(f"container {name[:12]}: {error}")
            return
        process = starting.policy.namespace.process
        try:
            asyncio.get_running_loop().add_reader(process, self._remove_address, name)
        except OSError as error:
            self._remove_address(name)
            self._warn(f"container {name[:12]}: {reason(error)}")

    def _remove_address(self, name: str) -> None:
        """Remove the address: it listens, or has ended, or is no longer expected."""
        starting = self._starting.pop(name)
        asyncio.get_running_loop().remove_reader(starting.policy.namespace.process)
        starting.close()

    def _look_soon(self) -> None:
        if self._timer is None:
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(LOOK_INTERVAL, self._look_for_servers)

    def _look_for_servers(self) -> None:
        self._timer = None
        for name, starting in list(self._starting.items()):
            attempt(self._look_for_server, name, starting)
        if any(starting.container is not None for starting in self._starting.values()):
            self._look_soon()

    def _look_for_server(self, name: str, starting: StartingContainer) -> None:
        with contextlib.suppress(OSError):
            if starting.listens():
                self._remove_address(name)

    def _warn(self, why: str) -> None:
        text = f"{why}; a server that looks for IPv6 when it starts may find none"
        self._log.limited("preparation", "not-prepared", text)
