"""The guard of a daemon: one limit for all workers, whatever happens to them."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Iterator

import pytest

from tests.support.daemon import ServeProcess
from tests.support.process import PATIENCE, eventually, free_port

MOST = 6


class Door:
    """A guarded forward of a daemon, and a target that is always there."""

    def __init__(self, daemon: ServeProcess) -> None:
        self.daemon = daemon
        self.port = free_port()
        self.server = socket.create_server(("127.0.0.1", 0), backlog=4096)
        self._pair = (f"[::]:{self.port}", f"127.0.0.1:{self.server.getsockname()[1]}")
        self.clients: list[socket.socket] = []

    def configure(self, *keys: str) -> None:
        """What the forward has beside listen and target."""
        self.daemon.configure(self._pair)
        with self.daemon.config.open("a") as config:
            config.write("\n" + "\n".join(keys) + "\n")

    def knock(self, count: int, source: str = "::1") -> None:
        """Let so many new clients come, and wait until each is let in or not."""
        before = self._counted()
        host = "::1" if ":" in source else "127.0.0.1"
        for _ in range(count):
            try:
                client = socket.create_connection((host, self.port), PATIENCE, (source, 0))
            except ConnectionResetError:  # before connect(2) has returned
                continue
            self.clients.append(client)
        eventually(lambda: self._counted() - before >= count, "all are let in or not")

    def live(self) -> int:
        """Flows that live, in the daemon's count."""
        told = self.daemon.forward(self._pair[0])
        return int(told["flows"]) - int(told["ended"])

    def refused(self) -> dict[str, int]:
        """Who was not let in, by reason."""
        return dict(self.daemon.forward(self._pair[0])["refused"])

    def _counted(self) -> int:
        told = self.daemon.forward(self._pair[0])
        return int(told["flows"]) + sum(map(int, told["refused"].values()))

    def close(self) -> None:
        """Let all go."""
        for client in self.clients:
            client.close()
        self.server.close()


@pytest.fixture
def door(daemon: ServeProcess) -> Iterator[Door]:
    door = Door(daemon)
    yield door
    door.close()


def test_one_limit_for_all_workers(door: Door) -> None:
    door.configure(f"client-flows = {MOST}")
    door.daemon.run()
    door.knock(40)
    assert door.live() == MOST
    assert door.refused() == {"client-flows": 40 - MOST}
    door.knock(5, "127.0.0.2")  # somebody else
    assert door.live() == MOST + 5


def test_a_killed_workers_flows_are_taken_out(door: Door) -> None:
    """Otherwise its clients would be locked out for good, a slot for each flow it had."""
    door.configure(f"client-flows = {MOST}")
    door.daemon.run()
    for round_ in range(3):
        door.knock(3 * MOST)
        assert door.live() == MOST, round_
        pid = door.daemon.workers()[round_ % 2]
        door.daemon.kill_worker(pid)
    door.knock(3 * MOST)
    assert door.live() == MOST


def test_a_reload_brings_a_guard_and_takes_it_away(door: Door) -> None:
    door.configure()
    door.daemon.run()
    door.knock(3)
    door.configure("client-flows = 2")
    door.daemon.reload()
    door.knock(10)
    assert door.live() == 3 + 2  # who was there before was not counted, and is not touched
    door.configure('deny = "::1"')
    door.daemon.reload()
    door.knock(10)
    assert door.live() == 3 + 2
    assert door.refused()["denied"] == 10
    door.configure()
    door.daemon.reload()
    door.knock(4)
    assert door.live() == 3 + 2 + 4


def test_a_stopped_worker_locks_nobody_out(door: Door) -> None:
    """Locks are held for microseconds: one that is stopped holds none, and the other goes on."""
    door.configure("client-flows = 100")
    door.daemon.run()
    stopped = door.daemon.workers()[0]
    os.kill(stopped, signal.SIGSTOP)
    try:
        with socket.create_connection(("::1", door.port), PATIENCE) as client:
            door.server.settimeout(PATIENCE)
            behind, _ = door.server.accept()
            with behind:
                client.sendall(b"x")
                assert behind.recv(1) == b"x"
    finally:
        os.kill(stopped, signal.SIGCONT)
