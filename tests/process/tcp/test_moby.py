"""docker-proxy's own test cases (moby, cmd/docker-proxy): what worked before works now."""

from __future__ import annotations

import asyncio

import pytest

from tests.support.moby import MESSAGE, every_path
from tests.support.relaying import echo, relaying, target
from v6fwd.model import ClientIP, Endpoint


@every_path
async def test_echo(listen: str, client: str, host: str) -> None:
    async with target(echo, host) as behind, relaying(behind, listen=listen) as running:
        reader, writer = await running.connect(client)
        writer.write(MESSAGE)
        assert await reader.readexactly(len(MESSAGE)) == MESSAGE
        writer.close()
        await running.no_flows()


async def test_half_close_by_the_client() -> None:
    async def answer_at_the_end(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(await reader.read())
        writer.close()

    async with target(answer_at_the_end) as behind, relaying(behind) as running:
        reader, writer = await running.connect()
        writer.write(MESSAGE)
        writer.write_eof()
        assert await reader.read() == MESSAGE
        writer.close()
        await running.no_flows()


async def test_no_listener_behind() -> None:
    async with target(echo) as behind:
        pass
    async with relaying(behind) as running:
        with pytest.raises(ConnectionResetError):
            await (await running.connect())[0].read()
        await running.no_flows()
        line = f"cannot connect to {behind} for [::]:0: connection refused (client [::1]:"
        assert line in running.log


async def test_proxy_v2_comes_first() -> None:
    async with target(echo) as behind, relaying(behind, client_ip=ClientIP.PROXY_V2) as running:
        reader, writer = await running.connect()
        me = writer.get_extra_info("sockname")
        expected = b"\r\n\r\n\0\r\nQUIT\n\x21\x21\0\x24" + (bytes(15) + b"\1") * 2
        expected += me[1].to_bytes(2, "big") + running.port.to_bytes(2, "big")
        assert await reader.readexactly(52) == expected
        writer.write(MESSAGE)
        assert await reader.readexactly(len(MESSAGE)) == MESSAGE
        writer.close()


async def test_unix_target(tmp_path: object) -> None:
    path = f"{tmp_path}/app.sock"
    server = await asyncio.start_unix_server(echo, path)
    async with relaying(Endpoint("", 0, path)) as running:
        reader, writer = await running.connect()
        writer.write(MESSAGE)
        assert await reader.readexactly(len(MESSAGE)) == MESSAGE
        writer.close()
        await running.no_flows()
    server.close()
