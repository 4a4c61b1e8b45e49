"""Which task of a service a flow tries first."""

from __future__ import annotations

from collections import Counter

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
