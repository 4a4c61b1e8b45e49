"""The control socket: who may ask, and the answers. One JSON object a line, both ways.

A request is one line, `{"do": "status"}`; the answer is one line or several, of which the last
has `done`. If that went wrong it has `error`, a list of lines for whoever asked, too.
"""

from __future__ import annotations

import asyncio
import contextlib
import grp
import json
import os
import socket
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

from v6fwd.errors import RelayError, reason

MAX_REQUEST = 1 << 20
"""Bytes of a request line: one that names 10,000 endpoints has half of that."""

Request = dict[str, Any]
Answers = AsyncIterator[dict[str, Any]]
Handler = Callable[[Request, socket.socket], Answers]


class Control:
    """Answers at a path, to whom the file's mode lets in."""

    def __init__(self, path: str, group: str, handler: Handler) -> None:
        self._path = Path(path)
        self._group = group
        self._handler = handler
        self._socket: socket.socket | None = None
        self._inode = 0
        self._tasks: set[asyncio.Task[None]] = set()

    def open(self) -> None:
        """Take the path over, whoever has it, in one step. Raises RelayError."""
        try:
            self._socket = self._listen()
        except (OSError, KeyError) as error:
            why = reason(error) if isinstance(error, OSError) else f"no group {self._group!r}"
            raise RelayError(f"cannot listen on control socket {self._path}: {why}") from error
        asyncio.get_running_loop().add_reader(self._socket, self._accept)

    def _listen(self) -> socket.socket:
        if self._path.exists() and not self._path.is_socket():
            raise RelayError(f"cannot listen on control socket {self._path}: a file is there")
        self._path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        new = self._path.with_name(f".{self._path.name}.{os.getpid()}")
        with contextlib.ExitStack() as undo:
            sock = undo.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))
            sock.setblocking(False)
            new.unlink(missing_ok=True)
            sock.bind(str(new))
            undo.callback(new.unlink, missing_ok=True)
            new.chmod(0o600)
            if self._group:
                os.chown(new, -1, grp.getgrnam(self._group).gr_gid)
                new.chmod(0o660)
            sock.listen()  # nobody can connect before
            self._inode = new.stat().st_ino
            new.rename(self._path)
            undo.pop_all()
        return sock

    def close(self) -> None:
        """Answer nobody any more; the path is removed unless a successor has it."""
        if self._socket is None:
            return
        asyncio.get_running_loop().remove_reader(self._socket)
        self._socket.close()
        self._socket = None
        with contextlib.suppress(OSError):
            if self._path.stat().st_ino == self._inode:
                self._path.unlink()

    def _accept(self) -> None:
        assert self._socket is not None
        try:
            sock, _ = self._socket.accept()
        except OSError:
            return
        sock.setblocking(False)
        task = asyncio.get_running_loop().create_task(self._converse(sock), name="control")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _converse(self, sock: socket.socket) -> None:
        """Answer request after request, until the other one has no more."""
        loop = asyncio.get_running_loop()
        with sock, contextlib.suppress(OSError):
            rest = b""
            while True:
                while b"\n" not in rest and len(rest) < MAX_REQUEST:
                    data = await loop.sock_recv(sock, 1 << 16)
                    if not data:
                        return
                    rest += data
                line, _, rest = rest.partition(b"\n")
                async for answer in self._answers(line, sock):
                    await loop.sock_sendall(sock, json.dumps(answer).encode() + b"\n")

    async def _answers(self, line: bytes, sock: socket.socket) -> Answers:
        try:
            request = json.loads(line)
            if not isinstance(request, dict):
                raise ValueError("not an object")
        except ValueError:
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


def failed(*lines: str) -> dict[str, Any]:
    """The answer to a request that cannot be fulfilled."""
    return {"error": lines, "done": True}
