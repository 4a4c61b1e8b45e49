"""What a target gets first: the PROXY header, and behind it what the client has said so far."""

from __future__ import annotations

import os
from collections.abc import Sequence

from v6fwd.model import Address
from v6fwd.model.lean import TYPE_CHECKING
from v6fwd.relay.pump import Flags, Stopped
from v6fwd.relay.sockets import local_address
from v6fwd.relay.tcp.forward import TcpForward
from v6fwd.relay.tcp.side import buffer

if TYPE_CHECKING:
    from v6fwd.client_ip.proxy.read import Header

FIRST_SIZE = 16 * 1024
"""Bytes read from a client before its target is connected: all that a connect under way holds."""
PASSED_ON = 0xE6
"""The TLV, of those for applications (section 2.2.3), of a flow that came by a hop and goes on by
another one: no third follows."""
_PASSED_ON = bytes((PASSED_ON, 0, 0))

_buffers: Sequence[memoryview] = [buffer[:FIRST_SIZE]]


class FirstBytes:
    """Of one flow; made once, and again when a hop takes the place of a task or a task of a hop."""

    __slots__ = (
        "_destination",
        "_forward",
        "_is_made",
        "_tlvs",
        "client_ended",
        "client_fd",
        "data",
        "header_size",
        "is_for_hop",
        "source",
    )

    def __init__(
        self,
        forward: TcpForward,
        client_fd: int,
        source: Address | None,
        told: Header | None,
        said: bytes,
    ) -> None:
        """`told` is the header that the client sent, if it was trusted to send one.

        `said` are bytes that it has sent already, for the target.
        """
        self._forward = forward
        self._destination = told.destination if told is not None else None
        self._tlvs = told.tlvs if told is not None else b""
        self._is_made = False  # the header, if there is to be one
        self.client_fd = client_fd
        self.source = source
        self.data = said
        self.header_size = 0
        self.is_for_hop = False
        """The header is for another v6fwd."""
        self.client_ended = False

    @property
    def words(self) -> bytes:
        """What the client has said."""
        return self.data[self.header_size :]

    def has_been_passed_on(self) -> bool:
        """Whether another node has passed the flow on to this one, which is not the first."""
        if not self._tlvs or not self._forward.forward.mesh.is_hop:
            return False
        from v6fwd.client_ip.proxy.tlvs import each_tlv  # `forward` has loaded it

        return any(tlv.type == PASSED_ON for tlv in each_tlv(self._tlvs))

    def read(self, *, to_hop: bool) -> None:
        """Have the header for such a target, and the client's words behind it: in one segment.

        Raises OSError if the client is gone.
        """
        if not self._is_made or self.is_for_hop != to_hop:
            self._make(to_hop=to_hop)
        if len(self.data) == self.header_size and not self.client_ended:
            self._read_client()

    def make_again(self, *, to_hop: bool) -> None:
        """Make the header anew if there is one: what the target is told may have changed.

        Raises OSError if the client is gone.
        """
        if self._is_made:
            self._make(to_hop=to_hop)

    def became(self, header: bytes) -> None:
        """Take the header that another pump has sent already."""
        self.data, self.header_size, self._is_made = header, len(header), True

    def came_back(self, stopped: Stopped) -> None:
        """Take what another pump still holds."""
        self.data = stopped.first + stopped.up
        self.client_ended = bool(stopped.flags & Flags.ENDED_CLIENT)

    def _make(self, *, to_hop: bool) -> None:
        words = self.words
        self.is_for_hop = to_hop
        header = self._header()
        self.data, self.header_size, self._is_made = header + words, len(header), True

    def _header(self) -> bytes:
        """The PROXY header for the target; b"" in a mode without one. Raises OSError."""
        write = self._forward.write_header if not self.is_for_hop else _write_v2
        if write is None or self.source is None:
            if self.is_for_hop:  # the client's own words would be taken for it
                raise OSError(0, "a node cannot be told of a client without an address")
            return b""
        if self._destination is None:
            self._destination = local_address(self.client_fd)
        header = write(self.source, self._destination)
        forward = self._forward.forward
        if self.is_for_hop:
            if forward.mesh.is_hop:
                header = _with_tlvs(header, _PASSED_ON, FIRST_SIZE)
        elif self._tlvs and forward.pass_tlvs:
            header = _with_tlvs(header, self._tlvs, forward.pass_tlvs)
        return header

    def _read_client(self) -> None:
        try:
            size = os.readv(self.client_fd, _buffers)
        except BlockingIOError:
            return
        if size:
            self.data += bytes(buffer[:size])
        else:
            self.client_ended = True


def _write_v2(source: Address, destination: Address) -> bytes:
    from v6fwd.client_ip.proxy.write import write_v2  # `forward` has loaded it

    return write_v2(source, destination)


def _with_tlvs(header: bytes, tlvs: bytes, largest: int) -> bytes:
    from v6fwd.client_ip.proxy.tlvs import add_tlvs  # `forward` has loaded it

    return add_tlvs(header, tlvs, largest)
