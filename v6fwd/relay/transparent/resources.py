"""What the transparent forwards of a process share."""

from __future__ import annotations

from v6fwd.log import Log
from v6fwd.model import Address, Protocol, Transparent
from v6fwd.relay.reactor import Reactor
from v6fwd.relay.transparent.privileged import PrivilegedOps, PseudoAddresses


class TransparentResources:
    """Event loop, log, and what needs privileges."""

    def __init__(self, reactor: Reactor, log: Log, ops: PrivilegedOps | None = None) -> None:
        """Without `ops` this process has the privileges itself."""
        self.reactor = reactor
        self.log = log
        self.ops = ops or _own_ops(reactor, log)

    def store(self, path: str) -> PseudoAddresses:
        """The store of pseudo addresses. Raises RelayError."""
        return self.ops.store(path)

    def pseudo(self, source: Address, protocol: Protocol, options: Transparent) -> Address:
        """The pseudo IPv4 address of a client, with its port. Raises RelayError."""
        store = self.store(options.pseudo_store)
        is_proven = protocol is Protocol.TCP  # by its handshake
        packed = store.address_of(source.packed, options.pseudo_bits, is_proven=is_proven)
        return Address(packed, source.port)

    def close(self) -> None:
        """Undo everything."""
        self.ops.close()


def _own_ops(reactor: Reactor, log: Log) -> PrivilegedOps:
    from v6fwd.relay.transparent.namespaces import Namespaces  # not in a process with a helper

    return Namespaces(reactor, log)
