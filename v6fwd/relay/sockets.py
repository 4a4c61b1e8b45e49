"""System calls on sockets: open listeners, set keepalive, half-close, reset, read addresses."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import functools
import os
import socket
import struct
import sys
from collections.abc import Callable
from functools import partial

from v6fwd.errors import AddressInUseError, RelayError, reason
from v6fwd.model import Address, Endpoint
from v6fwd.model.lean import Any, NamedTuple

# socket.socket(fileno=...) asks the kernel for the socket's name before it is of any use, and
# Python's accept cannot pass SOCK_NONBLOCK. None of these calls blocks, so the GIL is kept.
_libc = ctypes.PyDLL(None, use_errno=True)
_accept4, _shutdown, _getsockopt = _libc.accept4, _libc.shutdown, _libc.getsockopt
_send = _libc.send
_send.restype = ctypes.c_ssize_t
_ADDRESS_SIZE = 28
"""Bytes of struct sockaddr_in6, the longest address of a client."""
_MORE = socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL | socket.MSG_MORE
_FLAGS = socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC

_number, _size = ctypes.c_int(), ctypes.c_uint()
_number_at, _size_at = ctypes.byref(_number), ctypes.byref(_size)

last_errno = ctypes.get_errno
"""Why the last of these calls failed."""

Accept = Callable[[], int]
"""Gives the descriptor of a client, non-blocking; -1 where `last_errno` says why not."""
BACKLOG = 4096
"""Clients that the kernel keeps while we are busy; it caps this at net.core.somaxconn."""


class Keepalive(NamedTuple):
    """When a connection on which nothing moves is asked whether its peer lives, in seconds."""

    idle: int
    """Until the first probe."""
    interval: int
    """Between two probes."""
    probes: int = 9
    """Probes without an answer after which the peer is dead; the default is the system's."""


KEEPALIVE = Keepalive(60, 15)
"""Of clients and most targets: a dead peer is noticed after 195 s."""
_RAW_ADDRESS: dict[int, struct.Struct] = {  # struct sockaddr_in, sockaddr_in6: port and address
    socket.AF_INET: struct.Struct("!2xH4s"),
    socket.AF_INET6: struct.Struct("!2xH4x16s"),
}
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
    keep_alive(sock)
    sock.listen(BACKLOG)


def listen_address(endpoint: Endpoint, kind: int) -> tuple[int, Any]:
    """Family and socket address to bind. Raises OSError."""
    found = socket.getaddrinfo(
        endpoint.host.encode(),  # a str goes through the codec of IDNA: 1.2 MB, 1 ms of a start
        endpoint.port,
        type=kind,
        flags=socket.AI_NUMERICHOST | socket.AI_PASSIVE,
    )
    return found[0][0], found[0][4]


def tune(sock: socket.SocketType) -> None:
    """Send small writes at once, and keep urgent bytes.

    Urgent bytes stay in line from the first on (RFC 6093, section 6): without SO_OOBINLINE each
    new mark makes the kernel drop the byte at the one before (tcp_check_urg() in Linux).
    """
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_OOBINLINE, 1)


def save_ack(sock: socket.SocketType) -> None:
    """Let the first bytes to a target acknowledge its SYN: one segment less, and one wake-up.

    tcp_rcv_synsent_state_process() in Linux delays that ACK (by 200 ms at most) where quick ACKs
    are off, and switches them on again. A server that speaks first must not wait for it, so this is
    for a socket that is written to as soon as it is connected.
    """
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 0)


def keep_alive(sock: socket.SocketType, times: Keepalive = KEEPALIVE) -> None:
    """Notice a dead, idle peer. Raises OSError."""
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, times.idle)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, times.interval)
    if times.probes != KEEPALIVE.probes:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, times.probes)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)


def ensure_keepalive(fd: int, times: Keepalive = KEEPALIVE) -> None:
    """Switch keepalive on where it is off or slower; it does nothing for what is not TCP."""
    with contextlib.suppress(OSError):
        is_on = int_option(fd, socket.SOL_SOCKET, socket.SO_KEEPALIVE)
        if not is_on or int_option(fd, socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) > times.idle:
            sock = _borrow(fd)
            try:
                keep_alive(sock, times)
            finally:
                sock.detach()


def address_of(sockaddr: Any) -> Address:
    """The Address in what accept, getsockname or getpeername gave; a zone is left out.

    A bytearray is a struct sockaddr.
    """
    if isinstance(sockaddr, bytearray):
        port, packed = _RAW_ADDRESS[_family_of(sockaddr)].unpack_from(sockaddr)
        return Address.of(packed, port)
    host = sockaddr[0]
    if ":" not in host:
        return Address(socket.inet_pton(socket.AF_INET, host), sockaddr[1])
    packed = socket.inet_pton(socket.AF_INET6, host.partition("%")[0])
    return Address.of(packed, sockaddr[1])


def packed_of(sockaddr: Any) -> bytes:
    """The same as network bytes; v4-mapped ones may stay so."""
    if isinstance(sockaddr, bytearray):
        return bytes(_RAW_ADDRESS[_family_of(sockaddr)].unpack_from(sockaddr)[1])
    return address_of(sockaddr).packed


def _family_of(sockaddr: bytearray) -> int:
    return int.from_bytes(sockaddr[:2], sys.byteorder)


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
    return int_option(fd, socket.SOL_SOCKET, socket.SO_ERROR)


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


def accepting(sock: socket.socket) -> tuple[Accept, bytearray]:
    """accept4(2) for a listening socket, and where the client's struct sockaddr will be: until
    the next call for any socket of this family.
    """
    name, size, sockaddr = _room_for(sock.family)
    return partial(_accept4, sock.fileno(), name, size, _FLAGS), sockaddr


@functools.cache
def _room_for(family: int) -> tuple[Any, Any, bytearray]:  # noqa: ARG001 - see below
    """One for each family: the size, which accept4(2) sets, is that of the last client."""
    sockaddr = bytearray(_ADDRESS_SIZE)
    name = (ctypes.c_char * _ADDRESS_SIZE).from_buffer(sockaddr)
    return name, ctypes.byref(ctypes.c_uint(_ADDRESS_SIZE)), sockaddr


def sending_more(buffer: memoryview) -> Callable[[int, int], int]:
    """Send as many bytes of this buffer to a socket: the last ones before its end.

    Gives how many it took, 0 if it is full; -1 where `last_errno` says what has failed. MSG_MORE
    holds them back until `end_writing` or close(2): bytes and FIN are one segment.
    """
    start = (ctypes.c_char * len(buffer)).from_buffer(buffer)

    def send(fd: int, size: int) -> int:
        sent = int(_send(fd, start, ctypes.c_size_t(size), _MORE))
        return 0 if sent < 0 and last_errno() == errno.EAGAIN else sent

    return send


def end_writing(fd: int) -> None:
    """Pass an end of stream on: shutdown(2) of the writing half. Raises OSError."""
    if _shutdown(fd, socket.SHUT_WR):
        raise OSError(last_errno(), os.strerror(last_errno()))


def int_option(fd: int, level: int, option: int) -> int:
    """A socket option that is an int. Raises OSError."""
    _size.value = ctypes.sizeof(_number)
    if _getsockopt(fd, level, option, _number_at, _size_at):
        raise OSError(last_errno(), os.strerror(last_errno()))
    return _number.value
