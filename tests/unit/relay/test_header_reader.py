"""A PROXY header's clock stops with the header, however that ends."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from v6fwd.relay.tcp.proxy_header import HeaderReader

HEADER = b"PROXY TCP6 2001:db8::1 2001:db8::2 5 80\r\n"


class Scene:
    """A reader, the client, and what the flow hears."""

    def __init__(self) -> None:
        self.client, self._mine = socket.socketpair()
        self._mine.setblocking(False)
        self.clocks: set[Any] = set()
        self.watched: set[int] = set()
        self.heard: list[str] = []
        note: Callable[[str], Callable[..., None]] = lambda word: lambda *_: self.heard.append(word)  # noqa: E731
        names = ("header_came", "header_failed", "client_reset", "abort", "on_exception")
        flow: Any = SimpleNamespace(**{name: note(name) for name in names})
        reactor = SimpleNamespace(
            watch=lambda fd, *_: self.watched.add(fd), unwatch=self.watched.remove
        )
        resources: Any = SimpleNamespace(reactor=reactor, headers=self.clocks)
        self.reader = HeaderReader(flow, self._mine.fileno(), resources)

    def close(self) -> None:
        self.client.close()
        self._mine.close()


@pytest.fixture
def scene() -> Iterator[Scene]:
    scene = Scene()
    yield scene
    scene.close()


@pytest.mark.parametrize(
    ("said", "heard"),
    [
        (HEADER + b"hello", "header_came"),
        (b"GET / HTTP/1.1\r\n", "header_failed"),
        (HEADER[:20], "header_failed"),
        (b"", "abort"),
    ],
)
def test_the_clock_stops(scene: Scene, said: bytes, heard: str) -> None:
    """It would end a flow that lives."""
    assert scene.clocks == {scene.reader}
    scene.client.sendall(said)
    scene.client.shutdown(socket.SHUT_WR)
    scene.reader.on_event(0)
    assert scene.heard == [heard]
    assert not scene.clocks
    assert bool(scene.watched) == (heard != "header_came")


def test_the_clock_goes_on_while_bytes_are_missing(scene: Scene) -> None:
    scene.client.sendall(HEADER[:20])
    scene.reader.on_event(0)
    assert scene.clocks == {scene.reader}
    assert scene.heard == []
    scene.reader.on_exception(MemoryError())
    assert not scene.clocks
    assert scene.heard == ["on_exception"]
