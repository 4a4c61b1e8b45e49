"""Numbers of forwards: kept, copied, added up over workers."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from v6fwd.daemon.pool import with_lost
from v6fwd.relay.counters import DURATIONS, Counters, added, count, snapshot_of
from v6fwd.relay.ends import End
from v6fwd.relay.udp.resources import UdpCounters


def test_the_end_of_a_flow() -> None:
    counters = Counters(flows=2)
    counters.flow_ended(End.CLOSED, 10, 20, 0.5)
    counters.flow_ended(End.TARGET_FAILED, 1, 2, 1.5)
    assert (counters.ended, counters.bytes_up, counters.bytes_down) == (2, 11, 22)
    assert counters.ends == {"closed": 1, "target failed": 1}
    assert counters.seconds == 2.0


@pytest.mark.parametrize(
    ("seconds", "bucket"),
    [(0.0, 0), (0.01, 0), (0.0101, 1), (1.0, 2), (3600.0, 6), (1e9, len(DURATIONS))],
)
def test_buckets_hold_up_to_their_bound(seconds: float, bucket: int) -> None:
    counters = Counters()
    counters.flow_ended(End.CLOSED, 0, 0, seconds)
    assert counters.durations[bucket] == 1
    assert sum(counters.durations) == 1


def test_a_snapshot_is_a_copy_for_json() -> None:
    counters = Counters()
    before = counters.snapshot()
    counters.flow_ended(End.CLOSED, 1, 1, 1.0)
    count(counters.dial_failures, "connection refused")
    assert before == Counters().snapshot()
    assert json.loads(json.dumps(counters.snapshot())) == counters.snapshot()


numbers = st.builds(
    Counters,
    flows=st.integers(0, 99),
    ends=st.dictionaries(st.sampled_from("abc"), st.integers(1, 9)),
    durations=st.lists(st.integers(0, 9), min_size=8, max_size=8),
).map(Counters.snapshot)


@given(numbers, numbers, numbers)
def test_sums_do_not_depend_on_the_order(one: object, two: object, three: object) -> None:
    assert added(one, two) == added(two, one)
    assert added(added(one, two), three) == added(one, added(two, three))
    assert added(one, Counters().snapshot()) == one


def test_what_only_one_has_is_kept() -> None:
    assert added({"a": 1, "x": {"y": 2}}, {"a": 3, "b": 4}) == {"a": 4, "b": 4, "x": {"y": 2}}
    assert added({"udp": snapshot_of(UdpCounters(full=1))}, {})["udp"]["full"] == 1


def test_flows_of_a_dead_worker_have_ended() -> None:
    counters = Counters(flows=5)
    counters.flow_ended(End.CLOSED, 1, 1, 1.0)
    lost = with_lost(counters.snapshot())
    assert lost["ended"] == 5
    assert lost["ends"] == {"closed": 1, "lost with its worker": 4}
    assert with_lost(lost) == lost


@pytest.mark.parametrize(
    ("name", "value"),
    [("flows", 1), ("ended", 1), ("header_refused", 1), ("http_refused", 1)]
    + [(name, {"why": 1}) for name in ("refused", "dial_failures")],
)
def test_activity_tells_of_everything_that_can_happen_alone(name: str, value: object) -> None:
    counters = Counters()
    assert counters.activity() == 0
    setattr(counters, name, value)
    assert counters.activity() == 1


@pytest.mark.parametrize("name", UdpCounters.__dataclass_fields__)
def test_activity_tells_of_every_datagram_lost(name: str) -> None:
    assert UdpCounters(**{name: 3}).activity() == 3
