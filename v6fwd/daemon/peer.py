"""Who is at the other end of a unix socket, as the kernel knows it (SO_PEERCRED, unix(7))."""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Container
from typing import NamedTuple, Protocol


class Peer(NamedTuple):
    """The process that connected, with its effective user at that time."""

    pid: int
    """0 if it is in a process namespace that we cannot see."""
    uid: int
    gid: int

    @property
    def is_ours(self) -> bool:
        """Whether it is root, or of the user that this process runs as."""
        return self.uid in (0, os.geteuid())


class Connected(Protocol):
    """A socket, or what asyncio shows of one."""

    def getsockopt(self, level: int, option: int, size: int, /) -> bytes:
        """As of a socket."""


def may_rule(sock: Connected, workers: Container[int]) -> bool:
    """Whether it is root or our user, and no worker, which may be of that user, too.

    `workers`: their process ids. Raises OSError.
    """
    peer = peer_of(sock)
    return peer.is_ours and peer.pid not in workers


def peer_of(sock: Connected) -> Peer:
    """Return who connected. Raises OSError."""
    return Peer(*struct.unpack("3i", sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)))
