"""Targets that lead back to themselves through this process's own listeners.

Such a flow would come in again as a new client, and again, until all descriptors are used up. A
chain of forwards that ends somewhere else is no loop.
"""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Callable, Hashable, Iterator, Sequence

from v6fwd.model import Address
from v6fwd.model import Protocol as Transport
from v6fwd.model.lean import NamedTuple, Protocol
from v6fwd.relay.sockets import address_of
from v6fwd.relay.targets.addresses import SocketAddress

LEADS_BACK = "it leads back to this forward"
"""Why a flow to such an address fails."""
_LOOPBACK = {bytes(4): bytes((127, 0, 0, 1)), bytes(16): bytes(15) + b"\1"}
"""Where connect(2) to the unspecified address leads."""
_ANY = {bytes(4), bytes(16)}


class Bound(NamedTuple):
    """What a listening socket is bound to."""

    address: Address
    v6_only: bool

    def includes(self, packed: bytes) -> bool:
        """Whether it has datagrams to this address, if that is one of this host's."""
        own = self.address.packed
        if own not in _ANY:
            return own == packed
        return len(own) == len(packed) or (len(own) == 16 and not self.v6_only)


def bound_of(sock: socket.socket) -> Bound:
    """What a socket is bound to. Raises OSError."""
    host, port = sock.getsockname()[:2]
    is_v6 = sock.family == socket.AF_INET6
    v6_only = is_v6 and bool(sock.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY))
    packed = socket.inet_pton(sock.family, host.partition("%")[0])
    return Bound(Address.of(packed, port), v6_only)


def is_local_address(packed: bytes, device: int = 0) -> bool:
    """Whether the kernel delivers what is sent to an address on this host."""
    from v6fwd.netns.netlink import (
        Netlink,  # few targets have the port of a listener, few clients, too
    )

    try:
        with contextlib.closing(Netlink()) as netlink:
            return netlink.is_local(packed, device)
    except OSError:
        return True


class Place(Protocol):
    """What a loop needs to know of a target."""

    @property
    def found(self) -> Sequence[SocketAddress]:
        """All addresses that the resolver gave, refused or not."""


class Served(NamedTuple):
    """A listening socket, and where its clients are led."""

    bound: Bound
    transport: Transport
    target: Place


class Loops:
    """The listening sockets of a process, and which targets lead to them."""

    def __init__(self, is_local: Callable[[bytes, int], bool] = is_local_address) -> None:
        self._is_local = is_local
        self._served: dict[Hashable, Served] = {}
        self._by_port: dict[tuple[Transport, int], list[Served]] = {}

    def add(self, key: Hashable, sock: socket.socket, transport: Transport, target: Place) -> None:
        """A bound socket is listened on from now on, for `target`."""
        self.remove(key)
        self._put(key, Served(bound_of(sock), transport, target))

    def change(self, key: Hashable, target: Place) -> None:
        """The clients of a socket are led elsewhere from now on."""
        if (served := self._served.get(key)) is not None:
            self.remove(key)
            self._put(key, served._replace(target=target))

    def remove(self, key: Hashable) -> None:
        """A socket is listened on no more."""
        if (served := self._served.pop(key, None)) is not None:
            port = served.transport, served.bound.address.port
            self._by_port[port].remove(served)
            if not self._by_port[port]:
                del self._by_port[port]

    def _put(self, key: Hashable, served: Served) -> None:
        self._served[key] = served
        self._by_port.setdefault((served.transport, served.bound.address.port), []).append(served)

    def leading_back(self, target: Place, transport: Transport) -> list[SocketAddress]:
        """The addresses of a target whose flows would come to the same target again."""
        return [each for each in target.found if target in self._reached_from([each], transport)]

    def _reached_from(
        self, addresses: Sequence[SocketAddress], transport: Transport
    ) -> list[Place]:
        """The targets of all listeners on the way."""
        reached: list[Place] = []
        todo = [*addresses]
        while todo:
            for target in self._behind(todo.pop(), transport):
                if target not in reached:
                    reached.append(target)
                    todo += target.found
        return reached

    def _behind(self, address: SocketAddress, transport: Transport) -> Iterator[Place]:
        """The targets of our listeners to which an address leads."""
        family, sockaddr = address
        if family == socket.AF_UNIX or (transport, sockaddr[1]) not in self._by_port:
            return
        one = address_of(sockaddr)
        packed = _LOOPBACK.get(one.packed, one.packed)
        scope = sockaddr[3] if family == socket.AF_INET6 else 0
        served = self._by_port[transport, sockaddr[1]]
        found = [each for each in served if each.bound.includes(packed)]
        if found and self._is_local(packed, scope):
            yield from (each.target for each in found)
