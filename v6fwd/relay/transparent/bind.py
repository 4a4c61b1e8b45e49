"""Sockets bound to a client's address and port, wherever the client really is.

The address is the client's, always. The port may have to be another one: when a server listens
on the client's port here, when the client has the very same connection already by way of
another forward, or when one that it ended has not been forgotten yet (TIME_WAIT).
"""

from __future__ import annotations

import errno
import socket
from collections.abc import Callable

from v6fwd.model import Protocol
from v6fwd.model.lean import Any, NamedTuple
from v6fwd.relay.udp_sockets import SESSION_BUFFER, set_buffer

IP_TRANSPARENT, IPV6_TRANSPARENT = 19, 75
SO_MARK = 36

_TRANSPARENT: dict[int, tuple[int, int]] = {
    socket.AF_INET: (socket.IPPROTO_IP, IP_TRANSPARENT),
    socket.AF_INET6: (socket.IPPROTO_IPV6, IPV6_TRANSPARENT),
}


class BindAddress(NamedTuple):
    """The source address of a socket."""

    host: str
    port: int
    is_foreign: bool = True
    """Whether the address is not among those of the socket's namespace."""
    mark: int = 0
    is_exact: bool = False
    """Whether no other port will do."""


Make = Callable[[int, int], socket.SocketType]
"""Makes a socket of a family and a type, in whichever namespace it is to be."""


def bound_socket(
    make: Make, family: int, protocol: Protocol, address: BindAddress
) -> socket.SocketType:
    """A non-blocking socket that is bound to `address`. Raises OSError."""
    is_tcp = protocol is Protocol.TCP
    kind = socket.SOCK_STREAM if is_tcp else socket.SOCK_DGRAM
    sock = make(family, kind | socket.SOCK_NONBLOCK)
    try:
        if is_tcp:
            _prepare_stream(sock)
        else:  # no SO_REUSEADDR: two sessions with one address would get each other's answers
            set_buffer(sock, socket.SO_RCVBUF, SESSION_BUFFER)
        _bind(sock, family, address)
    except BaseException:
        sock.close()
        raise
    return sock


def unbound_socket(make: Make, family: int, mark: int) -> socket.SocketType:
    """A non-blocking TCP socket that may be bound to any address, by `bind`. Raises OSError."""
    sock = make(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    try:
        _prepare_stream(sock)
        sock.setsockopt(*_TRANSPARENT[family], 1)
        if mark:
            sock.setsockopt(socket.SOL_SOCKET, SO_MARK, mark)
    except BaseException:
        sock.close()
        raise
    return sock


def _prepare_stream(sock: socket.SocketType) -> None:
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_OOBINLINE, 1)  # see sockets.tune
    # The same client may speak to two ports of the target from one port of its own.
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)


def connect_from(bound: Callable[[int], socket.SocketType], port: int, sockaddr: Any) -> int:
    """Start to connect to `sockaddr` from a client's port, or another one if that is taken.

    `bound` makes a bound TCP socket with a port. Gives the descriptor. Raises OSError.
    """
    for number in (port, 0):
        sock = bound(number)
        try:
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


def connect_datagrams_from(sock: socket.SocketType, sockaddr: Any) -> int:
    """Connect a bound UDP socket; gives the descriptor. Raises OSError, the socket then closed."""
    try:
        sock.connect(sockaddr)
    except BaseException:
        sock.close()
        raise
    return sock.detach()


def may_bind(make: Make) -> bool:
    """Whether we may bind foreign addresses, by CAP_NET_RAW or CAP_NET_ADMIN. Raises OSError."""
    sock = make(socket.AF_INET, socket.SOCK_DGRAM)
    try:
        sock.setsockopt(*_TRANSPARENT[socket.AF_INET], 1)
    except PermissionError:
        return False
    else:
        return True
    finally:
        sock.close()


def _bind(sock: socket.SocketType, family: int, address: BindAddress) -> None:
    if address.is_foreign:
        level, option = _TRANSPARENT[family]
        sock.setsockopt(level, option, 1)
    if address.mark:
        sock.setsockopt(socket.SOL_SOCKET, SO_MARK, address.mark)
    bind(sock, address.host, address.port, is_exact=address.is_exact)


def bind(sock: socket.SocketType, host: str, port: int, *, is_exact: bool = False) -> None:
    """Bind to an address and a port; to another port if that is taken, unless `is_exact`.

    Raises OSError.
    """
    try:
        sock.bind((host, port))
    except OSError as error:
        if error.errno != errno.EADDRINUSE or is_exact or not port:
            raise
        sock.bind((host, 0))
