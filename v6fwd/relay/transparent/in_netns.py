"""Targets in a network namespace that we can enter: all clients' addresses are possible there."""

from __future__ import annotations

import errno
import ipaddress
import socket
from collections.abc import Callable
from typing import Any, NamedTuple

from v6fwd.client_ip.destination import Destination, Destinations, find_destinations, is_loopback
from v6fwd.client_ip.presentable import SourceFilter
from v6fwd.errors import NotPermittedError, RelayError
from v6fwd.model import Address, Endpoint, IPNetwork, Protocol, Transparent, ip_text
from v6fwd.netns.policy import MARK, NetnsPolicy, listening
from v6fwd.relay.transparent.bind import Claim, connect_datagrams_from, connect_from, may_bind
from v6fwd.relay.transparent.namespaces import Namespaces
from v6fwd.relay.transparent.target import TransparentTarget

LOOK_AGAIN = 2.0
"""Seconds after which a dial looks once more who listens; a look takes a tenth of a millisecond."""
LOOK_AT_MOST = 0.05
"""Seconds between two looks, however many dials fail."""

NO_DESTINATIONS = Destinations()


class Reached(NamedTuple):
    """Where a UDP session leads: a way inside a namespace, as somebody."""

    inside: NetnsPolicy
    destination: Destination


class InsideTarget(TransparentTarget):
    """A target in a network namespace that we can enter."""

    def __init__(self, endpoint: Endpoint, options: Transparent, namespaces: Namespaces) -> None:
        super().__init__(endpoint, options, namespaces)
        self._packed = ipaddress.ip_address(endpoint.host).packed
        self._inside: NetnsPolicy | None = None
        self._destinations = NO_DESTINATIONS
        self._prepared: dict[Destination, tuple[int, int]] = {}
        self._looked_at = float("-inf")
        namespaces.join(options.netns)

    def _try_out(self) -> None:
        self._enter().accept_loopback(socket.AF_INET, self.endpoint.port)
        if not may_bind(self._make):
            raise NotPermittedError(
                f"cannot take clients' addresses in network namespace {self._options.netns}:"
                " needs CAP_NET_RAW"
            )

    def _enter(self) -> NetnsPolicy:
        """The namespace that the name leads to now. Raises RelayError, also for one that is
        another container's, as where a process id was given away again."""
        name = self._options.netns
        self._inside, before = None, self._inside
        inside = self._namespaces.inside(name)
        if not is_loopback(self._packed) and not inside.has(self._packed):
            has = ", ".join(ip_text(net.packed) for net in inside.addresses) or "none"
            raise RelayError(
                f"{self.endpoint.host} is no address of network namespace {name}, which has {has}"
            )
        if inside is not before:
            self._hidden = SourceFilter(_nets_of(inside))
        self._inside = inside
        return inside

    def why_hidden(self, source: Address) -> str | None:
        """See TransparentTarget."""
        if self._unusable:
            return self._unusable
        self._look_if_due()
        destination = self._destination_for(source)
        if destination is None and self._destinations == NO_DESTINATIONS:
            raise OSError(errno.ECONNREFUSED, "")
        why = self._hidden.why(source.packed)
        return why or (None if destination else "the target does not listen for IPv4 clients")

    def dial(self, number: int, source: Address | None = None) -> int:
        """See Target."""
        assert source is not None
        try:
            if self._falls_back(source):
                return super().dial(number)
            destination = self._destination_of(source)
            claim, family = self._claim(destination, source)
            sockaddr = (ip_text(destination.address), self.endpoint.port)
            return connect_from(self._make, family, claim, sockaddr)
        except RelayError as error:
            raise self._out_of_order(error) from error

    def connect_datagrams(self, source: Address) -> tuple[int, Any]:
        """See Target."""
        try:
            if self._falls_back(source):
                return super().connect_datagrams(source)
            destination = self._destination_of(source)
            assert self._inside is not None
            reached = Reached(self._inside, destination)
            claim, family = self._claim(destination, source)
            sockaddr = (ip_text(destination.address), self.endpoint.port)
            if not destination.is_pseudo:
                self._inside.client_came(source)
            try:
                return connect_datagrams_from(self._make, family, claim, sockaddr), reached
            except BaseException:
                self.client_left(reached, source)
                raise
        except RelayError as error:
            raise self._out_of_order(error) from error

    def has_moved(self, address: Any) -> bool:
        """See Target. `was_refused` has looked for where it is now."""
        if not isinstance(address, Reached):
            return super().has_moved(address)
        known = (self._destinations.for_v4, self._destinations.for_v6)
        return address.inside is not self._inside or address.destination not in known

    def was_refused(self, address: Any) -> None:
        """See Target."""
        if isinstance(address, Reached):
            self._look_again()
        else:
            super().was_refused(address)

    def client_left(self, address: Any, source: Address) -> None:
        """See Target."""
        if isinstance(address, Reached) and not address.destination.is_pseudo:
            address.inside.client_left(source)

    def refresh(self, then: Callable[[], None]) -> bool:
        """See Target: look who listens now."""
        before = self._inside, self._destinations
        self._look_again()
        if (self._inside, self._destinations) == before or self._destinations == NO_DESTINATIONS:
            return False
        self._reactor.loop.call_soon(then)
        return True

    def close(self) -> None:
        """See Target."""
        self._inside = None
        self._namespaces.leave(self._options.netns)

    # -- the destination --

    def _look_if_due(self) -> None:
        """Raises OSError where the namespace is not there."""
        age = self._reactor.clock() - self._looked_at
        if age > LOOK_AGAIN or (age > LOOK_AT_MOST and self._destinations == NO_DESTINATIONS):
            self._look()

    def _destination_for(self, source: Address) -> Destination | None:
        return self._destinations.for_v4 if len(source.packed) == 4 else self._destinations.for_v6

    def _destination_of(self, source: Address) -> Destination:
        """The way for a client that is not hidden."""
        destination = self._destination_for(source)
        assert destination is not None
        return destination

    def _look_again(self) -> None:
        """Look soon after the last time, but not at every failure."""
        if self._reactor.clock() - self._looked_at > LOOK_AT_MOST:
            try:
                self._look()
            except OSError:
                self._destinations = NO_DESTINATIONS

    def _look(self) -> None:
        """See who listens, in the namespace that the name leads to now."""
        name = self._options.netns
        self._looked_at = self._reactor.clock()
        self._destinations = NO_DESTINATIONS
        self._prepared.clear()
        self._namespaces.check(name)
        try:
            inside = self._enter()
        except RelayError as error:
            raise self._out_of_order(error) from error
        bound = listening(inside, self.endpoint.protocol, self.endpoint.port)
        self._destinations = find_destinations(bound, self._packed)

    def _claim(self, destination: Destination, source: Address) -> tuple[Claim, int]:
        """Whom to speak as, and in which family; what that needs is put in place."""
        prepared = self._prepared.get(destination)
        if prepared is None:
            prepared = self._prepared[destination] = self._prepare(destination)
        family, mark = prepared
        host = self._pseudo(source) if destination.is_pseudo else source.host
        return Claim(host, source.port, mark=mark), family

    def _prepare(self, destination: Destination) -> tuple[int, int]:
        """Put the rules of a way in place; gives its family and the mark of its connections."""
        inside = self._inside
        assert inside is not None
        family = socket.AF_INET if len(destination.address) == 4 else socket.AF_INET6
        protocol, port = self.endpoint.protocol, self.endpoint.port
        if destination.is_pseudo:
            inside.accept_pseudo(protocol, port)
        elif protocol is Protocol.UDP:
            inside.accept_datagrams(family, port)
        elif destination.is_loopback:
            inside.accept_loopback(family, port)
        else:
            inside.accept_marked(family)
            return family, MARK
        return family, 0

    def _make(self, family: int, kind: int) -> socket.SocketType:
        assert self._inside is not None
        namespace = self._inside.namespace
        namespace.enter()
        try:
            return socket.SocketType(family, kind, 0)
        finally:
            namespace.leave()


def _nets_of(inside: NetnsPolicy) -> list[IPNetwork]:
    return [
        ipaddress.ip_network((net.packed, net.length), strict=False) for net in inside.addresses
    ]
