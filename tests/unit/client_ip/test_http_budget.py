"""How long a reader may work at one connection."""

from __future__ import annotations

from v6fwd.client_ip.budget import TURN, UNBOUNDED, TimeBudget


def test_a_call_has_its_time_and_the_next_one_has_its_own() -> None:
    now = [100.0]
    budget = TimeBudget(lambda: now[0])
    budget.begin()
    assert not budget.is_over()
    now[0] = 100.0 + 0.9 * TURN
    assert not budget.is_over()
    now[0] = 100.0 + TURN
    assert budget.is_over()
    budget.begin()
    assert not budget.is_over()


def test_without_a_clock_there_is_no_end() -> None:
    UNBOUNDED.begin()
    assert not UNBOUNDED.is_over()
