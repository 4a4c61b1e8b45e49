"""The UDP sockets that this process listens on, to refuse datagrams that seem to come from one.

Anybody can forge a source. If it is one of our own listeners, the target's answer comes back in
as a client's datagram, and its answer again: for ever, where the target answers whatever it gets.
The kernel drops IPv4 datagrams from outside with a source of ours, but not IPv6 ones.
"""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Callable
from typing import NamedTuple

from v6fwd.model import Address

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


class OwnListeners:
    """Which addresses are ours to listen on. Shared by all UDP forwards of a process."""

    def __init__(self, is_local: Callable[[bytes, int], bool] | None = None) -> None:
        self._bound: dict[int, Bound] = {}
        self._ports: frozenset[int] = frozenset()
        self._is_local = is_local or is_local_address

    def add(self, sock: socket.socket) -> None:
        """Note a bound socket that is listened on from now on."""
        self.add_bound(sock.fileno(), bound_of(sock))

    def add_bound(self, fd: int, bound: Bound) -> None:
        """As `add`, for a descriptor and what it is bound to."""
        self._bound[fd] = bound
        self._count()

    def remove(self, fd: int) -> None:
        """The socket is about to be closed."""
        self._bound.pop(fd, None)
        self._count()

    def has(self, source: Address, scope: int = 0) -> bool:
        """Whether an answer to `source` would come back in. `scope` is a link-local one's device.

        Where the kernel does not tell whether an address is this host's own, it counts as such.
        """
        if source.port not in self._ports:
            return False
        found = (each for each in self._bound.values() if each.address.port == source.port)
        return any(each.includes(source.packed) for each in found) and self._is_local(
            source.packed, scope
        )

    def _count(self) -> None:
        self._ports = frozenset(each.address.port for each in self._bound.values())


def bound_of(sock: socket.socket) -> Bound:
    """What a UDP socket is bound to. Raises OSError."""
    host, port = sock.getsockname()[:2]
    is_v6 = sock.family == socket.AF_INET6
    v6_only = is_v6 and bool(sock.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY))
    packed = socket.inet_pton(sock.family, host.partition("%")[0])
    return Bound(Address.of(packed, port), v6_only)


def is_local_address(packed: bytes, device: int = 0) -> bool:
    """Whether the kernel delivers what is sent to an address on this host."""
    from v6fwd.netns.netlink import Netlink  # few clients have the port of a listener

    try:
        with contextlib.closing(Netlink()) as netlink:
            return netlink.is_local(packed, device)
    except OSError:
        return True
