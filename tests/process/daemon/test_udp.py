"""UDP in a daemon: a client's datagrams meet the same worker, whatever becomes of the others."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from tests.support.daemon import ServeProcess
from tests.support.process import PATIENCE, eventually, free_port

CLIENTS = 40


class Target:
    """Echoes when told, and knows from which of our ports each word came."""

    def __init__(self) -> None:
        self.sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.sock.bind(("127.0.0.1", 0))
        self.sock.settimeout(PATIENCE)
        self.sources: dict[bytes, list[int]] = {}

    def answer(self, count: int) -> None:
        """Send back the next `count` datagrams."""
        for _ in range(count):
            data, source = self.sock.recvfrom(100)
            self.sources.setdefault(data, []).append(source[1])
            self.sock.sendto(data, source)


@pytest.fixture
def target() -> Iterator[Target]:
    target = Target()
    yield target
    target.sock.close()


@pytest.fixture
def clients() -> Iterator[list[socket.socket]]:
    with ExitStack() as stack:
        made = [
            stack.enter_context(socket.socket(socket.AF_INET6, socket.SOCK_DGRAM))
            for _ in range(CLIENTS)
        ]
        for client in made:
            client.settimeout(PATIENCE)
        yield made


def run(daemon: ServeProcess, target: Target, clients: list[socket.socket]) -> str:
    port = free_port()
    for client in clients:
        client.connect(("::1", port))
    listen = f"[::]:{port}/udp"
    daemon.configure((listen, f"127.0.0.1:{target.sock.getsockname()[1]}"))
    daemon.run()
    return listen


def all_are_served(target: Target, clients: list[socket.socket]) -> None:
    for number, client in enumerate(clients):
        client.send(b"%d" % number)
    target.answer(len(clients))
    for number, client in enumerate(clients):
        assert client.recv(100) == b"%d" % number


def test_a_session_stays_with_its_worker(
    daemon: ServeProcess, target: Target, clients: list[socket.socket]
) -> None:
    """Each client keeps one source port towards the target, and both workers have some."""
    listen = run(daemon, target, clients)
    for _ in range(3):
        all_are_served(target, clients)
    assert all(len(set(ports)) == 1 for ports in target.sources.values())
    numbers = daemon.forward(listen)
    assert numbers["flows"] == numbers["udp"]["sessions"] == CLIENTS
    assert all(worker["flows"] for worker in daemon.status()["workers"])
    assert {flow["client_port"] for flow in daemon.flows()} == {
        client.getsockname()[1] for client in clients
    }


def test_sessions_of_others_survive_a_killed_worker(
    daemon: ServeProcess, target: Target, clients: list[socket.socket]
) -> None:
    """The hash does not move: only who was with the killed one gets a new source port."""
    run(daemon, target, clients)
    all_are_served(target, clients)
    victim = daemon.status()["workers"][0]
    daemon.kill_worker(victim["pid"])
    all_are_served(target, clients)
    moved = sum(len(set(ports)) == 2 for ports in target.sources.values())
    assert moved == victim["flows"]


def test_datagrams_wait_for_the_next_daemon(
    daemon: ServeProcess, successor: ServeProcess, target: Target, clients: list[socket.socket]
) -> None:
    """An upgrade hands the very sockets over, so that none is lost in between."""
    run(daemon, target, clients)
    all_are_served(target, clients)
    successor.run()
    all_are_served(target, clients)
    assert daemon.wait() == 0
    all_are_served(target, clients)


def test_a_changed_target_is_for_new_sessions(
    daemon: ServeProcess, target: Target, clients: list[socket.socket]
) -> None:
    listen = run(daemon, target, clients)
    old, new = clients[:20], clients[20:]
    all_are_served(target, old)
    other = Target()
    with other.sock:
        daemon.configure((listen, f"127.0.0.1:{other.sock.getsockname()[1]}"))
        daemon.reload()
        all_are_served(target, old)
        all_are_served(other, new)


def test_a_port_of_somebody_else_is_not_shared(daemon: ServeProcess) -> None:
    """SO_REUSEPORT of ours must not let us in beside another program of the same user."""
    with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        other.bind(("::", 0))
        listen = f"[::]:{other.getsockname()[1]}/udp"
        daemon.configure((listen, "127.0.0.1:53"))
        daemon.start("-c", str(daemon.config), ready=False)
        assert daemon.wait() == 1
        assert f"cannot listen on {listen}: address already in use" in daemon.log


def test_a_drained_udp_forward_frees_its_port(
    daemon: ServeProcess, target: Target, clients: list[socket.socket]
) -> None:
    listen = run(daemon, target, clients)
    all_are_served(target, clients)
    assert daemon.command_line("drain", listen).exit_code == 0
    port = clients[0].getpeername()[1]

    def is_free() -> bool:
        with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as sock:
            try:
                sock.bind(("::", port))
            except OSError:
                return False
            return True

    eventually(is_free, "the port is free")
