"""How descriptors are shared out: whatever the limit, the parts fit into the whole."""

from __future__ import annotations

import os
import resource

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from v6fwd.relay.budget import MAX_PIPES, DescriptorBudget

SPARE = 8
"""Kept for what is neither flow nor pipe: a resolver's socket, the spare of the gate."""


@settings(max_examples=300, deadline=None)
@given(st.integers(40, 1 << 20), st.integers(1, 2000), st.integers(3, 64), st.integers(0, 1 << 20))
@example(descriptors=40, forwards=1, in_use=10, max_flows=0)
@example(descriptors=1024, forwards=1, in_use=10, max_flows=0)
def test_the_parts_fit(descriptors: int, forwards: int, in_use: int, max_flows: int) -> None:
    budget = DescriptorBudget(descriptors, forwards, in_use, max_flows)
    room = descriptors - in_use - forwards - SPARE
    if room >= 4:  # one flow and one pipe
        assert 2 * budget.most + 2 * budget.pipes <= room
    assert 1 <= budget.flows <= budget.most
    assert 1 <= budget.pipes <= MAX_PIPES


@given(st.integers(40, 1 << 20), st.integers(1, 1 << 20))
def test_max_flows_is_obeyed_where_there_is_room(descriptors: int, max_flows: int) -> None:
    budget = DescriptorBudget(descriptors, 1, 10, max_flows)
    assert budget.flows == min(max_flows, budget.most)


@given(st.integers(100, 1 << 20))
def test_little_is_left_over(descriptors: int) -> None:
    """A budget of one flow would fit as well."""
    budget = DescriptorBudget(descriptors, 1, 10, 0)
    assert budget.flows == budget.most
    assert 2 * budget.flows >= 0.8 * (descriptors - 10 - 1 - SPARE) - 2


@given(st.integers(40, 1 << 20), st.sampled_from([0.5, 0.95]))
def test_udp_has_its_share(descriptors: int, share: float) -> None:
    budget = DescriptorBudget(descriptors, 1, 10, 0, share)
    room = descriptors - 10 - 1 - SPARE
    assert budget.sessions == int(room * share)
    if room * (1 - share) >= 4:
        assert 2 * budget.most + 2 * budget.pipes + budget.sessions <= room
    assert DescriptorBudget(descriptors, 1, 10, 7, share).sessions == min(7, budget.sessions)


@pytest.mark.parametrize(
    ("descriptors", "flows", "pipes"),
    [
        (0, 1, 1),
        (40, 9, 1),
        (64, 20, 2),
        (1024, 440, 62),
        (20000, 9734, 256),
        (1 << 20, 524022, 256),
    ],
)
def test_budgets_in_numbers(descriptors: int, flows: int, pipes: int) -> None:
    budget = DescriptorBudget(descriptors, forwards=1, in_use=11, max_flows=0)
    assert (budget.flows, budget.pipes) == (flows, pipes)


def test_the_soft_limit_is_raised_first(monkeypatch: pytest.MonkeyPatch) -> None:
    """1,024 is the usual soft limit, and far too low for a relay."""
    limits = [(1024, 5000)]
    monkeypatch.setattr(resource, "getrlimit", lambda _which: limits[-1])
    monkeypatch.setattr(resource, "setrlimit", lambda _which, new: limits.append(new))
    budget = DescriptorBudget.of_this_process(forwards=1, max_flows=0)
    assert limits[-1] == (5000, 5000)
    assert budget.most > 2000


def test_a_limit_that_cannot_be_raised_is_lived_with(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_which: int, _new: tuple[int, int]) -> None:
        raise ValueError("not allowed to raise maximum limit")

    monkeypatch.setattr(resource, "getrlimit", lambda _which: (1024, 5000))
    monkeypatch.setattr(resource, "setrlimit", refuse)
    budget = DescriptorBudget.of_this_process(forwards=1, max_flows=0)
    in_use = len(os.listdir("/proc/self/fd"))
    assert budget.most == DescriptorBudget(1024, 1, in_use, 0).most
