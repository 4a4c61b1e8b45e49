"""Over the network, from our own namespace: only addresses that are routed back to us will do."""

from __future__ import annotations

import errno
import functools
import socket
from collections.abc import Callable

from v6fwd.client_ip.presentable import SourceFilter
from v6fwd.model import Address, Protocol, Transparent
from v6fwd.model.lean import Any
from v6fwd.relay.targets.addresses import SocketAddress
from v6fwd.relay.targets.direct import DirectTarget
from v6fwd.relay.transparent.bind import (
    BindAddress,
    bound_socket,
    connect_datagrams_from,
    connect_from,
)
from v6fwd.relay.transparent.resources import TransparentResources


class RoutedPath:
    """Connects IPv6 clients from pseudo IPv4 addresses; IPv4 clients cannot be preserved."""

    def __init__(
        self, direct: DirectTarget, options: Transparent, resources: TransparentResources
    ) -> None:
        self._direct = direct
        self._options = options
        self._resources = resources
        self._filter = SourceFilter()

    def try_out(self) -> None:
        self._resources.ops.own_pseudo_net()
        self._resources.store(self._options.pseudo_store)

    def why_not_preserved(self, source: Address) -> str | None:
        addresses = self._direct.addresses()
        if len(source.packed) == 4:
            return "an IPv4 client, and the target is in no known network namespace"
        if not any(family == socket.AF_INET for family, _ in addresses):
            return "the target has no IPv4 address"
        return self._filter.why(source.packed)

    def is_pseudo(self, source: Address) -> bool:
        return len(source.packed) == 16

    def connect(self, address: SocketAddress | None, source: Address) -> int:
        family, sockaddr = address or self._direct.addresses()[0]
        if family != socket.AF_INET:
            raise OSError(errno.EAFNOSUPPORT, "")
        bound = functools.partial(_bound, Protocol.TCP, self._pseudo(source))
        return connect_from(bound, source.port, sockaddr)

    def connect_datagrams(self, source: Address) -> tuple[int, Any]:
        address = self._direct.datagram_address()
        sock = _bound(Protocol.UDP, self._pseudo(source), source.port)
        return connect_datagrams_from(sock, address[1]), address

    def has_moved(self, address: Any) -> bool:
        return self._direct.has_moved(address)

    def was_refused(self, address: Any) -> None:
        self._direct.was_refused(address)

    def client_left(self, address: Any, source: Address) -> None:
        """Nothing was put in place for it."""

    def refresh(self, then: Callable[[], None]) -> bool:
        return self._direct.refresh(then)

    def close(self) -> None:
        """Nothing is held: the route stays until the process ends."""

    def _pseudo(self, source: Address) -> Address:
        """Raises RelayError."""
        self._resources.ops.own_pseudo_net()
        return self._resources.pseudo(source, self._direct.endpoint.protocol, self._options)


def _bound(protocol: Protocol, client: Address, port: int) -> socket.SocketType:
    address = BindAddress(client.host, port, is_foreign=False)
    return bound_socket(socket.SocketType, socket.AF_INET, protocol, address)
