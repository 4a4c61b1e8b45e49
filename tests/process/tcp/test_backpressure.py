"""A slow reader slows its writer down, costs next to no memory, and gets every byte."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import itertools
import os
import random
import socket

import pytest

from tests.support.relaying import relaying, until
from tests.support.rig import MIB, Feed, Rig, read_all, sending, was_reset
from v6fwd.model import Endpoint
from v6fwd.relay.ends import End

ENDLESS = 512 * MIB
KERNEL_LIMIT = 128 * MIB
"""What four socket buffers (tcp_rmem and tcp_wmem are 6 and 4 MiB on most kernels, 32 and 4 on
the newest) and a pipe may hold. It lies on the safe side of both; endless buffering does not."""
OWN_LIMIT = (16 if "libasan" in os.environ.get("LD_PRELOAD", "") else 4) * MIB
"""AddressSanitizer keeps freed memory for a while (scripts/build-asan)."""

both_ways = pytest.mark.parametrize("way", ["up", "down"])


def ends(rig: Rig, way: str) -> tuple[socket.socket, socket.socket]:
    """Writer and reader of a new flow."""
    client, target = rig.pair()
    return (client, target) if way == "up" else (target, client)


def squeeze(feed: Feed, writer: socket.socket, reader: socket.socket) -> tuple[int, str]:
    """Send until nothing fits, read a little, and again; gives how often it was full, and the
    digest of what came."""
    appetite, received, got, stalls = random.Random(0), hashlib.sha256(), 0, 0
    while not feed.done:
        want = min(feed.until_stalled(quiet=0.005), got + appetite.randrange(MIB, 8 * MIB))
        stalls += not feed.done
        while got < want:
            data = reader.recv(want - got)
            assert data
            received.update(data)
            got += len(data)
    with sending(writer, b""):
        received.update(read_all(reader))
    return stalls, received.hexdigest()


@both_ways
def test_writer_stalls_and_memory_stays_small(rig: Rig, way: str) -> None:
    writer, reader = ends(rig, way)
    before = rig.process.resident()
    assert Feed(writer, ENDLESS, seed=3).until_stalled() < KERNEL_LIMIT
    assert rig.process.resident() - before < OWN_LIMIT
    rig.probe()
    writer.close()
    reader.close()


@both_ways
def test_stalled_flow_ends_at_the_idle_timeout(own_rig: Rig, way: str) -> None:
    own_rig.start("--idle-timeout", "0.5")
    writer, reader = ends(own_rig, way)
    Feed(writer, ENDLESS, seed=3).until_stalled()
    writer.settimeout(20)
    assert was_reset(writer)
    assert was_reset(reader)
    own_rig.settled()
    own_rig.probe()


@both_ways
def test_slow_reader_gets_every_byte(rig: Rig, way: str) -> None:
    writer, reader = ends(rig, way)
    before = rig.process.resident()
    feed = Feed(writer, 256 * MIB, seed=8)
    stalls, received = squeeze(feed, writer, reader)
    assert stalls > 5, "the reader was never slow"
    assert received == feed.digest.hexdigest()
    assert rig.process.resident() - before < OWN_LIMIT
    reader.close()


def test_both_directions_stalled_at_once(rig: Rig) -> None:
    client, target = rig.pair()
    up, down = Feed(client, ENDLESS, seed=1), Feed(target, ENDLESS, seed=2)
    sent = [up.until_stalled(), down.until_stalled()]
    for sock, seed, size in ((target, 1, sent[0]), (client, 2, sent[1])):
        sock.settimeout(20)
        assert digest_of_next(sock, size) == digest_of_seed(seed, size)
    client.close()
    target.close()


@both_ways
def test_window_that_opens_again(rig: Rig, way: str) -> None:
    """Without --idle-timeout a stalled flow may stand still for as long as it likes."""
    writer, reader = ends(rig, way)
    feed = Feed(writer, KERNEL_LIMIT, seed=9)
    while feed.sent != feed.until_stalled():
        rig.probe()
    assert not feed.done
    _, received = squeeze(feed, writer, reader)
    assert received == feed.digest.hexdigest()
    reader.close()


def digest_of_next(sock: socket.socket, size: int) -> str:
    digest = hashlib.sha256()
    while size:
        data = sock.recv(min(size, MIB))
        assert data
        digest.update(data)
        size -= len(data)
    return digest.hexdigest()


def digest_of_seed(seed: int, size: int) -> str:
    """What a Feed's first `size` bytes come to: it makes them in blocks of 1 MiB."""
    generator, digest = random.Random(seed), hashlib.sha256()
    for start in itertools.count(0, MIB):
        if start >= size:
            return digest.hexdigest()
        digest.update(generator.randbytes(MIB)[: size - start])
    raise AssertionError


@pytest.mark.usefixtures("on_sides")
@pytest.mark.parametrize("way", ["up", "down"])
async def test_a_flow_that_is_cut_gives_its_pipe_back(way: str) -> None:
    """With bytes in it that nobody takes."""
    with socket.create_server(("127.0.0.1", 0)) as server, contextlib.ExitStack() as ends:
        async with relaying(Endpoint(*server.getsockname())) as running:
            client = ends.enter_context(socket.create_connection(("::1", running.port)))
            client.send(b"x")
            server.setblocking(False)
            accepted, _ = await asyncio.get_running_loop().sock_accept(server)
            writer = client if way == "up" else accepted
            ends.enter_context(accepted)
            writer.setblocking(False)
            pipes = running.relay.resources.tcp(running.limits).pipes

            def is_lent() -> bool:
                with contextlib.suppress(BlockingIOError):
                    writer.send(bytes(MIB))
                return pipes.lent > 0

            await until(is_lent)
            assert running.relay.flows.abort_all(End.CUT) == 1
            assert not pipes.lent
