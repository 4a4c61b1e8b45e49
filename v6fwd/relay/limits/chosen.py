"""Which flows an operator means: those of some clients, at some forwards."""

from __future__ import annotations

from collections.abc import Iterable

from v6fwd.client_ip.trust import TrustedNetworks
from v6fwd.model import IPNetwork
from v6fwd.model.lean import Protocol
from v6fwd.relay.flows import Live


class Clients(Protocol):
    """A set of addresses, of 4 or 16 bytes."""

    def __contains__(self, packed: bytes, /) -> bool:
        """Whether an address is in it."""


class Chosen:
    """A choice of flows. Without clients it is those of all clients, and so with forwards."""

    def __init__(self, networks: Iterable[IPNetwork], listens: Iterable[str]) -> None:
        """`listens` are texts of listening endpoints."""
        some = tuple(networks)
        self._clients = TrustedNetworks(some) if some else None
        self._listens = frozenset(listens)

    def has(self, flow: Live) -> bool:
        """Whether a flow is meant."""
        if self._listens and str(flow.forward.listen) not in self._listens:
            return False
        return self._clients is None or is_of(flow, self._clients)


def is_of(flow: Live, clients: Clients) -> bool:
    """Whether a flow is of one of these clients, by address."""
    source = flow.source
    return source is not None and source.packed in clients
