"""The little web server: a few pages, and nothing that a client can do to it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import tempfile
from collections.abc import AsyncIterator
from http import HTTPStatus
from pathlib import Path
from typing import Any

import pytest

from tests.support.relaying import until
from v6fwd.daemon import web
from v6fwd.daemon.peer import Connected, peer_of
from v6fwd.daemon.web import CLIENTS, REQUEST, Page, WebServer
from v6fwd.errors import RelayError
from v6fwd.log import Log
from v6fwd.model import Endpoint


async def hello() -> Page:
    """A page that is there."""
    return Page(b"hello\n")


async def strict() -> Page:
    """A page with a policy."""
    return Page(b"strict\n", fields=("Content-Security-Policy: default-src 'none'",))


async def ill() -> Page:
    """A page that tells of trouble."""
    return Page(b"no worker lives\n", status=HTTPStatus.SERVICE_UNAVAILABLE)


async def broken() -> Page:
    """A defect."""
    raise RuntimeError("broken")


@pytest.fixture
async def server() -> AsyncIterator[Any]:
    with tempfile.TemporaryFile("r+", encoding="utf-8") as log:
        pages = {"/hello": hello, "/ill": ill, "/broken": broken, "/strict": strict}
        server = WebServer(Endpoint("::1", 0), pages, Log(fd=log.fileno()))
        await server.open()
        server.told = lambda: (log.seek(0), log.read())[1]  # type: ignore[attr-defined]
        yield server
        server.close()


async def ask(server: WebServer, request: bytes, *, host: str = "::1") -> tuple[str, bytes]:
    """Head and body of the answer; a connection that is just closed gives nothing."""
    reader, writer = await asyncio.open_connection(host, server.port)
    writer.write(request)
    async with asyncio.timeout(20):
        head, _, body = (await reader.read()).partition(b"\r\n\r\n")
    writer.close()
    return head.decode(), body


def get(path: str, method: str = "GET") -> bytes:
    """A request as curl sends it."""
    return f"{method} {path} HTTP/1.1\r\nHost: x\r\nAccept: */*\r\n\r\n".encode()


async def test_a_page(server: WebServer) -> None:
    head, body = await ask(server, get("/hello?x=1"))
    assert head.split("\r\n") == [
        "HTTP/1.1 200 OK",
        "Content-Type: text/plain; charset=utf-8",
        "Content-Length: 6",
        "Connection: close",
    ]
    assert body == b"hello\n"


async def test_a_page_with_more_fields(server: WebServer) -> None:
    head, _ = await ask(server, get("/strict"))
    assert head.split("\r\n")[-1] == "Content-Security-Policy: default-src 'none'"


async def test_a_head_alone(server: WebServer) -> None:
    head, body = await ask(server, get("/hello", "HEAD"))
    assert head.startswith("HTTP/1.1 200 OK\r\n")
    assert "Content-Length: 6" in head
    assert body == b""


async def test_bad_health_has_its_status(server: WebServer) -> None:
    head, body = await ask(server, get("/ill"))
    assert head.startswith("HTTP/1.1 503 Service Unavailable\r\n")
    assert body == b"no worker lives\n"


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (get("/other"), "404 Not Found"),
        (get("/"), "404 Not Found"),
        (get("/hello/"), "404 Not Found"),
        (get("/hello%00\xff"), "404 Not Found"),
        (get("/hello", "POST"), "405 Method Not Allowed"),
        (get("/hello", "get"), "405 Method Not Allowed"),
        (get("hello"), "400 Bad Request"),
        (b"GET /hello\r\n\r\n", "400 Bad Request"),
        (b"GET  /hello HTTP/1.1\r\n\r\n", "400 Bad Request"),
        (b"GET /hello HTTP/2\r\n\r\n", "400 Bad Request"),
        (b"\0\xff\r\n\r\n", "400 Bad Request"),
        (b"\r\n\r\n", "400 Bad Request"),
        (b"GET /" + b"x" * 3 * REQUEST, "431 Request Header Fields Too Large"),
    ],
    ids=lambda value: value[:20] if isinstance(value, bytes) else "",
)
async def test_what_is_not_answered(server: WebServer, request_: bytes, status: str) -> None:
    head, body = await ask(server, request_)
    assert head.startswith(f"HTTP/1.1 {status}\r\n")
    assert body == f"{status[4:]}\n".encode()
    assert ("\r\nAllow: GET, HEAD" in head) == status.startswith("405")


async def test_a_defect_costs_one_request(server: WebServer) -> None:
    with contextlib.suppress(ConnectionError):
        assert await ask(server, get("/broken")) == ("", b"")
    assert "internal error" in server.told()  # type: ignore[attr-defined]
    assert (await ask(server, get("/hello")))[1] == b"hello\n"


async def test_who_is_slow_is_cut_off(server: WebServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(web, "PATIENCE", 0.05)
    with contextlib.suppress(ConnectionResetError):
        assert await ask(server, b"GET /hello HTTP/1.1\r\n") == ("", b"")
    assert server.told() == ""  # type: ignore[attr-defined]


async def test_who_goes_away_leaves_nothing(server: WebServer) -> None:
    for request in (b"", b"GET", get("/hello")):
        _, writer = await asyncio.open_connection("::1", server.port)
        writer.write(request)
        writer.transport.abort()
    assert (await ask(server, get("/hello")))[1] == b"hello\n"
    assert server.told() == ""  # type: ignore[attr-defined]


@contextlib.asynccontextmanager
async def silent(server: WebServer, count: int) -> AsyncIterator[list[asyncio.StreamReader]]:
    """Connections that send a piece of a request, and then nothing."""
    async with contextlib.AsyncExitStack() as held:
        readers = []
        for _ in range(count):
            reader, writer = await asyncio.open_connection("::1", server.port)
            held.callback(writer.close)
            writer.write(b"GET")
            readers.append(reader)
        yield readers


async def test_the_silent_do_not_keep_others_out(server: WebServer) -> None:
    """Who keeps up as many connections as there may be does not take the pages away."""
    async with silent(server, 3 * CLIENTS) as readers:
        assert (await ask(server, get("/hello")))[1] == b"hello\n"
        async with asyncio.timeout(20):
            for reader in readers[:CLIENTS]:  # the oldest have made room
                with contextlib.suppress(ConnectionResetError):
                    assert await reader.read() == b""
        assert not any(reader.at_eof() for reader in readers[-(CLIENTS - 1) :])


async def test_so_many_are_answered_at_once(server: WebServer) -> None:
    """Who is being answered is not cut off for another one, who is closed instead."""
    go_on, waiters = asyncio.Event(), 0

    async def slow() -> Page:
        nonlocal waiters
        waiters += 1
        await go_on.wait()
        return Page(b"slow\n")

    server._pages = {"/slow": slow, "/hello": hello}
    waiting = [asyncio.create_task(ask(server, get("/slow"))) for _ in range(CLIENTS)]
    await until(lambda: waiters == CLIENTS)
    with contextlib.suppress(ConnectionResetError):
        assert await ask(server, get("/hello")) == ("", b"")
    go_on.set()
    assert [body for _, body in await asyncio.gather(*waiting)] == [b"slow\n"] * CLIENTS
    assert (await ask(server, get("/hello")))[1] == b"hello\n"


async def test_nobody_else_can_listen_beside(server: WebServer) -> None:
    other = WebServer(Endpoint("::1", server.port), {"/hello": hello}, Log())
    with pytest.raises(RelayError, match=r"cannot listen on \[::1\]:\d+: address already in use"):
        await other.open()


async def test_a_successor_can_listen_beside(server: WebServer) -> None:
    successor = WebServer(Endpoint("::1", server.port), {"/hello": hello}, Log())
    await successor.open(beside=True)
    server.close()
    assert (await ask(successor, get("/hello")))[1] == b"hello\n"
    successor.close()


async def test_a_port_that_is_taken() -> None:
    with socket.create_server(("::1", 0), family=socket.AF_INET6) as other:
        server = WebServer(Endpoint("::1", other.getsockname()[1]), {}, Log())
        with pytest.raises(
            RelayError, match=r"cannot listen on \[::1\]:\d+: address already in use"
        ):
            await server.open()


async def test_both_families() -> None:
    server = WebServer(Endpoint("::", 0), {"/hello": hello}, Log())
    await server.open()
    assert (await ask(server, get("/hello"), host="127.0.0.1"))[1] == b"hello\n"
    assert (await ask(server, get("/hello"), host="::1"))[1] == b"hello\n"
    server.close()


# ---- POST ------------------------------------------------------------------------------------


async def echo(head: bytes, body: bytes) -> Page:
    """Says what was posted."""
    assert head.endswith(b"\r\n\r\n")
    return Page(body)


@pytest.fixture
async def posted() -> AsyncIterator[WebServer]:
    log = Log(fd=2)
    guard = {"/guarded": HTTPStatus.FORBIDDEN}
    posts = {"/echo": echo, "/guarded": echo}
    server = WebServer(
        Endpoint("::1", 0), {"/hello": hello}, log, lambda path, _: guard.get(path), posts=posts
    )
    await server.open()
    yield server
    server.close()


def post(path: str, body: bytes, *fields: str) -> bytes:
    lines = [f"POST {path} HTTP/1.1", "Host: x", *fields]
    return "\r\n".join([*lines, "", ""]).encode() + body


async def test_a_body_is_answered(posted: WebServer) -> None:
    head, body = await ask(posted, post("/echo", b"12345", "Content-Length: 5"))
    assert head.startswith("HTTP/1.1 200 OK")
    assert body == b"12345"


@pytest.mark.parametrize(
    ("path", "fields", "status"),
    [
        ("/echo", [], 411),
        ("/echo", ["Content-Length: -5"], 411),
        ("/echo", ["Content-Length: 5", "Content-Length: 5"], 411),
        ("/echo", ["Content-Length: 5", "Transfer-Encoding: chunked"], 411),
        ("/echo", [f"Content-Length: {REQUEST + 1}"], 413),
        ("/guarded", ["Content-Length: 5"], 403),
        ("/hello", ["Content-Length: 5"], 405),
        ("/nothing", ["Content-Length: 5"], 405),
    ],
)
async def test_a_body_is_refused(
    posted: WebServer, path: str, fields: list[str], status: int
) -> None:
    head, _ = await ask(posted, post(path, b"12345", *fields))
    assert head.startswith(f"HTTP/1.1 {status} ")


async def test_a_body_that_does_not_come(
    posted: WebServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(web, "PATIENCE", 0.05)
    assert await ask(posted, post("/echo", b"123", "Content-Length: 5")) == ("", b"")


async def test_no_get_of_what_is_posted(posted: WebServer) -> None:
    head, _ = await ask(posted, get("/echo"))
    assert head.startswith("HTTP/1.1 404 ")


async def test_a_refusal_for_want_of_a_password_says_so() -> None:
    guard = lambda *_: HTTPStatus.UNAUTHORIZED  # noqa: E731
    server = WebServer(Endpoint("::1", 0), {}, Log(fd=2), guard)
    await server.open()
    head, _ = await ask(server, get("/"))
    server.close()
    assert 'WWW-Authenticate: Basic realm="v6fwd", charset="UTF-8"' in head.split("\r\n")


async def test_a_unix_socket(tmp_path: Path) -> None:
    """It is its owner's alone, and another one's place is taken over and left to it."""
    path = tmp_path / "run" / "status.sock"
    servers = [
        WebServer(Endpoint("", 0, str(path)), {"/hello": hello}, Log(fd=2)) for _ in range(2)
    ]
    for server in servers:
        await server.open()
    assert path.stat().st_mode & 0o777 == 0o600
    servers[0].close()
    reader, writer = await asyncio.open_unix_connection(str(path))
    writer.write(get("/hello"))
    assert (await reader.read()).endswith(b"hello\n")
    writer.close()
    servers[1].close()
    assert not path.exists()


@pytest.mark.parametrize("is_trusted", [True, False])
async def test_who_may_use_a_unix_socket(tmp_path: Path, is_trusted: bool) -> None:
    """A worker may be of the daemon's user: the mode of the socket does not keep it out."""
    seen: list[int] = []

    def trusts(sock: Connected) -> bool:
        seen.append(peer_of(sock).pid)
        return is_trusted

    path, answer = tmp_path / "status.sock", b""
    endpoint = Endpoint("", 0, str(path))
    server = WebServer(endpoint, {"/hello": hello}, Log(fd=2), trusts=trusts)
    await server.open()
    reader, writer = await asyncio.open_unix_connection(str(path))
    with contextlib.suppress(ConnectionError):  # a reset, if the request was not read
        writer.write(get("/hello"))
        answer = await reader.read()
    writer.close()
    server.close()
    assert answer.endswith(b"hello\n") == is_trusted
    assert seen == [os.getpid()]
