"""RST on one side is RST on the other: nobody takes a stream that was cut for a whole one."""

from __future__ import annotations

import contextlib
import socket
import threading

import pytest

from tests.support.process import PATIENCE
from tests.support.rig import MIB, Feed, Rig, echoed, read_exactly, reset, was_reset

SIDES = ["client", "target"]
resetting = pytest.mark.parametrize("who", SIDES)


def ends(rig: Rig, first: str) -> tuple[socket.socket, socket.socket]:
    """A new flow, the `first` end first."""
    client, target = rig.pair()
    return (client, target) if first == "client" else (target, client)


@resetting
def test_reset_of_a_fresh_flow(rig: Rig, who: str) -> None:
    resetter, other = ends(rig, who)
    reset(resetter)
    assert was_reset(other)


@resetting
def test_reset_between_messages(rig: Rig, who: str) -> None:
    resetter, other = ends(rig, who)
    echoed(resetter, other, b"question")
    echoed(other, resetter, b"answer")
    reset(resetter)
    assert was_reset(other)


@resetting
def test_reset_behind_a_message(rig: Rig, who: str) -> None:
    """What comes before the RST may be lost, but never looks like the whole."""
    resetter, other = ends(rig, who)
    resetter.sendall(b"half an ans")
    reset(resetter)
    assert was_reset(other)


@resetting
def test_reset_after_half_close(rig: Rig, who: str) -> None:
    resetter, other = ends(rig, who)
    other.shutdown(socket.SHUT_WR)
    assert resetter.recv(1) == b""
    reset(resetter)
    assert was_reset(other)


@resetting
def test_reset_by_who_has_half_closed(rig: Rig, who: str) -> None:
    """The other end is told by the next thing that it sends: it has had its end of stream."""
    resetter, other = ends(rig, who)
    resetter.shutdown(socket.SHUT_WR)
    assert other.recv(1) == b""
    reset(resetter)
    rig.settled()
    with pytest.raises((ConnectionResetError, BrokenPipeError)):
        other.sendall(b"too late")


@resetting
@pytest.mark.parametrize("writer", SIDES)
def test_reset_while_blocked(rig: Rig, who: str, writer: str) -> None:
    """Nobody reads the side that is full, so only its error can tell."""
    resetter, other = ends(rig, who)
    Feed(resetter if who == writer else other, 512 * MIB, seed=5).until_stalled()
    other.settimeout(PATIENCE)
    reset(resetter)
    assert was_reset(other)


@resetting
@pytest.mark.parametrize("writer", SIDES)
def test_reset_while_both_directions_are_blocked(rig: Rig, who: str, writer: str) -> None:
    resetter, other = ends(rig, who)
    both = (resetter, other) if who == writer else (other, resetter)
    for seed, sock in enumerate(both):
        Feed(sock, 512 * MIB, seed).until_stalled()
    other.settimeout(PATIENCE)
    reset(resetter)
    assert was_reset(other)


@resetting
@pytest.mark.parametrize("size", [MIB // 2, 3 * MIB, 20 * MIB])
def test_reset_by_the_reader_in_bulk(rig: Rig, who: str, size: int) -> None:
    reader, writer = ends(rig, who)
    failed: list[OSError] = []

    def write_until_it_fails() -> None:
        try:
            while True:
                writer.sendall(bytes(MIB))
        except OSError as error:
            failed.append(error)

    thread = threading.Thread(target=write_until_it_fails)
    thread.start()
    read_exactly(reader, size)
    reset(reader)
    thread.join(PATIENCE)
    assert isinstance(failed[0], ConnectionResetError | BrokenPipeError)


@resetting
@pytest.mark.parametrize("size", [MIB // 2, 3 * MIB, 20 * MIB])
def test_reset_by_the_writer_in_bulk(rig: Rig, who: str, size: int) -> None:
    writer, reader = ends(rig, who)

    def write_and_reset() -> None:
        writer.sendall(bytes(size))
        reset(writer)

    thread = threading.Thread(target=write_and_reset)
    thread.start()
    assert was_reset(reader)
    thread.join(PATIENCE)


def test_reset_by_both(rig: Rig) -> None:
    for _ in range(50):
        client, target = rig.pair()
        echoed(client, target, b"hello")
        reset(client)
        reset(target)


def test_clean_close_is_no_reset(rig: Rig) -> None:
    """The other half of the promise, without which all of the above could not fail."""
    client, target = rig.pair()
    client.close()
    with contextlib.closing(target):
        assert not was_reset(target)
