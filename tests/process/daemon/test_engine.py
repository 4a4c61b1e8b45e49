"""`engine = "ring"`: workers serve by it behind their filter of system calls; status names it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.process import failing
from tests.support.site import Site
from v6fwd.model import RelayEngine
from v6fwd.relay.pairs.native import PURE
from v6fwd.relay.pairs.pump import TAKES_ALL
from v6fwd.relay.ring.choose import ENVIRONMENT, probe


def rings_of(pid: int) -> int:
    """How many rings a process has open, beside the one that libuv may have."""
    links = [each.readlink() for each in Path(f"/proc/{pid}/fd").iterdir()]
    return sum("io_uring" in str(link) for link in links)


def test_workers_serve_by_the_ring(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    if why := probe(RelayEngine.RING).why:
        pytest.skip(why)
    monkeypatch.setenv(TAKES_ALL, "ring")
    site.run(more='engine = "ring"')
    assert "engine: ring" in site.daemon.log
    status = site.daemon.status()
    assert (status["engine"], status["no_ring"]) == ("ring", "")
    assert all(rings_of(worker["pid"]) == 1 for worker in status["workers"])
    assert ", engine ring" in site.daemon.command_line("status").stdout
    for _ in range(4):
        client, target = site.pair()
        target.sendall(b"answer")
        assert client.recv(6) == b"answer"
        client.close()
        assert target.recv(1) == b""


def test_status_says_where_python_moves_the_bytes(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(PURE, "1")
    site.run(more='engine = "epoll"')
    status = site.daemon.status()
    assert (status["engine"], status["native"]) == ("epoll", False)
    assert ", engine epoll in Python: no" in site.daemon.command_line("status").stdout
    client, target = site.pair()
    target.sendall(b"answer")
    assert client.recv(6) == b"answer"


@pytest.mark.parametrize("engine", ["ring", "auto"])
def test_epoll_serves_where_no_ring_can_be_had(
    site: Site, monkeypatch: pytest.MonkeyPatch, engine: str
) -> None:
    """The daemon says so once, for all of its workers."""
    monkeypatch.delenv(ENVIRONMENT, raising=False)
    monkeypatch.delenv(PURE, raising=False)
    site.run(more=f'engine = "{engine}"', prefix=failing("io_uring_setup", "EPERM", "1+"))
    why = "io_uring_setup is not permitted: a seccomp policy, of a container say"
    assert site.daemon.log.count(f"engine: epoll, no ring: {why}\n") == 1
    assert site.daemon.log.count("engine: ") == 1
    status = site.daemon.status()
    assert (status["engine"], status["no_ring"]) == ("epoll", why)
    assert f", engine epoll: {why}" in site.daemon.command_line("status").stdout
    client, target = site.pair()
    target.sendall(b"answer")
    assert client.recv(6) == b"answer"
