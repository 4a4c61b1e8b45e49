"""What this room needs of the daemon: somebody who serves forwards."""

from __future__ import annotations

import socket
from collections.abc import Mapping
from typing import Protocol

from v6fwd.model import Endpoint, Forward


class ListenSockets(Protocol):
    """The listening sockets that are there already."""

    def __contains__(self, listen: Endpoint) -> bool: ...


class Forwards(Protocol):
    """The daemon's supervisor, as far as we know it."""

    @property
    def forwards(self) -> Mapping[Endpoint, Forward]:
        """What is served."""

    @property
    def listen_sockets(self) -> ListenSockets:
        """See ListenSockets; those of a predecessor, too."""

    def open(self, forward: Forward, sockets: list[socket.socket] | None = None) -> None:
        """Serve one more. Raises RelayError."""

    def change(self, forward: Forward) -> None:
        """Serve new flows of a forward like this. Raises KeyError."""

    def close(self, listen: Endpoint, grace: float | None = None) -> None:
        """Stop to listen; flows have `grace` seconds. Raises KeyError."""

    async def settled(self) -> None:
        """Wait until all that was told so far is done."""
