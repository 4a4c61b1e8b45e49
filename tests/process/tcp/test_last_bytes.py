"""What a peer had sent before its connection broke is delivered; the reset comes behind it."""

from __future__ import annotations

import contextlib
import socket

import pytest

from tests.support.process import eventually
from tests.support.rig import Rig, noise, reset
from v6fwd.relay.tcp.last_bytes import PATIENCE, unsent_bytes

ANSWER = b"HTTP/1.1 413 Content Too Large\r\nContent-Length: 3\r\n\r\nno\n"
ASKED = b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 90000000\r\n\r\n"
MODES = ["none", "proxy-v1", "proxy-v2", "x-forwarded-for", "forwarded"]
SIDES = ["client", "target"]


def send_until_refused(sock: socket.socket) -> None:
    """Send until the connection breaks, 64 MB at most."""
    with contextlib.suppress(ConnectionResetError, BrokenPipeError):
        for _ in range(1000):
            sock.sendall(bytes(64_000))


def read_until_reset(sock: socket.socket) -> bytes:
    """All that comes before the reset. Raises AssertionError at an end of stream."""
    read = bytearray()
    with contextlib.suppress(ConnectionResetError):
        while data := sock.recv(1 << 16):
            read += data
        raise AssertionError("an end of stream in place of a reset")
    return bytes(read)


@pytest.mark.parametrize("mode", MODES)
def test_an_answer_to_a_client_that_still_sends(own_rig: Rig, mode: str) -> None:
    """Thirty times: a server refuses an upload, and closes with bytes unread, which resets it."""
    own_rig.start("--client-ip", mode)
    for _ in range(30):
        client = own_rig.connect()
        client.sendall(ASKED)
        target = own_rig.accept()
        target.recv(1)
        target.sendall(ANSWER)
        target.close()
        send_until_refused(client)
        assert client.recv(len(ANSWER), socket.MSG_WAITALL) == ANSWER
        own_rig.drop()
    own_rig.settled()


@pytest.mark.parametrize("who", SIDES)
def test_last_words_before_a_close_with_bytes_unread(rig: Rig, who: str) -> None:
    """The other side has written what is never read, so that the close is a reset."""
    client, target = rig.pair()
    leaving, staying = (client, target) if who == "client" else (target, client)
    staying.sendall(b"unread")
    leaving.recv(1)
    leaving.sendall(b"last words")
    leaving.close()
    assert read_until_reset(staying) == b"last words"


@pytest.mark.parametrize("who", SIDES)
def test_more_than_the_buffers_hold(rig: Rig, who: str) -> None:
    """The survivor reads late: bytes wait in three places, and all of them arrive."""
    client, target = rig.pair()
    leaving, staying = (client, target) if who == "client" else (target, client)
    staying.sendall(b"unread")
    assert leaving.recv(1)
    staying.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    data = noise(200_000, seed=1)
    leaving.sendall(data)
    eventually(lambda: unsent_bytes(leaving.fileno()) == 0, "the relay's kernel has it all")
    leaving.close()
    assert read_until_reset(staying) == data


@pytest.mark.parametrize("who", SIDES)
def test_a_survivor_that_writes_before_it_reads_on(rig: Rig, who: str) -> None:
    """As one that echoes. Nobody is there to take what it says; the rest arrives all the same."""
    client, target = rig.pair()
    leaving, staying = (client, target) if who == "client" else (target, client)
    staying.sendall(b"unread")
    assert leaving.recv(1)
    staying.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    data = noise(50_000, seed=2)
    leaving.sendall(data)
    eventually(lambda: unsent_bytes(leaving.fileno()) == 0, "the relay's kernel has it all")
    leaving.close()
    staying.settimeout(PATIENCE)
    staying.sendall(bytes(16 << 20))  # more than all buffers hold
    assert read_until_reset(staying) == data


@pytest.mark.parametrize("who", SIDES)
def test_a_survivor_that_never_reads(own_rig: Rig, who: str) -> None:
    """An idle timeout may end the wait for it before PATIENCE does."""
    own_rig.start("--idle-timeout", "1")
    client, target = own_rig.pair()
    leaving, staying = (client, target) if who == "client" else (target, client)
    leaving.setblocking(False)
    with contextlib.suppress(BlockingIOError):
        while True:
            leaving.send(bytes(1 << 20))
    reset(leaving)
    own_rig.settled()
    assert staying.fileno() >= 0
