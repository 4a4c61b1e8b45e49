"""Serves ports that have no shim: Docker publishes them for IPv4 only, or without userland proxy.

Where a label or a rule names a mode, the daemon itself listens on [::] at the published port, and
follows the container when it restarts or changes its address.

IPv6 only: without a userland proxy dockerd reserves the port with a socket on 0.0.0.0 that it never
reads from, so IPv4 clients cannot be taken over.
"""

from __future__ import annotations

import socket
from collections.abc import Collection, Iterable, Iterator, Sequence

from v6fwd.daemon.supervisor import Supervisor
from v6fwd.docker.adopted_ports import take_back
from v6fwd.docker.engine.containers import Container, targets
from v6fwd.docker.policy.modes import NEED_ALL, Modes
from v6fwd.docker.shim.listening import own
from v6fwd.errors import RelayError
from v6fwd.log import Log
from v6fwd.model import Endpoint, Forward, Limits, Protocol

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
        self._failed: set[Forward] = set()
        """What could not be served: tried again at every event, logged once."""
        self._shimmed: set[tuple[str, _Key]] = set()
        """Ports that a shim serves or has served: a container that ends is listed for a while."""

    def __iter__(self) -> Iterator[Endpoint]:
        return iter(self._forwards)

    def follow(self, containers: Sequence[Container], shimmed: Collection[Endpoint]) -> None:
        """Open, change and close ports as containers ask for it, except where an IPv6 shim is."""
        self._note_shimmed(containers, {_key(each) for each in shimmed if ":" in each.host})
        wanted = {forward.listen: forward for forward in self._asked_for(containers)}
        for listen in self._forwards.keys() - wanted.keys():
            self.close(listen)
        self._failed.intersection_update(wanted.values())
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

    def forget(self) -> None:
        """Forget which ports had a shim: another Engine may have no userland proxy."""
        self._shimmed.clear()

    def _asked_for(self, containers: Iterable[Container]) -> Iterator[Forward]:
        for container in containers:
            for (port, protocol), target in targets(container).items():
                listen = Endpoint(_ANY, port, protocol=protocol)
                forward = Forward(listen, target, limits=self._limits)
                if (container.id, (port, protocol)) in self._shimmed:
                    continue
                if self._modes.is_asked_for(forward, container):
                    in_mode = self._modes.of(forward, container)
                    if in_mode is not None:
                        yield in_mode

    def _serve(self, forward: Forward, *, ipv6_only: bool) -> None:
        listen = forward.listen
        try:
            if listen not in self._forwards:
                self._open(forward)
                if ipv6_only and forward.client_ip in NEED_ALL:
                    self._log_ipv4_without(forward)
            elif self._forwards[listen] != forward:
                self._change(forward)
        except RelayError as error:
            if forward not in self._failed:
                self._failed.add(forward)
                self._log.warning("not-served", f"cannot serve {forward}: {error}")
        else:
            self._failed.discard(forward)
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
            f"{forward}: IPv4 clients arrive without a header, as dockerd has no userland proxy;"
            f" with {forward.client_ip} the server must accept both"
        )
        self._log.warning("ipv4-without", text)


def _key(listen: Endpoint) -> _Key:
    return listen.port, listen.protocol
