"""Which task of a service a flow tries first."""

from __future__ import annotations

from collections import Counter

import pytest

from v6fwd.model import Balance, Mesh
from v6fwd.relay.targets.balance import PASS_OVER, Balancer

LOCAL, REMOTE = ("10.0.0.6", "10.0.0.7"), ("10.0.0.8", "10.0.0.9")
ALL = {*LOCAL, *REMOTE}


def mesh(balance: Balance = Balance.LOCAL, *, affinity: bool = False) -> Mesh:
    """Two tasks here and two elsewhere."""
    return Mesh("/sandbox", "1", LOCAL, REMOTE, balance=balance, affinity=affinity)


def test_local_tasks_by_turns_then_others_by_turns() -> None:
    balancer = Balancer()
    orders = [balancer.order(mesh(), 0.0) for _ in range(4)]
    assert Counter(order[0] for order in orders) == dict.fromkeys(LOCAL, 2)
    assert Counter(order[2] for order in orders) == dict.fromkeys(REMOTE, 2)
    assert all(set(order) == ALL for order in orders)


def test_round_robin() -> None:
    balancer = Balancer()
    firsts = Counter(balancer.order(mesh(Balance.ROUND_ROBIN), 0.0)[0] for _ in range(8))
    assert firsts == dict.fromkeys(ALL, 2)


@pytest.mark.parametrize(
    ("flows", "wanted"),
    [
        ({}, {*LOCAL, *REMOTE}),
        ({LOCAL[0]: 1}, {LOCAL[1], *REMOTE}),
        ({LOCAL[0]: 1, LOCAL[1]: 2, REMOTE[0]: 3}, {REMOTE[1]}),
        (dict.fromkeys(ALL, 5), ALL),
        ({LOCAL[0]: 2, LOCAL[1]: 3, REMOTE[0]: 2, REMOTE[1]: 4}, {LOCAL[0], REMOTE[0]}),
    ],
)
def test_least_flows(flows: dict[str, int], wanted: set[str]) -> None:
    """Those with the fewest, on whatever node, by turns."""
    balancer = Balancer()
    for task, count in flows.items():
        for _ in range(count):
            balancer.began(task)
    firsts = Counter(balancer.order(mesh(Balance.LEAST_FLOWS), 0.0)[0] for _ in range(8))
    assert set(firsts) == wanted


def test_least_flows_evens_out() -> None:
    balancer = Balancer()
    had = Counter[str]()
    for _ in range(40):
        task = balancer.order(mesh(Balance.LEAST_FLOWS), 0.0)[0]
        balancer.began(task)
        had[task] += 1
    assert had == dict.fromkeys(ALL, 10)
    for _ in range(5):
        balancer.ended(REMOTE[1])
    for _ in range(5):
        assert balancer.order(mesh(Balance.LEAST_FLOWS), 0.0)[0] == REMOTE[1]
        balancer.began(REMOTE[1])
    assert len({balancer.order(mesh(Balance.LEAST_FLOWS), 0.0)[0] for _ in range(4)}) == 4


def test_least_flows_passes_over_what_failed() -> None:
    balancer = Balancer()
    balancer.failed(LOCAL[0], 0.0)
    for task in ALL - {LOCAL[0]}:
        balancer.began(task)
    assert all(balancer.order(mesh(Balance.LEAST_FLOWS), 1.0)[-1] == LOCAL[0] for _ in range(4))


def test_least_flows_and_a_task_that_drains() -> None:
    """It is not in the mesh any more: its flows end, and it gets none."""
    balancer = Balancer()
    for task in (*LOCAL, *REMOTE, *REMOTE):
        balancer.began(task)
    fewer = Mesh("/sandbox", "1", LOCAL[1:], REMOTE, balance=Balance.LEAST_FLOWS)
    assert balancer.order(fewer, 0.0)[0] == LOCAL[1]
    balancer.ended(LOCAL[0])
    assert LOCAL[0] not in balancer.order(fewer, 0.0)


def test_a_task_that_comes_back_begins_with_none() -> None:
    balancer = Balancer()
    least = mesh(Balance.LEAST_FLOWS)
    for task in ALL:
        balancer.began(task)
    balancer.began(LOCAL[0])
    balancer.ended(LOCAL[0])
    balancer.ended(LOCAL[0])
    assert balancer.order(least, 0.0)[0] == LOCAL[0]
    balancer.ended(LOCAL[0])
    balancer.began(LOCAL[0])
    assert {balancer.order(least, 0.0)[0] for _ in range(4)} == ALL, "never less than none"


def test_what_failed_comes_last_for_a_while() -> None:
    balancer = Balancer()
    balancer.failed(LOCAL[0], 100.0)
    before = 100.0 + PASS_OVER - 1
    assert all(balancer.order(mesh(), before)[-1] == LOCAL[0] for _ in range(4))
    assert balancer.has_failed(LOCAL[0], before)
    after = 100.0 + PASS_OVER
    assert not balancer.has_failed(LOCAL[0], after)
    assert {balancer.order(mesh(), after)[0] for _ in range(2)} == set(LOCAL)


def test_who_answers_has_its_turn_again() -> None:
    balancer = Balancer()
    balancer.failed(LOCAL[0], 0.0)
    balancer.answered(LOCAL[0])
    assert {balancer.order(mesh(), 1.0)[0] for _ in range(2)} == set(LOCAL)


def test_a_client_stays_with_its_task() -> None:
    """Its /64 does, as a host has all of it; and a task that goes moves its own clients only."""
    sticky = mesh(Balance.ROUND_ROBIN, affinity=True)
    balancer = Balancer()
    firsts = {}
    for number in range(200):
        network = b"\x20\x01\x0d\xb8" + number.to_bytes(4, "big")
        hosts = [network + host.to_bytes(8, "big") for host in (1, 2, 1 << 63)]
        [firsts[network]] = {balancer.order(sticky, 0.0, host)[0] for host in hosts}
    assert all(count > 20 for count in Counter(firsts.values()).values())
    assert set(firsts.values()) == ALL
    gone = REMOTE[0]
    fewer = Mesh("/sandbox", "1", LOCAL, REMOTE[1:], balance=Balance.ROUND_ROBIN, affinity=True)
    moved = [net for net in firsts if balancer.order(fewer, 0.0, net + bytes(8))[0] != firsts[net]]
    assert all(firsts[network] == gone for network in moved)


def test_an_ipv4_client_stays_too() -> None:
    sticky = mesh(affinity=True)
    balancer = Balancer()
    assert len({balancer.order(sticky, 0.0, bytes((192, 0, 2, 7)))[0] for _ in range(4)}) == 1


def test_no_task() -> None:
    assert Balancer().order(Mesh(), 0.0) == []
