"""Tasks of Swarm on this node that see their clients: each entered by its process."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, cast

import pytest

from tests.unit.relay.test_mesh_target import FakeLoop
from v6fwd.model import (
    Address,
    ClientIP,
    Endpoint,
    Forward,
    Mesh,
    Transparent,
    TransparentFallback,
)
from v6fwd.relay.reactor import Reactor
from v6fwd.relay.targets.tasks import KEPT, TransparentTasks

CLIENT = Address(bytes((192, 0, 2, 7)), 4711)
ONE, OTHER = "10.0.0.6", "10.0.0.7"


class FakeTask:
    """A transparent target that notes what is asked."""

    def __init__(self, forward: Forward) -> None:
        self.forward = forward
        self.dials = 0
        self.left: list[Any] = []
        self.refused: list[Any] = []
        self.is_closed = self.is_resolved = self.moved = False

    def resolve_later(self, _then: Any) -> None:
        self.is_resolved = True

    def dial(self, address: Any, source: Any, _hop_limit: int, *, speaks: bool) -> int:
        assert (address, source, speaks) == (None, CLIENT, False)
        self.dials += 1
        return 99

    def connect_datagrams(self, _source: Any) -> tuple[int, Any]:
        return 99, "inner"

    def has_moved(self, address: Any) -> bool:
        assert address == "inner"
        return self.moved

    def was_refused(self, address: Any) -> None:
        self.refused.append(address)

    def client_left(self, address: Any, _source: Any) -> None:
        self.left.append(address)

    def shown_instead(self, _source: Any) -> str:
        return "pseudo"

    def close(self) -> None:
        self.is_closed = True


class Bench:
    """What is tested, and the tasks that it made."""

    def __init__(self) -> None:
        self.loop = FakeLoop()
        self.reactor = Reactor(self.loop, clock=lambda: 100.0)
        self.made: dict[str, FakeTask] = {}
        options = Transparent(fallback=TransparentFallback.NONE)
        forward = Forward(
            Endpoint("::", 8080), Endpoint("web", 80), ClientIP.TRANSPARENT, transparent=options
        )
        self.target = TransparentTasks(
            forward, self.reactor, cast("Any", None), _nothing, cast("Any", self.make)
        )

    def make(self, forward: Forward) -> FakeTask:
        self.made[forward.target.host] = FakeTask(forward)
        return self.made[forward.target.host]

    def follow(self, **tasks: str) -> None:
        """Lead to tasks, by name of their process."""
        pids = {ONE: tasks.get("one", ""), OTHER: tasks.get("other", "")}
        local = tuple(host for host, pid in pids.items() if pid)
        mesh = Mesh("/sandbox", "1", local, pids=tuple(pids[host] for host in local))
        self.target.follow(mesh)


@pytest.fixture
def bench() -> Iterator[Bench]:
    bench = Bench()
    yield bench
    bench.reactor.close()
    bench.loop.close()


def test_each_task_is_entered_by_its_process(bench: Bench) -> None:
    """Without a fallback: over the network of this host its address may be another machine's."""
    bench.follow(one="11", other="12")
    assert {host: task.forward.transparent.netns for host, task in bench.made.items()} == {
        ONE: "11",
        OTHER: "12",
    }
    for task in bench.made.values():
        assert task.is_resolved
        assert task.forward.transparent.fallback is TransparentFallback.REFUSE
        assert task.forward.target.port == 80
        assert task.forward.mesh == Mesh()


def test_by_turns(bench: Bench) -> None:
    bench.follow(one="11", other="12")
    for _ in range(4):
        address = bench.target.order(CLIENT)[0]
        assert bench.target.dial(address, CLIENT) == 99
    assert [task.dials for task in bench.made.values()] == [2, 2]
    bench.target.dial(None, CLIENT)
    assert sum(task.dials for task in bench.made.values()) == 5


def test_a_task_that_left_keeps_its_flows(bench: Bench) -> None:
    """What was put into its namespace stays for them, and it gets no others."""
    bench.follow(one="11", other="12")
    gone = bench.target.order(CLIENT)
    bench.follow(other="12")
    assert not bench.made[ONE].is_closed
    [address] = [each for each in gone if each[1][0] == ONE]
    with pytest.raises(OSError, match="has gone"):
        bench.target.dial(address, CLIENT)
    [(delay, forget)] = bench.loop.timers
    assert delay == KEPT
    forget()
    assert bench.made[ONE].is_closed
    assert not bench.made[OTHER].is_closed


def test_a_task_that_comes_back_is_not_forgotten(bench: Bench) -> None:
    bench.follow(one="11")
    bench.follow()
    bench.follow(one="11")
    bench.loop.timers[0][1]()
    assert not bench.made[ONE].is_closed
    assert bench.target.dial(None, CLIENT) == 99


def test_another_process_at_the_same_address(bench: Bench) -> None:
    bench.follow(one="11")
    first = bench.made[ONE]
    bench.follow(one="12")
    bench.target.dial(None, CLIENT)
    assert (first.dials, bench.made[ONE].dials) == (0, 1)


def test_sessions(bench: Bench) -> None:
    bench.follow(one="11")
    fd, address = bench.target.connect_datagrams(CLIENT)
    assert fd == 99
    task = bench.made[ONE]
    assert not bench.target.has_moved(address)
    bench.target.answered(address)
    task.moved = True
    assert bench.target.has_moved(address), "the server listens elsewhere in its namespace"
    bench.target.was_refused(address)
    bench.target.client_left(address, CLIENT)
    assert (task.refused, task.left) == (["inner"], ["inner"])
    bench.follow(other="12")
    assert bench.target.has_moved(address)
    bench.target.was_refused(address)
    assert task.refused == ["inner"], "nobody to ask"


def test_the_header_is_nobodys(bench: Bench) -> None:
    assert bench.target.header_writer(lambda *_: b"PROXY") is None


def test_all_are_closed(bench: Bench) -> None:
    bench.follow(one="11", other="12")
    assert bench.target.shown_instead(CLIENT) == "pseudo"
    bench.target.close()
    assert all(task.is_closed for task in bench.made.values())
    assert bench.target.shown_instead(CLIENT) == ""


def _nothing() -> None:
    """Nobody looks for tasks."""
