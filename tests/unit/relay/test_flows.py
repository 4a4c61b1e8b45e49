"""The set of flows and the search for idle ones, with flows that are mere numbers."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from v6fwd.model import Endpoint, Forward
from v6fwd.relay.counters import Counters
from v6fwd.relay.ends import End
from v6fwd.relay.flows import Flows, Lull
from v6fwd.relay.idle import IdleSweep


class FakeFlow:
    """Moves bytes when told, and leaves when it is reset, as a flow does."""

    forward = Forward(Endpoint("::", 80), Endpoint("127.0.0.1", 80))
    source = None

    def __init__(self, flows: Flows) -> None:
        self._flows = flows
        self.bytes = 0
        self.counters = Counters()
        self.half_closed: int | None = None
        self.ends: list[str] = []
        flows.add(self)

    def abort(self, end: End, detail: str = "") -> None:  # noqa: ARG002
        self.ends.append(end)
        self._flows.remove(self)

    def progress(self) -> int:
        return self.bytes

    def descriptors(self) -> tuple[int, ...]:
        return ()

    def lull(self, lull: Lull) -> int | None:
        return self.bytes if lull is Lull.IDLE else self.half_closed

    def overdue(self, lull: Lull) -> None:
        self.abort(End[lull.name])

    def on_exception(self, error: Exception) -> None:  # noqa: ARG002
        self.abort(End.INTERNAL_ERROR)

    def moved(self) -> tuple[int, int]:
        return self.bytes, 0

    def seconds(self) -> float:
        return 0.0

    def retire(self) -> None:
        self.abort(End.STOPPED)


def test_full_is_full() -> None:
    flows = Flows(2)
    first = FakeFlow(flows)
    assert not flows.is_full
    FakeFlow(flows)
    assert flows.is_full
    assert len(flows) == 2
    flows.remove(first)
    assert not flows.is_full
    assert len(flows) == 1


def test_a_flow_leaves_once_however_often_it_says_so() -> None:
    flows = Flows(2)
    flow = FakeFlow(flows)
    flows.remove(flow)
    flows.remove(flow)
    assert len(flows) == 0


def test_whoever_waits_is_told_after_the_flow_has_left() -> None:
    flows = Flows(1)
    flow = FakeFlow(flows)
    seen: list[int] = []
    flows.on_left = lambda: seen.append(len(flows))
    flows.remove(flow)
    assert seen == [0]


def test_all_are_reset() -> None:
    flows = Flows(10)
    some = [FakeFlow(flows) for _ in range(5)]
    assert flows.abort_all(End.CUT) == 5
    assert [flow.ends for flow in some] == [[End.CUT]] * 5
    assert len(flows) == 0
    assert flows.abort_all(End.CUT) == 0


def test_an_idle_flow_is_reset_in_its_time() -> None:
    flows = Flows(10)
    flow = FakeFlow(flows)
    sweep = IdleSweep(flows, 8.0)
    assert sweep.interval == 1.0
    for now in range(100, 108):
        sweep.sweep(now)
        assert flow.ends == []
    sweep.sweep(108)
    assert flow.ends == ["idle timeout"]
    sweep.sweep(109)
    assert flow.ends == ["idle timeout"]


def test_a_byte_buys_the_whole_time() -> None:
    flows = Flows(10)
    flow, idle = FakeFlow(flows), FakeFlow(flows)
    sweep = IdleSweep(flows, 8.0)
    for now in range(100, 140):
        if now % 7 == 0:
            flow.bytes += 1
        sweep.sweep(now)
    assert flow.ends == []
    assert idle.ends == ["idle timeout"]


def test_a_flow_that_is_new_is_not_idle() -> None:
    flows = Flows(10)
    sweep = IdleSweep(flows, 8.0)
    sweep.sweep(100)
    flow = FakeFlow(flows)  # moved nothing yet, as its number of bytes says
    sweep.sweep(1000)
    assert flow.ends == []
    sweep.sweep(1008)
    assert flow.ends == ["idle timeout"]


def test_flows_that_left_are_forgotten() -> None:
    """Else the sweep would hold every flow of an hour in memory."""
    flows = Flows(10)
    sweep = IdleSweep(flows, 8.0)
    flow = FakeFlow(flows)
    sweep.sweep(100)
    flows.remove(flow)
    sweep.sweep(101)
    flows.add(flow)  # the same object: known, it would be idle since 100
    sweep.sweep(108)
    assert flow.ends == []


@settings(max_examples=100, deadline=None)
@given(st.lists(st.booleans(), min_size=1, max_size=60))
def test_reset_after_the_limit_and_an_eighth_at_most(moves: list[bool]) -> None:
    """`moves[n]` says whether a byte came halfway between sweep n and the one before it."""
    flows = Flows(1)
    flow = FakeFlow(flows)
    sweep = IdleSweep(flows, 8.0)
    sweep.sweep(-1.0)
    last_byte = -1.0
    for now, moves_now in enumerate(moves):
        if moves_now and not flow.ends:
            flow.bytes += 1
            last_byte = now - 0.5
        sweep.sweep(now)
        if flow.ends:
            assert 8.0 <= now - last_byte <= 9.0
            break
        assert now - last_byte < 9.0


def test_a_limit_counts_only_while_it_applies() -> None:
    """Its clock begins anew each time, also if no byte moved meanwhile."""
    flows = Flows(1)
    flow = FakeFlow(flows)
    sweep = IdleSweep(flows, 8.0, lull=Lull.HALF_CLOSED)
    for now, half_closed in ((0, 5), (7, None), (8, 5), (15, 5)):
        flow.half_closed = half_closed
        sweep.sweep(now)
    assert flow.ends == []
    sweep.sweep(16)
    assert flow.ends == [End.HALF_CLOSED]
