"""Into a network namespace that we can enter: there a socket can have any client's address."""

from __future__ import annotations

import errno
import functools
import ipaddress
import socket
from collections.abc import Callable

from v6fwd.client_ip.destination import Destination, Destinations, find_destinations
from v6fwd.client_ip.presentable import SourceFilter
from v6fwd.errors import RelayError
from v6fwd.model import Address, Transparent, ip_text
from v6fwd.model.lean import Any, NamedTuple
from v6fwd.netns.netlink import Net
from v6fwd.relay.targets.addresses import SocketAddress
from v6fwd.relay.targets.direct import DirectTarget
from v6fwd.relay.transparent.bind import connect_datagrams_from, connect_from
from v6fwd.relay.transparent.path import unusable
from v6fwd.relay.transparent.privileged import SocketRequest, nets_of
from v6fwd.relay.transparent.resources import TransparentResources

LOOK_AGAIN = 2.0
"""Seconds after which a connection looks once more who listens; a look takes 0.1 ms."""
LOOK_AT_MOST = 0.05
"""Seconds between two looks, however many connections fail."""

NO_DESTINATIONS = Destinations()


class NetnsAddress(NamedTuple):
    """Where a UDP session leads: a destination in the namespace of an epoch."""

    epoch: int
    destination: Destination
    port: int
    """Of the socket that has the client's address."""


class NetnsPath:
    """Looks who listens in the namespace, and connects there as the client."""

    def __init__(
        self, direct: DirectTarget, options: Transparent, resources: TransparentResources
    ) -> None:
        self._direct = direct
        self._endpoint = direct.endpoint
        self._options = options
        self._resources = resources
        self._netns = options.netns
        self._packed = ipaddress.ip_address(self._endpoint.host).packed
        self._filter = SourceFilter()
        self._addresses: tuple[Net, ...] = ()
        self._epoch = 0
        self._destinations = NO_DESTINATIONS
        self._looked_at = float("-inf")
        resources.ops.join(self._netns)

    def try_out(self) -> None:
        self._resources.ops.try_out(self._netns, self._packed, self._endpoint.port)

    def why_not_preserved(self, source: Address) -> str | None:
        self._look_if_due()
        if self._destinations == NO_DESTINATIONS:
            raise OSError(errno.ECONNREFUSED, "")
        why = self._filter.why(source.packed)
        if why is None and self._destination_for(source) is None:
            return "the target does not listen for IPv4 clients"
        return why

    def is_pseudo(self, source: Address) -> bool:
        destination = self._destination_for(source)
        return destination is not None and destination.is_pseudo

    def connect(
        self,
        address: SocketAddress | None,  # noqa: ARG002 - there is one
        source: Address,
    ) -> int:
        request, sockaddr = self._request(source)
        return connect_from(functools.partial(self._bound, request), source.port, sockaddr)

    def connect_datagrams(self, source: Address) -> tuple[int, Any]:
        request, sockaddr = self._request(source)
        sock = self._resources.ops.bound_socket(request)
        address = NetnsAddress(request.epoch, request.destination, sock.getsockname()[1])
        try:
            return connect_datagrams_from(sock, sockaddr), address
        except BaseException:
            self.client_left(address, source)
            raise

    def has_moved(self, address: Any) -> bool:
        """`was_refused` has looked where the target is now."""
        if not isinstance(address, NetnsAddress):
            return self._direct.has_moved(address)
        return address.epoch != self._epoch or address.destination not in self._destinations

    def was_refused(self, address: Any) -> None:
        if isinstance(address, NetnsAddress):
            self._look_again()
        else:
            self._direct.was_refused(address)

    def client_left(self, address: Any, source: Address) -> None:
        if isinstance(address, NetnsAddress) and not address.destination.is_pseudo:
            client = Address(source.packed, address.port)
            self._resources.ops.client_left(self._netns, address.epoch, client)

    def refresh(self, then: Callable[[], None]) -> bool:
        before = self._epoch, self._destinations
        self._look_again()
        if (self._epoch, self._destinations) == before or self._destinations == NO_DESTINATIONS:
            return False
        self._resources.reactor.loop.call_soon(then)
        return True

    def close(self) -> None:
        self._resources.ops.leave(self._netns)

    # -- the destination --

    def _look_if_due(self) -> None:
        """Raises RelayError and OSError where the namespace is not there."""
        age = self._resources.reactor.clock() - self._looked_at
        if age > LOOK_AGAIN or (age > LOOK_AT_MOST and self._destinations == NO_DESTINATIONS):
            self._look()

    def _look_again(self) -> None:
        """Look soon after the last time, but not at every failure."""
        if self._resources.reactor.clock() - self._looked_at > LOOK_AT_MOST:
            try:
                self._look()
            except RelayError as error:
                unusable(self._resources.log, self._endpoint, error)
            except OSError:
                pass  # there are no destinations then

    def _look(self) -> None:
        """See who listens, in the namespace that the name leads to now."""
        self._looked_at = self._resources.reactor.clock()
        self._epoch, self._destinations = 0, NO_DESTINATIONS
        protocol, port = self._endpoint.protocol, self._endpoint.port
        view = self._resources.ops.look(self._netns, self._packed, protocol, port)
        if view.addresses != self._addresses:
            self._addresses = view.addresses
            self._filter = SourceFilter(nets_of(view.addresses))
        self._epoch = view.epoch
        self._destinations = find_destinations(view.listening, self._packed)

    def _destination_for(self, source: Address) -> Destination | None:
        return self._destinations.for_v4 if len(source.packed) == 4 else self._destinations.for_v6

    def _request(self, source: Address) -> tuple[SocketRequest, Any]:
        """The socket for a client that is preserved, and where to connect it to."""
        destination = self._destination_for(source)
        assert destination is not None
        protocol, port = self._endpoint.protocol, self._endpoint.port
        client = source
        if destination.is_pseudo:
            client = self._resources.pseudo(source, protocol, self._options)
        request = SocketRequest(self._netns, self._epoch, protocol, destination, port, client)
        return request, (ip_text(destination.address), port)

    def _bound(self, request: SocketRequest, port: int) -> socket.SocketType:
        client = Address(request.client.packed, port)
        return self._resources.ops.bound_socket(request._replace(client=client))
