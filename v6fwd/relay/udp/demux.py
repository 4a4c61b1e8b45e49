"""Sorts the datagrams of a batch by session, and keeps their order within a session.

The key of a session is the client's address and the one that it wrote to; behind a trusted proxy
also the client that the PROXY header names.
"""

from __future__ import annotations

from collections.abc import Callable

from v6fwd.client_ip.proxy.read import Header, ProxyHeaderError, read_datagram_header
from v6fwd.client_ip.trust import TrustedNetworks
from v6fwd.relay.udp.gso import Item, datagrams
from v6fwd.relay.udp.mmsg import CMSG_HEADER, META_SIZE, NAME_ROOM, SLOT_SIZE, Inbox
from v6fwd.relay.udp.pktinfo import Family

READ_BEFORE = 256
"""Names with control messages of segmented messages that are remembered with what they mean."""

Groups = dict[bytes, list[Item]]
"""The datagrams of a batch by session key."""


class Demux:
    """Sorts what one listener receives. `refuse` is told of a header that cannot be read."""

    def __init__(self, family: Family, refuse: Callable[[bytes, str], None]) -> None:
        self.trusted: TrustedNetworks | None = None
        """Whose datagrams begin with a header."""
        self.headers: dict[bytes, Header] = {}
        """The PROXY headers of a batch, by session key; the caller clears it."""
        self._family = family
        self._refuse = refuse
        self._read_before: dict[bytes, tuple[bytes, int]] = {}

    def sort(self, inbox: Inbox, count: int) -> Groups:
        """The batch that `inbox` holds, by session."""
        family = self._family
        meta = inbox.meta(count)
        plain, name_size = family.info_space, family.name_size
        first = NAME_ROOM + CMSG_HEADER + family.address_at
        last = first + family.address_size
        trusted = self.trusted
        groups: Groups = {}
        at = start = 0
        for size, control in zip(inbox.sizes(count), inbox.control_sizes(count), strict=True):
            if control == plain:
                key, segment = meta[at : at + name_size] + meta[at + first : at + last], 0
            else:
                key, segment = self._read(meta[at : at + NAME_ROOM + control])
            item = (start, size, segment)
            if trusted is not None and family.client(key).packed in trusted:
                self._unwrap(inbox, key, item, groups)
            elif key in groups:
                groups[key].append(item)
            else:
                groups[key] = [item]
            at += META_SIZE
            start += SLOT_SIZE
        return groups

    def _read(self, meta: bytes) -> tuple[bytes, int]:
        """Key and segment size, whatever control messages there are: often those of the last."""
        known = self._read_before.get(meta)
        if known is None:
            key, _, segment = self._family.read(meta, 0, len(meta) - NAME_ROOM)
            if len(self._read_before) >= READ_BEFORE:
                self._read_before.clear()
            known = self._read_before[meta] = (key, segment)
        return known

    def _unwrap(self, inbox: Inbox, key: bytes, item: Item, groups: Groups) -> None:
        """Read the header in front of each datagram of a trusted client."""
        payload = inbox.payload
        for start, size in datagrams([item]):
            try:
                header = read_datagram_header(bytes(payload[start : start + size]))
            except ProxyHeaderError as error:
                self._refuse(key, str(error))
                continue
            full_key = key
            if header.source is not None:
                full_key += header.source.packed + header.source.port.to_bytes(2, "big")
                self.headers[full_key] = header
            left = (start + header.length, size - header.length, 0)
            groups.setdefault(full_key, []).append(left)
