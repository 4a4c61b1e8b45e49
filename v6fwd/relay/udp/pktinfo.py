"""The client and the local address of a datagram, from name and pktinfo as recvmmsg(2) gives them.

A session's key is the client's sockaddr followed by the local address, in raw bytes: nothing
is parsed for a datagram of a known session. A reply carries the block made from the key once:
the client's name and a pktinfo that makes it leave from the address the client wrote to. On a
dual-stack socket IPv4 is v4-mapped in both, which udpv6_sendmsg takes as well.
"""

from __future__ import annotations

import contextlib
import socket
import struct
import sys
from collections.abc import Iterator

from v6fwd.model import MAPPED_PREFIX, Address
from v6fwd.model.lean import dataclass
from v6fwd.relay.udp.mmsg import BLOCK_SIZE, CMSG_HEADER, NAME_ROOM, SOL_UDP, UDP_GRO

IP_PKTINFO = 8  # linux/in.h
_CMSG = struct.Struct("@Nii")
_HOP_LIMIT = {(socket.IPPROTO_IP, socket.IP_TTL), (socket.IPPROTO_IPV6, socket.IPV6_HOPLIMIT)}
_HEAR = (
    (socket.IPPROTO_IP, 12),  # IP_RECVTTL of linux/in.h
    (socket.IPPROTO_IPV6, socket.IPV6_RECVHOPLIMIT),
)


@dataclass(frozen=True, slots=True)
class Family:
    """Sizes and places in the sockaddr and the pktinfo of one address family."""

    name_size: int
    level: int
    kind: int
    info_length: int
    address_at: int
    """Where the address that the client wrote to stands in the pktinfo."""
    address_size: int

    @property
    def info_space(self) -> int:
        """Bytes that the control message takes."""
        return socket.CMSG_SPACE(self.info_length)

    def read(self, meta: bytes, at: int, control_size: int) -> tuple[bytes, bytes, int]:
        """Key, pktinfo and segment size (0: none) of the datagram whose slot is at `at`."""
        info, segment = bytes(self.info_length), 0
        for level, kind, data in messages(meta, at, control_size):
            if (level, kind) == (self.level, self.kind):
                info = data
            elif (level, kind) == (SOL_UDP, UDP_GRO):
                segment = int(struct.unpack_from("@i", data)[0])
        local = info[self.address_at : self.address_at + self.address_size]
        return meta[at : at + self.name_size] + local, info, segment

    def hop_limit(self, meta: bytes, at: int, control_size: int) -> bytes:
        """The hop limit of the same datagram as one byte; b"" where the kernel did not tell it."""
        for level, kind, data in messages(meta, at, control_size):
            if (level, kind) in _HOP_LIMIT:
                return bytes([struct.unpack_from("@i", data)[0]])
        return b""

    def block(self, key: bytes, info: bytes) -> bytes:
        """Name and pktinfo that every reply of the session with this key carries."""
        name = key[: self.name_size]
        data = self._reply_info(key, info)
        cmsg = _CMSG.pack(socket.CMSG_LEN(len(data)), self.level, self.kind) + data
        padding = BLOCK_SIZE - self.name_size - self.info_space
        return (name + bytes(padding) + cmsg).ljust(BLOCK_SIZE, b"\0")

    def _reply_info(self, key: bytes, info: bytes) -> bytes:
        local = self._local(key)
        if self is INET:  # ip(7): the kernel chose ipi_spec_dst, which is never a group's address
            source = info[4:8] if any(info[4:8]) else _own(local)
            return bytes(4) + source + bytes(4)
        # Only a link-local address needs its interface; elsewhere routing is free to choose.
        scoped = is_link_local(key[8:24]) or is_link_local(local)
        return _own(local) + (info[16:20] if scoped else bytes(4))

    def client(self, key: bytes) -> Address:
        """The client's address and port."""
        start = 4 if self is INET else 8
        packed = key[start : start + self.address_size]
        return Address.of(packed, int.from_bytes(key[2:4], "big"))

    def scope(self, key: bytes) -> int:
        """The device of a link-local client; 0 for others."""
        return 0 if self is INET else int.from_bytes(key[24:28], sys.byteorder)

    def local(self, key: bytes, port: int) -> Address:
        """The address that the client wrote to."""
        return Address.of(self._local(key), port)

    def _local(self, key: bytes) -> bytes:
        # What may follow is the client that a PROXY header has named.
        return key[self.name_size : self.name_size + self.address_size]


INET = Family(16, socket.IPPROTO_IP, IP_PKTINFO, 12, 8, 4)
INET6 = Family(28, socket.IPPROTO_IPV6, socket.IPV6_PKTINFO, 20, 0, 16)


def messages(meta: bytes, at: int, control_size: int) -> Iterator[tuple[int, int, bytes]]:
    """Level, kind and data of each control message of the datagram whose slot is at `at`."""
    here = at + NAME_ROOM
    end = here + control_size
    while here + CMSG_HEADER <= end:
        length, level, kind = _CMSG.unpack_from(meta, here)
        yield level, kind, meta[here + CMSG_HEADER : here + length]
        here += socket.CMSG_SPACE(max(0, length - CMSG_HEADER))


def hear_hop_limits(fd: int, hear: bool) -> None:
    """Ask the kernel for the hop limit of each datagram, or no more. IPv4 comes to IPv6, too."""
    sock = socket.SocketType(socket.AF_INET6, socket.SOCK_DGRAM, 0, fd)
    for level, option in _HEAR:
        with contextlib.suppress(OSError):  # the socket is of the other family
            sock.setsockopt(level, option, hear)
    sock.detach()


def is_link_local(packed: bytes) -> bool:
    """Whether 16 bytes are in fe80::/10."""
    return packed[0] == 0xFE and packed[1] & 0xC0 == 0x80


def _own(local: bytes) -> bytes:
    """The address as a source; unspecified for a group's, from which nothing may be sent."""
    ipv4 = local[12:] if local.startswith(MAPPED_PREFIX) else local
    is_group = local[0] == 0xFF if len(ipv4) == 16 else ipv4[0] >= 0xE0
    return bytes(len(local)) if is_group else local
