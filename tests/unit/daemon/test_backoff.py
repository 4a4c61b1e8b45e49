"""Crash loops, by a clock in the test's hands."""

from __future__ import annotations

from v6fwd.daemon.backoff import LONGEST, STEADY, Backoff


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_the_waits_of_a_crash_loop() -> None:
    backoff = Backoff(Clock())
    waits = []
    for _ in range(8):
        backoff.started()
        waits.append(backoff.delay())
    assert waits == [0, 1, 2, 4, 8, 16, 30, 30]


def test_a_steady_life_is_no_crash_loop() -> None:
    clock = Clock()
    backoff = Backoff(clock)
    for _ in range(5):
        backoff.started()
        backoff.delay()
    backoff.started()
    clock.now += STEADY
    assert backoff.delay() == 0
    backoff.started()
    clock.now += STEADY - 0.1
    assert backoff.delay() == 1


def test_waiting_is_not_living() -> None:
    clock = Clock()
    backoff = Backoff(clock)
    for _ in range(20):
        clock.now += backoff.delay()
        backoff.started()
    assert backoff.delay() == LONGEST
