"""An accepted descriptor has an owner before anything can fail."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any, cast

import pytest

from v6fwd.model import Address
from v6fwd.relay.tcp.accept import Acceptor
from v6fwd.relay.tcp.forward import TcpForward

CLIENT = ("2001:db8::2", 5, 0, 0)


class Site:
    """A forward with a table of clients, and the two ends of an accepted connection."""

    def __init__(self) -> None:
        self.left: list[int] = []
        self.live: set[object] = set()
        self.told: list[str] = []
        flows = SimpleNamespace(add=self.live.add)
        clients = SimpleNamespace(leave=self.left.append)
        log = SimpleNamespace(limited=lambda *words: self.told.append(words[1]))
        self.forward: Any = SimpleNamespace(
            admission=SimpleNamespace(admit=lambda _: 7),
            trusted=None,
            resources=SimpleNamespace(flows=flows, clients=clients, log=log),
            counters=SimpleNamespace(flows=0),
        )
        self.client, ours = socket.socketpair()
        self.fd = ours.detach()

    def accept(self, make: Any) -> None:
        Acceptor(cast("TcpForward", self.forward), make).accepted(self.fd, CLIENT)


@pytest.fixture
def site() -> Iterator[Site]:
    site = Site()
    yield site
    site.client.close()


def test_no_memory_for_the_flow(site: Site) -> None:
    def make(_fd: int, _slot: int) -> object:
        raise MemoryError

    with pytest.raises(MemoryError):
        site.accept(make)
    assert site.client.recv(1) == b""
    assert (site.left, site.forward.counters.flows) == ([7], 0)


def test_no_memory_in_the_set_of_flows(site: Site) -> None:
    def add(_flow: object) -> None:
        raise MemoryError

    site.forward.resources.flows.add = add
    with pytest.raises(MemoryError):
        site.accept(lambda *_: object())
    assert site.client.recv(1) == b""
    assert site.left == [7]


def test_a_client_that_cannot_be_judged_is_refused(site: Site) -> None:
    def admit(_client: Address) -> int:
        raise MemoryError

    site.forward.admission.admit = admit
    site.accept(lambda *_: pytest.fail("a flow was made"))
    assert site.client.recv(1) == b""
    assert site.told == ["defect"]
