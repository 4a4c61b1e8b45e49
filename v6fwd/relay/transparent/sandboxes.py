"""Sockets in dockerd's ingress_sbox, the namespace from which all tasks of a swarm are reached."""

from __future__ import annotations

import os
import socket

from v6fwd.errors import RelayError, reason
from v6fwd.model import Protocol
from v6fwd.netns.handle import Handle, identity, own_identity
from v6fwd.relay.transparent.privileged import MeshSocket
from v6fwd.relay.transparent.task_socket import connect, new_socket


class Sandboxes:
    """Open namespaces by path.

    dockerd makes a new namespace at each start, so a path is looked at for each socket: stat(2)
    takes 2 us. While there is none the old one still leads to the tasks.
    """

    def __init__(self) -> None:
        self._open: dict[str, Handle] = {}

    def connected(self, request: MeshSocket) -> socket.SocketType:
        """Make a non-blocking socket that connects to a task. Raises RelayError and OSError."""
        sandbox = self._sandbox(request.netns)
        with sandbox.entered():
            sock = new_socket(request.protocol)
        return connect(sock, request)

    def sockets_ahead(self, path: str, number: int) -> list[socket.SocketType]:
        """Make TCP sockets that are not connected yet. Raises RelayError and OSError."""
        with self._sandbox(path).entered():
            return [new_socket(Protocol.TCP) for _ in range(number)]

    def _sandbox(self, path: str) -> Handle:
        known = self._open.get(path)
        try:
            now = identity(os.stat(path))
            if known is None or known.identity != now:
                self._replace(path)
        except OSError as error:
            if known is None:
                raise RelayError(f"cannot open {path}: {reason(error)}") from None
        return self._open[path]

    def _replace(self, path: str) -> None:
        """Raises OSError, and RelayError for our own namespace."""
        found = Handle(path)
        if found.identity == own_identity():
            found.close()
            raise RelayError(f"{path} is v6fwd's own network namespace, not dockerd's")
        gone = [each for each in self._open if each == path or not os.path.exists(each)]
        for each in gone:
            self._open.pop(each).close()
        self._open[path] = found

    def close(self) -> None:
        """Close all."""
        for handle in self._open.values():
            handle.close()
        self._open.clear()
