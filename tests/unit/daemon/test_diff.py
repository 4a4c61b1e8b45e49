"""From some forwards to others."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from v6fwd.daemon.diff import ForwardDiff
from v6fwd.model import ClientIP, Endpoint, Forward, Limits, Protocol


def forward(port: int, target: int = 80) -> Forward:
    return Forward(Endpoint("::", port), Endpoint("172.17.0.2", target))


def by_listen(*forwards: Forward) -> dict[Endpoint, Forward]:
    return {each.listen: each for each in forwards}


def test_nothing_to_do() -> None:
    assert ForwardDiff.between(
        by_listen(forward(1), forward(2)), [forward(2), forward(1)]
    ) == ForwardDiff((), (), ())


def test_each_kind() -> None:
    old = by_listen(forward(1), forward(2), forward(3))
    plan = ForwardDiff.between(old, [forward(2), forward(3, 81), forward(4)])
    assert plan == ForwardDiff((forward(4),), (forward(3, 81),), (Endpoint("::", 1),))
    assert str(plan) == "1 new, 1 changed, 1 gone"


def test_whatever_differs_is_a_change() -> None:
    one = forward(1)
    for other in (
        replace(one, client_ip=ClientIP.PROXY_V2),
        replace(one, limits=Limits(idle_timeout=3)),
        replace(one, target=Endpoint("172.17.0.3", 80)),
    ):
        assert ForwardDiff.between(by_listen(one), [other]) == ForwardDiff((), (other,), ())


def test_protocols_are_endpoints_of_their_own() -> None:
    tcp = forward(53)
    udp = replace(tcp, listen=replace(tcp.listen, protocol=Protocol.UDP))
    assert ForwardDiff.between(by_listen(tcp), [udp]) == ForwardDiff((udp,), (), (tcp.listen,))


forwards = st.lists(st.builds(forward, st.integers(1, 8), st.integers(1, 3))).map(
    lambda some: by_listen(*some)
)


@given(forwards, forwards)
def test_it_leads_there(old: dict[Endpoint, Forward], new: dict[Endpoint, Forward]) -> None:
    plan = ForwardDiff.between(old, new.values())
    there = {listen: each for listen, each in old.items() if listen not in plan.gone}
    for each in plan.new:
        assert each.listen not in there
    there |= by_listen(*plan.new, *plan.changed)
    assert there == new
