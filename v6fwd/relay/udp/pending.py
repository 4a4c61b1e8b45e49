"""New UDP clients that have no session yet, with what they have sent so far."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable

from v6fwd.client_ip.proxy.read import Header
from v6fwd.model.lean import NamedTuple
from v6fwd.relay.udp.gso import Item
from v6fwd.relay.udp.mmsg import SLOT_SIZE, SLOTS

MOST_BYTES = 1 << 20
"""Bytes of all pending datagrams, with _COST for each."""
MOST_EACH = 16 * SLOTS
"""Messages of one client: a second's worth of a call or a game."""
_COST = 256
"""Bytes reckoned for a datagram's bookkeeping."""


class PendingClient(NamedTuple):
    """A new client, and its datagrams: where they are in the payload that `take` filled."""

    key: bytes
    info: bytes
    header: Header | None
    items: list[Item]
    more: bool
    """Whether the next `take` gives more of this client, which nothing may overtake."""


class PendingClients:
    """First come, first served; bounded in bytes."""

    def __init__(self) -> None:
        self._clients: OrderedDict[bytes, tuple[bytes, Header | None, list[tuple[bytes, int]]]]
        self._clients = OrderedDict()
        self._bytes = 0

    def __len__(self) -> int:
        return len(self._clients)

    def __contains__(self, key: bytes) -> bool:
        return key in self._clients

    def add(
        self,
        key: bytes,
        info: bytes,
        header: Header | None,
        payload: memoryview,
        items: Iterable[Item],
    ) -> bool:
        """Keep copies of the datagrams; False where there is no room, and nothing is kept."""
        copies = [(bytes(payload[start : start + size]), seg) for start, size, seg in items]
        size = sum(len(data) + _COST for data, _ in copies)
        kept = self._clients.get(key, (info, header, []))[2]
        if self._bytes + size > MOST_BYTES or len(kept) + len(copies) > MOST_EACH:
            return False
        self._bytes += size
        self._clients.setdefault(key, (info, header, kept))
        kept += copies
        return True

    def take(self, payload: memoryview) -> PendingClient | None:
        """The first pending client, its datagrams written into `payload`; None for nobody.

        SLOTS of them at once: that is what `payload` holds.
        """
        if not self._clients:
            return None
        key, (info, header, copies) = next(iter(self._clients.items()))
        items = []
        for number, (data, segment) in enumerate(copies[:SLOTS]):
            start = number * SLOT_SIZE
            payload[start : start + len(data)] = data
            items.append((start, len(data), segment))
            self._bytes -= len(data) + _COST
        del copies[:SLOTS]
        if not copies:
            del self._clients[key]
        return PendingClient(key, info, header, items, more=bool(copies))

    def clear(self) -> None:
        """Drop all of them."""
        self._clients.clear()
        self._bytes = 0

    def forget(self, key: bytes) -> None:
        """Drop a client's datagrams."""
        left = self._clients.pop(key, None)
        if left is not None:
            self._bytes -= sum(len(data) + _COST for data, _ in left[2])
