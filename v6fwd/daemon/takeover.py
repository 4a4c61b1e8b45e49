"""Hands the listening sockets from one daemon to the next: somebody listens at every moment.

The successor sends `{"do": "takeover"}` to the control socket. The answer lists the sockets, by
endpoint and shard, and the endpoint of the metrics; the sockets follow as descriptors, CHUNK with a
byte. Both daemons accept for a while. When its workers are ready the successor takes the path of
the control socket and sends `{"do": "leave"}`. If it fails before, nothing has changed. The
connection stays, for what the predecessor has to do about its last flows: see following.
"""

from __future__ import annotations

import asyncio
import errno
import json
import socket
from collections.abc import Collection, Iterable, Sequence
from typing import Any

from v6fwd.daemon.channel import SHORT
from v6fwd.daemon.following import Following
from v6fwd.daemon.listen_sockets import ListenSockets, Sockets
from v6fwd.daemon.peer import peer_of
from v6fwd.errors import RelayError, reason
from v6fwd.model import Endpoint, parse_listen

CHUNK = 128
"""Descriptors sent at once; the kernel takes 253 (SCM_MAX_FD, unix(7))."""
PATIENCE = 10.0
"""Seconds for an answer of the predecessor."""


class Predecessor:
    """The daemon that has the control socket, seen from its successor."""

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock
        self._lines = sock.makefile("rb", buffering=0)  # no byte beyond a line: descriptors follow
        self._metrics: str | None = None

    @classmethod
    def at(cls, path: str, users: Collection[int]) -> Predecessor | None:
        """Return whoever answers there; None if nobody does.

        Raises RelayError, also if that is a process of none of `users`, by number.
        """
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        sock.settimeout(PATIENCE)
        try:
            sock.connect(path)
        except (FileNotFoundError, ConnectionRefusedError):
            sock.close()
            return None
        except OSError as error:
            sock.close()
            raise RelayError(f"cannot ask at control socket {path}: {reason(error)}") from error
        if (uid := peer_of(sock).uid) not in users:
            sock.close()
            raise RelayError(f"cannot take over: control socket {path} is that of user {uid}")
        return cls(sock)

    def sockets(self) -> dict[Endpoint, Sockets]:
        """Return copies of its listening sockets. Raises RelayError."""
        answer = self._ask({"do": "takeover"})
        names, self._metrics = answer["sockets"], answer.get("metrics")
        fds: list[int] = []
        while len(fds) < len(names):
            data, some, flags, _ = socket.recv_fds(self._socket, 1, CHUNK)
            fds += some
            if not data:
                raise RelayError("the running daemon broke off while it handed over its sockets")
            if flags & socket.MSG_CTRUNC:  # the kernel has closed the rest
                raise RelayError("cannot take over from the running daemon: too many open files")
        taken: dict[Endpoint, Sockets] = {}
        for name, fd in zip(names, fds, strict=True):
            taken.setdefault(parse_listen(name)[0], []).append(socket.socket(fileno=fd))
        return taken

    def shares_metrics(self, listen: Endpoint) -> bool:
        """Whether its metrics are at this endpoint, so that we may listen there beside it.

        To be asked after `sockets`. An older version does not say: it may.
        """
        return self._metrics in (None, str(listen))

    def leave(self, kept: Iterable[Endpoint]) -> Following:
        """Tell it to finish its flows and go; we serve the endpoints in `kept`.

        Raises RelayError.
        """
        self._ask({"do": "leave", "kept": [str(listen) for listen in kept]})
        self._lines.close()
        return Following(self._socket)

    def _ask(self, request: dict[str, Any]) -> dict[str, Any]:
        try:
            self._socket.sendall(json.dumps(request).encode() + b"\n")
            answer: dict[str, Any] = json.loads(self._lines.readline())
        except (OSError, ValueError) as error:
            why = reason(error) if isinstance(error, OSError) else "no answer"
            raise RelayError(f"cannot take over from the running daemon: {why}") from error
        if "error" in answer:
            raise RelayError(f"cannot take over from the running daemon: {answer['error'][0]}")
        return answer


def listing(listen_sockets: ListenSockets) -> list[tuple[str, socket.socket]]:
    """All listening sockets, those of an endpoint in the order of their shards."""
    return [(str(listen), sock) for listen, sockets in listen_sockets for sock in sockets]


async def hand_over(sock: socket.socket, sockets: Sequence[socket.socket]) -> None:
    """Send the descriptors to a successor. Raises OSError."""
    for at in range(0, len(sockets), CHUNK):
        fds = [each.fileno() for each in sockets[at : at + CHUNK]]
        while True:
            try:
                socket.send_fds(sock, [b"."], fds)
                break
            except OSError as error:
                if error.errno not in {errno.EAGAIN, *SHORT}:
                    raise
                await asyncio.sleep(0.01)
