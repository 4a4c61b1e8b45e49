"""What the transparent forwards of a process share."""

from __future__ import annotations

from v6fwd.log import Log
from v6fwd.model import Address, Protocol, Transparent
from v6fwd.relay.reactor import Reactor
from v6fwd.relay.transparent.namespaces import Namespaces
from v6fwd.relay.transparent.privileged import PrivilegedOps
from v6fwd.relay.transparent.pseudo_store import PseudoStore


class TransparentResources:
    """Event loop, log, privileged operations, and the stores of pseudo addresses."""

    def __init__(self, reactor: Reactor, log: Log, ops: PrivilegedOps | None = None) -> None:
        self.reactor = reactor
        self.log = log
        self.ops = ops or Namespaces(reactor, log)
        self._stores: dict[str, PseudoStore] = {}

    def store(self, path: str) -> PseudoStore:
        """The store of pseudo addresses. Raises RelayError."""
        found = self._stores.get(path)
        if found is None:
            found = self._stores[path] = PseudoStore(path)
            found.write_seen_from(self.reactor.loop)
        return found

    def pseudo(self, source: Address, protocol: Protocol, options: Transparent) -> Address:
        """The pseudo IPv4 address of a client, with its port. Raises RelayError."""
        store = self.store(options.pseudo_store)
        is_proven = protocol is Protocol.TCP  # by its handshake
        packed = store.address_of(source.packed, options.pseudo_bits, is_proven=is_proven)
        return Address(packed, source.port)

    def close(self) -> None:
        """Undo everything."""
        self.ops.close()
        for store in self._stores.values():
            store.close()
        self._stores.clear()
