"""A target that expects another mode is named, and a healthy one never, whatever its clients do."""

from __future__ import annotations

import asyncio
import contextlib
import random
from asyncio import StreamReader as Reader
from asyncio import StreamWriter as Writer
from collections.abc import Awaitable, Callable, Sequence

import pytest

from tests.support.relaying import Running, relaying, reset, target, until
from v6fwd.model import ClientIP
from v6fwd.relay.targets.mismatch import LOOK_INTERVAL, NEEDED

pytestmark = pytest.mark.usefixtures("looks_at_answers")

GET = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
GOOD = GET[:14]
PAGE = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok"
BAD = b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
SIGNATURES = (b"PROXY ", b"\r\n\r\n\0\r\nQUIT\n")
MODES = pytest.mark.parametrize("mode", [ClientIP.PROXY_V1, ClientIP.PROXY_V2])


async def http(reader: Reader, writer: Writer) -> None:
    """A web server that knows no header: 400 for all that is not a request."""
    with contextlib.suppress(ConnectionError):
        head = await reader.read(4096)
        writer.write(PAGE if head.startswith(GOOD) else BAD)
        await writer.drain()
    writer.close()


async def http_behind_header(reader: Reader, writer: Writer) -> None:
    """The same, but it demands a header, and ends without one."""
    with contextlib.suppress(ConnectionError):
        data = await reader.read(4096)
        if data.startswith(SIGNATURES):
            rest = data.split(b"\r\n", 1)[1] if data.startswith(b"PROXY ") else data[52:]
            rest = rest or await reader.read(4096)
            if rest:
                writer.write(PAGE if rest.startswith(GOOD) else BAD)
                await writer.drain()
    writer.close()


async def smtp(reader: Reader, writer: Writer) -> None:
    """A mail server that knows no header: it greets, has an error for each line, and goes on."""
    with contextlib.suppress(ConnectionError):
        writer.write(b"220 mail.example ESMTP\r\n")
        while line := await reader.readline():
            known = line.startswith((b"EHLO", b"QUIT"))
            writer.write(b"250 mail.example\r\n" if known else b"500 5.5.2 bad syntax\r\n")
            await writer.drain()
            if line.startswith(b"QUIT"):
                break
    writer.close()


async def resets(reader: Reader, writer: Writer) -> None:
    """A server that resets whoever speaks."""
    await reader.read(1)
    reset(writer)


async def ask(running: Running, words: bytes = GET) -> bytes:
    """A client that waits for the whole answer."""
    reader, writer = await running.connect()
    try:
        writer.write(words)
        return await reader.read()
    except ConnectionError:
        return b""
    finally:
        writer.close()


async def told(running: Running) -> str:
    """The line, once the last flow has ended; "" if there is none."""
    await running.no_flows()
    lines = [line for line in running.log.splitlines() if "v6fwd probe" in line]
    assert len(lines) <= 1
    return "".join(lines)


@MODES
@pytest.mark.parametrize("server", [http, resets])
async def test_a_header_that_nobody_expects(
    mode: ClientIP, server: Callable[[Reader, Writer], Awaitable[None]]
) -> None:
    async with target(server) as endpoint, relaying(endpoint, client_ip=mode) as running:
        for _ in range(NEEDED - 1):
            await ask(running)
        assert await told(running) == ""
        for _ in range(30):
            await ask(running)
        assert await told(running) == (
            f"{endpoint} ended 20 of 20 connections right after the PROXY header: does it expect"
            f" one? v6fwd probe {endpoint}"
        )


@MODES
async def test_a_server_that_speaks_first_and_goes_on(mode: ClientIP) -> None:
    async with target(smtp) as endpoint, relaying(endpoint, client_ip=mode) as running:
        for _ in range(NEEDED):
            reader, writer = await running.connect()
            await reader.readuntil(b"500 5.5.2 bad syntax\r\n")
            writer.write(b"EHLO x\r\nQUIT\r\n")
            await reader.read()
            writer.close()
        assert "20 of 20 connections with an error right after the PROXY header" in await told(
            running
        )


@pytest.mark.parametrize("mode", [ClientIP.NONE, ClientIP.X_FORWARDED_FOR])
async def test_a_header_that_is_missed(mode: ClientIP) -> None:
    async with (
        target(http_behind_header) as endpoint,
        relaying(endpoint, client_ip=mode) as running,
    ):
        for _ in range(NEEDED):
            await ask(running)
        assert (
            f"{endpoint} ended 20 of 20 connections without an answer: does it expect a PROXY"
            in (await told(running))
        )


async def test_an_http_mode_before_another_protocol() -> None:
    async def only_bad(reader: Reader, writer: Writer) -> None:
        await reader.read(4096)
        writer.write(BAD)
        writer.close()

    async with (
        target(only_bad) as endpoint,
        relaying(endpoint, client_ip=ClientIP.X_FORWARDED_FOR) as running,
    ):
        for _ in range(NEEDED):
            await ask(running)
        assert "answered 20 of 20 connections with HTTP 400: does it take plain HTTP?" in (
            await told(running)
        )


async def test_a_target_that_is_mended_and_fails_again() -> None:
    """One line each time; as the log is limited, the second may be left out."""
    servers = [http]

    async def serve(reader: Reader, writer: Writer) -> None:
        await servers[0](reader, writer)

    async with (
        target(serve) as endpoint,
        relaying(endpoint, client_ip=ClientIP.PROXY_V2) as running,
    ):
        for _ in range(NEEDED - 1):
            await ask(running)
        servers[0] = http_behind_header
        assert await ask(running) == PAGE
        servers[0] = http
        for _ in range(NEEDED - 1):
            await ask(running)
        await running.no_flows()
        assert await told(running) == ""


async def test_one_look_is_enough_for_a_target_that_serves() -> None:
    async with (
        target(http_behind_header) as endpoint,
        relaying(endpoint, client_ip=ClientIP.PROXY_V2) as running,
    ):
        now = [100.0]
        running.relay.reactor.clock = lambda: now[0]
        for _ in range(5):
            assert await ask(running) == PAGE
        (numbers,) = running.relay.totals().values()
        assert numbers["first_answers"] == {"served": 1}
        now[0] += LOOK_INTERVAL
        for _ in range(5):
            assert await ask(running) == PAGE
        (numbers,) = running.relay.totals().values()
        assert numbers["first_answers"] == {"served": 2}


async def odd(running: Running, choice: int) -> None:
    """A client that proves nothing."""
    try:
        reader, writer = await running.connect()
    except ConnectionError:
        return
    try:
        if choice == 0:  # before a word
            reset(writer)
        elif choice == 1:  # behind a request
            writer.write(GET)
            reset(writer)
        elif choice == 2:  # in the middle of the answer
            writer.write(GET)
            await reader.read(5)
            reset(writer)
        elif choice == 3:  # a port scanner, a health check
            pass
        elif choice == 4:
            writer.write(b"\x03\x00\x00\x13\x0e\xe0\x00\x00")
            await reader.read()
        elif choice == 5:  # TLS to a server of plain HTTP
            writer.write(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03")
            await reader.read()
        elif choice == 6:
            writer.write(b"GET /%00 HTTP/1.1\r\nHost: x\r\n\r\n")
            writer.write_eof()
            await reader.read()
        else:
            writer.write(GET[:9])
            writer.write_eof()
            await reader.read()
    except ConnectionError:
        pass
    finally:
        writer.close()


ALL = range(8)
NONE_SERVED = (0, 3, 4, 5, 6, 7)
CONNECTIONS = 500
"""In each case. 10,000 were tried by hand."""


@pytest.mark.parametrize(
    ("served", "choices"), [(0.0, NONE_SERVED), (0.05, ALL)], ids=["none-served", "some-served"]
)
@pytest.mark.parametrize("mode", [ClientIP.NONE, ClientIP.PROXY_V2])
async def test_a_healthy_server_is_never_named(
    mode: ClientIP, served: float, choices: Sequence[int]
) -> None:
    """Not even if it has no client who wants anything."""
    server = http if mode is ClientIP.NONE else http_behind_header
    async with target(server) as endpoint, relaying(endpoint, client_ip=mode) as running:
        chance = random.Random(1)
        for _ in range(CONNECTIONS // 50):
            await asyncio.gather(
                *(
                    ask(running)
                    if chance.random() < served
                    else odd(running, chance.choice(choices))
                    for _ in range(50)
                )
            )
        await running.no_flows()
        assert "probe" not in running.log, running.log
        assert await ask(running) == PAGE


@pytest.mark.parametrize("who", ["client", "target"])
async def test_a_reset_that_is_looked_at_stays_a_reset(who: str) -> None:
    """recv(2) gives the error of a socket once, to whoever asks first: the look."""
    ends: list[tuple[Reader, Writer]] = []

    async def keep(reader: Reader, writer: Writer) -> None:
        ends.append((reader, writer))

    async with target(keep) as endpoint, relaying(endpoint) as running:
        client = await running.connect()
        await until(lambda: ends)
        here, there = (client, ends[0]) if who == "client" else (ends[0], client)
        reset(here[1])
        with pytest.raises(ConnectionResetError):
            await there[0].read()
        for _, writer in (client, ends[0]):
            writer.close()
