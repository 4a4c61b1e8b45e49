"""Asks the Engine which containers there are, when that changes, and for a container's process.

Written by hand: aiodocker and the aiohttp below it take 15 MB, more than the rest of the daemon,
and HTTP/1.0 over a unix socket is enough, where a body ends with its connection. The path has no
version: every Engine since 1.12 gives these answers.
"""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import quote

from v6fwd.errors import reason

PATIENCE = 10.0
"""Seconds for the head of an answer, and between two parts of a list: a daemon that is starting has
its socket before it answers. Only events may be silent for as long as they like."""
PID_PATIENCE = 2.0
"""Seconds for one container's process: the Engine does not answer about one that it starts."""
MAX_LINE = 1 << 20
"""Bytes of an event: it has all labels of a container."""
MAX_ANSWER = 64 << 20
"""Bytes of a list: thousands of containers with a label or two of some kilobytes."""
MAX_PID = 1 << 31
"""A pid_t is below."""
_STATUS = re.compile(rb"HTTP/1\.[01] ([0-9]{3})[ \r]")
_EVENTS = {
    "type": ["container", "network"],
    "event": ["create", "start", "die", "destroy", "rename", "connect", "disconnect"],
}


class EngineError(Exception):
    """The Engine cannot be asked; the text is one line for the operator."""


class EngineApi:
    """The Engine at a unix socket, `unix:///run/docker.sock`."""

    def __init__(self, host: str) -> None:
        self.host = host
        self._path = host.removeprefix("unix://")

    async def containers(self) -> list[dict[str, Any]]:
        """Return all, including those that do not run. Raises EngineError."""
        async with self._ask("/containers/json?all=1") as reader:
            answer = _json(await _whole(reader))
        if not isinstance(answer, list) or not all(isinstance(item, dict) for item in answer):
            raise EngineError(f"Docker at {self.host} answers with something else than containers")
        return answer

    async def get(self, path: str) -> Any:
        """The answer to any other question. Raises EngineError."""
        async with self._ask(path) as reader:
            return _json(await _whole(reader))

    async def pid(self, container: str) -> int:
        """Return the first process of a container; 0 where the Engine cannot tell now."""
        try:
            async with asyncio.timeout(PID_PATIENCE):
                async with self._ask(f"/containers/{quote(container)}/json") as reader:
                    return _pid(_json(await _whole(reader)))
        except (EngineError, TimeoutError):
            return 0

    @asynccontextmanager
    async def events(self) -> AsyncIterator[AsyncIterator[dict[str, Any]]]:
        """Yield events of containers and their networks from now on. Raises EngineError.

        The Engine answers first and subscribes then. `since` has it repeat what came in between.
        """
        wanted = quote(json.dumps(_EVENTS))
        async with self._ask(f"/events?since={int(time.time())}&filters={wanted}") as reader:
            yield _lines(reader)

    @asynccontextmanager
    async def _ask(self, path: str) -> AsyncIterator[asyncio.StreamReader]:
        writer = None
        try:
            async with asyncio.timeout(PATIENCE):
                reader, writer = await self._connect()
                writer.write(f"GET {path} HTTP/1.0\r\nHost: docker\r\n\r\n".encode())
                await self._read_head(reader)
            yield reader
        except TimeoutError:
            raise EngineError(f"Docker at {self.host} does not answer") from None
        except OSError as error:
            raise EngineError(f"cannot ask Docker at {self.host}: {reason(error)}") from error
        except (asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            raise EngineError(f"Docker at {self.host} broke off") from None
        finally:
            if writer is not None:
                writer.close()

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_unix_connection(self._path, limit=MAX_LINE)

    async def _read_head(self, reader: asyncio.StreamReader) -> None:
        """Read up to the body of a good answer. Raises EngineError for any other."""
        head = await reader.readuntil(b"\r\n\r\n")
        found = _STATUS.match(head)
        if found is None:
            raise EngineError(f"the server at {self.host} is not Docker: it does not speak HTTP")
        if found[1] != b"200":
            text = " ".join((await reader.read(200)).decode(errors="replace").split())
            raise EngineError(f"Docker at {self.host} answers {found[1].decode()}: {text}")
        if b"\r\ntransfer-encoding:" in head.lower():
            raise EngineError(f"the server at {self.host} does not speak HTTP/1.0, as Docker does")


def _pid(answer: Any) -> int:
    """Return State.Pid; 0 where there is none."""
    state = answer.get("State") if isinstance(answer, dict) else None
    pid = state.get("Pid") if isinstance(state, dict) else None
    return pid if type(pid) is int and 0 < pid < MAX_PID else 0


async def _whole(reader: asyncio.StreamReader) -> bytes:
    parts, size = [], 0
    while part := await _part(reader):
        parts.append(part)
        size += len(part)
        if size > MAX_ANSWER:
            raise EngineError(f"Docker's answer has more than {MAX_ANSWER} bytes")
    return b"".join(parts)


async def _part(reader: asyncio.StreamReader) -> bytes:
    async with asyncio.timeout(PATIENCE):  # wait_for(3.11) may lose a cancellation
        return await reader.read(1 << 16)


async def _lines(reader: asyncio.StreamReader) -> AsyncIterator[dict[str, Any]]:
    while line := await _line(reader):
        event: dict[str, Any] = _json(line)
        yield event


async def _line(reader: asyncio.StreamReader) -> bytes:
    try:
        return await reader.readline()
    except ValueError:  # what readline makes of LimitOverrunError
        raise EngineError(f"Docker sent an event of more than {MAX_LINE} bytes") from None


def _json(data: bytes) -> Any:
    try:
        return json.loads(data)
    except (ValueError, RecursionError):  # the latter for a hundred thousand brackets
        raise EngineError("Docker's answer is not JSON, or it broke off") from None
