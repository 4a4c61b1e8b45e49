"""Forwarding never waits for a log, and no log line ends up anywhere else."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Callable, Iterator

import pytest

from tests.support.process import ForwardProcess, eventually
from tests.support.rig import Rig, echoed


@pytest.fixture
def full_pipe() -> Iterator[int]:
    """The writing end of a pipe that nobody reads, filled up."""
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    with contextlib.suppress(BlockingIOError):
        while True:
            os.write(writer, bytes(4096))
    os.set_blocking(writer, True)
    yield writer
    os.close(reader)
    os.close(writer)


def onto_full_disk() -> None:
    os.dup2(os.open("/dev/full", os.O_WRONLY), 2)


def is_listening(rig: Rig) -> bool:
    try:
        rig.connect()
    except ConnectionRefusedError:
        return False
    rig.accept()
    return True


def serves_and_stops(rig: Rig, preexec: Callable[[], object]) -> None:
    """Many flows, each of them with a line to log, and a clean stop."""
    process: ForwardProcess = rig.process
    words = (f"[::]:{rig.port}", rig.target, "--log-flows")
    process.start(*words, ready=False, preexec=preexec)
    eventually(lambda: is_listening(rig), "the relay listens")
    for number in range(300):
        client, target = rig.pair()
        with client, target:
            echoed(client, target, b"question %d" % number)
            echoed(target, client, b"answer %d" % number)
    process.signal(signal.SIGINT)
    assert process.wait() == 0


def test_closed(own_rig: Rig) -> None:
    serves_and_stops(own_rig, lambda: os.close(2))


def test_all_of_stdio_closed(own_rig: Rig) -> None:
    serves_and_stops(own_rig, lambda: os.closerange(0, 3))


def test_full_disk(own_rig: Rig) -> None:
    serves_and_stops(own_rig, onto_full_disk)


def test_full_pipe(own_rig: Rig, full_pipe: int) -> None:
    serves_and_stops(own_rig, lambda: os.dup2(full_pipe, 2))


def test_pipe_without_a_reader(own_rig: Rig) -> None:
    def onto_broken_pipe() -> None:
        reader, writer = os.pipe()
        os.dup2(writer, 2)
        os.close(reader)

    serves_and_stops(own_rig, onto_broken_pipe)
