"""Who is banned, in memory that the daemon writes and its workers read.

A hash table: a ban's slot is in the bucket that the hash of its network names, and nowhere else.

    network (16)   prefix length (1)   unused (3)   until (4, seconds since 1970; 0: no end)

In front of the buckets is a filter: how many bans have a hash that ends in these bits. So a client
that is not banned costs one look into memory for each prefix length in use. An IPv4 network has the
form of RFC 4291, 2.5.5.2: ::ffff:192.0.2.0/120.

Bans never move, so a reader needs no lock. Workers map the memory without the right to write: one
that is taken over bans nobody, and ends no ban.
"""

from __future__ import annotations

import contextlib
import fcntl
import ipaddress
import mmap
import os
import struct
from collections.abc import Callable, Iterator

from v6fwd.model import MAPPED_PREFIX, IPNetwork

MOST = 1 << 17
"""Bans. The kernel takes memory only for pages that are used: 7.5 MB with 100,000 bans."""
_BUCKET = 64
"""Slots in a bucket: twice what MOST bans need, so that a full one is rare."""
_BUCKETS = 2 * MOST // _BUCKET
_SLOT = struct.Struct("=16sB3xI")
_KEY = 17
_BUCKET_SIZE = _BUCKET * _SLOT.size
_FILTER_BITS = 20
_FILTER = 1 << _FILTER_BITS
_FILTER_MASK = _FILTER - 1
_SATURATED = 255
"""A count of the filter that stays: it may be larger."""
_EMPTY = bytes(_BUCKET_SIZE)
_LENGTHS_AT = 0
"""How many bans have each prefix length: of IPv6 0 to 128, and behind them of IPv4 0 to 32."""
_IPV4_LENGTHS = 129
_LENGTHS = struct.Struct("=162I")
_FILTER_AT = mmap.PAGESIZE
_BUCKETS_AT = _FILTER_AT + _FILTER
_SIZE = _BUCKETS_AT + _BUCKETS * _BUCKET_SIZE
_IPV4_BITS = 96
_F_SEAL_FUTURE_WRITE = 0x10  # linux/fcntl.h; not in CPython's fcntl

Clock = Callable[[], float]
"""Gives seconds since 1970."""


class TableFullError(Exception):
    """There is no room for one more ban."""


class BanTable:
    """The bans, for who may write. Made once, before the workers are forked."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        flags = os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING
        self.fd = os.memfd_create("v6fwd-bans", flags)
        os.ftruncate(self.fd, _SIZE)
        self._memory = mmap.mmap(self.fd, _SIZE)
        self._memory.madvise(mmap.MADV_DONTFORK)
        with contextlib.suppress(OSError):  # Linux before 5.1 does not know it
            fcntl.fcntl(self.fd, fcntl.F_ADD_SEALS, _F_SEAL_FUTURE_WRITE)
        seals = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL
        fcntl.fcntl(self.fd, fcntl.F_ADD_SEALS, seals)
        self._count = 0

    def __len__(self) -> int:
        """How many there are, expired ones that were not swept yet included."""
        return self._count

    def reader(self) -> Bans:
        """What a worker sees. To be called in the worker."""
        return Bans(mmap.mmap(self.fd, _SIZE, prot=mmap.PROT_READ), self._clock)

    def until(self, network: IPNetwork) -> int | None:
        """When the ban of exactly this network ends, 0 for never; None: there is none."""
        key = key_of(network)
        at = _find(self._memory, key, hash(key))
        until = None if at < 0 else _until(self._memory, at)
        return None if until and self.is_over(until) else until

    def is_over(self, until: int) -> bool:
        """Whether a ban with this end is over."""
        return bool(until) and until <= self._clock()

    def covering(self, network: IPNetwork) -> IPNetwork | None:
        """A wider network that is banned, too; None: there is none."""
        wider = (network.supernet(new_prefix=bits) for bits in range(network.prefixlen))
        return next((each for each in wider if self.until(each) is not None), None)

    def add(self, network: IPNetwork, until: int) -> None:
        """Ban until a time, 0 for ever; a ban that exists gets that end. Raises TableFullError."""
        memory, key = self._memory, key_of(network)
        place = hash(key)
        at = _find(memory, key, place)
        if at < 0:
            at = self._free(place)
            _SLOT.pack_into(memory, at, key[:16], key[16], until)
            self._count_one(key, place, 1)
        else:
            struct.pack_into("=I", memory, at + _SLOT.size - 4, until)

    def _free(self, place: int) -> int:
        start = _bucket(place)
        slots = range(start, start + _BUCKET_SIZE, _SLOT.size)
        free = next((at for at in slots if not self._memory[at + 16]), -1)
        if free < 0 or self._count >= MOST:
            raise TableFullError
        return free

    def remove(self, network: IPNetwork) -> bool:
        """End a ban; False if there is none."""
        key = key_of(network)
        at = _find(self._memory, key, hash(key))
        if at >= 0:
            self._clear(at, key)
        return at >= 0

    def _clear(self, at: int, key: bytes) -> None:
        self._memory[at : at + _SLOT.size] = bytes(_SLOT.size)
        self._count_one(key, hash(key), -1)

    def _count_one(self, key: bytes, place: int, change: int) -> None:
        memory, at = self._memory, _FILTER_AT + (place & _FILTER_MASK)
        if memory[at] < _SATURATED:
            memory[at] += change
        bits = key[16]
        if _is_ipv4(key):
            bits += _IPV4_LENGTHS - _IPV4_BITS
        (count,) = struct.unpack_from("=I", memory, _LENGTHS_AT + 4 * bits)
        struct.pack_into("=I", memory, _LENGTHS_AT + 4 * bits, count + change)
        self._count += change

    def clear(self) -> None:
        """End all bans."""
        for start in self._buckets():
            for at, key, _ in self._slots(start):
                self._clear(at, key)

    def sweep(self, part: int, parts: int) -> None:
        """Forget the bans that are over, of one part of the table; `part` counts from 0."""
        now = self._clock()
        for start in [*self._buckets()][part::parts]:
            for at, key, until in self._slots(start):
                if until and until <= now:
                    self._clear(at, key)

    def __iter__(self) -> Iterator[tuple[IPNetwork, int]]:
        """The bans in force and their ends, in no order."""
        now = self._clock()
        for start in self._buckets():
            for _, key, until in self._slots(start):
                if not until or until > now:
                    yield network_of(key), until

    def _buckets(self) -> Iterator[int]:
        """Where buckets begin; none while there is no ban: to look would take memory."""
        return iter(range(_BUCKETS_AT, _SIZE, _BUCKET_SIZE) if self._count else ())

    def _slots(self, start: int) -> list[tuple[int, bytes, int]]:
        """The slots in use of a bucket: where, whose, and until when."""
        data = self._memory[start : start + _BUCKET_SIZE]
        if data == _EMPTY:
            return []
        slots = enumerate(_SLOT.iter_unpack(data))
        return [
            (start + number * _SLOT.size, packed + bytes([bits]), until)
            for number, (packed, bits, until) in slots
            if bits
        ]

    def close(self) -> None:
        """Unmap the memory."""
        self._memory.close()
        os.close(self.fd)


_Mask = tuple[int, int, bytes]
"""How an address becomes a key: so many bytes stay, these bits of the next one if there are any,
and this follows."""


def _mask(bits: int) -> _Mask:
    size, rest = divmod(bits, 8)
    mask = 0xFF00 >> rest & 0xFF
    return size, mask, bytes(16 - size - bool(mask)) + bytes([bits])


class Bans:
    """The bans as a worker sees them: whether an address is in one. Empty without memory."""

    __slots__ = ("_clock", "_ipv4", "_ipv6", "_memory")

    def __init__(self, memory: mmap.mmap | None = None, clock: Clock = float) -> None:
        self._memory = memory if memory is not None else b""
        self._clock = clock
        self._ipv4: tuple[_Mask, ...] = ()
        self._ipv6: tuple[_Mask, ...] = ()
        self.refresh()

    def refresh(self) -> None:
        """Learn which prefix lengths are in use: a new one counts from now on."""
        if self._memory:
            counts = _LENGTHS.unpack_from(self._memory, _LENGTHS_AT)
            used = [bits for bits, count in enumerate(counts) if count]
            self._ipv6 = tuple(_mask(bits) for bits in used if bits < _IPV4_LENGTHS)
            ipv4 = (bits - _IPV4_LENGTHS for bits in used if bits >= _IPV4_LENGTHS)
            self._ipv4 = tuple(_mask(_IPV4_BITS + bits) for bits in ipv4)

    def __bool__(self) -> bool:
        """Whether there are any."""
        return bool(self._ipv6 or self._ipv4)

    def __contains__(self, packed: bytes) -> bool:
        """Whether an address of 4 or 16 bytes is banned; v4-mapped is IPv4."""
        if len(packed) == 4:
            packed = MAPPED_PREFIX + packed
        memory = self._memory
        for size, mask, tail in self._ipv4 if packed.startswith(MAPPED_PREFIX) else self._ipv6:
            key = packed[:size] + (bytes((packed[size] & mask,)) + tail if mask else tail)
            place = hash(key)
            if memory[_FILTER_AT + (place & _FILTER_MASK)] and self._holds(key, place):
                return True
        return False

    def _holds(self, key: bytes, place: int) -> bool:
        at = _find(self._memory, key, place)
        if at < 0:
            return False
        until = _until(self._memory, at)
        return not until or until > self._clock()


def _bucket(place: int) -> int:
    """Where the bucket of a hash begins. CPython's hash of bytes is keyed, and children that are
    forked have the same key: nobody outside can aim at one bucket."""
    return _BUCKETS_AT + (place >> _FILTER_BITS) % _BUCKETS * _BUCKET_SIZE


def _find(memory: mmap.mmap | bytes, key: bytes, place: int) -> int:
    """The slot of a ban; -1 if there is none. A length of 0 is that of an empty slot."""
    if not key[16]:
        return -1
    start = _bucket(place)
    data = memory[start : start + _BUCKET_SIZE]
    at = data.find(key)
    while at >= 0 and (astray := at % _SLOT.size):  # found across two slots
        at = data.find(key, at - astray + _SLOT.size)
    return start + at if at >= 0 else -1


def _until(memory: mmap.mmap | bytes, at: int) -> int:
    return int(struct.unpack_from("=I", memory, at + _SLOT.size - 4)[0])


def key_of(network: IPNetwork) -> bytes:
    """The key of a network: 16 bytes of address and the prefix length."""
    packed, bits = network.network_address.packed, network.prefixlen
    if len(packed) == 4:
        packed, bits = MAPPED_PREFIX + packed, bits + _IPV4_BITS
    return packed + bytes([bits])


def _is_ipv4(key: bytes) -> bool:
    return key.startswith(MAPPED_PREFIX) and key[16] >= _IPV4_BITS


def network_of(key: bytes) -> IPNetwork:
    """The network of a key."""
    packed, bits = key[:16], key[16]
    if _is_ipv4(key):
        return ipaddress.IPv4Network((packed[12:], bits - _IPV4_BITS))
    return ipaddress.IPv6Network((packed, bits))
