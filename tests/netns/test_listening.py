"""Who listens on a port of a namespace: the kernel picks, however many others there are."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from tests.support.inside import inside
from v6fwd.demo.lab import Lab
from v6fwd.model import Protocol
from v6fwd.netns import netlink
from v6fwd.netns.netlink import SockDiag

pytestmark = pytest.mark.netns
OTHERS = 300
V4, V6 = bytes((127, 0, 0, 1)), bytes(16)


@pytest.fixture
def messages(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[bytes]]:
    """Sockets of the container: port 80 and many others; gives what the kernel tells of them."""
    seen: list[bytes] = []
    bound = netlink._bound

    def noted(body: bytes, port: int) -> list[netlink.Bound]:
        seen.append(body)
        return bound(body, port)

    monkeypatch.setattr(netlink, "_bound", noted)
    with ExitStack() as stack:
        with inside(lab, "container"):
            for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
                listen(stack, socket.AF_INET6, kind, "::", 80)
                for port in (80, *range(1024, 1024 + OTHERS)):
                    listen(stack, socket.AF_INET, kind, "127.0.0.1", port)
        yield seen


def listen(stack: ExitStack, family: int, kind: int, host: str, port: int) -> None:
    """Open a socket in the namespace that the thread is in."""
    sock = stack.enter_context(socket.socket(family, kind))
    if family == socket.AF_INET6:
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    sock.bind((host, port))
    if kind == socket.SOCK_STREAM:
        sock.listen()


@pytest.mark.parametrize("protocol", list(Protocol))
def test_one_port_among_many(lab: Lab, messages: list[bytes], protocol: Protocol) -> None:
    with inside(lab, "container"):
        diag = SockDiag()
    found = diag.listening(protocol, 80)
    none = diag.listening(protocol, 79)
    diag.close()
    assert sorted(found) == [(V6, True), (V4, False)]
    assert none == []
    assert len(messages) == 2, "messages about other ports were read"
