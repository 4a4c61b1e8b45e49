"""Placeholder addresses of containers that start, with namespaces in their place."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import socket
from collections.abc import AsyncIterator, Callable, Iterator

import pytest

from tests.support.inside import inside
from tests.support.logged import Logged
from tests.support.process import PATIENCE
from tests.support.starting import (
    Attach,
    as_engine_20_10,
    as_engine_28,
    new_namespace,
    on_lo,
    running_in,
)
from v6fwd.demo.lab import Lab
from v6fwd.docker import prestart as preparation
from v6fwd.docker.engine.containers import Container
from v6fwd.docker.prestart import Prestart
from v6fwd.errors import RelayError
from v6fwd.model import Protocol
from v6fwd.netns.namespace import Namespace
from v6fwd.netns.policy import NetnsPolicy, listening

pytestmark = pytest.mark.netns

PLACEHOLDER = ["fe80::76:3666:7764"]
PORTS = frozenset({(8080, 80, Protocol.TCP), (5353, 53, Protocol.UDP)})


class Room:
    """A preparation at work on the lab's host, and a container that is about to start there."""

    def __init__(self, lab: Lab, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
        self.lab = lab
        self.name = name
        self.containers: dict[int, str] = {}
        self.looks = 0
        """How often it was looked who listens."""
        self.logged = Logged()
        self.preparation = Prestart(self.logged.log)
        monkeypatch.setattr(preparation, "container_of", lambda pid: self.containers.get(pid, ""))
        monkeypatch.setattr(preparation, "LOOK_INTERVAL", 0.01)
        monkeypatch.setattr(preparation, "listening", self._listening)

    def _listening(self, inside: NetnsPolicy, protocol: Protocol, port: int) -> object:
        self.looks += 1
        return listening(inside, protocol, port)

    def expect(self, *names: str) -> None:
        """From now on these."""
        with inside(self.lab, "host"):
            self.preparation.expect([Container(name, "", is_running=False) for name in names])

    async def until(self, condition: Callable[[], bool]) -> None:
        """Let the loop go on until it is so; it is in the host's namespace, as the daemon is."""
        async with asyncio.timeout(PATIENCE):
            while not condition():
                with inside(self.lab, "host"):
                    await asyncio.sleep(0.001)


@pytest.fixture
async def room(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Room]:
    with new_namespace(lab) as name:
        room = Room(lab, name, monkeypatch)
        before = len(os.listdir("/proc/self/fd"))
        yield room
        room.preparation.close()
        assert on_lo(name) == []
        assert len(os.listdir("/proc/self/fd")) == before
        room.logged.close()


@contextlib.contextmanager
def serving(name: str, port: int, kind: socket.SocketKind) -> Iterator[None]:
    """Somebody in the namespace takes clients on a port."""
    with contextlib.closing(Namespace(name)) as namespace, namespace.entered():
        made = socket.socket(socket.AF_INET, kind)
    with made:
        made.bind(("0.0.0.0", port))
        if kind is socket.SOCK_STREAM:
            made.listen()
        yield


@pytest.mark.parametrize("attach", [as_engine_20_10, as_engine_28])
async def test_from_its_namespace_until_it_listens(room: Room, attach: Attach) -> None:
    """It is asked for when it is created, and the Engine tells of its ports when it has started."""
    room.expect("one", "two")
    with running_in(room.name) as process:
        room.containers[process.pid] = "one"
        attach(room.lab, room.name)
        await room.until(lambda: on_lo(room.name) == PLACEHOLDER)
        with serving(room.name, 80, socket.SOCK_STREAM):
            room.preparation.run([Container("two", "b"), Container("one", "a", published=PORTS)])
            await room.until(lambda: room.looks > 4)
            assert on_lo(room.name) == PLACEHOLDER, "one of two is not enough"
            with serving(room.name, 53, socket.SOCK_DGRAM):
                await room.until(lambda: on_lo(room.name) == [])
    assert room.logged.lines() == []


async def test_one_that_publishes_nothing(room: Room) -> None:
    room.expect("one")
    with running_in(room.name) as process:
        room.containers[process.pid] = "one"
        as_engine_28(room.lab, room.name)
        await room.until(lambda: on_lo(room.name) == PLACEHOLDER)
        room.preparation.run([Container("one", "a")])
        await room.until(lambda: on_lo(room.name) == [])


async def test_one_that_ends_and_starts_again(room: Room) -> None:
    """Whether the kernel tells of its end or of its next start first."""
    room.expect("one")
    with running_in(room.name) as process:
        room.containers[process.pid] = "one"
        as_engine_28(room.lab, room.name)
        await room.until(lambda: on_lo(room.name) == PLACEHOLDER)
    await room.until(lambda: on_lo(room.name) == [])
    room.lab.ip("host", "link", "delete", "veth1")
    for told_late in (False, True):
        with running_in(room.name) as process:
            room.containers[process.pid] = "one"
            as_engine_28(room.lab, room.name)
            await room.until(lambda: on_lo(room.name) == PLACEHOLDER)
            room.lab.ip("host", "link", "delete", "veth1")
        if told_late:
            with running_in(room.name) as process:
                room.containers[process.pid] = "one"
                as_engine_28(room.lab, room.name)
                with inside(room.lab, "host"):
                    room.preparation.look()
                assert on_lo(room.name) == PLACEHOLDER
                for _ in range(10):
                    await asyncio.sleep(0)
                assert on_lo(room.name) == PLACEHOLDER
        await room.until(lambda: on_lo(room.name) == [])


async def test_others(room: Room) -> None:
    """Containers that nobody expects, and what is no container; one that is expected no more."""
    room.expect("one")
    with running_in(room.name) as process:
        as_engine_20_10(room.lab, room.name)
        with inside(room.lab, "host"):
            room.preparation.look()
        assert on_lo(room.name) == []
        room.lab.ip("host", "link", "delete", "veth1")
        room.containers[process.pid] = "one"
        as_engine_28(room.lab, room.name)
        await room.until(lambda: on_lo(room.name) == PLACEHOLDER)
        room.expect("two")
        assert on_lo(room.name) == []
        room.expect()
        room.lab.ip("host", "link", "delete", "veth1")
        as_engine_28(room.lab, room.name)
        room.preparation.look()
        assert on_lo(room.name) == []


async def test_the_engine_tells_late(room: Room, monkeypatch: pytest.MonkeyPatch) -> None:
    """The namespace is there before the list of containers; of those, the latest are kept."""
    monkeypatch.setattr(preparation, "REMEMBERED", 2)
    room.expect("somebody else")
    for name in ("one", "two", "three"):
        with running_in(room.name) as process:
            room.containers = {process.pid: name}
            as_engine_28(room.lab, room.name)
            with inside(room.lab, "host"):
                room.preparation.look()
            room.expect("one" if name == "three" else "nobody")
            assert on_lo(room.name) == []
            room.expect(name)
            assert on_lo(room.name) == PLACEHOLDER
            room.expect("nobody")
            room.lab.ip("host", "link", "delete", "veth1")
    room.expect("one", "two", "three")
    assert room.logged.lines() == []


async def test_the_first_one_that_is_expected(room: Room) -> None:
    """Nobody watched when its namespace came. One that runs is left alone."""
    with running_in(room.name) as process:
        room.containers[process.pid] = "one"
        as_engine_28(room.lab, room.name)
        with inside(room.lab, "host"):
            room.preparation.expect([Container("one", "", is_running=True)])
        assert on_lo(room.name) == []
        room.expect()
        room.expect("one")
        assert on_lo(room.name) == PLACEHOLDER


async def test_a_look_that_fails(room: Room, monkeypatch: pytest.MonkeyPatch) -> None:
    """dockerd gets its answer all the same."""

    def refuse(_: object) -> None:
        raise OSError(errno.EMFILE, "Too many open files")

    room.expect("one")
    monkeypatch.setattr(preparation, "processes_in", refuse)
    as_engine_28(room.lab, room.name)
    with inside(room.lab, "host"):
        room.preparation.look()
    [(event, text)] = room.logged.lines()
    assert event == "not-prepared"
    assert text.startswith("cannot look for containers that start: too many open files; ")


async def test_where_it_cannot_be(room: Room, monkeypatch: pytest.MonkeyPatch) -> None:
    """One line, and the container starts all the same."""

    def refuse(_: object) -> None:
        raise RelayError("cannot put rules into network namespace 4711: needs CAP_NET_ADMIN")

    monkeypatch.setattr(preparation, "add_placeholder", refuse)
    room.expect("one")
    with running_in(room.name) as process:
        room.containers[process.pid] = "one"
        as_engine_28(room.lab, room.name)
        told: list[tuple[str, str]] = []

        def is_told() -> bool:
            told.extend(room.logged.lines())
            return bool(told)

        await room.until(is_told)
        ((event, text),) = told
        assert event == "not-prepared"
        assert text == (
            "container one: cannot put rules into network namespace 4711: needs CAP_NET_ADMIN;"
            " servers in it that look for IPv6 may find none"
        )


async def test_without_a_descriptor_to_watch(room: Room, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse() -> None:
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(preparation, "LinkWatch", refuse)
    room.expect("one")
    [(event, text)] = room.logged.lines()
    assert event == "not-prepared"
    assert text.startswith("cannot look for containers that start: too many open files; ")
    room.preparation.look()
