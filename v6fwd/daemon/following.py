"""A predecessor that drains does about clients what its successor is asked: ban, unban, kill.

Else a client who is banned after a takeover would keep the flows that the predecessor still has.
The request goes as it is over the connection of the takeover, with a number in `following`, which
the answer repeats.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import socket
from typing import Any

from v6fwd.daemon.peer import peer_of

PATIENCE = 12.0
"""Seconds for an answer of the predecessor; its workers have 10."""
_NUMBER = "following"
_MAX_LINE = 1 << 24
"""Bytes of an answer: a thousand bans have 100 kB."""

Answer = dict[str, Any]


class Following:
    """The predecessor, after it was told to leave."""

    def __init__(self, sock: socket.socket) -> None:
        """`sock`: the connection to its control socket."""
        sock.setblocking(False)
        self._pid = peer_of(sock).pid
        self._socket: socket.socket | None = sock
        self._rest = b""
        self._numbers = itertools.count(1)
        self._one_at_a_time = asyncio.Lock()

    async def change(self, request: Answer) -> Answer:
        """Have it do the same; return its answer, {} if it has gone.

        If it does not answer in time it is named as `missing`.
        """
        async with self._one_at_a_time:
            if self._socket is None:
                return {}
            number = next(self._numbers)
            try:
                async with asyncio.timeout(PATIENCE):
                    return await self._ask(self._socket, request | {_NUMBER: number}, number)
            except TimeoutError:
                return {"missing": [self._pid]}
            except (OSError, ValueError):  # its last flow is over
                self.close()
                return {}

    async def _ask(self, sock: socket.socket, request: Answer, number: int) -> Answer:
        """Raises OSError at the end, ValueError for what is no answer."""
        loop = asyncio.get_running_loop()
        await loop.sock_sendall(sock, json.dumps(request).encode() + b"\n")
        while True:
            while b"\n" not in self._rest:
                data = await loop.sock_recv(sock, 1 << 16)
                if not data or len(self._rest) > _MAX_LINE:
                    raise ConnectionAbortedError
                self._rest += data
            line, _, self._rest = self._rest.partition(b"\n")
            answer = json.loads(line)
            if not isinstance(answer, dict):
                raise ValueError("not an object")
            if answer.get(_NUMBER) == number:
                return answer
            if _NUMBER not in answer:  # 0.1.0, which does nothing any more for anybody
                return {"missing": [self._pid]}

    def close(self) -> None:
        """Close the connection."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None


def is_of_successor(request: Answer) -> bool:
    """Whether it comes from a successor, which keeps bans itself."""
    return _NUMBER in request


def numbered(answer: Answer, request: Answer) -> Answer:
    """The answer to a request, with its number if it has one."""
    return answer | {_NUMBER: request[_NUMBER]} if is_of_successor(request) else answer


def joined(own: Answer, other: Answer) -> Answer:
    """Our answer, with the flows that the predecessor has ended and its missing workers."""
    if "error" in own:
        return own
    more: Answer = {"missing": [*own["missing"], *other.get("missing", ())]}
    ended, others = own.get("ended"), other.get("ended")
    if isinstance(ended, int) and isinstance(others, int):
        more["ended"] = ended + others
    elif isinstance(ended, dict) and isinstance(others, dict):
        more["ended"] = {
            listen: ended.get(listen, 0) + others.get(listen, 0) for listen in {**ended, **others}
        }
    return own | more
