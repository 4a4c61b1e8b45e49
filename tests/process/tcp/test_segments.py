"""However the bytes are cut, and with an urgent one among them, the same bytes arrive."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import random
import socket
from collections.abc import AsyncIterator

import pytest

from tests.support.process import PATIENCE
from tests.support.relaying import Running, relaying, target, until
from tests.support.rig import MIB, Rig, echoed, noise, read_all, read_exactly, sending
from v6fwd.relay.reactor import Reactor, Resumable
from v6fwd.relay.tcp import pipes


def ends(rig: Rig, way: str) -> tuple[socket.socket, socket.socket]:
    """Writer and reader of a new flow; what is written goes out at once."""
    client, target = rig.pair()
    for sock in (client, target):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return (client, target) if way == "up" else (target, client)


both_ways = pytest.mark.parametrize("way", ["up", "down"])


@both_ways
def test_written_and_read_byte_by_byte(rig: Rig, way: str) -> None:
    writer, reader = ends(rig, way)
    data = noise(3000, seed=10)
    for byte in data:
        writer.send(bytes([byte]))
    writer.shutdown(socket.SHUT_WR)
    assert b"".join(iter(lambda: reader.recv(1), b"")) == data


@both_ways
def test_answered_byte_by_byte(rig: Rig, way: str) -> None:
    one, other = ends(rig, way)
    for byte in noise(300, seed=11):
        echoed(one, other, bytes([byte]))
        echoed(other, one, bytes([byte ^ 0xFF]))


@both_ways
@pytest.mark.parametrize("seed", range(6))
def test_cut_anywhere(rig: Rig, way: str, seed: int) -> None:
    """Sizes from one byte to bulk, so that the relay changes between copy and splice."""
    writer, reader = ends(rig, way)
    dice = random.Random(seed)
    data = noise(6 * MIB, seed)
    cuts = [0, *sorted(dice.sample(range(len(data)), 60)), len(data)]
    pieces = [data[start:end] for start, end in itertools.pairwise(cuts)]
    for piece in pieces:
        with sending(writer, piece, end=False):
            assert read_exactly(reader, len(piece)) == piece
    got = bytearray()
    with sending(writer, data):
        while piece := reader.recv(int(2 ** dice.uniform(0, 20))):
            got += piece
    assert bytes(got) == data


# ---- an urgent byte (MSG_OOB) is a byte among the others, RFC 6093 -----------------------------


@both_ways
@pytest.mark.parametrize("before", [b"", b"before"])
@pytest.mark.parametrize("after", [b"", b"after"])
def test_urgent_byte_in_a_message(rig: Rig, way: str, before: bytes, after: bytes) -> None:
    writer, reader = ends(rig, way)
    echoed(writer, reader, b"hello")
    for _ in range(20):
        writer.sendall(before)
        writer.send(b"!", socket.MSG_OOB)
        writer.sendall(after)
        whole = before + b"!" + after
        assert read_exactly(reader, len(whole)) == whole
        echoed(reader, writer, b"more?")
    writer.shutdown(socket.SHUT_WR)
    assert reader.recv(1) == b""


@both_ways
def test_urgent_byte_in_bulk(rig: Rig, way: str) -> None:
    writer, reader = ends(rig, way)
    data = noise(8 * MIB, seed=12)
    for _ in range(3):
        with sending(writer, data, end=False):
            assert read_exactly(reader, len(data)) == data
        writer.send(b"!", socket.MSG_OOB)
        with sending(writer, data, end=False):
            assert read_exactly(reader, len(data) + 1) == b"!" + data


@both_ways
def test_urgent_byte_while_blocked(rig: Rig, way: str) -> None:
    writer, reader = ends(rig, way)
    data = noise(24 * MIB, seed=13)
    with sending(writer, data, end=False):
        assert read_exactly(reader, MIB) == data[:MIB]
        assert read_exactly(reader, 23 * MIB) == data[MIB:]
    writer.send(b"!", socket.MSG_OOB)
    writer.sendall(b"tail")
    writer.shutdown(socket.SHUT_WR)
    assert read_all(reader) == b"!tail"


@contextlib.asynccontextmanager
async def collecting() -> AsyncIterator[tuple[Running, asyncio.Future[bytes]]]:
    """A relay whose target reads to the end of the one stream that it gets."""
    got: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

    async def collect(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        got.set_result(await reader.read())
        writer.close()

    async with target(collect) as behind, relaying(behind) as running:
        yield running, got


async def test_urgent_byte_before_the_target_is_there() -> None:
    async with collecting() as (running, got):
        with socket.create_connection(("::1", running.port)) as client:
            client.send(b"!", socket.MSG_OOB)
            client.sendall(b"all of it")
            client.shutdown(socket.SHUT_WR)
            async with asyncio.timeout(PATIENCE):
                assert await got == b"!all of it"
        await running.no_flows()


async def test_urgent_byte_and_end_while_a_bulk_flow_waits_for_its_turn(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """splice stops at the mark and gives 0 there, as at an end of stream."""
    bulk, tail = noise(MIB, seed=14), noise(200_000, seed=15)
    resume_later = Reactor.resume_later
    waited: list[Resumable] = []
    monkeypatch.setattr(pipes, "LARGE_FILLS", 1)  # TCP may bring too little for more

    async with collecting() as (running, got):
        with socket.create_connection(("::1", running.port)) as client:

            def end_urgently(reactor: Reactor, resumable: Resumable) -> None:
                if not waited:
                    waited.append(resumable)
                    client.send(b"!", socket.MSG_OOB)
                    client.sendall(tail)
                    client.shutdown(socket.SHUT_WR)
                resume_later(reactor, resumable)

            monkeypatch.setattr(Reactor, "resume_later", end_urgently)
            client.sendall(bulk)
            await until(lambda: waited)
            async with asyncio.timeout(PATIENCE):
                assert await got == bulk + b"!" + tail
        await running.no_flows()


@pytest.mark.parametrize("who", ["client", "target"])
def test_urgent_bytes_in_a_row(rig: Rig, who: str) -> None:
    """Each mark takes the one before: a byte that is not in line by then is dropped."""
    for _ in range(50):
        client, target = rig.pair()
        sender, reader = (client, target) if who == "client" else (target, client)
        sender.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for byte in b"abc":
            sender.send(bytes([byte]), socket.MSG_OOB)
        sender.sendall(b"def")
        sender.shutdown(socket.SHUT_WR)
        reader.setsockopt(socket.SOL_SOCKET, socket.SO_OOBINLINE, 1)
        assert read_all(reader) == b"abcdef"
        rig.drop()
