"""System calls on sockets: open listeners, set keepalive, half-close, reset, read addresses."""

from __future__ import annotations

import errno
import socket
import struct
from typing import Any

from v6fwd.errors import AddressInUseError, RelayError, reason
from v6fwd.model import Address, Endpoint

BACKLOG = 4096
"""Clients that the kernel keeps while we are busy; it caps this at net.core.somaxconn."""

_KEEPALIVE = (
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
    (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 60),
    (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 15),
)
_RESET_ON_CLOSE = struct.pack("ii", 1, 0)  # socket(7), SO_LINGER: on, for 0 seconds


def open_listener(endpoint: Endpoint, *, v6only: bool = False) -> socket.socket:
    """Listen on `endpoint`, without blocking. Raises RelayError, naming the endpoint.

    `[::]` is dual-stack unless `v6only`: IPV6_V6ONLY is set here whatever the sysctl says.
    """
    try:
        family, sockaddr = listen_address(endpoint, socket.SOCK_STREAM)
        sock = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    except OSError as error:
        raise cannot_listen(endpoint, error) from error
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, v6only)
        sock.bind(sockaddr)
        prepare_listener(sock)
    except OSError as error:
        sock.close()
        raise cannot_listen(endpoint, error) from error
    return sock


def cannot_listen(endpoint: Endpoint, error: OSError) -> RelayError:
    """The error for an endpoint that cannot be had."""
    text = f"cannot listen on {endpoint}: {reason(error)}"
    if error.errno == errno.EADDRINUSE:
        return AddressInUseError(text, str(endpoint))
    if error.errno == errno.EACCES and endpoint.port < 1024:  # ip_unprivileged_port_start
        text += "; a port below 1024 needs root or CAP_NET_BIND_SERVICE"
    return RelayError(text)


def prepare_listener(sock: socket.socket) -> None:
    """Set all that we need on a bound TCP socket, whoever opened it, and listen. Raises OSError.

    Accepted sockets inherit TCP_NODELAY, keepalive and SO_OOBINLINE from the listener, which
    saves every flow those system calls.
    """
    sock.setblocking(False)
    tune(sock)
    sock.listen(BACKLOG)


def listen_address(endpoint: Endpoint, kind: int) -> tuple[int, Any]:
    """Family and socket address to bind. Raises OSError."""
    found = socket.getaddrinfo(
        endpoint.host,
        endpoint.port,
        type=kind,
        flags=socket.AI_NUMERICHOST | socket.AI_PASSIVE,
    )
    return found[0][0], found[0][4]


def tune(sock: socket.SocketType) -> None:
    """Send small writes at once; notice a dead, idle peer within about three minutes.

    Urgent bytes stay in line from the first on (RFC 6093, section 6): without SO_OOBINLINE each
    new mark makes the kernel drop the byte at the one before (tcp_check_urg() in Linux).
    """
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_OOBINLINE, 1)
    for level, option, value in _KEEPALIVE:
        sock.setsockopt(level, option, value)


def address_of(sockaddr: Any) -> Address:
    """The Address in what accept, getsockname or getpeername gave; a zone is left out."""
    host = sockaddr[0]
    if ":" not in host:
        return Address(socket.inet_pton(socket.AF_INET, host), sockaddr[1])
    packed = socket.inet_pton(socket.AF_INET6, host.partition("%")[0])
    return Address.of(packed, sockaddr[1])


def packed_of(sockaddr: Any) -> bytes:
    """The network bytes in what accept gave; v4-mapped they stay so."""
    host = sockaddr[0]
    if ":" not in host:
        return socket.inet_pton(socket.AF_INET, host)
    return socket.inet_pton(socket.AF_INET6, host.partition("%")[0])


def local_address(fd: int) -> Address:
    """The address that the client of a connected socket connected to."""
    sock = _borrow(fd)
    try:
        return address_of(sock.getsockname())
    finally:
        sock.detach()


def peer_address(fd: int) -> Address | None:
    """The client of a connected socket; None where the connection is gone."""
    sock = _borrow(fd)
    try:
        return address_of(sock.getpeername())
    except OSError:
        return None
    finally:
        sock.detach()


def end_writing(fd: int) -> None:
    """Pass an end of stream on: shutdown(2) of the writing half. Raises OSError."""
    sock = _borrow(fd)
    try:
        sock.shutdown(socket.SHUT_WR)
    finally:
        sock.detach()


def reset_on_close(fd: int) -> None:
    """Make close(2) send RST and drop what is queued, in place of a clean end."""
    sock = _borrow(fd)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
    except OSError as error:  # the other end may be gone already
        if error.errno not in (errno.EINVAL, errno.ENOTCONN):
            raise
    finally:
        sock.detach()


def pending_error(fd: int) -> int:
    """The socket's SO_ERROR, which reading clears: an errno, 0 for none."""
    sock = _borrow(fd)
    try:
        return sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
    finally:
        sock.detach()


def is_connected(fd: int) -> bool:
    """Whether the connect(2) under way has succeeded."""
    sock = _borrow(fd)
    try:
        sock.getpeername()
    except OSError:
        return False
    else:
        return True
    finally:
        sock.detach()


def _borrow(fd: int) -> socket.SocketType:
    """A socket object for a descriptor that stays ours.

    SocketType is the class in C below socket.socket, and half as dear to make. AF_INET6,
    because Python sizes its address buffers by the family: that one has room for every IP address.
    """
    return socket.SocketType(socket.AF_INET6, socket.SOCK_STREAM, 0, fd)
