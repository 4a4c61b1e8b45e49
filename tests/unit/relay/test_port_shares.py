"""Who may accept when flows run out, and who gives way: with ports that are mere numbers."""

from __future__ import annotations

from collections.abc import Iterable

import pytest

from tests.support.logged import Logged
from tests.unit.relay.test_session_table import FakeReactor
from v6fwd.model import Endpoint, Forward
from v6fwd.relay.counters import Counters
from v6fwd.relay.ends import End
from v6fwd.relay.flows import Flows, Lull
from v6fwd.relay.limits.port_shares import EVICT_MOST, PortShares
from v6fwd.relay.limits.siblings import Alone

LIMIT = 1000


class FakePort:
    """A listener with clients in its queue."""

    def __init__(self, number: int) -> None:
        self.endpoint = Endpoint("::", number)
        self.counters = Counters()
        self.queue = 0

    def waiting(self) -> int:
        return self.queue


class FakeFlow:
    """A flow of a port that has moved some bytes."""

    source = None

    def __init__(self, flows: Flows, port: FakePort, moved: int) -> None:
        self.forward = Forward(port.endpoint, Endpoint("127.0.0.1", 80))
        self.counters = port.counters
        self._flows = flows
        self._moved = moved
        port.counters.flows += 1
        flows.add(self)

    def abort(self, end: End, detail: str = "") -> None:  # noqa: ARG002
        self.counters.flow_ended(end, 0, 0, 0.0)
        self._flows.remove(self)

    def on_exception(self, error: Exception) -> None:  # noqa: ARG002
        self.abort(End.INTERNAL_ERROR)

    def retire(self) -> None:
        self.abort(End.STOPPED)

    def progress(self) -> int:
        return self._moved

    def descriptors(self) -> tuple[int, ...]:
        return ()

    def lull(self, lull: Lull) -> int | None:  # noqa: ARG002
        return None

    def overdue(self, lull: Lull) -> None:
        self.abort(End[lull.name])

    def moved(self) -> tuple[int, int]:
        return self._moved, 0

    def seconds(self) -> float:
        return 0.0


class FakeGate:
    """Remembers what it was asked for."""

    is_shared = True

    def __init__(self) -> None:
        self.paused: list[FakePort] = []
        self.shed_ports: list[FakePort] = []

    def pause_port(self, listener: FakePort) -> None:
        self.paused.append(listener)

    def resume_port(self, listener: FakePort) -> None:
        self.paused.remove(listener)

    def shed(self, listeners: Iterable[FakePort]) -> None:
        self.shed_ports += listeners


class Stage:
    """Two ports of one process."""

    def __init__(self, logged: Logged) -> None:
        self.flows = Flows(LIMIT)
        self.gate = FakeGate()
        self.reactor = FakeReactor()
        parts = self.reactor, self.flows, logged.log, Alone(), lambda: 1.0
        self.shares = PortShares[FakePort](self.gate, *parts)  # type: ignore[arg-type]
        self.busy, self.other = FakePort(80), FakePort(443)

    def fill(self, port: FakePort, count: int) -> list[FakeFlow]:
        """Let a port have so many flows; the last of them moved least."""
        return [FakeFlow(self.flows, port, count - moved) for moved in range(count)]

    def make_room(self, port: FakePort) -> bool:
        return self.shares.make_room(port, [self.busy, self.other])


@pytest.fixture
def stage(logged: Logged) -> Stage:
    return Stage(logged)


def test_a_paused_port_is_shed_alone_and_goes_on_when_flows_leave(stage: Stage) -> None:
    flows = stage.fill(stage.busy, 800)
    stage.shares.pause(stage.busy)
    stage.reactor.advance(1.0)
    assert stage.gate.paused == [stage.busy]
    assert stage.gate.shed_ports == [stage.busy]
    flows[0].abort(End.CLOSED)
    stage.reactor.advance(1.0)
    assert stage.gate.paused == []
    assert not stage.shares.paused


def test_a_port_that_is_alone_now_goes_on(stage: Stage) -> None:
    stage.fill(stage.busy, 900)
    stage.shares.pause(stage.busy)
    stage.gate.is_shared = False
    stage.reactor.advance(1.0)
    assert stage.gate.paused == []


def test_the_port_with_most_gives_way_with_what_moved_least(stage: Stage) -> None:
    flows = stage.fill(stage.busy, LIMIT)
    stage.other.queue = 10
    assert stage.make_room(stage.other)
    assert stage.busy.counters.ends == {End.EVICTED.text: 10}
    assert set(flows[:-10]) == stage.flows.live


def test_at_most_ten_times_a_second_and_so_many_at_once(stage: Stage) -> None:
    stage.fill(stage.busy, LIMIT)
    stage.other.queue = 4096
    assert stage.make_room(stage.other)
    assert len(stage.flows) == LIMIT - EVICT_MOST
    assert not stage.make_room(stage.other)
    stage.reactor.now += 0.1
    assert stage.make_room(stage.other)


@pytest.mark.parametrize(
    ("busy", "other", "queue"),
    [(500, 500, 10), (400, 600, 10), (1000, 0, 0)],
    ids=["both have their share", "it has more than its share", "nobody waits"],
)
def test_nobody_is_reset(stage: Stage, busy: int, other: int, queue: int) -> None:
    stage.fill(stage.busy, busy)
    stage.fill(stage.other, other)
    stage.other.queue = queue
    assert not stage.make_room(stage.other)
    assert len(stage.flows) == LIMIT
