"""The published ports of living shims, from adoption to the end of the shim.

A shim is answered at once, as dockerd starts no container before. Its port is opened when the mode
is known, and held until then: clients wait in the queue of the listening socket, so that nobody is
served in the wrong mode. A port that must not be served is held for good.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace

from v6fwd.daemon.supervisor import Supervisor
from v6fwd.docker.shim.listening import LISTEN_FD, from_descriptor, is_bound, own
from v6fwd.docker.shim.process import Shim
from v6fwd.errors import RelayError
from v6fwd.log import Log
from v6fwd.model import Endpoint, Forward, Limits

HOLD = 5.0
"""Seconds that clients wait for the mode: an Engine that starts is asked in vain meanwhile."""

DRAINED = "drained until the next reload"


@dataclass(slots=True, eq=False)
class AdoptedPort:
    """A shim's forward, before and while it is served."""

    shim: Shim
    forward: Forward
    """In the mode that it has, or `none` as long as that is not known."""
    sockets: list[socket.socket] | None
    """Its listening sockets until it is opened; None where the supervisor has a predecessor's."""
    is_open: bool = False
    """Whether the supervisor has been told to serve it, and has its sockets."""
    why_held: str = ""
    """Why it is not served, for the operator; "" while that is not decided."""
    timer: asyncio.TimerHandle | None = None
    """Ends the wait for the mode."""

    @property
    def is_decided(self) -> bool:
        """Whether it is served, or is known not to be."""
        return self.is_open or bool(self.why_held)

    def dispose(self) -> None:
        """Close what the supervisor has not taken."""
        if self.timer is not None:
            self.timer.cancel()
        if not self.is_open:
            close_all(self.sockets or ())


class AdoptedPorts:
    """One port for each shim."""

    def __init__(self, supervisor: Supervisor, limits: Limits, log: Log) -> None:
        self._supervisor = supervisor
        self._limits = limits
        self._log = log
        self._ports: dict[Endpoint, AdoptedPort] = {}
        self.all_decided = asyncio.Event()
        """Set whenever no port waits for its mode."""

    def __iter__(self) -> Iterator[AdoptedPort]:
        return iter(list(self._ports.values()))

    def __len__(self) -> int:
        return len(self._ports)

    def get(self, listen: Endpoint) -> AdoptedPort | None:
        """Return the port at this listener."""
        return self._ports.get(listen)

    def listens(self) -> set[Endpoint]:
        """Return the listeners of all ports, open or not."""
        return set(self._ports)

    def open_forwards(self) -> list[Forward]:
        """Return what is served."""
        return [port.forward for port in self._ports.values() if port.is_open]

    def adopt(self, shim: Shim, sockets: list[socket.socket]) -> AdoptedPort:
        """Answer dockerd, and hold the port until its mode is known.

        `sockets`: those that the port was served with before it had a shim, if it was; the workers
        may still have copies, so that no other could be bound. Raises RelayError where the port
        cannot be had, and NoShimError for a shim that has given the daemon up.
        """
        forward = replace(shim.flags.forward, limits=self._limits)
        listen = forward.listen
        if listen in self._supervisor.forwards or listen in self._ports:
            raise RelayError(f"{listen} is forwarded already")
        if not sockets or shim.flags.use_listen_fd:
            close_all(sockets)
            port = AdoptedPort(shim, forward, self._sockets(shim, listen))
        else:
            port = AdoptedPort(shim, forward, sockets)
        try:
            self._answer(port)
        except BaseException:
            port.dispose()
            raise
        self._ports[listen] = port
        self.all_decided.clear()
        return port

    def _answer(self, port: AdoptedPort) -> None:
        passes = port.sockets and not port.shim.flags.use_listen_fd
        try:
            port.shim.answer(port.sockets[0] if passes and port.sockets else None)
        except OSError as error:
            raise RelayError(f"cannot answer for {port.forward.listen}: {error}") from error

    def _sockets(self, shim: Shim, listen: Endpoint) -> list[socket.socket] | None:
        """Return the port's listening socket: dockerd's, a former daemon's, or a new one.

        None: the supervisor has a predecessor's. Raises RelayError.
        """
        if listen in self._supervisor.listen_sockets:
            return None
        try:
            fd = shim.take(LISTEN_FD)
        except OSError as error:
            if shim.flags.use_listen_fd:
                raise RelayError(f"cannot take the socket of {listen}: {error}") from error
            return [own(listen)]
        if not shim.flags.use_listen_fd and not is_bound(fd, listen):
            os.close(fd)
            return [own(listen)]
        return [from_descriptor(fd, listen)]

    def held(self) -> dict[Forward, str]:
        """Return those that are known not to be served, and why."""
        return {
            port.forward: DRAINED if self._is_drained(port) else port.why_held
            for port in self._ports.values()
            if port.why_held or self._is_drained(port)
        }

    def _is_drained(self, port: AdoptedPort) -> bool:
        return port.is_open and port.forward.listen not in self._supervisor.forwards

    def reopen_drained(self) -> None:
        """Serve again what was drained by hand, as a reload of the configuration does."""
        for port in filter(self._is_drained, self):
            port.is_open, port.sockets = False, None
            try:
                port.sockets = self._sockets(port.shim, port.forward.listen)
            except RelayError as error:
                self.hold(port, str(error))
            else:
                self.serve(port, port.forward)

    def await_mode(self, port: AdoptedPort, decide: Callable[[AdoptedPort], None]) -> None:
        """Call `decide` in HOLD seconds, if nothing is decided by then."""
        port.timer = asyncio.get_running_loop().call_later(HOLD, decide, port)

    def serve(self, port: AdoptedPort, forward: Forward) -> None:
        """Serve a port in the mode of `forward`, or go on in that mode."""
        self._stop_timer(port)
        try:
            if not port.is_open:
                self._supervisor.open(forward, port.sockets)
                port.is_open = True
            elif forward != port.forward and not self._is_drained(port):
                self._supervisor.change(forward)
            port.why_held = ""
        except RelayError as error:  # the configuration names it as well
            port.why_held = f"cannot serve {forward.listen}: {error}"
            self._log.limited("docker-port", "not-served", port.why_held)
        port.forward = forward
        self._note_decided()

    def hold(self, port: AdoptedPort, why: str, *, is_usual: bool = False) -> None:
        """Serve a port no more, or not yet; clients wait in the queue of its socket.

        `is_usual`: that is not logged.
        """
        self._stop_timer(port)
        if port.is_open and port.forward.listen in self._supervisor.forwards:
            port.sockets = take_back(self._supervisor, port.forward.listen)
            port.is_open = False
        if not port.is_open and why != port.why_held:
            port.why_held = why
            if not is_usual:
                text = f"{port.forward.listen} is not served, its clients wait: {why}"
                self._log.limited("docker-hold", "held", text)
        self._note_decided()

    def _stop_timer(self, port: AdoptedPort) -> None:
        if port.timer is not None:
            port.timer.cancel()
            port.timer = None

    def close_of(self, shim: Shim) -> bool:
        """Close the port of a shim; gives whether it had one.

        Its flows end with it, as docker-proxy's do: the container is gone.
        """
        listen = shim.flags.forward.listen
        port = self._ports.get(listen)
        if port is None or port.shim is not shim:
            return False
        del self._ports[listen]
        port.dispose()
        if port.is_open and listen in self._supervisor.forwards:
            self._supervisor.close(listen, 0)
        self._note_decided()
        return True

    def clear(self) -> None:
        """Forget all ports; the supervisor goes on with those that are open."""
        for port in self._ports.values():
            port.dispose()
        self._ports.clear()

    def _note_decided(self) -> None:
        if all(port.is_decided for port in self._ports.values()):
            self.all_decided.set()


def close_all(sockets: Iterable[socket.socket]) -> None:
    """Close all; again does no harm."""
    for sock in sockets:
        sock.close()


def take_back(supervisor: Supervisor, listen: Endpoint) -> list[socket.socket]:
    """Stop serving, and keep the listening sockets: clients wait in their queues from now on."""
    sockets = [sock.dup() for sock in supervisor.listen_sockets[listen]]
    supervisor.close(listen, 0)
    return sockets
