"""A web server in the supervisor's loop: /metrics, /healthz, the status page, and / to find them.

Bounded in everything that a client can do to it: REQUEST bytes of head, PATIENCE seconds, CLIENTS
at once. Silent connections do not keep others out: the oldest one that has not sent its request
makes room. One request a connection; a body is not read. A page with `follow` goes on for as long
as its maker likes, who bounds how many there are.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import socket
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Protocol

from v6fwd.daemon.peer import Connected
from v6fwd.daemon.unix_listener import UnixListener
from v6fwd.log import Log
from v6fwd.model import Endpoint
from v6fwd.relay.sockets import cannot_listen, listen_address

REQUEST = 8192
"""Bytes of a request's head."""
PATIENCE = 5.0
"""Seconds for a request to come, and again for the answer to be taken."""
CLIENTS = 16
"""Connections at once. Descriptors must be left for workers."""
_LENGTH_RE = re.compile(r"[0-9]{1,9}")
PLAIN = "text/plain; charset=utf-8"


@dataclass(frozen=True, slots=True)
class Page:
    """An answer."""

    body: bytes
    content_type: str = PLAIN
    status: HTTPStatus = HTTPStatus.OK
    fields: tuple[str, ...] = ()
    """More lines of the head."""
    follow: Callable[[asyncio.StreamWriter], Awaitable[None]] | None = None
    """Writes the rest of a body that has no length."""


Guard = Callable[[str, bytes], HTTPStatus | None]
"""Why a request for a path is refused, by the request's head; None: it is not."""
Pages = Mapping[str, Callable[[], Awaitable[Page]]]
"""What makes the page, by its path."""
Posts = Mapping[str, Callable[[bytes, bytes], Awaitable[Page]]]
"""What answers a POST with this head and body, by its path."""


class Background(Protocol):
    """What gathers for the pages."""

    def start(self) -> None:
        """Begin, on the running loop."""

    def close(self) -> None:
        """Stop; connections that follow end. May be called more than once."""


class WebServer:
    """Serves `pages` at an endpoint."""

    def __init__(
        self,
        listen: Endpoint,
        pages: Pages,
        log: Log,
        guard: Guard | None = None,
        background: Background | None = None,
        posts: Posts | None = None,
        trusts: Callable[[Connected], bool] = lambda _: True,
    ) -> None:
        """`background` is started and closed with the server.

        `trusts`: whether whoever connected to a unix socket is answered.
        """
        self._trusts = trusts
        self._listen = listen
        self._pages = pages
        self._posts = posts or {}
        self._guard = guard
        self._background = background
        self._log = log
        self._server: asyncio.Server | None = None
        self._unix: UnixListener | None = None
        self._clients: set[asyncio.StreamWriter] = set()
        self._silent: dict[asyncio.StreamWriter, None] = {}
        """Those that have not sent their request yet, the oldest first."""

    async def open(self, *, beside: bool = False) -> None:
        """Listen; `beside` a predecessor, who listens there until it goes.

        Raises RelayError, naming the endpoint.
        """
        try:
            if self._listen.path:
                self._unix = UnixListener(Path(self._listen.path), "", "socket")
                self._server = await asyncio.start_unix_server(
                    self._converse, sock=self._unix.socket, limit=REQUEST
                )
            else:
                self._server = await asyncio.start_server(
                    self._converse, sock=_listening(self._listen, beside=beside), limit=REQUEST
                )
        except OSError as error:
            raise cannot_listen(self._listen, error) from error
        if self._background is not None:
            self._background.start()

    @property
    def port(self) -> int:
        """The bound port."""
        assert self._server is not None
        return int(self._server.sockets[0].getsockname()[1])

    def close(self) -> None:
        """Free the port."""
        if self._server is not None:
            self._server.close()
            self._server = None
            if self._unix is not None:
                self._unix.remove()
        if self._background is not None:
            self._background.close()

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        has_room = len(self._clients) < CLIENTS or self._make_room()
        self._clients.add(writer)
        try:
            if self._unix is not None and not self._trusts(writer.get_extra_info("socket")):
                raise PermissionError
            if has_room:
                await self._answer(reader, writer)
            writer.close()
        except (OSError, TimeoutError, asyncio.IncompleteReadError):
            writer.transport.abort()  # whoever asked has gone or was too slow
        except Exception as error:
            self._log.limited("web", "defect", f"internal error on {self._listen}: {error!r}")
            writer.transport.abort()
        finally:
            self._clients.discard(writer)
            self._silent.pop(writer, None)

    def _make_room(self) -> bool:
        """Close the connection that has been silent for the longest."""
        for writer in self._silent:
            del self._silent[writer]
            self._clients.discard(writer)
            writer.transport.abort()
            return True
        return False

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._silent[writer] = None
        async with asyncio.timeout(PATIENCE):
            try:
                head = await reader.readuntil(b"\r\n\r\n")
            except asyncio.LimitOverrunError:
                head = b""
        self._silent.pop(writer, None)
        page, with_body = await self._page(head, reader)
        writer.write(_head(page))
        writer.write(page.body if with_body else b"")
        if page.follow is not None and with_body:
            self._clients.discard(writer)
            await page.follow(writer)
            return
        async with asyncio.timeout(PATIENCE):
            await writer.drain()
            writer.write_eof()
            with contextlib.suppress(ConnectionError):  # what else was sent must not reset us
                await reader.read(REQUEST)

    async def _page(self, head: bytes, reader: asyncio.StreamReader) -> tuple[Page, bool]:
        """The answer to a request's head, b"" for one that is too large; and if its body goes out.

        RFC 9112, section 3: a request line is three words with one space between them.
        """
        if not head:
            return _failure(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE), True
        words = head.partition(b"\r\n")[0].split(b" ")
        if len(words) != 3 or not words[2].startswith(b"HTTP/1.") or not words[1].startswith(b"/"):
            return _failure(HTTPStatus.BAD_REQUEST), True
        path = words[1].partition(b"?")[0].decode("ascii", "replace")
        is_post = words[0] == b"POST" and path in self._posts
        if not is_post and words[0] not in (b"GET", b"HEAD"):
            return _failure(HTTPStatus.METHOD_NOT_ALLOWED), True
        refusal = self._guard(path, head) if self._guard is not None else None
        if refusal is not None:
            return _failure(refusal), words[0] != b"HEAD"
        if is_post:
            return await self._posted(path, head, reader), True
        make = self._pages.get(path)
        page = _failure(HTTPStatus.NOT_FOUND) if make is None else await make()
        return page, words[0] == b"GET"

    async def _posted(self, path: str, head: bytes, reader: asyncio.StreamReader) -> Page:
        fields = fields_of(head)
        lengths = fields.get("content-length", [])
        if (
            "transfer-encoding" in fields
            or len(lengths) != 1
            or not _LENGTH_RE.fullmatch(lengths[0])
        ):
            return _failure(HTTPStatus.LENGTH_REQUIRED)
        if int(lengths[0]) > REQUEST:
            return _failure(HTTPStatus.REQUEST_ENTITY_TOO_LARGE)
        async with asyncio.timeout(PATIENCE):
            body = await reader.readexactly(int(lengths[0]))
        return await self._posts[path](head, body)


def fields_of(head: bytes) -> dict[str, list[str]]:
    """The fields of a request's head, by name in small letters."""
    found: dict[str, list[str]] = {}
    for line in head.decode("latin-1").split("\r\n")[1:]:
        name, _, value = line.partition(":")
        found.setdefault(name.lower(), []).append(value.strip(" \t"))
    return found


def _head(page: Page) -> bytes:
    lines = [
        f"HTTP/1.1 {page.status.value} {page.status.phrase}",
        f"Content-Type: {page.content_type}",
        *([f"Content-Length: {len(page.body)}"] if page.follow is None else []),
        "Connection: close",
        *page.fields,
    ]
    if page.status is HTTPStatus.METHOD_NOT_ALLOWED:
        lines.append("Allow: GET, HEAD")
    if page.status is HTTPStatus.UNAUTHORIZED:  # RFC 7617
        lines.append('WWW-Authenticate: Basic realm="v6fwd", charset="UTF-8"')
    return "\r\n".join([*lines, "", ""]).encode("ascii")


def _failure(status: HTTPStatus) -> Page:
    return Page(f"{status.phrase}\n".encode(), status=status)


def _listening(listen: Endpoint, *, beside: bool) -> socket.socket:
    """Return a socket that a successor may bind beside, until we are gone: SO_REUSEPORT.

    It is set after bind(2), so that we find the port taken if another daemon has it; only `beside`
    a predecessor it is set before. The kernel compares the flags as they are when the next one
    binds (inet_csk_bind_conflict).
    """
    family, sockaddr = listen_address(listen, socket.SOCK_STREAM)
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, beside)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        sock.bind(sockaddr)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        sock.setblocking(False)
    except OSError:
        sock.close()
        raise
    return sock
