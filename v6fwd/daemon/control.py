"""The control socket: one JSON object a line, both ways.

A request is one line, `{"do": "status"}`. The answer is one line or several; the last one has
`done`, and `error` with a list of lines if the request failed.

Bounded in everything that a client can do to it: CLIENTS at once, of which the one that has been
silent the longest makes room for a new one; MAX_REQUEST bytes, and seconds to send and to receive.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

from v6fwd.daemon.unix_listener import UnixListener
from v6fwd.errors import RelayError, reason
from v6fwd.log import in_background

MAX_REQUEST = 1 << 20
"""Bytes of a request line: one that names 10,000 endpoints has half of that."""
CLIENTS = 16
"""Connections at once. Descriptors must be left for workers."""
SILENCE = 30.0
"""Seconds for a request to come, and for a piece of an answer to be taken."""
TAKEOVER = 600.0
"""Seconds of silence that a successor may need until its workers are ready."""
PAUSE = 1.0
"""Seconds without accepting after accept(2) has failed, as without descriptors."""

Request = dict[str, Any]
Answers = AsyncIterator[dict[str, Any]]
Handler = Callable[[Request, socket.socket], Answers]


class _Conversation:
    """A client, request after request."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.task: asyncio.Task[None] | None = None
        self.is_waiting = True
        """For a request: it may be closed without harm."""
        self.patience: float | None = SILENCE
        """Seconds for a request to come; None: any time."""

    def drop(self) -> None:
        if self.task is not None:
            self.task.cancel()


class Control:
    """Answers at a path. The mode of the socket's file decides who may connect."""

    def __init__(self, path: str, group: str, handler: Handler) -> None:
        self._path = Path(path)
        self._group = group
        self._handler = handler
        self._socket: socket.socket | None = None
        self._clients: dict[_Conversation, None] = {}

    def open(self) -> None:
        """Take the path over in one step, whoever has it. Raises RelayError."""
        try:
            self._listener = UnixListener(self._path, self._group, "control socket")
        except (OSError, KeyError) as error:
            why = reason(error) if isinstance(error, OSError) else f"no group {self._group!r}"
            raise RelayError(f"cannot listen on control socket {self._path}: {why}") from error
        self._socket = self._listener.socket
        asyncio.get_running_loop().add_reader(self._socket, self._accept)

    def close(self) -> None:
        """Stop accepting. The path is removed unless a successor has it."""
        if self._socket is None:
            return
        asyncio.get_running_loop().remove_reader(self._socket)
        self._socket.close()
        self._socket = None
        self._listener.remove()

    def _accept(self) -> None:
        assert self._socket is not None
        try:
            sock, _ = self._socket.accept()
        except (BlockingIOError, ConnectionAbortedError):
            return
        except (
            OSError,
            MemoryError,
        ):  # EMFILE, ENFILE, ENOMEM: who waits stays readable: look later
            loop = asyncio.get_running_loop()
            loop.remove_reader(self._socket)
            loop.call_later(PAUSE, self._accept_again)
            return
        sock.setblocking(False)
        if len(self._clients) >= CLIENTS and not self._make_room():
            sock.close()
            return
        client = _Conversation(sock)
        self._clients[client] = None
        client.task = in_background(self._converse(client), "control")
        client.task.add_done_callback(lambda _: self._clients.pop(client, None))

    def _accept_again(self) -> None:
        if self._socket is not None:
            asyncio.get_running_loop().add_reader(self._socket, self._accept)

    def _make_room(self) -> bool:
        """Close the connection that has waited for the longest."""
        for client in self._clients:  # in the order of their coming
            if client.is_waiting and client.patience == SILENCE:
                client.drop()
                del self._clients[client]
                return True
        return False

    async def _converse(self, client: _Conversation) -> None:
        """Answer request after request, until the other end has no more."""
        sock, rest = client.sock, b""
        with sock, contextlib.suppress(OSError, TimeoutError):
            while True:
                async with asyncio.timeout(client.patience):
                    line, rest = await _read_line(sock, rest)
                client.is_waiting = False
                async for answer in self._answers(line, sock):
                    async with asyncio.timeout(SILENCE):
                        data = json.dumps(answer).encode() + b"\n"
                        await asyncio.get_running_loop().sock_sendall(sock, data)
                    if "sockets" in answer:
                        client.patience = TAKEOVER
                    elif answer.get("followed"):
                        client.patience = None
                client.is_waiting = True

    async def _answers(self, line: bytes, sock: socket.socket) -> Answers:
        try:
            request = json.loads(line)
            if not isinstance(request, dict):
                raise ValueError("not an object")
        except (ValueError, RecursionError):  # the latter for a hundred thousand brackets
            shown = line[:60].decode(errors="replace")
            yield failed(f'{shown!r} is no request; write {{"do": "status"}}')
            return
        try:
            async for answer in self._handler(request, sock):
                yield answer
        except OSError:  # whoever asked has gone
            raise
        except Exception as error:
            yield failed(f"{request} cannot be done: {error!r}")


async def _read_line(sock: socket.socket, rest: bytes) -> tuple[bytes, bytes]:
    """Return the next line and what came behind it. Raises OSError at the end."""
    while b"\n" not in rest and len(rest) < MAX_REQUEST:
        data = await asyncio.get_running_loop().sock_recv(sock, 1 << 16)
        if not data:
            raise ConnectionAbortedError
        rest += data
    line, _, rest = rest.partition(b"\n")
    return line, rest


def failed(*lines: str) -> dict[str, Any]:
    """Return the answer to a request that failed."""
    return {"error": lines, "done": True}
