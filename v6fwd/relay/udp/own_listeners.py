"""The UDP sockets that this process listens on, to refuse datagrams that seem to come from one.

Anybody can forge a source. If it is one of our own listeners, the target's answer comes back in
as a client's datagram, and its answer again: for ever, where the target answers whatever it gets.
The kernel drops IPv4 datagrams from outside with a source of ours, but not IPv6 ones.
"""

from __future__ import annotations

import socket
from collections.abc import Callable

from v6fwd.model import Address
from v6fwd.relay.targets.loops import Bound, bound_of, is_local_address


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
