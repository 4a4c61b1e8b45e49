"""Stopping: the port is freed at once, flows finish, and what cannot finish is reset."""

from __future__ import annotations

import asyncio
import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.process import PATIENCE, eventually
from tests.support.relaying import echo, relaying, target
from tests.support.rig import Feed, Rig, echoed, noise, read_all, read_exactly, reset, was_reset
from v6fwd.relay import listener

TIME_WAIT = "06"
"""Its number in /proc/net/tcp6: TCP_TIME_WAIT of the kernel's tcp_states.h."""
TRANSFERS = 1000
SIZE = 24_000

stopping = pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])


@pytest.fixture
def successor(tmp_path: Path, own_rig: Rig) -> Iterator[Rig]:
    """A second process, for the same port."""
    folder = tmp_path / "successor"
    folder.mkdir()
    rig = Rig(folder)
    rig.port = own_rig.port
    yield rig
    rig.end()


def refuses(rig: Rig) -> bool:
    try:
        rig.connect()
    except ConnectionRefusedError:
        return True
    return False


def has_time_wait(port: int) -> bool:
    rows = (line.split() for line in Path("/proc/net/tcp6").read_text().splitlines()[1:])
    return any(row[1].endswith(f":{port:04X}") and row[3] == TIME_WAIT for row in rows)


def leave_time_wait(rig: Rig) -> None:
    """The relay's socket is the first to end on the client's side: TIME_WAIT stays with it."""
    client, target = rig.pair()
    target.close()
    assert client.recv(1) == b""
    client.close()
    eventually(lambda: has_time_wait(rig.port), "TIME_WAIT on the port")


def test_all_transfers_finish(own_rig: Rig) -> None:
    own_rig.start("--drain-timeout", "60")
    pairs = [own_rig.pair() for _ in range(TRANSFERS)]
    half = SIZE // 2
    for seed, (client, end) in enumerate(pairs):
        client.sendall(noise(SIZE, seed)[:half])
        end.sendall(noise(SIZE, TRANSFERS + seed)[:half])
    own_rig.process.signal(signal.SIGTERM)
    eventually(lambda: f"draining: {TRANSFERS} flows" in own_rig.process.log, "draining")
    assert refuses(own_rig)
    for seed, (client, end) in enumerate(pairs):
        for writer, reader, own_seed in ((client, end, seed), (end, client, TRANSFERS + seed)):
            writer.sendall(noise(SIZE, own_seed)[half:])
            writer.shutdown(socket.SHUT_WR)
            assert read_all(reader) == noise(SIZE, own_seed)
    assert own_rig.process.wait() == 0
    assert "reset" not in own_rig.process.log


@stopping
def test_reset_at_the_limit(own_rig: Rig, number: signal.Signals) -> None:
    own_rig.start("--drain-timeout", "0.2", "--interrupt-timeout", "0.2")
    pairs = [own_rig.pair() for _ in range(4)]
    idle, blocked, half_closed, spoken = pairs
    Feed(blocked[0], 1 << 30, seed=1).until_stalled()
    blocked[0].settimeout(20)
    half_closed[0].shutdown(socket.SHUT_WR)
    assert half_closed[1].recv(1) == b""
    echoed(*spoken, b"hello")
    own_rig.process.signal(number)
    for sock in (*idle, *blocked, half_closed[0], *spoken):
        assert was_reset(sock)
    assert own_rig.process.wait() == 0
    assert "reset 4 flows that had not finished" in own_rig.process.log


def test_reset_in_bulk_at_the_limit(own_rig: Rig) -> None:
    """A flow that waits for its turn when all is torn down."""
    own_rig.start("--drain-timeout", "0")
    for _ in range(2):
        client, target = own_rig.pair()
        feed = Feed(client, 1 << 30, seed=1)
        feed.until_stalled()
        read_exactly(target, feed.sent // 2)
        feed.until_stalled(quiet=0)
    own_rig.process.signal(signal.SIGTERM)
    assert own_rig.process.wait() == 0
    assert was_reset(target)
    assert "Exception" not in own_rig.process.log


def test_who_waits_in_the_queue_is_served(own_rig: Rig) -> None:
    """Its connection was made before the signal came: resetting it would be a lost client."""
    own_rig.start()
    own_rig.process.signal(signal.SIGSTOP)
    clients = [own_rig.connect() for _ in range(100)]
    for number, client in enumerate(clients):
        client.sendall(b"%03d" % number)
    own_rig.process.signal(signal.SIGTERM)
    own_rig.process.signal(signal.SIGCONT)
    for _ in clients:
        target = own_rig.accept()
        number = int(read_exactly(target, 3))
        echoed(target, clients[number], b"answer %03d" % number)
        target.close()
        clients[number].close()
    assert own_rig.process.wait() == 0


async def test_who_was_not_accepted_yet_is_served(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same where the relay had no time to accept anybody before it was told to stop."""
    monkeypatch.setattr(listener, "ACCEPT_BATCH", 0)
    async with target(echo) as behind, relaying(behind) as running:
        clients = [await running.connect() for _ in range(50)]
        running.foreground.stop(60)
        for number, (reader, writer) in enumerate(clients):
            writer.write(b"%02d" % number)
            async with asyncio.timeout(PATIENCE):
                assert await reader.readexactly(2) == b"%02d" % number
            writer.close()
        async with asyncio.timeout(PATIENCE):
            await running.task


@stopping
def test_port_is_free_while_draining(own_rig: Rig, successor: Rig, number: signal.Signals) -> None:
    own_rig.start("--drain-timeout", "60", "--interrupt-timeout", "60")
    leave_time_wait(own_rig)
    pair = own_rig.pair()
    own_rig.process.signal(number)
    eventually(lambda: "draining" in own_rig.process.log, "draining")
    successor.start()
    successor.probe()
    echoed(*pair, b"still here")
    pair[0].close()
    pair[1].close()
    assert own_rig.process.wait() == 0


@stopping
def test_second_signal_ends_it(own_rig: Rig, number: signal.Signals) -> None:
    own_rig.start("--drain-timeout", "600", "--interrupt-timeout", "600")
    client, target = own_rig.pair()
    own_rig.process.signal(number)
    eventually(lambda: "draining" in own_rig.process.log, "draining")
    echoed(client, target, b"still here")
    own_rig.process.signal(number)
    assert own_rig.process.wait() == 0
    assert was_reset(client)
    assert was_reset(target)


@stopping
def test_nothing_to_drain(own_rig: Rig, number: signal.Signals) -> None:
    own_rig.start("--drain-timeout", "600", "--interrupt-timeout", "600")
    own_rig.process.signal(number)
    assert own_rig.process.wait() == 0
    assert "stopped" in own_rig.process.log


def test_killed_and_started_again(own_rig: Rig, successor: Rig) -> None:
    own_rig.start()
    leave_time_wait(own_rig)
    client, _ = own_rig.pair()
    own_rig.process.signal(signal.SIGKILL)
    assert own_rig.process.wait() == -signal.SIGKILL
    successor.start()
    successor.probe()
    reset(client)


LIKE_SIGTERM = [signal.SIGHUP, signal.SIGQUIT]


@pytest.mark.parametrize("number", LIKE_SIGTERM)
def test_a_terminal_that_is_gone_drains(own_rig: Rig, number: signal.Signals) -> None:
    """By default these end a process at once, and the kernel closes its streams as if whole."""
    own_rig.start("--drain-timeout", "0.2")
    client, _ = own_rig.pair()
    own_rig.process.signal(number)
    assert was_reset(client)
    assert own_rig.process.wait() == 0


def test_nohup_is_obeyed(own_rig: Rig) -> None:
    own_rig.start(preexec=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN))
    own_rig.process.signal(signal.SIGHUP)
    own_rig.probe()


@pytest.mark.parametrize("number", [signal.SIGUSR1, signal.SIGUSR2])
def test_a_stray_signal_does_no_harm(own_rig: Rig, number: signal.Signals) -> None:
    own_rig.start()
    client, target = own_rig.pair()
    own_rig.process.signal(number)
    echoed(client, target, b"still there")
    own_rig.probe()
