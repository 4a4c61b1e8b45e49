"""Who is at the other end of a unix socket, as the kernel knows it (SO_PEERCRED, unix(7))."""

from __future__ import annotations

import os
import socket
import struct
from typing import NamedTuple


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


def peer_of(sock: socket.socket) -> Peer:
    """Return who connected. Raises OSError."""
    return Peer(*struct.unpack("3i", sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)))
