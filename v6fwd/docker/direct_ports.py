"""Serves ports that have no shim: Docker publishes them for IPv4 only, or without userland proxy.

Where a label or a rule names a mode, the daemon itself listens on [::] at the published port, and
follows the container when it restarts or changes its address.

IPv6 only: without a userland proxy dockerd reserves the port with a socket on 0.0.0.0 that it never
reads from, so IPv4 clients cannot be taken over.
"""

from __future__ import annotations

import socket
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence

from v6fwd.daemon.supervisor import Supervisor
from v6fwd.docker.adopted_ports import DRAINED, take_back
from v6fwd.docker.engine.containers import Container, targets
from v6fwd.docker.policy.modes import Modes, needs_all
from v6fwd.docker.shim.listening import own
from v6fwd.docker.shim.published import ServedBy, published_here
from v6fwd.errors import RelayError
from v6fwd.log import Log, attempt
from v6fwd.model import Endpoint, Forward, Limits, Protocol
from v6fwd.netns.owners import told

_ANY = "::"
_Key = tuple[int, Protocol]


class DirectPorts:
    """The ports opened for containers, one for each host port and protocol."""

    def __init__(self, supervisor: Supervisor, modes: Modes, limits: Limits, log: Log) -> None:
        self._supervisor = supervisor
        self._modes = modes
        self._limits = limits
        self._log = log
        self._forwards: dict[Endpoint, Forward] = {}
        """What is served, by listener."""
        self._unserved: dict[Forward, str] = {}
        """What cannot be served, and why: tried again at every event, logged once."""
        self._without_v6fwd: dict[Forward, str] = {}
        """Ports that a relay or docker-proxy serves that was started without the daemon."""
        self._served_by_others: Collection[_Key] | None = None
        """What `follow` has found in /proc; None: it has not looked."""
        self._shimmed: set[tuple[str, _Key]] = set()
        """Ports that a shim serves or has served: a container that ends is listed for a while."""

    def __iter__(self) -> Iterator[Endpoint]:
        return iter(self._forwards)

    def follow(self, containers: Sequence[Container], shimmed: Collection[Endpoint]) -> None:
        """Open, change and close ports as containers ask for it, except where an IPv6 shim is."""
        self._note_shimmed(containers, {_key(each) for each in shimmed if ":" in each.host})
        before, self._without_v6fwd = self._without_v6fwd, {}
        self._served_by_others = None
        wanted = {forward.listen: forward for forward in self._asked_for(containers, before)}
        for listen in self._forwards.keys() - wanted.keys():
            attempt(self.close, listen)
        self._unserved = {
            each: why for each, why in self._unserved.items() if each in wanted.values()
        }
        taken = {_key(listen) for listen in shimmed}
        for forward in wanted.values():
            self._serve(forward, ipv6_only=_key(forward.listen) not in taken)

    def close(self, listen: Endpoint) -> None:
        """Stop serving a port, if it is one of these."""
        if self._forwards.pop(listen, None) is None:
            return
        if listen in self._supervisor.forwards:
            self._supervisor.close(listen, 0)

    def take_back(self, listen: Endpoint) -> list[socket.socket]:
        """Stop serving a port, if it is one of these, and return its listening sockets."""
        if self._forwards.pop(listen, None) is None or listen not in self._supervisor.forwards:
            return []
        return take_back(self._supervisor, listen)

    def _note_shimmed(self, containers: Sequence[Container], now: Collection[_Key]) -> None:
        every = {(each.id, key) for each in containers for key in targets(each)}
        self._shimmed &= every
        self._shimmed |= {(which, key) for which, key in every if key in now}

    def held(self) -> dict[Forward, str]:
        """Return the ports that cannot be served, and why."""
        drained = (each for each in self._forwards.values() if self._is_drained(each))
        return self._unserved | self._without_v6fwd | dict.fromkeys(drained, DRAINED)

    def forwards(self) -> list[Forward]:
        """Return all ports without a shim, served or not."""
        return [*self._forwards.values(), *self._unserved, *self._without_v6fwd]

    def _is_drained(self, forward: Forward) -> bool:
        return forward.listen not in self._supervisor.forwards

    def reopen_drained(self) -> None:
        """Serve again what was drained by hand, when the Engine tells of it next."""
        for forward in filter(self._is_drained, list(self._forwards.values())):
            del self._forwards[forward.listen]

    def forget(self) -> None:
        """Forget which ports had a shim: another Engine may have no userland proxy."""
        self._shimmed.clear()

    def _asked_for(
        self, containers: Iterable[Container], told: Mapping[Forward, str]
    ) -> Iterator[Forward]:
        for container in containers:
            for (port, protocol), target in targets(container).items():
                listen = Endpoint(_ANY, port, protocol=protocol)
                forward = Forward(listen, target, limits=self._limits)
                if (container.id, (port, protocol)) in self._shimmed:
                    continue
                if not self._modes.is_asked_for(forward, container):
                    continue
                if listen not in self._forwards and _key(listen) in self._others():
                    self._note_other(forward, container, is_told=forward in told)
                elif in_mode := self._modes.of(forward, container):
                    yield in_mode

    def _others(self) -> Collection[_Key]:
        """Ports that another program serves for IPv6 in dockerd's name, as /proc has it now."""
        if self._served_by_others is None:
            self._served_by_others = {
                _key(port.forward.listen)
                for port in published_here()
                if port.served_by is not ServedBy.DAEMON and ":" in port.forward.listen.host
            }
        return self._served_by_others

    def _note_other(self, forward: Forward, container: Container, *, is_told: bool) -> None:
        why = f"container {container.name} was started without v6fwd: docker restart"
        why += f" {container.name}"
        if not is_told:
            self._log.warning("not-served", f"cannot serve {forward}: {why}")
        self._without_v6fwd[forward] = why

    def _serve(self, forward: Forward, *, ipv6_only: bool) -> None:
        listen = forward.listen
        try:
            if listen not in self._forwards:
                self._open(forward)
                if ipv6_only and needs_all(forward):
                    self._log_ipv4_without(forward)
            elif self._forwards[listen] != forward:
                self._change(forward)
        except RelayError as error:
            why, is_new = self._unserved.get(forward, ""), forward not in self._unserved
            if not why.startswith(str(error)):
                self._unserved[forward] = why = told(error)
            if is_new:
                self._log.warning("not-served", f"cannot serve {forward}: {why}")
        else:
            self._unserved.pop(forward, None)
            self._forwards[listen] = forward

    def _open(self, forward: Forward) -> None:
        if forward.listen in self._supervisor.forwards:
            raise RelayError("it is forwarded already")
        inherited = forward.listen in self._supervisor.listen_sockets
        self._supervisor.open(forward, None if inherited else [own(forward.listen)])

    def _change(self, forward: Forward) -> None:
        if forward.listen not in self._supervisor.forwards:
            raise RelayError("it has been drained; it is served again when its container restarts")
        self._supervisor.change(forward)

    def _log_ipv4_without(self, forward: Forward) -> None:
        text = (
            f"{forward}: IPv4 clients arrive without a header and are not judged, as dockerd has no"
            f" userland proxy; with {forward.client_ip} the server must accept both"
        )
        self._log.warning("ipv4-without", text)


def _key(listen: Endpoint) -> _Key:
    return listen.port, listen.protocol
