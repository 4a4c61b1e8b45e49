"""Shares: which network has most sessions, after any history."""

from __future__ import annotations

import random
from collections import Counter

import pytest

from v6fwd.model import Address
from v6fwd.relay.udp.shares import Shares, prefix_of


class FakeMember:
    """A session of a network."""

    def __init__(self, network: int, stamp: int = 0) -> None:
        self.client = Address(bytes((192, 0, network, 1)), 4711)
        self.stamp = stamp


@pytest.mark.parametrize("seed", range(20))
def test_the_victim_is_of_the_largest_network(seed: int) -> None:
    chance = random.Random(seed)
    shares: Shares[FakeMember] = Shares()
    members: list[FakeMember] = []
    for step in range(400):
        if members and chance.random() < 0.45:
            members.remove(leaver := chance.choice(members))
            shares.remove(leaver)
        else:
            members.append(comer := FakeMember(chance.randrange(6), step))
            shares.add(comer)
        sizes = Counter(prefix_of(member.client) for member in members)
        most = max(sizes.values(), default=0)
        victim = shares.victim()
        if most < 2:
            assert victim is None
        else:
            assert victim in members
            assert sizes[prefix_of(victim.client)] == most
    for member in members:
        shares.remove(member)
    assert not shares._groups
    assert not shares._sizes


def test_the_least_recently_used_of_those_looked_at() -> None:
    shares: Shares[FakeMember] = Shares()
    for stamp in (5, 3, 4):
        shares.add(FakeMember(1, stamp))
    victim = shares.victim()
    assert victim is not None
    assert victim.stamp == 3
