"""Decides whether a new client may come in, before anything else is done for it.

A client is an IPv4 address, or an IPv6 network of `client_prefix` bits. A forward whose Guard
sets no limit has no Admission, which costs nothing.
"""

from __future__ import annotations

from _blake2 import blake2b  # hashlib brings OpenSSL, 3.4 MB

from v6fwd.client_ip.trust import TrustedNetworks
from v6fwd.log import Log
from v6fwd.model import Address, Endpoint, Forward, Guard
from v6fwd.relay.clients import Clients, Refusal

UNCOUNTED = -1
"""Instead of a slot: the flow need not be counted."""
REFUSED = -2
"""Instead of a slot: the client may not come in."""

BANNED = "banned"
DENIED = "denied"
NOT_ALLOWED = "not-allowed"
NOT_PRESERVED = "not-shown"
"""Counted with the guard's reasons: mode `transparent` cannot show this client to the target."""
LOOP = "loop"
"""The same: the client is, by way of others, the forward itself."""
REASONS = {
    BANNED: "it is banned",
    DENIED: "its network is denied",
    NOT_ALLOWED: "its network is not allowed",
    "client-flows": "it has as many flows as a client may have",
    "client-rate": "it begins more flows a second than a client may",
    "no-room": "too many other clients are here",
}
"""Why a client is refused: the metrics' label, and the text for the log."""
_REASON_OF = {
    Refusal.FLOWS: "client-flows",
    Refusal.RATE: "client-rate",
    Refusal.ROOM: "no-room",
}


def refuse(
    client: Address, listen: Endpoint, reason: str, refused: dict[str, int], log: Log
) -> None:
    """Count and log that a client was refused for one of REASONS."""
    refused[reason] = refused.get(reason, 0) + 1
    log.limited(
        f"guard {listen} {reason}",
        "refused",
        f"refused {client} on {listen}: {REASONS[reason]}",
        client=client,
        listen=listen,
        why=reason,
    )


class Admission:
    """Applies the Guard of one forward."""

    def __init__(
        self, forward: Forward, clients: Clients, refused: dict[str, int], log: Log
    ) -> None:
        """`refused` counts by reason; it outlives this object when the forward changes."""
        guard = forward.guard
        self._listen = forward.listen
        self._clients = clients
        self._refused = refused
        self._log = log
        self._allow = TrustedNetworks(guard.allow) if guard.allow else None
        self._deny = TrustedNetworks(guard.deny) if guard.deny else None
        self._most, self._rate = guard.client_flows, guard.client_rate
        self._counts = guard.counts_clients
        self._prefix = blake2b(str(forward.listen).encode(), digest_size=15).digest()
        self._mask = -1 << (128 - guard.client_prefix)

    def admit(self, client: Address) -> int:
        """Give a new flow a slot, to be left when it ends; or UNCOUNTED, or REFUSED."""
        packed = client.packed
        if self._deny is not None and packed in self._deny:
            return self._refuse(client, DENIED)
        if self._allow is not None and packed not in self._allow:
            return self._refuse(client, NOT_ALLOWED)
        if not self._counts:
            return UNCOUNTED
        slot = self._clients.enter(self._key(packed), self._most, self._rate)
        return slot if slot >= 0 else self._refuse(client, _REASON_OF[Refusal(slot)])

    def _key(self, packed: bytes) -> bytes:
        """The key of a client in the table: different for each forward.

        The digest of 120 bits is of the forward's own address alone, which nobody else chooses.
        """
        if len(packed) == 4:
            return self._prefix + b"\4" + packed.ljust(16, b"\0")
        masked = int.from_bytes(packed, "big") & self._mask
        return self._prefix + b"\6" + masked.to_bytes(16, "big")

    def _refuse(self, client: Address, reason: str) -> int:
        refuse(client, self._listen, reason, self._refused, self._log)
        return REFUSED


def tell_refused(log: Log, what: str, client: Address | None, listen: Endpoint, why: str) -> None:
    """Log that a client was refused because of its `what`; limited for each forward."""
    log.limited(
        f"{what} {listen}",
        f"{what}-refused",
        f"refused {client} on {listen}: {why}",
        client=client,
        listen=listen,
        why=why,
    )


def admission_of(
    forward: Forward, clients: Clients, refused: dict[str, int], log: Log
) -> Admission | None:
    """The Admission of a forward; None if every client may come in."""
    if forward.guard == Guard(client_prefix=forward.guard.client_prefix):
        return None
    return Admission(forward, clients, refused, log)
