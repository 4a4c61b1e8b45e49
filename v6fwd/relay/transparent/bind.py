"""Sockets that have a client's address and port, wherever the client really is.

The address is the client's, always. The port may have to be another one: when a server listens
on the client's port here, when the client has the very same connection already by way of
another forward, or when one that it ended has not been forgotten yet (TIME_WAIT).
"""

from __future__ import annotations

import errno
import socket
from collections.abc import Callable
from typing import Any, NamedTuple

from v6fwd.relay.udp_sockets import SESSION_BUFFER, set_buffer

IP_TRANSPARENT, IPV6_TRANSPARENT = 19, 75
SO_MARK = 36

_TRANSPARENT: dict[int, tuple[int, int]] = {
    socket.AF_INET: (socket.IPPROTO_IP, IP_TRANSPARENT),
    socket.AF_INET6: (socket.IPPROTO_IPV6, IPV6_TRANSPARENT),
}


class Claim(NamedTuple):
    """Whom a socket speaks as."""

    host: str
    port: int
    is_foreign: bool = True
    """Whether the address is not among those of the socket's namespace."""
    mark: int = 0


Make = Callable[[int, int], socket.SocketType]
"""Makes a socket of a family and a type, wherever it is to be."""


def connect_from(make: Make, family: int, claim: Claim, sockaddr: Any) -> int:
    """Start to connect to `sockaddr` as a client; gives the descriptor. Raises OSError."""
    for port in (claim.port, 0):
        sock = make(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        try:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            # The same client may speak to two ports of the target from one port of its own.
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            _claim(sock, family, claim, port)
            result = sock.connect_ex(sockaddr)
        except BaseException:
            sock.close()
            raise
        if result in (0, errno.EINPROGRESS):
            return sock.detach()
        sock.close()
        if result != errno.EADDRNOTAVAIL:
            break
    raise OSError(result, "")


def connect_datagrams_from(make: Make, family: int, claim: Claim, sockaddr: Any) -> int:
    """A UDP socket connected to `sockaddr` as a client; gives the descriptor. Raises OSError.

    No SO_REUSEADDR: two sessions with the same addresses would get each other's answers.
    """
    sock = make(family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
    try:
        set_buffer(sock, socket.SO_RCVBUF, SESSION_BUFFER)
        _claim(sock, family, claim, claim.port)
        sock.connect(sockaddr)
    except BaseException:
        sock.close()
        raise
    return sock.detach()


def may_bind(make: Make) -> bool:
    """Whether we may take addresses that are not ours: CAP_NET_RAW or CAP_NET_ADMIN."""
    sock = make(socket.AF_INET, socket.SOCK_DGRAM)
    try:
        sock.setsockopt(*_TRANSPARENT[socket.AF_INET], 1)
    except PermissionError:
        return False
    else:
        return True
    finally:
        sock.close()


def _claim(sock: socket.SocketType, family: int, claim: Claim, port: int) -> None:
    if claim.is_foreign:
        level, option = _TRANSPARENT[family]
        sock.setsockopt(level, option, 1)
    if claim.mark:
        sock.setsockopt(socket.SOL_SOCKET, SO_MARK, claim.mark)
    try:
        sock.bind((claim.host, port))
    except OSError as error:
        if error.errno != errno.EADDRINUSE or not port:
            raise
        sock.bind((claim.host, 0))
