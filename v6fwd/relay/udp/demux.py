"""Sorts the datagrams of a batch by session, and keeps their order within a session.

The key of a session is the client's address and the one that it wrote to; behind a trusted proxy
also the client that the PROXY header names. Reading headers is what takes time here, and a source
address can be forged: so there is a limit in seconds, and what is behind it waits.
"""

from __future__ import annotations

from collections.abc import Callable

from v6fwd.client_ip.budget import Clock, TimeBudget
from v6fwd.client_ip.proxy.read import (
    MAX_HEADER,
    Header,
    ProxyHeaderError,
    read_datagram_header,
)
from v6fwd.client_ip.trust import TrustedNetworks
from v6fwd.relay.udp.gso import Item, datagrams
from v6fwd.relay.udp.mmsg import CMSG_HEADER, META_SIZE, NAME_ROOM, SLOT_SIZE, Inbox, Slot
from v6fwd.relay.udp.pktinfo import Family

READ_BEFORE = 256
"""Names with control messages of segmented messages that are remembered with what they mean."""

Groups = dict[bytes, list[Item]]
"""The datagrams of a batch by session key."""

Refuse = Callable[[bytes, str], None]
"""Is told the key of a client whose header cannot be read, and why."""


class Demux:
    """Sorts what one listener receives."""

    def __init__(self, family: Family, refuse: Refuse, clock: Clock) -> None:
        self.trusted: TrustedNetworks | None = None
        """Whose datagrams begin with a header."""
        self.headers: dict[bytes, Header] = {}
        """The PROXY headers of a batch, by session key; the caller clears it."""
        self._family = family
        self._refuse = refuse
        self._read_before: dict[bytes, tuple[bytes, int]] = {}
        self._budget = TimeBudget(clock)
        self._unread: list[Slot] = []

    @property
    def has_unread(self) -> bool:
        """Whether `sort` has left datagrams, which nothing may overtake."""
        return bool(self._unread)

    def take_unread(self, inbox: Inbox) -> int:
        """Put what `sort` has left back into the inbox; returns how many messages it is."""
        unread, self._unread = self._unread, []
        for number, slot in enumerate(unread):
            inbox.put(number, slot)
        return len(unread)

    def drop_unread(self) -> None:
        """Forget what `sort` has left."""
        self._unread = []

    def sort(self, inbox: Inbox, count: int) -> Groups:
        """The batch that `inbox` holds, by session."""
        family = self._family
        meta = inbox.meta(count)
        plain, name_size = family.info_space, family.name_size
        first = NAME_ROOM + CMSG_HEADER + family.address_at
        last = first + family.address_size
        trusted = self.trusted
        if trusted is not None:
            self._budget.begin()
        groups: Groups = {}
        at = start = 0
        for size, control in zip(inbox.sizes(count), inbox.control_sizes(count), strict=True):
            if control == plain:
                key, segment = meta[at : at + name_size] + meta[at + first : at + last], 0
            else:
                key, segment = self._read(meta[at : at + NAME_ROOM + control])
            item = (start, size, segment)
            if trusted is not None and family.client(key).packed in trusted:
                end = self._unwrap(inbox, key, item, groups)
                if self._budget.is_over():
                    self._leave(inbox, start // SLOT_SIZE, end - start, count)
                    break
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

    def _unwrap(self, inbox: Inbox, key: bytes, item: Item, groups: Groups) -> int:
        """Read the header in front of each datagram of a trusted client, one at least.

        Returns where it stopped.
        """
        payload = inbox.payload
        end = item[0]
        for start, size in datagrams([item]):
            end = start + size
            data = bytes(payload[start : start + min(size, MAX_HEADER)])
            try:
                header = read_datagram_header(data)
            except ProxyHeaderError as error:
                self._refuse(key, str(error))
            else:
                full_key = key
                if header.source is not None:
                    full_key += header.source.packed + header.source.port.to_bytes(2, "big")
                    self.headers[full_key] = header
                left = (start + header.length, size - header.length, 0)
                groups.setdefault(full_key, []).append(left)
            if self._budget.is_over():
                break
        return end

    def _leave(self, inbox: Inbox, number: int, offset: int, count: int) -> None:
        """Keep what is behind `offset` in a slot, and the slots behind it."""
        left = [inbox.slot(each) for each in range(number + 1, count)]
        if offset < inbox.sizes(1, number)[0]:
            left.insert(0, inbox.slot(number, offset))
        self._unread = left
