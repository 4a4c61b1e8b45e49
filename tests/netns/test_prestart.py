"""The placeholder address of containers that start, with namespaces in their place."""

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
from v6fwd.docker import prestart as module
from v6fwd.docker.engine.containers import Container, HostPort
from v6fwd.docker.prestart import Prestart
from v6fwd.errors import RelayError
from v6fwd.model import Protocol
from v6fwd.netns.namespace import Namespace
from v6fwd.netns.policy import NetnsPolicy, listening

pytestmark = pytest.mark.netns

PLACEHOLDER = ["fe80::76:3666:7764"]
PORTS = frozenset(
    {HostPort("::", 8080, 80, Protocol.TCP), HostPort("0.0.0.0", 5353, 53, Protocol.UDP)}
)


class Bench:
    """Prestart at work on the lab's host, and a container that is about to start there."""

    def __init__(self, lab: Lab, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
        self.lab = lab
        self.name = name
        self.containers: dict[int, str] = {}
        self.looks = 0
        """How often it was looked who listens."""
        self.logged = Logged()
        self.prestart = Prestart(self.logged.log)
        monkeypatch.setattr(module, "container_of", lambda pid: self.containers.get(pid, ""))
        monkeypatch.setattr(module, "LOOK_INTERVAL", 0.01)
        monkeypatch.setattr(module, "listening", self._listening)

    def _listening(self, inside: NetnsPolicy, protocol: Protocol, port: int) -> object:
        self.looks += 1
        return listening(inside, protocol, port)

    def expect(self, *names: str) -> None:
        """From now on these."""
        with inside(self.lab, "host"):
            self.prestart.expect([Container(name, "", is_running=False) for name in names])

    async def until(self, condition: Callable[[], bool]) -> None:
        """Let the loop go on until it is so; it is in the host's namespace, as the daemon is."""
        async with asyncio.timeout(PATIENCE):
            while not condition():
                with inside(self.lab, "host"):
                    await asyncio.sleep(0.001)


@pytest.fixture
async def bench(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Bench]:
    with new_namespace(lab) as name:
        bench = Bench(lab, name, monkeypatch)
        before = len(os.listdir("/proc/self/fd"))
        yield bench
        bench.prestart.close()
        assert on_lo(name) == []
        assert len(os.listdir("/proc/self/fd")) == before
        bench.logged.close()


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
async def test_from_its_namespace_until_it_listens(bench: Bench, attach: Attach) -> None:
    """It is asked for when it is created, and the Engine tells of its ports when it has started."""
    bench.expect("one", "two")
    with running_in(bench.name) as process:
        bench.containers[process.pid] = "one"
        attach(bench.lab, bench.name)
        await bench.until(lambda: on_lo(bench.name) == PLACEHOLDER)
        with serving(bench.name, 80, socket.SOCK_STREAM):
            bench.prestart.run([Container("two", "b"), Container("one", "a", ports=PORTS)])
            await bench.until(lambda: bench.looks > 4)
            assert on_lo(bench.name) == PLACEHOLDER, "one of two is not enough"
            with serving(bench.name, 53, socket.SOCK_DGRAM):
                await bench.until(lambda: on_lo(bench.name) == [])
    assert bench.logged.lines() == []


async def test_one_that_publishes_nothing(bench: Bench) -> None:
    bench.expect("one")
    with running_in(bench.name) as process:
        bench.containers[process.pid] = "one"
        as_engine_28(bench.lab, bench.name)
        await bench.until(lambda: on_lo(bench.name) == PLACEHOLDER)
        bench.prestart.run([Container("one", "a")])
        await bench.until(lambda: on_lo(bench.name) == [])


async def test_one_that_ends_and_starts_again(bench: Bench) -> None:
    """Whether the kernel tells of its end or of its next start first."""
    bench.expect("one")
    with running_in(bench.name) as process:
        bench.containers[process.pid] = "one"
        as_engine_28(bench.lab, bench.name)
        await bench.until(lambda: on_lo(bench.name) == PLACEHOLDER)
    await bench.until(lambda: on_lo(bench.name) == [])
    bench.lab.ip("host", "link", "delete", "veth1")
    for told_late in (False, True):
        with running_in(bench.name) as process:
            bench.containers[process.pid] = "one"
            as_engine_28(bench.lab, bench.name)
            await bench.until(lambda: on_lo(bench.name) == PLACEHOLDER)
            bench.lab.ip("host", "link", "delete", "veth1")
        if told_late:
            with running_in(bench.name) as process:
                bench.containers[process.pid] = "one"
                as_engine_28(bench.lab, bench.name)
                with inside(bench.lab, "host"):
                    bench.prestart.look()
                assert on_lo(bench.name) == PLACEHOLDER
                for _ in range(10):
                    await asyncio.sleep(0)
                assert on_lo(bench.name) == PLACEHOLDER
        await bench.until(lambda: on_lo(bench.name) == [])


async def test_others(bench: Bench) -> None:
    """Containers that nobody expects, and what is no container; one that is expected no more."""
    bench.expect("one")
    with running_in(bench.name) as process:
        as_engine_20_10(bench.lab, bench.name)
        with inside(bench.lab, "host"):
            bench.prestart.look()
        assert on_lo(bench.name) == []
        bench.lab.ip("host", "link", "delete", "veth1")
        bench.containers[process.pid] = "one"
        as_engine_28(bench.lab, bench.name)
        await bench.until(lambda: on_lo(bench.name) == PLACEHOLDER)
        bench.expect("two")
        assert on_lo(bench.name) == []
        bench.expect()
        bench.lab.ip("host", "link", "delete", "veth1")
        as_engine_28(bench.lab, bench.name)
        bench.prestart.look()
        assert on_lo(bench.name) == []


async def test_the_engine_tells_late(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """The namespace is there before the list of containers; of those, the latest are kept."""
    monkeypatch.setattr(module, "MAX_UNEXPECTED", 2)
    bench.expect("somebody else")
    for name in ("one", "two", "three"):
        with running_in(bench.name) as process:
            bench.containers = {process.pid: name}
            as_engine_28(bench.lab, bench.name)
            with inside(bench.lab, "host"):
                bench.prestart.look()
            bench.expect("one" if name == "three" else "nobody")
            assert on_lo(bench.name) == []
            bench.expect(name)
            assert on_lo(bench.name) == PLACEHOLDER
            bench.expect("nobody")
            bench.lab.ip("host", "link", "delete", "veth1")
    bench.expect("one", "two", "three")
    assert bench.logged.lines() == []


async def test_the_first_one_that_is_expected(bench: Bench) -> None:
    """Nobody watched when its namespace came. One that runs is left alone."""
    with running_in(bench.name) as process:
        bench.containers[process.pid] = "one"
        as_engine_28(bench.lab, bench.name)
        with inside(bench.lab, "host"):
            bench.prestart.expect([Container("one", "", is_running=True)])
        assert on_lo(bench.name) == []
        bench.expect()
        bench.expect("one")
        assert on_lo(bench.name) == PLACEHOLDER


async def test_a_look_that_fails(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """dockerd gets its answer all the same."""

    def refuse(_: object) -> None:
        raise OSError(errno.EMFILE, "Too many open files")

    bench.expect("one")
    monkeypatch.setattr(module, "processes_in", refuse)
    as_engine_28(bench.lab, bench.name)
    with inside(bench.lab, "host"):
        bench.prestart.look()
    [(event, text)] = bench.logged.lines()
    assert event == "not-prepared"
    assert text.startswith("cannot look for starting containers: too many open files; ")


async def test_where_it_cannot_be(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """One line, and the container starts all the same."""

    def refuse(_: object) -> None:
        raise RelayError("cannot put rules into network namespace 4711: needs CAP_NET_ADMIN")

    monkeypatch.setattr(module, "add_placeholder", refuse)
    bench.expect("one")
    with running_in(bench.name) as process:
        bench.containers[process.pid] = "one"
        as_engine_28(bench.lab, bench.name)
        told: list[tuple[str, str]] = []

        def is_told() -> bool:
            told.extend(bench.logged.lines())
            return bool(told)

        await bench.until(is_told)
        ((event, text),) = told
        assert event == "not-prepared"
        assert text == (
            "container one: cannot put rules into network namespace 4711: needs CAP_NET_ADMIN;"
            " a server that looks for IPv6 when it starts may find none"
        )


async def test_without_a_descriptor_to_watch(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse() -> None:
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(module, "LinkWatch", refuse)
    bench.expect("one")
    [(event, text)] = bench.logged.lines()
    assert event == "not-prepared"
    assert text.startswith("cannot look for starting containers: too many open files; ")
    bench.prestart.look()
