"""--accept-proxy: a header is required from who is trusted, and is payload from everybody else."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator

import pytest

from tests.support.process import PATIENCE
from tests.support.relaying import Running, echo, relaying, target, until
from tests.support.rig import Rig, echoed, read_exactly, was_reset
from v6fwd.model import ClientIP, Limits, parse_networks

SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
V1_TCP6 = b"PROXY TCP6 2001:db8:1::2 2001:db8:1::1 54321 80\r\n"
V1_TCP4 = b"PROXY TCP4 192.0.2.7 203.0.113.1 54321 80\r\n"
PORTS = (54321).to_bytes(2, "big") + (80).to_bytes(2, "big")


def v2(family: int, addresses: bytes, *, command: int = 0x21) -> bytes:
    """A v2 header around an address block and TLVs."""
    return SIGNATURE + bytes([command, family]) + len(addresses).to_bytes(2, "big") + addresses


def packed(*hosts: str) -> bytes:
    """Addresses in network order."""
    return b"".join(
        socket.inet_pton(socket.AF_INET6 if ":" in host else socket.AF_INET, host) for host in hosts
    )


V2_TCP6 = v2(0x21, packed("2001:db8:1::2", "2001:db8:1::1") + PORTS)
V2_TCP4 = v2(0x11, packed("192.0.2.7", "203.0.113.1") + PORTS)
V2_TLV = v2(0x11, packed("192.0.2.7", "203.0.113.1") + PORTS + b"\x04\0\x03pad")
V2_MAPPED = v2(0x21, packed("::ffff:192.0.2.7", "::ffff:203.0.113.1") + PORTS)
V2_LOCAL = v2(0x00, b"", command=0x20)
V2_LOCAL_ADDRESSES = v2(0x11, packed("192.0.2.7", "203.0.113.1") + PORTS, command=0x20)
V2_UNSPEC = v2(0x00, b"")
V2_UNIX = v2(0x31, bytes(216))

CARRIED = {
    "v1-TCP6": (V1_TCP6, V1_TCP6),
    "v1-TCP4": (V1_TCP4, V1_TCP4),
    "v2-TCP6": (V2_TCP6, V1_TCP6),
    "v2-TCP4": (V2_TCP4, V1_TCP4),
    "v2-TLV": (V2_TLV, V1_TCP4),
    "v2-mapped": (V2_MAPPED, V1_TCP4),
}
WITHOUT_ADDRESS = {
    "v1-UNKNOWN": b"PROXY UNKNOWN\r\n",
    "v1-UNKNOWN-addresses": b"PROXY UNKNOWN 2001:db8:1::2 2001:db8:1::1 54321 80\r\n",
    "v2-LOCAL": V2_LOCAL,
    "v2-LOCAL-addresses": V2_LOCAL_ADDRESSES,
    "v2-UNSPEC": V2_UNSPEC,
    "v2-unix": V2_UNIX,
}
REFUSED = {
    "none": (b"GET / HTTP/1.1\r\n\r\n", "no PROXY header"),
    "v1-family": (b"PROXY TCP5 1.2.3.4 1.2.3.4 1 2\r\n", "malformed PROXY v1 line"),
    "v1-address": (b"PROXY TCP4 1.2.3.256 1.2.3.4 1 2\r\n", "bad TCP4 address"),
    "v1-port": (b"PROXY TCP4 1.2.3.4 1.2.3.4 65536 2\r\n", "port above 65535"),
    "v1-endless": (b"PROXY TCP6 " + b"f" * 200, "longer than 107 bytes"),
    "v2-version": (v2(0x11, bytes(12), command=0x31), "version and command 0x31"),
    "v2-datagram": (v2(0x12, bytes(12)), "is for datagrams"),
    "v2-short": (v2(0x21, bytes(35)), "too short"),
    "v2-TLV": (v2(0x11, bytes(12) + b"\x04\0\x09"), "TLV runs past the header"),
    "v2-CRC": (v2(0x11, bytes(12) + b"\x03\0\4abcd"), "CRC32C is wrong"),
}


@pytest.fixture(scope="module")
def trusting_rig(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    """It believes ::1 and 127.0.0.1, and tells the target in a v1 line, which is easy to read."""
    rig = Rig(tmp_path_factory.mktemp("trusting"))
    trusts = ("--accept-proxy", "::1", "--accept-proxy", "127.0.0.1/32,192.0.2.0/24")
    yield rig.start(*trusts, "--client-ip", "proxy-v1", "--header-timeout", "60")
    rig.end()


@pytest.fixture
def trusting(trusting_rig: Rig) -> Iterator[Rig]:
    """Nothing is left of any flow."""
    yield trusting_rig
    trusting_rig.drop()
    trusting_rig.settled()
    assert "internal error" not in trusting_rig.process.log


def stranger(rig: Rig) -> tuple[socket.socket, socket.socket]:
    """Both ends of a flow whose client is not trusted; its own header is read off."""
    client = rig.connect("127.0.0.1", source="127.0.0.2")
    target_end = rig.accept()
    header = own_header(client)
    assert read_exactly(target_end, len(header)) == header
    return client, target_end


def own_header(client: socket.socket) -> bytes:
    """The line that says what the client's socket says."""
    (host, port), (dialled, dialled_port) = client.getsockname()[:2], client.getpeername()[:2]
    family = "TCP6" if ":" in host else "TCP4"
    return f"PROXY {family} {host} {dialled} {port} {dialled_port}\r\n".encode()


@pytest.mark.parametrize("host", ["::1", "127.0.0.1"])
@pytest.mark.parametrize(("sent", "told"), CARRIED.values(), ids=CARRIED)
@pytest.mark.parametrize("payload", [b"", b"in the same segment"])
def test_what_a_header_says(
    trusting: Rig, host: str, sent: bytes, told: bytes, payload: bytes
) -> None:
    client = trusting.connect(host)
    client.sendall(sent + payload)
    target_end = trusting.accept()
    assert read_exactly(target_end, len(told + payload)) == told + payload
    echoed(target_end, client, b"answer")
    echoed(client, target_end, b"more")


@pytest.mark.parametrize("host", ["::1", "127.0.0.1"])
@pytest.mark.parametrize("sent", WITHOUT_ADDRESS.values(), ids=WITHOUT_ADDRESS)
def test_header_without_an_address(trusting: Rig, host: str, sent: bytes) -> None:
    client = trusting.connect(host)
    client.sendall(sent + b"payload")
    expected = own_header(client) + b"payload"
    assert read_exactly(trusting.accept(), len(expected)) == expected


@pytest.mark.parametrize("sent", [V1_TCP6, V1_TCP4, V2_TCP6, V2_TLV], ids=["v1-6", "v1", "v2", "T"])
def test_header_cut_at_every_position(trusting: Rig, sent: bytes) -> None:
    """What a stranger says behind the first half arrives, so the first half has been read."""
    told = {V2_TCP6: V1_TCP6, V2_TLV: V1_TCP4}.get(sent, sent)
    bystander = stranger(trusting)
    for cut in range(1, len(sent)):
        with trusting.connect() as client:
            client.sendall(sent[:cut])
            echoed(*bystander, b"still there?")
            client.sendall(sent[cut:] + b"payload")
            with trusting.accept() as target_end:
                assert read_exactly(target_end, len(told) + 7) == told + b"payload"


def test_header_byte_by_byte(trusting: Rig) -> None:
    bystander = stranger(trusting)
    client = trusting.connect()
    for byte in V2_TCP6:
        client.send(bytes([byte]))
        echoed(*bystander, b"still there?")
    assert read_exactly(trusting.accept(), len(V1_TCP6)) == V1_TCP6


def test_header_and_end_in_one_segment(trusting: Rig) -> None:
    client = trusting.connect()
    client.setsockopt(socket.IPPROTO_TCP, socket.TCP_CORK, 1)
    client.sendall(V1_TCP6 + b"payload")
    client.shutdown(socket.SHUT_WR)
    target_end = trusting.accept()
    assert read_exactly(target_end, len(V1_TCP6) + 7) == V1_TCP6 + b"payload"
    assert target_end.recv(1) == b""
    echoed(target_end, client, b"answer")


@pytest.mark.parametrize("sent", [V1_TCP6, V2_TCP6, V2_LOCAL])
def test_header_of_a_stranger_is_payload(trusting: Rig, sent: bytes) -> None:
    echoed(*stranger(trusting), sent)


@pytest.mark.parametrize("sent", [b"", b"PROXY TC", V2_TCP6[:20]])
def test_reset_instead_of_a_header(trusting: Rig, sent: bytes) -> None:
    client = trusting.connect()
    client.sendall(sent)
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    client.close()
    stranger(trusting)


async def refusal(running: Running, sent: bytes, *, end: bool = False) -> str:
    """Send what will not do, be reset; gives the one line that is logged."""
    before = running.log
    reader, writer = await running.connect()
    me = writer.get_extra_info("sockname")
    writer.write(sent)
    if end:
        writer.write_eof()
    with pytest.raises(ConnectionResetError):
        async with asyncio.timeout(PATIENCE):
            await reader.read()
    await running.no_flows()
    (line,) = running.log.removeprefix(before).splitlines()
    start = f"refused [::1]:{me[1]} on [::]:0: "
    assert line.startswith(start)
    return line.removeprefix(start)


@pytest.mark.parametrize(("sent", "why"), REFUSED.values(), ids=REFUSED)
async def test_refused(sent: bytes, why: str) -> None:
    async with (
        target(echo) as behind,
        relaying(behind, accept_proxy=parse_networks("::1")) as running,
    ):
        assert why in await refusal(running, sent)


@pytest.mark.parametrize("sent", [b"", b"PROXY TCP6 2001:db8:1::2", V2_TCP6[:-1]])
async def test_too_late(sent: bytes) -> None:
    limits = Limits(drain_timeout=0, header_timeout=0.2)
    networks = parse_networks("::1")
    async with (
        target(echo) as behind,
        relaying(behind, accept_proxy=networks, limits=limits) as running,
    ):
        why = f"no whole PROXY header in time, {len(sent)} bytes came"
        assert await refusal(running, sent) == why


async def test_ended_in_the_middle() -> None:
    async with (
        target(echo) as behind,
        relaying(behind, accept_proxy=parse_networks("::1")) as running,
    ):
        why = await refusal(running, b"PROXY TC", end=True)
        assert why == "the client left in the middle of its PROXY header"


async def test_target_is_not_dialled_before_the_header() -> None:
    dialled: list[object] = []

    async def count(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        dialled.append(reader)
        await echo(reader, writer)

    networks = parse_networks("::1")
    async with (
        target(count) as behind,
        relaying(behind, accept_proxy=networks, client_ip=ClientIP.NONE) as running,
    ):
        await refusal(running, b"nothing like a header")
        reader, writer = await running.connect()
        writer.write(V1_TCP6 + b"ping")
        assert await reader.readexactly(4) == b"ping"
        assert len(dialled) == 1
        writer.close()
        await running.no_flows()


async def test_port_check_is_not_worth_a_line() -> None:
    async with (
        target(echo) as behind,
        relaying(behind, accept_proxy=parse_networks("::1")) as running,
    ):
        before = running.log
        _, writer = await running.connect()
        await until(lambda: running.relay.flows)
        writer.close()
        await running.no_flows()
        assert running.log == before


def test_refused_by_the_process(own_rig: Rig) -> None:
    """A crowd of bad clients is told in a few lines."""
    own_rig.start("--accept-proxy", "::1")
    for _ in range(50):
        client = own_rig.connect()
        client.sendall(b"GET / HTTP/1.1\r\n\r\n")
        assert was_reset(client)
    assert 1 <= own_rig.process.log.count("no PROXY header") <= 6
    own_rig.settled()
