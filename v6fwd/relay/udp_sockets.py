"""UDP sockets: opening a listener, making somebody else's one fit, connecting to a target."""

from __future__ import annotations

import contextlib
import socket

from v6fwd.model import Endpoint
from v6fwd.model.lean import Any
from v6fwd.relay.sockets import cannot_listen, listen_address
from v6fwd.relay.udp.mmsg import SOL_UDP, UDP_GRO
from v6fwd.relay.udp.pktinfo import INET, INET6, IP_PKTINFO, Family

LISTENER_BUFFER = 8 << 20
"""Bytes of all clients' datagrams that the kernel keeps while we are busy."""
SESSION_BUFFER = 1 << 20
"""Bytes of one session's answers."""


def open_udp_listener(
    endpoint: Endpoint,
    *,
    shared: bool = False,
    beside: socket.socket | None = None,
    v6only: bool = False,
) -> socket.socket:
    """Bind `endpoint` for datagrams. Raises RelayError, naming the endpoint.

    `[::]` is dual-stack unless `v6only`, as for TCP. No SO_REUSEADDR: with it, Linux lets two
    programs bind one UDP port, and the later one takes all datagrams.

    `shared`: others of ours may be bound beside it later, which share the datagrams by client;
    `beside`: this is one of them. SO_REUSEPORT is set behind the first one's bind(2), which
    fails therefore if another program has the port.
    """
    sock: socket.socket | None = None
    try:
        family, sockaddr = listen_address(endpoint, socket.SOCK_DGRAM)
        sock = socket.socket(family, socket.SOCK_DGRAM)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, v6only)
        prepare_udp_listener(sock)
        if beside is not None:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        sock.bind(sockaddr)
        if shared:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    except OSError as error:
        if sock is not None:
            sock.close()
        raise cannot_listen(endpoint, error) from error
    return sock


def prepare_udp_listener(sock: socket.socket) -> None:
    """Set all that we need on a UDP socket, whoever opened it. Raises OSError."""
    sock.setblocking(False)
    if sock.family == socket.AF_INET6:
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVPKTINFO, 1)
    else:
        sock.setsockopt(socket.IPPROTO_IP, IP_PKTINFO, 1)
    set_buffer(sock, socket.SO_RCVBUF, LISTENER_BUFFER)
    set_buffer(sock, socket.SO_SNDBUF, LISTENER_BUFFER)
    with contextlib.suppress(OSError):  # Linux 5.0; without it datagrams come one by one
        sock.setsockopt(SOL_UDP, UDP_GRO, 1)


def family_of(sock: socket.socket) -> Family:
    """How names and pktinfo look on a listener."""
    return INET6 if sock.family == socket.AF_INET6 else INET


def connect_datagrams(family: int, sockaddr: Any) -> int:
    """A non-blocking UDP socket connected to a target; gives the descriptor. Raises OSError."""
    sock = socket.SocketType(family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK, 0)
    try:
        set_buffer(sock, socket.SO_RCVBUF, SESSION_BUFFER)
        sock.connect(sockaddr)
    except BaseException:
        sock.close()
        raise
    return sock.detach()


def receive_segmented(fd: int) -> None:
    """Turn UDP_GRO on for a connected socket, where the kernel has it."""
    sock = socket.SocketType(socket.AF_INET, socket.SOCK_DGRAM, 0, fd)
    try:
        sock.setsockopt(SOL_UDP, UDP_GRO, 1)
    except OSError:
        pass
    finally:
        sock.detach()


_FORCED = {
    socket.SO_RCVBUF: 33,  # SO_RCVBUFFORCE of asm-generic/socket.h
    socket.SO_SNDBUF: 32,
}


def set_buffer(sock: socket.SocketType, option: int, size: int) -> None:
    """Beyond net.core.rmem_max and wmem_max if we may (CAP_NET_ADMIN), else up to it."""
    try:
        sock.setsockopt(socket.SOL_SOCKET, _FORCED[option], size)
    except PermissionError:
        sock.setsockopt(socket.SOL_SOCKET, option, size)
