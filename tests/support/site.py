"""For tests of `v6fwd serve` as a process, with plain sockets as clients and as two targets."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Callable, Sequence

from tests.support.daemon import ServeProcess
from tests.support.process import PATIENCE, free_port
from tests.support.rig import reset, was_reset


class Site:
    """A daemon, and listening sockets that are its targets."""

    def __init__(self, daemon: ServeProcess) -> None:
        self.daemon = daemon
        self.port = free_port()
        self._open: list[socket.socket] = []
        self._clients: list[socket.socket] = []
        self.one, self.other = self._listening(), self._listening()

    def _listening(self) -> socket.socket:
        sock = socket.create_server(("127.0.0.1", 0), backlog=4096)
        sock.settimeout(PATIENCE)
        self._open.append(sock)
        return sock

    def target(self, server: socket.socket) -> str:
        """As a configuration names it."""
        return f"127.0.0.1:{server.getsockname()[1]}"

    @property
    def listen(self) -> str:
        """LISTEN of the forward."""
        return f"[::]:{self.port}"

    def run(
        self,
        *,
        more: str = "",
        workers: int = 2,
        prefix: Sequence[str] = (),
        preexec: Callable[[], object] | None = None,
    ) -> None:
        """Forward from `port` to `one`."""
        pair = self.listen, self.target(self.one)
        self.daemon.configure(pair, more=more, workers=workers)
        self.daemon.run(prefix=prefix, preexec=preexec)

    def connect(self) -> socket.socket:
        """A client."""
        sock = socket.create_connection(("::1", self.port), PATIENCE)
        self._clients.append(sock)
        return sock

    def pair(self, server: socket.socket | None = None) -> tuple[socket.socket, socket.socket]:
        """Both ends of a new flow, of which each has heard from the other."""
        client = self.connect()
        client.sendall(b"hello")
        while True:
            target, _ = (server or self.one).accept()
            target.settimeout(PATIENCE)
            self._open.append(target)
            with contextlib.suppress(ConnectionResetError):  # who only looked whether we are there
                if target.recv(5) == b"hello":
                    return client, target
            target.close()

    def is_cut_off(self) -> bool:
        """Whether a new client is reset; that can come before connect(2) has even returned."""
        try:
            return was_reset(self.connect())
        except ConnectionResetError:
            return True

    def refuses(self) -> bool:
        """Whether nobody listens any more."""
        try:
            reset(socket.create_connection(("::1", self.port), PATIENCE))  # no flow is left of it
        except ConnectionRefusedError:
            return True
        except ConnectionResetError:
            pass
        return False

    def close_clients(self, but: int = 0) -> None:
        """Close all clients but the first few."""
        for sock in self._clients[but:]:
            sock.close()
        del self._clients[but:]

    def close(self) -> None:
        """Close all sockets."""
        self.close_clients()
        for sock in self._open:
            sock.close()
