"""recvmmsg(2) and sendmmsg(2): many datagrams in one system call, which Python lacks.

A batch costs one call through ctypes (half a microsecond) in place of one call a datagram. What
is read stays where the kernel put it; what is sent is named by address and length, so that a
payload is never copied on its way through. `unsigned long`, format "L", is as wide as a pointer
and as size_t on every Linux, which is why fields of these types are set through it.
"""

from __future__ import annotations

import contextlib
import ctypes
import mmap
import socket
import sys
from array import array
from collections.abc import Sequence

from v6fwd.model.lean import NamedTuple

SLOTS = 64
"""Messages received or sent with one call."""
SLOT_SIZE = 1 << 16
"""Room for one of them: no UDP payload is longer than 65,527 bytes (RFC 768, a 16-bit length)."""
PIECES = 64
"""Datagrams of one segmented message in Growing: UDP_MAX_SEGMENTS of Linux before 6.9."""
IOVECS = SLOTS * PIECES
"""Pieces of payload that the messages of one Outbox may be made of."""

SOL_UDP = 17
UDP_SEGMENT = 103  # linux/udp.h: send this as datagrams so long
UDP_GRO = 104  # linux/udp.h: receive segmented messages whole

CMSG_HEADER = socket.CMSG_LEN(0)
NAME_ROOM = 32  # a sockaddr_in6 has 28 bytes
CONTROL_ROOM = 96
META_SIZE = NAME_ROOM + CONTROL_ROOM
"""Bytes of a slot of addresses: the name first, the control messages behind it."""
BLOCK_SIZE = NAME_ROOM + socket.CMSG_SPACE(20)
"""Bytes of a block: what the messages of one session have in common, name and pktinfo."""

_LONG = ctypes.sizeof(ctypes.c_ulong)
_SEGMENT_SPACE = socket.CMSG_SPACE(2)
_SEGMENT_AT = BLOCK_SIZE + CMSG_HEADER


class _Iovec(ctypes.Structure):
    _fields_ = (("base", ctypes.c_void_p), ("length", ctypes.c_size_t))


class _Header(ctypes.Structure):
    _fields_ = (
        ("name", ctypes.c_void_p),
        ("name_size", ctypes.c_uint32),
        ("iov", ctypes.c_void_p),
        ("iov_count", ctypes.c_size_t),
        ("control", ctypes.c_void_p),
        ("control_size", ctypes.c_size_t),
        ("flags", ctypes.c_int),
    )


class _CountedHeader(ctypes.Structure):
    """struct mmsghdr."""

    _fields_ = (("header", _Header), ("size", ctypes.c_uint))


_IOV_SIZE = ctypes.sizeof(_Iovec)
_HEADER_SIZE = ctypes.sizeof(_CountedHeader)
_IOV_WORDS = _IOV_SIZE // _LONG
_PIECE_WORDS = PIECES * _IOV_WORDS
_HEADER_WORDS = _HEADER_SIZE // _LONG
_IOV_AT = _Header.iov.offset // _LONG
_IOV_COUNT_AT = _Header.iov_count.offset // _LONG
_CONTROL_SIZE_AT = _Header.control_size.offset // _LONG
_SIZE_STEP = _HEADER_SIZE // 4
_SIZE_AT = _CountedHeader.size.offset // 4

_libc = ctypes.CDLL(None, use_errno=True)
_recvmmsg = _libc.recvmmsg
_recvmmsg.argtypes = (
    ctypes.c_int,
    ctypes.c_void_p,
    ctypes.c_uint,
    ctypes.c_int,
    ctypes.c_void_p,
)
_sendmmsg = _libc.sendmmsg
_sendmmsg.argtypes = (ctypes.c_int, ctypes.c_void_p, ctypes.c_uint, ctypes.c_int)
_DONTWAIT = int(socket.MSG_DONTWAIT)
_SEGMENT_CMSG = b"".join(
    number.to_bytes(size, sys.byteorder)
    for number, size in ((socket.CMSG_LEN(2), _LONG), (SOL_UDP, 4), (UDP_SEGMENT, 4))
)


class Memory:
    """Bytes at a fixed address, zero at first; pages cost nothing until they are used."""

    __slots__ = ("address", "view")

    def __init__(self, size: int) -> None:
        pages = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        # A huge page would cost 2 MiB for the first datagram. EINVAL: this kernel has none.
        with contextlib.suppress(OSError):
            pages.madvise(mmap.MADV_NOHUGEPAGE)
        self.view = memoryview(pages)
        self.address = ctypes.addressof(ctypes.c_char.from_buffer(pages))


class Slot(NamedTuple):
    """What one slot of an Inbox holds."""

    meta: bytes
    control_size: int
    data: bytes


class Inbox:
    """Receives datagrams into SLOTS slots, where they stay until the next go to the same ones."""

    def __init__(self) -> None:
        payload, meta = Memory(SLOTS * SLOT_SIZE), Memory(SLOTS * META_SIZE)
        self.payload = payload.view
        self.address = payload.address
        self._meta = meta.view
        self._iovecs = (_Iovec * SLOTS)()
        self._headers = Memory(SLOTS * _HEADER_SIZE)
        for number in range(SLOTS):
            self._iovecs[number] = _Iovec(payload.address + number * SLOT_SIZE, SLOT_SIZE)
            self._write_header(number, meta.address + number * META_SIZE)
        self._bytes = self._headers.view
        self._fresh = bytes(self._bytes)  # the kernel overwrites sizes, the next call needs them
        self._sizes = self._bytes.cast("I")[_SIZE_AT::_SIZE_STEP]
        self._control_sizes = self._bytes.cast("L")[_CONTROL_SIZE_AT::_HEADER_WORDS]

    def _write_header(self, number: int, meta: int) -> None:
        header = _Header.from_address(self._headers.address + number * _HEADER_SIZE)
        header.name, header.name_size = meta, NAME_ROOM
        header.iov = ctypes.addressof(self._iovecs[number])
        header.iov_count = 1
        header.control, header.control_size = meta + NAME_ROOM, CONTROL_ROOM

    def receive(self, fd: int, first: int = 0, end: int = SLOTS) -> int:
        """Take what waits at a socket into slot `first` and those up to `end`. Raises OSError.

        Gives how many messages there were.
        """
        self._bytes[:] = self._fresh
        headers = self._headers.address + first * _HEADER_SIZE
        count = int(_recvmmsg(fd, headers, end - first, _DONTWAIT, None))
        if count < 0:
            raise OSError(ctypes.get_errno(), "recvmmsg")
        return count

    def sizes(self, count: int, first: int = 0) -> list[int]:
        """The bytes of each."""
        return self._sizes[first : first + count].tolist()

    def control_sizes(self, count: int, first: int = 0) -> list[int]:
        """The bytes of each one's control messages."""
        return self._control_sizes[first : first + count].tolist()

    def meta(self, count: int, first: int = 0) -> bytes:
        """META_SIZE bytes of each: name and control messages."""
        return bytes(self._meta[first * META_SIZE : (first + count) * META_SIZE])

    def meta_of(self, number: int) -> bytes:
        """The META_SIZE bytes of one."""
        return bytes(self._meta[number * META_SIZE : (number + 1) * META_SIZE])

    def slot(self, number: int, offset: int = 0) -> Slot:
        """A copy of a slot, without the first `offset` bytes of its data."""
        start, size = number * SLOT_SIZE, self._sizes[number]
        data = bytes(self.payload[start + offset : start + size])
        return Slot(self.meta_of(number), self._control_sizes[number], data)

    def put(self, number: int, slot: Slot) -> None:
        """Fill a slot as the kernel did when that copy was made."""
        start = number * SLOT_SIZE
        self.payload[start : start + len(slot.data)] = slot.data
        self._meta[number * META_SIZE : (number + 1) * META_SIZE] = slot.meta
        self._sizes[number] = len(slot.data)
        self._control_sizes[number] = slot.control_size


class Messages:
    """Message headers, each with a slot for a name and control messages, to be sent at once."""

    def __init__(self) -> None:
        self.count = 0
        self._headers = Memory(SLOTS * _HEADER_SIZE)
        self._metas = Memory(SLOTS * META_SIZE)
        self._iovecs = Memory(IOVECS * _IOV_SIZE)
        self._words = self._headers.view.cast("L")
        self._pieces = self._iovecs.view.cast("L")
        self._blocks = self._metas.view
        self._segments = self._metas.view.cast("H")[_SEGMENT_AT // 2 :: META_SIZE // 2]
        self._segmented: dict[int, int] = {}
        self._control_size = 0
        self._format: tuple[int, int] | None = None
        self._formats: dict[tuple[int, int], bytes] = {}  # writing them takes 0.1 ms

    def set_format(self, name_size: int, info_size: int) -> None:
        """Prepare for names and pktinfo of these sizes; 0 for a connected socket."""
        if self._format == (name_size, info_size):
            return
        self._format = (name_size, info_size)
        self._control_size = info_size
        known = self._formats.get(self._format)
        if known is not None:
            self._headers.view[:] = known
            return
        for number in range(SLOTS):
            self._write_header(number, name_size, info_size)
        self._formats[self._format] = bytes(self._headers.view)

    def _write_header(self, number: int, name_size: int, info_size: int) -> None:
        meta = self._metas.address + number * META_SIZE
        header = _Header.from_address(self._headers.address + number * _HEADER_SIZE)
        header.name, header.name_size = meta if name_size else None, name_size
        header.iov = self._iovecs.address + number * PIECES * _IOV_SIZE
        header.iov_count = 1
        header.control = meta + BLOCK_SIZE - info_size
        header.control_size = info_size
        start = number * META_SIZE + BLOCK_SIZE
        self._blocks[start : start + CMSG_HEADER] = _SEGMENT_CMSG

    def send(self, fd: int, first: int) -> int:
        """Send from message `first` on; gives how many went. Raises OSError if that one failed."""
        headers = self._headers.address + first * _HEADER_SIZE
        count = int(_sendmmsg(fd, headers, self.count - first, _DONTWAIT))
        if count < 0:
            raise OSError(ctypes.get_errno(), "sendmmsg")
        return count

    def segment(self, number: int) -> int:
        """The segment size of a message, 0 if it is a single datagram."""
        return self._segmented.get(number, 0)

    def pieces(self, number: int) -> list[int]:
        """The address and length of each piece of a message."""
        base = number * _HEADER_WORDS
        start = (self._words[base + _IOV_AT] - self._iovecs.address) // _LONG
        return self._pieces[start : start + self._words[base + _IOV_COUNT_AT] * _IOV_WORDS].tolist()

    def block(self, number: int) -> bytes:
        """The block of a message."""
        return bytes(self._blocks[number * META_SIZE : number * META_SIZE + BLOCK_SIZE])

    def clear(self) -> None:
        """Forget all messages."""
        self.count = 0
        self._segmented.clear()


class Outbox(Messages):
    """Collects messages whose payload stays where it is until they are sent."""

    def __init__(self) -> None:
        super().__init__()
        self._used = 0  # words of iovecs

    def has_room(self, words: int) -> bool:
        """Whether a message of so many numbers (two a piece) still fits."""
        return self.count < SLOTS and self._used + words <= IOVECS * _IOV_WORDS

    def add(self, pieces: Sequence[int], segment: int = 0, block: bytes = b"") -> None:
        """Add a message: address and length of each piece, the segment size; 0: one datagram."""
        number, words, used = self.count, self._words, self._used
        if len(pieces) == _IOV_WORDS:  # the usual case, in half the time
            self._pieces[used], self._pieces[used + 1] = pieces
        else:
            self._pieces[used : used + len(pieces)] = array("L", pieces)
        base = number * _HEADER_WORDS
        words[base + _IOV_AT] = self._iovecs.address + used * _LONG
        words[base + _IOV_COUNT_AT] = len(pieces) // _IOV_WORDS
        words[base + _CONTROL_SIZE_AT] = self._control_size + (_SEGMENT_SPACE if segment else 0)
        if segment:
            self._segments[number] = segment
            self._segmented[number] = segment
        if block:
            start = number * META_SIZE
            self._blocks[start : start + BLOCK_SIZE] = block
        self._used = used + len(pieces)
        self.count = number + 1

    def clear(self) -> None:
        super().clear()
        self._used = 0


class Growing(Messages):
    """Messages that begin as one datagram and may get more segments, PIECES at most."""

    def begin(self, address: int, size: int, block: bytes) -> int:
        """Add a message of one datagram; gives its number."""
        number = self.count
        piece, start = number * _PIECE_WORDS, number * META_SIZE
        pieces = self._pieces
        pieces[piece] = address
        pieces[piece + 1] = size
        self._blocks[start : start + BLOCK_SIZE] = block
        self.count = number + 1
        return number

    def make_segmented(self, number: int, segment: int) -> None:
        """Let a message be sent in segments."""
        self._segments[number] = self._segmented[number] = segment
        self._words[number * _HEADER_WORDS + _CONTROL_SIZE_AT] += _SEGMENT_SPACE

    def extend(self, number: int, address: int, size: int, count: int) -> None:
        """Add a datagram to a message of `count`."""
        piece = number * _PIECE_WORDS + count * _IOV_WORDS
        pieces = self._pieces
        pieces[piece] = address
        pieces[piece + 1] = size
        self._words[number * _HEADER_WORDS + _IOV_COUNT_AT] = count + 1

    def clear(self) -> None:
        for number in self._segmented:
            base = number * _HEADER_WORDS
            self._words[base + _IOV_COUNT_AT] = 1
            self._words[base + _CONTROL_SIZE_AT] = self._control_size
        super().clear()
