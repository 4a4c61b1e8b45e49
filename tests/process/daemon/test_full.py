"""A full daemon: who is in is not harmed, who comes waits for any worker or is told."""

from __future__ import annotations

import resource
import select
import socket

import pytest

from tests.support.process import eventually, failing
from tests.support.rig import echoed, noise, read_exactly, was_reset
from tests.support.site import Site

CLIENTS = 200


def few_descriptors() -> None:
    resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))


def crowd_out(site: Site) -> tuple[list[socket.socket], int]:
    """Let many clients come, until each is served or reset; gives the targets' ends, and resets."""
    poll = select.poll()
    clients = {client.fileno(): client for client in (site.connect() for _ in range(CLIENTS))}
    for fd in clients:
        poll.register(fd, select.POLLIN)
    served: list[socket.socket] = []
    resets = 0

    def all_are_told() -> bool:
        nonlocal resets
        for fd, _ in poll.poll(0):
            poll.unregister(fd)
            assert was_reset(clients[fd])
            resets += 1
        while select.select([site.one], [], [], 0)[0]:
            served.append(site.one.accept()[0])
        return resets + len(served) == CLIENTS

    eventually(all_are_told, "every client is served or reset")
    return served, resets


def test_no_descriptors(site: Site) -> None:
    """Both workers are full; both say so once, none spins, and all are well when the crowd left."""
    site.run(preexec=few_descriptors)
    first = site.pair()
    data = noise(200_000, seed=12)
    served, resets = crowd_out(site)
    assert resets
    assert 20 <= len(served) < CLIENTS
    first[0].sendall(data)
    assert read_exactly(first[1], len(data)) == data
    assert site.daemon.log.count("no room for more clients") == 2
    lines = [line for line in site.daemon.log.splitlines() if not line.startswith("engine: ")]
    assert len(lines) <= 3 + 2 * 2
    for end in served:
        end.close()
    site.close_clients(but=1)
    for _ in range(20):
        site.pair()
    echoed(*first, b"still here")


def test_one_full_worker_resets_nobody(site: Site) -> None:
    """Each has room for 30 flows; 50 clients fit, however they are shared out at first."""
    site.run(more="max-flows = 30")
    pairs = [site.pair() for _ in range(50)]
    live = [worker["flows"] for worker in site.daemon.status()["workers"]]
    assert sum(live) == 50
    assert max(live) <= 30
    for client, target in pairs:
        echoed(client, target, b"still here")
    assert "reset" not in site.daemon.log


@pytest.mark.server("strace")
@pytest.mark.parametrize("error", ["EMFILE", "ENFILE", "ENOBUFS", "ECONNABORTED"])
def test_accept_fails(site: Site, error: str) -> None:
    """In each worker, some times in a row: the client waits for the next try, or for the other."""
    site.run(prefix=failing("accept4", error, "2..5"))
    pairs = [site.pair() for _ in range(12)]
    for client, target in pairs:
        echoed(client, target, b"served")


@pytest.mark.server("strace")
@pytest.mark.parametrize("error", ["EMFILE", "ENFILE"])
def test_no_descriptor_for_the_target(site: Site, error: str) -> None:
    """Whoever has been let in is not sent away for that."""
    site.run(prefix=failing("connect", error, "2..4"))
    for _ in range(12):
        echoed(*site.pair(), b"served")
    assert "cannot connect" not in site.daemon.log
