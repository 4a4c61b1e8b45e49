"""For tests that need an Engine's answers: a unix socket in the test's own event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

Answer = Callable[[asyncio.StreamWriter], Awaitable[None]]
"""Writes an answer; the connection is closed when it returns."""

HEAD = b"HTTP/1.0 200 OK\r\nContent-Type: application/json\r\n\r\n"
EVENT = b'{"Type":"container","Action":"start"}\n'


def says(*parts: bytes) -> Answer:
    """These bytes, and then the end."""

    async def answer(writer: asyncio.StreamWriter) -> None:
        for part in parts:
            writer.write(part)
            await writer.drain()

    return answer


async def hangs(_: asyncio.StreamWriter) -> None:
    """Nothing, ever."""
    await asyncio.Event().wait()


class FakeEngine:
    """`paths` are the requests that have come, in order."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.host = f"unix://{path}"
        self.containers: Answer = says(HEAD + b"[]")
        self.inspect: Answer = says(HEAD + b"{}")
        self.paths: list[str] = []
        self._server: asyncio.Server | None = None
        self._listeners: list[asyncio.StreamWriter] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self.events: Answer = self._listen

    async def start(self) -> None:
        """Answer whoever comes."""
        self._server = await asyncio.start_unix_server(self._serve, self.path)

    def tell(self, data: bytes = EVENT) -> None:
        """Let all know who listen for events."""
        for writer in self._listeners:
            writer.write(data)

    def asked(self, path: str) -> int:
        """How often that was asked for, without what is behind a question mark."""
        return sum(each.partition("?")[0] == path for each in self.paths)

    async def stop(self) -> None:
        """Break off whatever it is about to do, and have no socket any more."""
        if self._server is not None:
            self._server.close()
        self.path.unlink(missing_ok=True)
        self._listeners.clear()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            path = head.split()[1].decode()
            self.paths.append(path)
            await self._answer(path)(writer)
        except (asyncio.CancelledError, ConnectionError, EOFError):
            pass  # what is wanted: asyncio would print it
        finally:
            writer.close()

    def _answer(self, path: str) -> Answer:
        if path.startswith("/events"):
            return self.events
        return self.containers if path.startswith("/containers/json") else self.inspect

    async def _listen(self, writer: asyncio.StreamWriter) -> None:
        writer.write(HEAD)
        self._listeners.append(writer)
        await asyncio.Event().wait()
