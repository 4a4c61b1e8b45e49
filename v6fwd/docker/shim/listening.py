"""The listening socket of a published port: dockerd's own, or one opened in its place."""

from __future__ import annotations

import socket

from v6fwd.errors import AddressInUseError, RelayError, reason
from v6fwd.model import Endpoint, Protocol, bracketed
from v6fwd.relay.sockets import listen_address, open_listener, prepare_listener

LISTEN_FD = 4
"""The descriptor that dockerd passes with -use-listen-fd, or that a shim has from a daemon."""

_KINDS = {Protocol.TCP: socket.SOCK_STREAM, Protocol.UDP: socket.SOCK_DGRAM}


def own(endpoint: Endpoint) -> socket.socket:
    """Open a socket for one family: another process serves 0.0.0.0 at the same port.

    Raises RelayError with docker-proxy's text, which people search for.
    """
    try:
        if endpoint.protocol is Protocol.TCP:
            return open_listener(endpoint, v6only=True)
        from v6fwd.relay.udp_sockets import open_udp_listener  # only where there is UDP

        return open_udp_listener(endpoint, v6only=True)
    except RelayError as error:
        if not isinstance(error.__cause__, OSError):
            raise
        network = f"{endpoint.protocol}{6 if ':' in endpoint.host else 4}"
        where = f"{bracketed(endpoint.host)}:{endpoint.port}"
        text = f"listen {network} {where}: bind: {reason(error.__cause__)}"
        if isinstance(error, AddressInUseError):
            raise AddressInUseError(text, error.listen) from error
        raise RelayError(text) from error


def from_descriptor(fd: int, endpoint: Endpoint) -> socket.socket:
    """Use the socket that dockerd opened; owns `fd` from now on. Raises RelayError."""
    try:
        sock = socket.socket(fileno=fd)
        sock.set_inheritable(False)
        _prepare(sock, endpoint)
    except OSError as error:
        text = f"cannot use descriptor {LISTEN_FD} as {endpoint}: {reason(error)}"
        raise RelayError(text) from error
    return sock


def _prepare(sock: socket.socket, endpoint: Endpoint) -> None:
    if endpoint.protocol is Protocol.TCP:
        prepare_listener(sock)
    else:
        from v6fwd.relay.udp_sockets import prepare_udp_listener  # only where there is UDP

        prepare_udp_listener(sock)


def is_bound(fd: int, endpoint: Endpoint) -> bool:
    """Return whether a descriptor is a socket for exactly the clients of `endpoint`."""
    try:
        sock = socket.socket(fileno=fd)
    except OSError:  # no socket
        return False
    kind = _KINDS[endpoint.protocol]
    try:
        family, address = listen_address(endpoint, kind)
        return (sock.family, sock.type, sock.getsockname()) == (family, kind, address)
    finally:
        sock.detach()
