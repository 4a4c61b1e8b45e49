"""Sockets to tasks of Swarm: made in dockerd's ingress_sbox, and connected there or by a worker."""

from __future__ import annotations

import errno
import os
import socket

from v6fwd.model import Protocol
from v6fwd.relay.limits.hops import set_hop_limit
from v6fwd.relay.sockets import save_ack, tune
from v6fwd.relay.transparent.privileged import MeshSocket

KINDS = {
    Protocol.TCP: socket.SOCK_STREAM | socket.SOCK_NONBLOCK,
    Protocol.UDP: socket.SOCK_DGRAM | socket.SOCK_NONBLOCK,
}
_BEGUN = (0, errno.EINPROGRESS)


def new_socket(protocol: Protocol) -> socket.SocketType:
    """Make a non-blocking socket in the namespace that the thread is in. Raises OSError."""
    sock = socket.SocketType(socket.AF_INET, KINDS[protocol], 0)
    try:
        if protocol is Protocol.TCP:
            tune(sock)
    except BaseException:
        sock.close()
        raise
    return sock


def connect(sock: socket.SocketType, request: MeshSocket) -> socket.SocketType:
    """Start to connect a new socket; return it. Raises OSError, and the socket is closed then."""
    try:
        if request.hop_limit:
            set_hop_limit(sock, request.hop_limit)
        if request.speaks:
            save_ack(sock)
        result = sock.connect_ex((socket.inet_ntoa(request.task), request.port))
        if result not in _BEGUN:
            raise OSError(result, os.strerror(result))
    except BaseException:
        sock.close()
        raise
    return sock
