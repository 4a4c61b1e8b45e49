"""An end of stream goes through, once, and the other direction lives on for as long as it likes."""

from __future__ import annotations

import socket

import pytest

from tests.support.rig import MIB, Rig, echoed, noise, read_all, sending, was_reset

SIZES = [0, 1, 70_000, 9 * MIB]

first_to_end = pytest.mark.parametrize("first", ["client", "target"])
sized = pytest.mark.parametrize("size", SIZES)


def ends(rig: Rig, first: str) -> tuple[socket.socket, socket.socket]:
    """A new flow, the `first` end first."""
    client, target = rig.pair()
    return (client, target) if first == "client" else (target, client)


def corked(sock: socket.socket, data: bytes) -> None:
    """Send `data` and FIN in one segment."""
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_CORK, 1)
    sock.sendall(data)
    sock.shutdown(socket.SHUT_WR)


@first_to_end
@sized
@pytest.mark.parametrize("last_words", SIZES)
def test_one_after_the_other(rig: Rig, first: str, size: int, last_words: int) -> None:
    one, other = ends(rig, first)
    with sending(one, noise(last_words, seed=1)):
        assert read_all(other) == noise(last_words, seed=1)
    with sending(other, noise(size, seed=2)):
        assert read_all(one) == noise(size, seed=2)


@sized
def test_both_at_once(rig: Rig, size: int) -> None:
    client, target = rig.pair()
    with sending(client, noise(size, seed=1)), sending(target, noise(size, seed=2)):
        assert read_all(target) == noise(size, seed=1)
        assert read_all(client) == noise(size, seed=2)


@first_to_end
def test_end_while_the_other_direction_is_in_bulk(rig: Rig, first: str) -> None:
    one, other = ends(rig, first)
    with sending(other, noise(9 * MIB, seed=2)):
        one.sendall(b"enough")
        one.shutdown(socket.SHUT_WR)
        assert read_all(other) == b"enough"
        assert read_all(one) == noise(9 * MIB, seed=2)


@first_to_end
def test_end_waits_for_blocked_bytes(rig: Rig, first: str) -> None:
    """The end of stream comes behind what the other side was too slow to take."""
    one, other = ends(rig, first)
    with sending(one, noise(32 * MIB, seed=1)):
        other.sendall(b"not read a byte yet")
        other.shutdown(socket.SHUT_WR)
        assert read_all(one) == b"not read a byte yet"
        assert read_all(other) == noise(32 * MIB, seed=1)


@first_to_end
def test_end_in_the_same_segment_as_data(rig: Rig, first: str) -> None:
    for _ in range(50):
        one, other = ends(rig, first)
        corked(one, b"all there is")
        assert read_all(other) == b"all there is"
        corked(other, b"and the answer")
        assert read_all(one) == b"and the answer"


def test_end_in_the_first_segment(rig: Rig) -> None:
    """Data and FIN are there before the target is."""
    for _ in range(50):
        client = rig.connect()
        corked(client, b"all there is")
        target = rig.accept()
        assert read_all(target) == b"all there is"
        corked(target, b"and the answer")
        assert read_all(client) == b"and the answer"


def test_end_at_once_after_connecting(rig: Rig) -> None:
    for _ in range(50):
        client = rig.connect()
        client.shutdown(socket.SHUT_WR)
        target = rig.accept()
        assert read_all(target) == b""
        corked(target, b"banner")
        assert read_all(client) == b"banner"


def test_close_at_once_after_connecting(rig: Rig) -> None:
    """As a port scanner does."""
    for _ in range(50):
        rig.connect().close()
        target = rig.accept()
        assert target.recv(1) == b""
        target.close()


@first_to_end
def test_half_closed_and_silent(own_rig: Rig, first: str) -> None:
    """It ends by --half-closed-timeout; a flow that is open both ways and silent stays."""
    own_rig.start("--half-closed-timeout", "0.3", "--log-flows")
    open_both_ways = own_rig.pair()
    one, other = ends(own_rig, first)
    one.shutdown(socket.SHUT_WR)
    assert read_all(other) == b""
    assert was_reset(one)
    assert "half-closed timeout" in own_rig.process.log
    echoed(*open_both_ways, b"still here")
